"""How far sums and volumes move with the border of the segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segmamba.followup.lesions import Measured, measure_pieces
from segmamba.preparation.grids import upright

PROBABILITIES = (0.3, 0.7)
ONE_VOXEL = {"one voxel less": -1, "one voxel more": 1}
_CROSS = ndimage.generate_binary_structure(2, 1)[:, :, None]  # in the slices: where they are thick, the next is far
_MARGIN = 12  # voxels around the lesions that are looked at


def spread(
    measured: Measured,
    counted: Sequence[int],
    probability: np.ndarray | None = None,
    affine: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """What the numbers of a date would be with other borders.

    One voxel less and more, along the edges of voxels in the slices; and, with probabilities, where they are 0.3 and
    0.7 or more, in pieces that meet a lesion. What a variant adds belongs to the nearest lesion. A line that a person
    has drawn stays, whatever the border: such a lesion keeps its product.

    Args:
        measured: the lesions.
        counted: numbers of those of which products are summed up.
        probability: (X, Y, Z) of the region, as stored.
        affine: (4, 4), its voxel indices to RAS mm.

    Returns:
        Variant of the border -> (sum of products of the lesions `counted` in mm^2, volume of all lesions in mL).
    """
    names = [*ONE_VOXEL, *(f"P >= {p}" for p in PROBABILITIES if probability is not None)]
    if not measured.lesions:
        return dict.fromkeys(names, (0.0, 0.0))
    box = _box(measured.labelled)
    labelled = measured.labelled[box]
    _, nearest = ndimage.distance_transform_edt(labelled == 0, sampling=measured.spacing, return_indices=True)
    owner = labelled[tuple(nearest)]
    masks = {
        "one voxel less": ndimage.binary_erosion(labelled > 0, _CROSS, border_value=0),
        "one voxel more": ndimage.binary_dilation(labelled > 0, _CROSS),
    }
    if probability is not None and affine is not None:
        turned = upright(probability, affine)[0][box]
        masks |= {f"P >= {p}": _meeting(turned >= p, labelled > 0) for p in PROBABILITIES}
    drawn = {lesion.number: lesion.product for lesion in measured.lesions if lesion.by_hand}
    result = {}
    for name in names:
        mask = masks[name]
        sums = [drawn[n] if n in drawn else measure_pieces(mask & (owner == n), measured.affine)[0] for n in counted]
        voxel_ml = abs(np.linalg.det(measured.affine[:3, :3])) / 1000
        result[name] = (float(sum(sums)), float(np.count_nonzero(mask) * voxel_ml))
    return result


def _box(labelled: np.ndarray) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects((labelled > 0).astype(np.uint8))
    return tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in box)


def _meeting(mask: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """The pieces of a mask that share a voxel with a lesion."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    kept = np.unique(pieces[lesions])
    return np.isin(pieces, kept[kept > 0])
