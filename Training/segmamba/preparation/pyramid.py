"""An image of a head at one level of a pyramid: coarser, upright, and where the head is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from segmamba.errors import InputError
from segmamba.preparation.grids import Grid, blocks, resample, to_itk, upright

LEVELS_MM = (8.0, 4.0, 2.0)
_HEAD = 0.5  # times Otsu's threshold between head and air: fat and muscle are far brighter than a brain on T1


@dataclass(frozen=True, eq=False)
class Level:
    """`array` (X, Y, Z) float32 on an isotropic `grid` with axes near R, A, S; `head` (X, Y, Z) bool."""

    array: np.ndarray
    grid: Grid
    head: np.ndarray
    image: sitk.Image

    def points(self, inside: np.ndarray, at_most: int = 4000) -> np.ndarray:
        """(N, 3) RAS mm of the voxels of a mask, evenly picked."""
        found = np.argwhere(inside)
        found = found[:: max(1, len(found) // at_most)]
        return found @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3]


def make_levels(array: np.ndarray, affine: np.ndarray) -> list[Level]:
    """One level for each of LEVELS_MM. Raises InputError where there is no head to be seen.

    Intensities are cut at the 1st and the 99.5th percentile of the head: a few bright voxels take most of the bins
    of a histogram otherwise.
    """
    array, affine = upright(array, affine)
    array = np.ascontiguousarray(array)  # sums are added up in the order in which it lies in memory
    finest = LEVELS_MM[-1]
    own = Grid(array.shape, affine)
    grid = own.with_spacing(np.full(3, finest))
    parts = np.clip(np.floor(finest / own.spacing + 0.01).astype(int), 1, array.shape)
    values, grid = resample(blocks(array, parts), _coarser(affine, parts), grid), grid
    levels = []
    for step in reversed(LEVELS_MM):
        if step != finest:
            parts = np.minimum(round(step / grid.spacing[0]), values.shape)
            values, coarser = blocks(values, parts), _coarser(grid.affine, parts)
            grid = Grid(values.shape, coarser)
        head = find_head(values)
        low, high = np.percentile(values[head], (1, 99.5))
        cut = np.clip(values, min(float(low), 0.0), float(high))
        levels.append(Level(cut, grid, head, to_itk(cut, grid.affine)))
    return levels[::-1]


def _coarser(affine: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The affine of blocks of `parts` voxels."""
    result = affine.copy()
    result[:3, :3] *= parts
    result[:3, 3] += affine[:3, :3] @ ((np.asarray(parts) - 1) / 2)
    return result


def find_head(values: np.ndarray) -> np.ndarray:
    """(X, Y, Z) -> bool: the largest piece brighter than air, with its holes. Raises InputError without one."""
    low, high = np.percentile(values, (0.5, 99.5))
    if not high > low:
        raise InputError("the image is dark everywhere; expected a head")
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(np.clip(values, low, high)))
    pieces, count = ndimage.label(values > low + _HEAD * (threshold.GetThreshold() - low))
    if not count:
        raise InputError("the image is dark everywhere; expected a head")
    return ndimage.binary_fill_holes(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
