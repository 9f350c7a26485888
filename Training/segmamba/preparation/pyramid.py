"""An image of a head at one level of a pyramid: coarser, upright, and where the head is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from segmamba.errors import InputError
from segmamba.preparation.grids import Grid, blocks, resample, upright

LEVELS_MM = (8.0, 4.0, 2.0)
_HEAD = 0.5  # times Otsu's threshold between head and air: fat and muscle are far brighter than a brain on T1


@dataclass(frozen=True, eq=False)
class Level:
    """An image at one of the resolutions of a pyramid.

    What else there is to a level is found when it is asked for: prepared images need nothing of their finest.
    """

    values: np.ndarray
    """(X, Y, Z) float32."""
    grid: Grid
    """Isotropic, its axes near R, A, S."""

    @cached_property
    def head(self) -> np.ndarray:
        """Where the head is: (X, Y, Z) bool. Raises InputError where there is none to be seen."""
        return find_head(self.values)

    @cached_property
    def array(self) -> np.ndarray:
        """The values, cut at the 1st and the 99.5th percentile of the head.

        A few bright voxels take most of the bins of a histogram otherwise.
        """
        low, high = np.percentile(self.values[self.head], (1, 99.5))
        return np.clip(self.values, min(float(low), 0.0), float(high))

    def points(self, inside: np.ndarray, at_most: int = 4000) -> np.ndarray:
        """The places of the voxels of a mask, at most so many, evenly picked: (N, 3) RAS mm."""
        found = np.argwhere(inside)
        found = found[:: max(1, len(found) // at_most)]
        return found @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3]


def make_levels(array: np.ndarray, affine: np.ndarray) -> list[Level]:
    """One level for each of LEVELS_MM. Raises InputError where there is no head to be seen."""
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
        levels.append(Level(values, grid))
    for level in levels[1:]:
        level.array  # noqa: B018 so that an image without a head is refused here
    return levels[::-1]


def _coarser(affine: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The affine of blocks of `parts` voxels."""
    result = affine.copy()
    result[:3, :3] *= parts
    result[:3, 3] += affine[:3, :3] @ ((np.asarray(parts) - 1) / 2)
    return result


def find_head(values: np.ndarray) -> np.ndarray:
    """The largest piece brighter than air, with its holes: (X, Y, Z) bool. Raises InputError without one."""
    low, high = np.percentile(values, (0.5, 99.5))
    if not high > low:
        raise InputError("the image is dark everywhere; expected a head")
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(np.clip(values, low, high)))
    pieces, count = ndimage.label(values > low + _HEAD * (threshold.GetThreshold() - low))
    if not count:
        raise InputError("the image is dark everywhere; expected a head")
    return ndimage.binary_fill_holes(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
