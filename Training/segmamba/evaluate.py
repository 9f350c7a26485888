"""Predicted label maps against the truth, case by case: what `segmamba evaluate PREDICTIONS TRUTHS` does.

Files are NIfTI. Either side is one file, or a folder that holds label maps (`CASE.nii.gz`, `CASE-seg.nii.gz`,
`CASE_seg.nii.gz`), case folders (`CASE/seg.nii.gz`, `CASE/CASE-seg.nii.gz`, ...), or both.
"""

from __future__ import annotations

import logging
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from segmamba.errors import InputError
from segmamba.labels import CONVENTIONS, REGIONS, find_convention, to_regions, to_standard
from segmamba.metrics import lesion_wise, region_scores

METRICS = ("dice", "hd95", "lesion_dice", "lesion_hd95")
SAME_AFFINE = 1e-3  # mm, for each number of the affine

_log = logging.getLogger(__name__)
_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_SEG = re.compile(r"(^|[-_])seg$", re.IGNORECASE)
_IMAGE = re.compile(
    r"(^|[-_])(t1|t1n|t1c|t1ce|t2|t2w|t2f|flair|probabilities|uncertainty)$", re.IGNORECASE
)  # lies beside, no label map


def evaluate_folders(predictions: Path, truths: Path, *, convention: str | None = None) -> dict:
    """Score every case of `truths`; both are a file or a folder.

    convention  that of the truths (a name in labels.CONVENTIONS). If None, it is found from the values of all
                truths together, as one case without enhancing tumour would leave it open.
    Predictions follow the engine's convention, or BraTS 2021 where one holds a 4. Where `predictions` is one
    file, only its case is scored; two single files are paired whatever their names.

    Returns, ready for JSON:
    {"cases": {id: {"dice": {"WT", "TC", "ET"}, "hd95": .., "lesion_dice": .., "lesion_hd95": ..}},
     "mean": the same four over the cases, "n": number of cases, "convention": that of the truths,
     "without_truth": ids of predictions that were not scored as they have no truth}.

    Raises InputError where a truth has no prediction (to leave it out would flatter the mean), a file cannot
    be read, the convention cannot be told, or a prediction does not lie on the grid of its truth.
    """
    predictions, truths = Path(predictions), Path(truths)
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(f"--convention {convention}: unknown; expected one of {', '.join(CONVENTIONS)}")
    truth_files = find_label_maps(truths)
    pairs, without_truth = _pair(predictions, find_label_maps(predictions), truths, truth_files)
    for prediction, truth in pairs.values():  # all headers first: no error after an hour of work
        _check_grid(prediction, truth)
    if convention is None:
        convention = _find_truth_convention(truths, truth_files)

    cases = {}
    for number, (case, (prediction, truth)) in enumerate(pairs.items(), start=1):
        cases[case] = _score(prediction, truth, convention)
        _log.info("%d of %d: %s scored", number, len(pairs), case)
    mean = {
        metric: {region: float(np.mean([case[metric][region] for case in cases.values()])) for region in REGIONS}
        for metric in METRICS
    }
    return {
        "cases": cases,
        "mean": mean,
        "n": len(cases),
        "convention": convention,
        "without_truth": without_truth,
    }


def format_table(result: dict) -> str:
    """What `evaluate_folders` returned -> text for a terminal: a table for the whole image, one by lesion."""
    width = max(len(case) for case in [*result["cases"], "case", "mean"])
    rows = {**result["cases"], "mean": result["mean"]}
    lines = []
    for title, dice, hd95 in (
        ("Whole image", "dice", "hd95"),
        ("Lesion by lesion (BraTS 2023)", "lesion_dice", "lesion_hd95"),
    ):
        lines += [title, f"{'':{width}}  {'Dice':>21}  {'HD95, mm':>24}"]
        lines.append(f"{'case':{width}}  " + "".join(f"{r:>7}" for r in REGIONS) + "  " + _cells(REGIONS, ">8"))
        for name, row in rows.items():
            dices, distances = (row[metric].values() for metric in (dice, hd95))
            lines.append(f"{name:{width}}  {_cells(dices, '>7.3f')}  {_cells(distances, '>8.2f')}")
        lines.append("")
    lines.append(f"cases: {result['n']}; labels of the truths: {result['convention']}")
    if result["without_truth"]:
        lines.append(f"not scored, as there is no truth: {_some(result['without_truth'])}")
    return "\n".join(lines)


