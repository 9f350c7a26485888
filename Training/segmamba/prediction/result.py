"""The result of a case as files: whose files lie there already, the images, and the summary that says what they are.

A result belongs to the images that it was made of. Files that lie in its place stay unless the summary beside them
names one of these images, and label maps stay that were changed since: neither another patient's result nor a label map
that somebody drew or corrected is written over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segmamba import __version__
from segmamba.cases.case import Case
from segmamba.cases.label_files import was_changed
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, naming, write_aside
from segmamba.files.digest import hash_file
from segmamba.files.place import check_owner
from segmamba.images.grid import describe_grid
from segmamba.images.image_io import save_aside
from segmamba.models.package import Model
from segmamba.networks.scan import choose_backend
from segmamba.prediction.options import PredictOptions, limits_of, settings_of
from segmamba.prediction.postprocess import count_spots, describe_removed, postprocess, to_label_map, volumes_ml
from segmamba.prediction.segment import Segmentation
from segmamba.preparation.grids import Grid
from segmamba.preparation.run import Prepared
from segmamba.settings import read_json

_EDITED = ("label_map", "left_out")  # kinds of files that people correct in their place


@dataclass(frozen=True, eq=False)
class Seen:
    """What came in."""

    case: Case
    """As the network gets it."""
    images_sha256: dict[str, str]
    """By modality, of the files as they were given."""
    prepared: Prepared | None
    """None where the images could be taken as they are."""
    absent: tuple[str, ...]
    """Modalities that the model does without."""
    warnings: tuple[str, ...]
    """What a person should know of the images, one sentence each."""

    @property
    def grid(self) -> Grid:
        """What the result lies on."""
        return (
            self.prepared.grids[self.prepared.reference] if self.prepared else Grid(self.case.shape, self.case.affine)
        )

    def without_images(self) -> Seen:
        """The same without voxels, which nothing after the preprocessing reads."""
        case = self.case.without_images()
        return replace(self, case=case, prepared=replace(self.prepared, case=case) if self.prepared else None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """A case that is segmented and decided: all that is written of it."""

    model: Model
    """That it was segmented with."""
    options: PredictOptions
    """That the user chose."""
    seen: Seen
    """What came in."""
    segmentation: Segmentation
    """What the network made of it."""
    label_map: np.ndarray
    """(X, Y, Z) uint8 on `Seen.grid`."""
    whole: np.ndarray
    """The same with what was too small."""
    removed: dict[str, dict[str, int]]
    """By region, what was too small."""
    probabilities: np.ndarray | None
    """(K, X, Y, Z) on that grid, where they were needed."""

    @property
    def left_out(self) -> np.ndarray:
        """(X, Y, Z) uint8, what was too small."""
        return np.where(self.whole != self.label_map, self.whole, 0)


def check_place(files: Mapping[str, Path], images_sha256: Mapping[str, str]) -> None:
    """Refuses to write over what is not an earlier result of the same examination.

    Args:
        files: as `options.output_files` gives them.
        images_sha256: of the case that is to be written there, by modality.

    Raises:
        InputError: where one of the files is there, and the summary does not name any of the images; or a label map is
            not as the summary has it.
    """
    there = [path for path in files.values() if path.exists() or path.is_symlink()]
    if not there:
        return
    try:
        summary = read_json(files["summary"])
        known = set(summary["settings"]["images_sha256"].values())
        changed = [path for path in files.values() if was_changed(path, summary)]
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        known, changed = set(), []
    check_owner(there[0], known, images_sha256.values(), "a result")
    if changed:
        raise InputError(
            f"{changed[0]}: was changed since it was written here; move it to another folder to keep it, or remove it "
            "to have it made anew"
        )


def finished(files: Mapping[str, Path], settings: dict) -> dict | None:
    """The summary of an earlier run with the same model and settings whose files are all there, else None.

    Args:
        files: as `options.output_files` gives them.
        settings: as `options.settings_of` gives them.

    Returns:
        What `write_summary` gave then.
    """
    try:
        summary = read_json(files["summary"])
        network = settings["manifest"]["network"]
        summary["settings"]["manifest"].setdefault("network", network)  # earlier versions did not say it
        # by name too: a map that this run was not asked for may lie there from another one
        written = all(summary["files"].get(kind) == path.name and path.is_file() for kind, path in files.items())
        return summary if written and summary["settings"] == settings else None
    except (ValueError, KeyError, TypeError, AttributeError):  # InputError is a ValueError
        return None


def begin(
    files: Mapping[str, Path], case_id: str, images_sha256: Mapping[str, str], written: Mapping[str, str]
) -> None:
    """Says in the summary whose files are about to be put in their places: what a kill leaves may be written over.

    What an earlier run said there is gone, for it is not about what is there from here on; but for the hashes of label
    maps that stay, so that what is corrected in them is seen by a run that would write over them. Of those that are
    replaced both hashes stand there, for a kill leaves the one or the other.

    Args:
        files: as `options.output_files` gives them; their folder is made.
        case_id: as in the summary.
        images_sha256: of the case, by modality.
        written: name -> sha256 of the label maps that are about to be there.

    Raises:
        InputError: as `check_place`, which is asked again: another process may have been here since.
    """
    make_folder(files["summary"].parent)
    check_place(files, images_sha256)
    names = {kind: path.name for kind, path in files.items()}
    there = {path.name: [hash_file(path)] for path in files.values() if path.name in written and path.is_file()}
    hashes = {**_that_stay(files), **{name: [*there.get(name, []), value] for name, value in written.items()}}
    summary = {"case": case_id, "unfinished": True, "files": names, "label_maps_sha256": hashes}
    _write_json({**summary, "settings": {"images_sha256": dict(images_sha256)}}, files["summary"])


def write(result: Result, files: Mapping[str, Path]) -> dict[str, str]:
    """Writes every file but the summary, which says from here on that it is unfinished.

    All are written aside before one is put in its place, the label map last: where the disk is full, what was there
    stays as it was.

    Args:
        result: the case.
        files: as `options.output_files` gives them; their folder is made.

    Returns:
        Name -> sha256 of the label maps, for `write_summary`.

    Raises:
        InputError: as `check_place`.
        OSError: where they cannot be written.
    """
    make_folder(files["summary"].parent)
    halves: dict[str, Path] = {}
    try:
        for kind, array, affine, dtype in _images(result):
            halves[kind] = save_aside(array, affine, files[kind], dtype)
        written = {files[kind].name: hash_file(half) for kind, half in halves.items() if kind.startswith(_EDITED)}
        begin(files, result.seen.case.id, result.seen.images_sha256, written)
        for kind, half in halves.items():
            with naming(files[kind]):
                half.replace(files[kind])
        return written
    finally:
        for half in halves.values():
            half.unlink(missing_ok=True)


def write_summary(
    result: Result, files: Mapping[str, Path], seconds: Mapping[str, float], written: Mapping[str, str]
) -> dict:
    """Writes the summary, which comes last: where it does not say "unfinished", the case is finished.

    Args:
        result: the case.
        files: as `options.output_files` gives them, in a folder that is there.
        seconds: by stage, for the summary.
        written: name -> sha256 of the label maps, as `write` gives them.

    Returns:
        The summary.
    """
    summary = _summarize(result, files, seconds, written)
    _write_json(summary, files["summary"])
    return summary


def _images(result: Result) -> Iterator[tuple[str, np.ndarray, np.ndarray, type]]:
    """Kind, voxels, affine and type of each image that is wanted, the label map last."""
    seen, segmentation, options = result.seen, result.segmentation, result.options
    manifest = result.model.manifest
    affine = seen.grid.affine
    if options.probabilities and result.probabilities is not None:
        yield "probabilities", np.moveaxis(result.probabilities, 0, -1), affine, np.float32
    if options.left_out:
        yield "left_out", result.left_out, affine, np.uint8
    if options.uncertainty:
        uncertainty = segmentation.uncertainty()
        uncertainty = seen.prepared.back(uncertainty) if seen.prepared else uncertainty
        yield "uncertainty", uncertainty, affine, np.float32
    for modality in options.onto:
        other, there = result.label_map, seen.grid
        if seen.prepared:
            there = seen.prepared.grids[modality]
            shares = seen.prepared.back(segmentation.probabilities(), modality)
            other = to_label_map(shares, manifest.inference.nested)
            other, _ = postprocess(other, there.affine, limits_of(manifest, options), manifest.scheme)
        yield f"label_map_{modality}", other, there.affine, np.uint8
    yield "label_map", result.label_map, affine, np.uint8


def _that_stay(files: Mapping[str, Path]) -> dict[str, str | list[str]]:
    """Name -> sha256, as the summary has them, of the label maps of earlier runs that are there and not of `files`.

    Both of them where a run broke off (`begin`).
    """
    place, own = files["summary"], {path.name for path in files.values()}
    try:
        known = read_json(place, optional=True) or {}
        hashes = dict(known.get("label_maps_sha256", {}))
    except (InputError, TypeError, ValueError, AttributeError):  # a summary of something else
        return {}
    return {name: value for name, value in hashes.items() if name not in own and (place.parent / name).is_file()}


def _summarize(
    result: Result, files: Mapping[str, Path], seconds: Mapping[str, float], written: Mapping[str, str]
) -> dict:
    manifest, seen, segmentation = result.model.manifest, result.seen, result.segmentation
    case = seen.case
    affine = seen.grid.affine
    volumes = volumes_ml(result.label_map, affine, manifest.scheme)
    told = describe_removed(result.removed, affine)
    return {
        "case": case.id,
        "files": {kind: path.name for kind, path in files.items()},
        "volumes_ml": {name: round(ml, 3) for name, ml in volumes.items()},
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "model": manifest.id,
        "regions": list(manifest.regions),
        "label_maps_sha256": {**_that_stay(files), **written},
        "settings": settings_of(result.model, result.options, seen.images_sha256),
        "device": segmentation.device,
        "precision": segmentation.precision,
        "scan_backend": choose_backend(segmentation.device),
        "passes": segmentation.passes,
        "unsure": round(segmentation.prediction.unsure, 3),
        "removed": result.removed,
        "left_out": {**count_spots(result.left_out, affine), "text": told} if told else None,
        "steps": [step.as_json() for step in seen.prepared.steps] if seen.prepared else [],
        "absent": list(seen.absent),
        "notes": [
            describe_grid(case.shape, case.affine),
            *seen.warnings,
            *([told] if told else []),
            *case.notes,
            *segmentation.notes,
        ],
        "segmamba": __version__,
    }


def find_warnings(summary: Mapping) -> list[str]:
    """Of a summary's notes those that a person should know: neither the grid nor what "left_out" says in full."""
    told = (summary["left_out"] or {}).get("text")
    return [note for note in summary["notes"][1:] if note != told]


def _write_json(value: Mapping, path: Path) -> None:
    write_aside(path, (json.dumps(value, indent=2) + "\n").encode())
