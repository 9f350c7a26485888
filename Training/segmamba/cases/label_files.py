"""Files of label maps: which there are in a folder, which prediction belongs to which truth, and what they hold.

Either side is one file, or a folder that holds label maps (`CASE.nii.gz`, `CASE-seg.nii.gz`, `CASE_seg.nii.gz`), case
folders (`CASE/seg.nii.gz`, `CASE/CASE-seg.nii.gz`, ...), or both. NIfTI is searched for; a file that is named may be
any image that `image_io` reads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import orientations

from segmamba.errors import InputError
from segmamba.files.atomic import subfolders
from segmamba.files.digest import hash_file
from segmamba.images.grid import corner_distance
from segmamba.images.image_io import NIFTI, image_suffix, name_without_suffix, read_image
from segmamba.settings import read_json

SAME_PLACE = 0.05  # mm, of every corner: other programs round more than we do

_log = logging.getLogger(__name__)
_SEG = re.compile(r"(^|[-_])seg$", re.IGNORECASE)
# images that lie beside label maps
_BESIDE = ("t1", "t1n", "t1c", "t1ce", "t2", "t2w", "t2f", "flair", "probabilities", "uncertainty", "left-out")
# BraTS 2023 and later: BraTS-GLI-00003-001-seg.nii.gz; before, BraTS2021_00006_seg.nii.gz; MSD, BRATS_001.nii.gz
_BRATS2023_CASE = re.compile(r"^BraTS-[A-Z]{2,4}-\d+-\d+$")


@dataclass(frozen=True)
class Found:
    """What a file of labels holds: its grid, and which values above 0."""

    file: Path
    """Path of the file."""
    shape: tuple[int, ...]
    """(X, Y, Z) in voxels."""
    affine: np.ndarray
    """(4, 4), voxel indices to RAS mm."""
    values: tuple[int, ...]
    """Above 0, ascending."""


def summary_of(label_map: Path) -> Path:
    """Where `segmamba predict` writes the summary of a label map, there or not: CASE-seg.nii.gz, CASE-summary.json."""
    return label_map.with_name(re.sub(r"(-seg(-\w+)?)?\.nii(\.gz)?$", "", label_map.name) + "-summary.json")


def was_changed(label_map: Path, summary: Mapping) -> bool:
    """Whether a label map that is there is not as the summary beside it has it; False where that says nothing of it.

    The summary of a run that broke off has two hashes for a map: of what was there, and of what was to be there.
    """
    written = summary.get("label_maps_sha256", {}).get(label_map.name)  # earlier versions have none
    if written is None or not label_map.is_file():
        return False
    return hash_file(label_map) not in ([written] if isinstance(written, str) else written)


def corrected_results(folder: Path) -> list[Path]:
    """The label maps that `segmamba predict` wrote into a folder and somebody has changed since, by its summaries."""
    found = []
    for file in sorted(folder.glob("*-summary.json")):
        try:
            summary = read_json(file)
            label_map = folder / Path(summary["files"]["label_map"]).name
            if was_changed(label_map, summary):
                found.append(label_map)
        except (InputError, KeyError, TypeError, AttributeError):  # another program's
            continue
    return found


def find_label_maps(where: Path, images: Iterable[str] = ()) -> dict[str, Path]:
    """The label maps in a folder, or the one that is a file itself.

    Args:
        where: a file or a folder.
        images: modalities besides those of brain tumours whose files may lie there.

    Returns:
        Case id -> file, sorted by id. Images named after a modality (`CASE-t1c.nii.gz`) are passed over.

    Raises:
        InputError: where nothing is found or one case has two label maps.
    """
    if where.is_file():
        return {case_id(where): where}
    if not where.is_dir():
        raise InputError(f"{where}: no such file or folder; expected a label map or a folder of them")
    beside = re.compile(rf"(^|[-_])({'|'.join(map(re.escape, (*_BESIDE, *images)))})$", re.IGNORECASE)
    found = [(case_id(file), file) for file in _niftis(where) if not beside.search(name_without_suffix(file))]
    for folder in subfolders(where):
        found += [(folder.name, file) for file in _niftis(folder) if _SEG.search(name_without_suffix(file))]
    files: dict[str, Path] = {}
    for case, file in sorted(found):
        if case in files:
            raise InputError(f"case {case} has two label maps, {files[case]} and {file}; leave one of them")
        files[case] = file
    if not files:
        raise InputError(
            f"{where}: holds no label maps; expected CASE.nii.gz, CASE-seg.nii.gz or CASE/seg.nii.gz in it"
        )
    return files


def pair_label_maps(
    predictions: Path, predicted: dict[str, Path], truths: Path, true: dict[str, Path]
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """The prediction and the truth of each case.

    Where `predictions` is one file, only its case is paired; two single files are, whatever their names.

    Args:
        predictions: a folder, or one file.
        predicted: case -> prediction, as `find_label_maps` found them there.
        truths: a folder, or one file.
        true: case -> truth, as `find_label_maps` found them there.

    Returns:
        {case: (prediction, truth)}, and the ids of predictions without truth.

    Raises:
        InputError: where a truth has no prediction: to leave it out would flatter the mean.
    """
    if predictions.is_file():
        if truths.is_file():
            return {next(iter(true)): (predictions, truths)}, []
        (case,) = predicted
        if case not in true:
            raise InputError(
                f"{predictions}: no truth for case {case} in {truths}, which holds {some(list(true))}; "
                "give the truth's file itself"
            )
        return {case: (predictions, true[case])}, []
    missing = [case for case in true if case not in predicted]
    without_truth = [case for case in predicted if case not in true]
    if missing:
        others = f"; predictions without truth: {some(without_truth)}" if without_truth else ""
        raise InputError(
            f"{predictions}: no prediction for {len(missing)} of the {len(true)} truths in {truths}: "
            f"{some(missing)}{others}; predict the missing cases, or take their truths out of the folder"
        )
    if without_truth:
        _log.warning("%s: not scored, as there is no truth: %s", predictions, some(without_truth))
    return {case: (predicted[case], true[case]) for case in true}, without_truth


def named_as_brats2023(files: dict[str, Path]) -> bool:
    """Whether every case or file is named as only BraTS 2023 and its successors name them: BraTS-GLI-.., ..-seg."""
    return all(_BRATS2023_CASE.match(c) or name_without_suffix(file).endswith("-seg") for c, file in files.items())


def read_label_map(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values of a label map file, and its affine.

    Returns:
        (X, Y, Z) uint8 as stored, and (4, 4) from voxel indices to RAS mm.

    Raises:
        InputError: as `image_io.read_image`, and for values that are not whole numbers from 0 to 255.
    """
    image = read_image(file)
    stored = image.array
    if stored.dtype == np.uint8:
        return stored, image.affine
    with np.errstate(invalid="ignore"):  # nan is caught below
        labels = stored.astype(np.uint8)
    if not np.array_equal(labels, stored):
        raise InputError(f"{file}: holds values that are not labels (no whole numbers from 0 to 255)")
    return labels, image.affine


