"""One case read once: its images and label map, everything that is wrong with them, and what can be measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from segmamba.cases.case import Case, load_case
from segmamba.errors import InputError
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance, describe_grid
from segmamba.images.image_io import Source, read_image

PERCENTILES = (0.5, 5, 50, 95, 99.5)
_ZEROS = 0.02  # share of voxels that are 0 from which on 0 is taken for background


@dataclass(frozen=True, eq=False)
class Reading:
    """What could be read of a case."""

    case: Case | None
    """None where `errors` are about images."""
    label: np.ndarray | None
    """(X, Y, Z) int32 as stored, or None."""
    errors: tuple[str, ...]
    """What is wrong, one sentence each."""


def read_case(case_id: str, images: Mapping[str, Source], label: Path | None) -> Reading:
    """Reads and checks one case; what is wrong comes back as text, all of it and not the first only.

    Args:
        case_id: names the case.
        images: modality -> where its image is.
        label: file of its label map; None where it has none.

    Returns:
        What could be read, and the errors.
    """
    errors, case = [], None
    try:
        case = load_case(images, case_id, tuple(images))
    except InputError as error:
        errors += _each(images) or [str(error)]
    values = None
    if label is not None:
        try:
            values = _read_label(label, case)
        except InputError as error:
            errors.append(str(error))
    return Reading(case, values, tuple(errors))


def _each(images: Mapping[str, Source]) -> list[str]:
    """What is wrong with each image by itself."""
    errors = []
    for modality, source in images.items():
        try:
            load_case({modality: source}, "", (modality,))
        except InputError as error:
            errors.append(str(error))
    return errors


def _read_label(path: Path, case: Case | None) -> np.ndarray:
    image = read_image(path)
    with np.errstate(invalid="ignore"):
        values = image.array.astype(np.int32)
    if image.array.dtype.kind not in "iub" and not np.array_equal(values, image.array):
        raise InputError(f"{path}: label values are not whole numbers; expected a label map")
    if case is not None and (
        values.shape != case.shape or corner_distance(case.shape, image.affine, case.affine) > GRID_TOLERANCE_MM
    ):
        raise InputError(
            f"{path} is not on the grid of its images: {describe_grid(values.shape, image.affine)} against "
            f"{describe_grid(case.shape, case.affine)}; resample it with nearest neighbours, or redraw it"
        )
    return values


def foreground(image: np.ndarray) -> np.ndarray:
    """Voxels that are not background, bool, of the image's shape.

    Not 0, where a share of 2 % or more is 0, as in skull-stripped MR; else those above the smallest value, as in CT.
    """
    inside = image != 0
    return inside if np.count_nonzero(inside) <= (1 - _ZEROS) * image.size else image > image.min()


def content(array: np.ndarray) -> str:
    """What is in the voxels, however the file was packed: 32 hexadecimal digits."""
    digest = hashlib.sha256(f"{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def value_counts(label: np.ndarray) -> dict[int, int]:
    """Value -> number of voxels, background left out."""
    if label.min() >= 0 and label.max() < 4096:
        counts = np.bincount(label.ravel())
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts) if v}
    return {int(v): int(n) for v, n in zip(*np.unique(label, return_counts=True)) if v}


def measure(case: Case, label: np.ndarray | None) -> dict:
    """The statistics of a case as plain JSON.

    Labels still by their value in the file (segmamba.datasets.collect names them). Intensities of an image are over its
    foreground; `labelled`, over the voxels with any label.
    """
    inside = {m: foreground(image) for m, image in case.images.items()}
    either = np.any(list(inside.values()), axis=0)
    statistics = {
        "orientation": "".join(aff2axcodes(case.affine)),
        "left_handed": bool(np.linalg.det(case.affine[:3, :3]) < 0),
        "foreground": {"share": round(float(either.mean()), 6), "box": _box(either)},
        "images": {m: {"content": content(i), **_intensities(i[inside[m]])} for m, i in case.images.items()},
        "notes": list(case.notes),
    }
    if label is not None:
        ml = float(np.prod(voxel_sizes(case.affine))) / 1000
        labelled = label != 0
        counts = value_counts(label)
        statistics["labels"] = {v: {"voxels": n, "ml": round(n * ml, 6)} for v, n in counts.items()}
        if counts:
            statistics["label_content"] = content(label)
            statistics["labelled"] = {m: _intensities(image[labelled]) for m, image in case.images.items()}
    return statistics


def _intensities(values: np.ndarray) -> dict:
    values = values.astype(np.float64)
    percentiles = np.percentile(values, PERCENTILES)
    return {
        "min": _short(values.min()),
        "max": _short(values.max()),
        "mean": _short(values.mean()),
        "std": _short(values.std()),
        "percentiles": {f"{p:g}": _short(v) for p, v in zip(PERCENTILES, percentiles)},
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _box(mask: np.ndarray) -> list[list[int]]:
    """First and last + 1 index of the mask along each axis."""
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return [[int(hit[0]), int(hit[-1]) + 1] for hit in hits]
