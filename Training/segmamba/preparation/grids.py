"""Images and their grids: numpy (X, Y, Z) with an affine to RAS mm on one side, SimpleITK (LPS) on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine, voxel_sizes

from segmamba.images.grid import GRID_TOLERANCE_MM

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_RAS = np.array([[0, 1], [1, 1], [2, 1]])  # nibabel's orientation of upright axes


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image lie."""

    shape: tuple[int, int, int]
    """(X, Y, Z) in voxels."""
    affine: np.ndarray
    """(4, 4), voxel indices (of voxel centres) to RAS mm."""

    @property
    def spacing(self) -> np.ndarray:
        """Sizes of a voxel in mm, (3,)."""
        return voxel_sizes(self.affine)

    @property
    def centre(self) -> np.ndarray:
        """RAS mm of the middle of the volume."""
        return apply_affine(self.affine, (np.array(self.shape) - 1) / 2)

    def is_on(self, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """Whether every voxel lies where that of `other` lies."""
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.shape) - 1)
        apart = apply_affine(self.affine, corners) - apply_affine(other.affine, corners)
        return self.shape == other.shape and float(np.linalg.norm(apart, axis=1).max()) <= tolerance_mm

    def with_spacing(self, spacing: np.ndarray) -> Grid:
        """The same field of view along the same axes, with other voxels (mm); it may grow by less than one."""
        own, spacing = self.spacing, np.asarray(spacing, float)
        count = np.maximum(np.ceil(np.array(self.shape) * own / spacing - 1e-3), 1).astype(int)
        affine = self.affine.copy()
        affine[:3, :3] *= spacing / own
        affine[:3, 3] = self.centre - affine[:3, :3] @ ((count - 1) / 2)
        return Grid(cast(tuple[int, int, int], tuple(int(n) for n in count)), affine)


def upright(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels with the axes in the order and direction nearest to R, A, S, as a view.

    The affine is rounded to 1e-9 mm: the order that the axes had leaves no trace in its last digits.
    """
    change = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(array, change)
    return turned, np.round(affine @ nib.orientations.inv_ornt_aff(change, array.shape), 9)


def to_itk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An array (X, Y, Z) with its affine to RAS mm as SimpleITK's image.

    Left-handed, oblique and sheared axes are kept.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    affine = _LPS @ affine
    spacing = voxel_sizes(affine)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def to_transform(matrix: np.ndarray) -> sitk.AffineTransform:
    """A map (4, 4) on RAS mm as SimpleITK's transform on LPS mm."""
    matrix = _LPS @ matrix @ _LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def to_matrix(transform: sitk.Transform) -> np.ndarray:
    """A rigid or affine transform of SimpleITK on LPS mm -> (4, 4) on RAS mm."""
    zero = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - zero for axis in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.stack(columns, 1), zero
    return _LPS @ matrix @ _LPS


def resample(array: np.ndarray, affine: np.ndarray, grid: Grid, transform: np.ndarray | None = None) -> np.ndarray:
    """An image on another grid, in one linear interpolation; 0 outside its field of view.

    Where a voxel of the grid is larger than those of the image, it is the mean over its extent: nothing between two
    slices is skipped. Both are turned upright for it: the same values come out, bit for bit, whatever the order of
    their axes.

    Args:
        array: (X, Y, Z).
        affine: (4, 4) of the array, voxel indices to RAS mm.
        grid: the other one.
        transform: (4, 4), a point of the array's space to the same point in the grid's, both RAS mm; None: they are
            one.

    Returns:
        float32, of the grid's shape.
    """
    array, affine = upright(np.asarray(array), affine)
    there, target = upright(np.empty(grid.shape, bool), grid.affine)
    matrix = np.linalg.inv(affine) @ (np.eye(4) if transform is None else np.linalg.inv(transform)) @ target
    parts = np.maximum(np.floor(voxel_sizes(matrix) + 0.3), 1).astype(int)  # the image's voxels along the grid's
    fine = matrix.copy()
    fine[:3, :3] /= parts
    fine[:3, 3] -= fine[:3, :3] @ ((parts - 1) / 2)
    # in voxel indices, so that sheared and left-handed axes need no thought: LPS cancels itself
    image = to_itk(np.asarray(array, np.float32), _LPS)
    result = sitk.Resample(
        image,
        [int(n * part) for n, part in zip(there.shape, parts)],
        to_transform(_LPS @ fine @ _LPS),
        sitk.sitkLinear,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        0.0,
        sitk.sitkFloat32,
    )
    values = blocks(sitk.GetArrayFromImage(result).T, parts)
    way = nib.orientations.ornt_transform(_RAS, nib.orientations.io_orientation(grid.affine))
    return np.asfortranarray(nib.orientations.apply_orientation(values, way))


def blocks(array: np.ndarray, parts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Means over blocks of `parts` voxels; what is over at the far end is left out."""
    if max(parts) == 1:
        return array
    count = [n // part for n, part in zip(array.shape, parts)]
    array = array[tuple(slice(n * part) for n, part in zip(count, parts))]
    sizes = [size for pair in zip(count, parts) for size in pair]
    return array.reshape(sizes).mean(axis=(1, 3, 5), dtype=np.float32)