def look_at(file: Path) -> Found:
    """Reads the whole file, as only that finds damage in it. Raises InputError as `read_label_map`."""
    labels, affine = read_label_map(file)
    values = np.unique(labels[labels > 0])  # of the few above 0: in the whole it takes longer than reading
    return Found(file, labels.shape, affine, tuple(values.tolist()))


def check_grid(prediction: Found, truth: Found) -> None:
    """Checks that a prediction and its truth lie on one grid. Raises InputError, saying what differs."""
    if _same_grid(prediction.shape, prediction.affine, truth.shape, truth.affine):
        return
    if _same_grid(*_canonical(prediction), *_canonical(truth)):
        codes = ("".join(orientations.aff2axcodes(found.affine)) for found in (prediction, truth))
        raise InputError(
            "{}: holds the same voxels as {}, but in another orientation ({} instead of {}); "
            "reorient one of them, with its affine, to the axes of the other".format(
                prediction.file, truth.file, *codes
            )
        )
    if prediction.shape != truth.shape:
        difference = f"shape {prediction.shape} instead of {truth.shape}"
    else:
        difference = f"the affines differ by up to {np.abs(prediction.affine - truth.affine).max():.3g} mm"
    raise InputError(
        f"{prediction.file}: does not lie on the grid of {truth.file} ({difference}); "
        "predict on the grid of the truth, or resample (labels: nearest neighbour)"
    )


def case_id(file: Path) -> str:
    """'a/x-seg.nii.gz' -> 'x'; 'a/seg.nii.gz' -> 'a'."""
    return _SEG.sub("", name_without_suffix(file)) or file.resolve().parent.name


def some(names: list[str], most: int = 10) -> str:
    """The first names as a text, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _niftis(folder: Path) -> list[Path]:
    # names with a dot in front are no images: macOS leaves its "._NAME" beside the files of some archives
    names = (path for path in folder.iterdir() if image_suffix(path) in NIFTI and path.name[0] != ".")
    return [path for path in names if path.is_file()]


def _same_grid(shape: tuple, affine: np.ndarray, other_shape: tuple, other_affine: np.ndarray) -> bool:
    return tuple(shape) == tuple(other_shape) and corner_distance(shape, affine, other_affine) <= SAME_PLACE


def _canonical(found: Found) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the image with its axes reordered and flipped to the nearest of R, A, S."""
    orientation = orientations.io_orientation(found.affine)
    shape = tuple(found.shape[axis] for axis in np.argsort(orientation[:, 0]))
    return shape, found.affine @ orientations.inv_ornt_aff(orientation, found.shape)