def find_label_maps(where: Path) -> dict[str, Path]:
    """{case id: file}, sorted by id, of the label maps that `where` (a file or a folder) holds.

    Images named after a modality (`CASE-t1c.nii.gz`) are passed over. Raises InputError where nothing is
    found or one case has two label maps.
    """
    if where.is_file():
        return {_case_id(where): where}
    if not where.is_dir():
        raise InputError(f"{where}: no such file or folder; expected a label map or a folder of them")
    found = [(_case_id(file), file) for file in _niftis(where) if not _IMAGE.search(_stem(file))]
    for folder in sorted(path for path in where.iterdir() if path.is_dir()):
        found += [(folder.name, file) for file in _niftis(folder) if _SEG.search(_stem(file))]
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


def _niftis(folder: Path) -> list[Path]:
    # names with a dot in front are no images: macOS leaves its "._NAME" beside the files of some archives
    names = (path for path in folder.iterdir() if _NIFTI.search(path.name) and path.name[0] != ".")
    return [path for path in names if path.is_file()]


def _stem(file: Path) -> str:
    return _NIFTI.sub("", file.name)


def _case_id(file: Path) -> str:
    return _SEG.sub("", _stem(file)) or file.resolve().parent.name


def _pair(
    predictions: Path, predicted: dict[str, Path], truths: Path, true: dict[str, Path]
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """-> ({case: (prediction, truth)}, ids of predictions without truth)."""
    if predictions.is_file():
        if truths.is_file():
            return {next(iter(true)): (predictions, truths)}, []
        (case,) = predicted
        if case not in true:
            raise InputError(
                f"{predictions}: no truth for case {case} in {truths}, which holds {_some(list(true))}; "
                "give the truth's file itself"
            )
        return {case: (predictions, true[case])}, []
    missing = [case for case in true if case not in predicted]
    without_truth = [case for case in predicted if case not in true]
    if missing:
        others = f"; predictions without truth: {_some(without_truth)}" if without_truth else ""
        raise InputError(
            f"{predictions}: no prediction for {len(missing)} of the {len(true)} truths in {truths}: "
            f"{_some(missing)}{others}; predict the missing cases, or take their truths out of the folder"
        )
    if without_truth:
        _log.warning("%s: not scored, as there is no truth: %s", predictions, _some(without_truth))
    return {case: (predicted[case], true[case]) for case in true}, without_truth


def _score(prediction: Path, truth: Path, convention: str) -> dict[str, dict[str, float]]:
    predicted = _read_labels(prediction)
    # BraTS 2021 differs from the engine in nothing but the value of ET: 4
    predicted = _standard(prediction, predicted, "brats2021" if np.any(predicted == 4) else "brats2023")
    true = _standard(truth, _read_labels(truth), convention)
    spacing = [float(size) for size in nib.affines.voxel_sizes(_open(truth).affine)]
    whole = region_scores(predicted, true, spacing)
    masks, true_masks = to_regions(predicted), to_regions(true)
    lesions = {region: lesion_wise(masks[region], true_masks[region], spacing) for region in REGIONS}
    return {
        "dice": {region: whole[region]["dice"] for region in REGIONS},
        "hd95": {region: whole[region]["hd95"] for region in REGIONS},
        "lesion_dice": {region: lesions[region]["dice"] for region in REGIONS},
        "lesion_hd95": {region: lesions[region]["hd95"] for region in REGIONS},
    }


def _standard(file: Path, labels: np.ndarray, convention: str) -> np.ndarray:
    try:
        return to_standard(labels, convention)
    except InputError as error:
        raise InputError(f"{file}: {error}; correct the file, or check --convention") from error


def _find_truth_convention(where: Path, files: dict[str, Path]) -> str:
    first: dict[int, Path] = {}  # value -> the first file that holds it
    for file in files.values():
        for value in np.unique(_read_labels(file)):
            first.setdefault(int(value), file)
    values = set(first) - {0}
    if not values:
        return "brats2023"  # no label anywhere: every convention reads these alike
    try:
        return find_convention(values)
    except InputError as error:
        if values <= {1, 2, 3}:
            raise InputError(f"{where}: {error}, with --convention {'|'.join(CONVENTIONS)}") from error
        seen = ", ".join(f"{value} in {first[value].name}" for value in sorted(values)[:8])
        raise InputError(
            f"{where}: {error}; first seen: {seen}; the folder may mix conventions: evaluate them one by one"
        ) from error


def _open(file: Path) -> nib.Nifti1Image:
    """Header only, checked: 3D, and an affine that gives every axis a length."""
    try:
        image = nib.load(file)
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{file}: cannot be read ({error}); expected a NIfTI label map") from error
    if len(image.shape) != 3:
        raise InputError(f"{file}: has shape {image.shape}; expected a label map with three axes")
    sizes = nib.affines.voxel_sizes(image.affine)
    if not np.all(np.isfinite(image.affine)) or not np.all(sizes > 0):
        raise InputError(f"{file}: voxel sizes are {sizes.tolist()} mm; expected positive ones: write the file anew")
    return image


def _read_labels(file: Path) -> np.ndarray:
    """(X, Y, Z) uint8, values as in the file."""
    image = _open(file)
    try:
        stored = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{file}: its voxels cannot be read ({error}); copy or write the file anew") from error
    if stored.dtype.kind not in "buif":
        raise InputError(f"{file}: voxels are {stored.dtype}; expected one whole number for each")
    with np.errstate(invalid="ignore"):  # nan is caught below
        labels = np.ascontiguousarray(stored, np.uint8)
    if not np.array_equal(labels, stored):
        raise InputError(f"{file}: holds values that are no labels (no whole numbers from 0 to 255)")
    return labels


def _check_grid(prediction: Path, truth: Path) -> None:
    image, other = _open(prediction), _open(truth)
    if _same_grid(image.shape, image.affine, other.shape, other.affine):
        return
    if _same_grid(*_canonical(image), *_canonical(other)):
        codes = ("".join(nib.aff2axcodes(i.affine)) for i in (image, other))
        raise InputError(
            "{}: holds the same voxels as {}, but in another orientation ({} instead of {}); "
            "reorient one of them, with its affine, to the axes of the other".format(prediction, truth, *codes)
        )
    if image.shape != other.shape:
        difference = f"shape {image.shape} instead of {other.shape}"
    else:
        difference = f"the affines differ by up to {np.abs(image.affine - other.affine).max():.3g} mm"
    raise InputError(
        f"{prediction}: does not lie on the grid of {truth} ({difference}); "
        "predict on the grid of the truth, or resample (labels: nearest neighbour)"
    )


def _same_grid(shape: tuple, affine: np.ndarray, other_shape: tuple, other_affine: np.ndarray) -> bool:
    return tuple(shape) == tuple(other_shape) and np.allclose(affine, other_affine, rtol=0, atol=SAME_AFFINE)


def _canonical(image: nib.Nifti1Image) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the image with its axes reordered and flipped to the nearest of R, A, S."""
    orientation = orientations.io_orientation(image.affine)
    shape = tuple(image.shape[axis] for axis in np.argsort(orientation[:, 0]))
    return shape, image.affine @ orientations.inv_ornt_aff(orientation, image.shape)


def _cells(values, form: str) -> str:
    return "".join(f"{value:{form}}" for value in values)


def _some(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
