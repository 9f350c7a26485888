"""The voxels of one image as a case has them: finite, with an outside of 0, and of an image indeed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from segmamba.errors import InputError
from segmamba.images.background import clear_background
from segmamba.images.image_io import Image, Source
from segmamba.images.modalities import MODALITIES

_BRAIN_ML, _HEAD_ML = 500.0, 7000.0  # the smallest brain of a child beyond infancy; a head with neck
_FILLED = 0.9  # share of the volume above which there is no outside to tell the size by
_MOST_LABELS = 5  # values, with background, that a mask or a label map has; an image has more


def clean(image: Image, modality: str, source: Source) -> tuple[np.ndarray, list[str]]:
    """The voxels of an image as a case has them.

    Args:
        image: as it was read.
        modality: of it; those of MODALITIES are cleared of what is outside of the head.
        source: where it was read from, for errors.

    Returns:
        (X, Y, Z) float32 without NaN and infinity; and notes, which begin with the modality.

    Raises:
        InputError: for an image that is empty or constant, and, of MODALITIES, a mask or a label map.
    """
    notes = [f"{modality}: {note}" for note in image.notes]
    with np.errstate(over="ignore"):  # too large for float32: infinite, and told below
        array = np.array(image.array, np.float32)
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if count == array.size:
        raise InputError(f"{source} ({modality}): every voxel is NaN or infinite; export the image again")
    if count:
        array[bad] = 0
        notes.append(f"{modality}: {count} NaN or infinite voxels set to 0")
    low, high = array.min(), array.max()
    if low == high:
        what = "is empty: every voxel is 0" if low == 0 else f"is constant: every voxel is {low:g}"
        raise InputError(f"{source} ({modality}) {what}; expected an image")
    if modality in MODALITIES:  # of MR; in CT every value means something
        _check_greys(array, modality, source)
        array, found = clear_background(array)
        notes += [f"{modality}: {note}" for note in [*found, *_check_size(array, image.affine)]]
    return array, notes


def _check_greys(array: np.ndarray, modality: str, source: Source) -> None:
    """Raises InputError for a mask or a label map."""
    for values in (array[:: max(1, array.shape[0] // 16)], array):
        greys = np.unique(values)
        if len(greys) > _MOST_LABELS:
            return
    listed = ", ".join(f"{grey:g}" for grey in greys)
    raise InputError(f"{source} ({modality}) holds {len(greys)} values only ({listed}): a mask or labels, not an image")


def _check_size(array: np.ndarray, affine: np.ndarray) -> list[str]:
    """A note about a head or brain, with an outside of 0, that is smaller or larger than any."""
    shown = np.count_nonzero(array)
    if shown > _FILLED * array.size:
        return []
    volume = shown * abs(np.linalg.det(affine[:3, :3])) / 1000
    if _BRAIN_ML <= volume <= _HEAD_ML:
        return []
    what = "less than a brain has: a part of one" if volume < _BRAIN_ML else "more than a head has: something else"
    return [f"{volume:.0f} mL are not background, {what}, or the size of the voxels in the header is wrong"]


def check_different(arrays: Mapping[str, np.ndarray], sources: Mapping[str, Source]) -> None:
    """Raises InputError where two modalities have the same voxels. sources: modality -> where it was read from."""
    for one, other in combinations(arrays, 2):
        if np.array_equal(arrays[one], arrays[other]):
            raise InputError(
                f"{sources[one]} ({one}) and {sources[other]} ({other}) hold the same voxels; "
                "give each modality its own image"
            )
