"""The working lattice: cubic voxels along the patient's axes, over the image's field of view."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import ndimage


@dataclass(frozen=True)
class WorkImage:
    """An image on axes along R, A and S."""

    values: np.ndarray
    """(X, Y, Z) float32; beyond the image's field of view the nearest of its values."""
    seen: np.ndarray
    """(X, Y, Z) bool, where the image's field of view is."""
    origin: np.ndarray
    """(3,) RAS mm, the centre of the first voxel."""
    step: float
    """mm from voxel to voxel, along each axis."""

    def as_itk(self, values: np.ndarray) -> sitk.Image:
        """Values on this lattice; ITK's world is taken as RAS here."""
        return as_itk(values, self.origin, self.step)


def as_itk(values: np.ndarray, origin: np.ndarray, step: float) -> sitk.Image:
    """An array on axes along those of the world, for ITK.

    Args:
        values: (X, Y, Z).
        origin: (3,) mm, the centre of the first voxel.
        step: mm from voxel to voxel.

    Returns:
        The image; it holds a copy.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing([step] * 3)
    image.SetOrigin([float(x) for x in origin])
    return image


def in_order(image: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes turned and reversed to lie as close to R, A, S as they can.

    So the 48 ways to store an image are one; with the new affine, and the orientation that `back_in_order` needs.
    """
    orientation = nib.io_orientation(affine)
    turned = nib.apply_orientation(image, orientation)
    return np.ascontiguousarray(turned), affine @ nib.orientations.inv_ornt_aff(orientation, image.shape), orientation


def back_in_order(image: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Undoes `in_order`."""
    target = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), orientation)
    return np.ascontiguousarray(nib.apply_orientation(image, target))


def to_work(image: np.ndarray, affine: np.ndarray, step: float) -> WorkImage:
    """An image on axes along R, A and S: averaged where `step` skips voxels, then linear.

    Args:
        image: (X, Y, Z).
        affine: (4, 4), voxel indices to RAS mm.
        step: mm from voxel to voxel of the result.

    Returns:
        The image on a lattice that holds all of its field of view.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = image.astype(np.float32)
    for axis, size in enumerate(spacing):
        if size < step:
            smooth = ndimage.gaussian_filter1d(smooth, 0.4 * np.sqrt((step / size) ** 2 - 1), axis)
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in image.shape), indexing="ij")).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    # rounded: the rounding errors of the affines of one image stored in two ways must not choose the lattice
    low, high = np.round(world.min(1), 2), np.round(world.max(1), 2)
    shape = tuple(np.ceil((high - low) / step - 1e-6).astype(int))
    origin = (low + high) / 2 - (np.array(shape) - 1) / 2 * step
    back = np.linalg.inv(affine)
    matrix, offset = back[:3, :3] * step, back[:3, :3] @ origin + back[:3, 3]
    values = ndimage.affine_transform(smooth, matrix, offset, shape, order=1, mode="nearest")
    seen = np.ones(shape, bool)
    index = [np.arange(n) for n in shape]
    for row, start, size in zip(matrix, offset, image.shape):
        place = start + row[0] * index[0][:, None, None] + row[1] * index[1][:, None] + row[2] * index[2]
        seen &= (place >= -0.5 - 1e-4) & (place <= size - 0.5 + 1e-4)
    return WorkImage(values, seen, origin, step)


def from_work(values: np.ndarray, work: WorkImage, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Values on a lattice at the voxels of an image, by linear interpolation.

    Args:
        values: of the shape of `work`.
        work: the lattice.
        shape: (X, Y, Z) of the image.
        affine: (4, 4), its voxel indices to RAS mm.

    Returns:
        (X, Y, Z) float32; beyond the lattice the nearest of its values.
    """
    matrix = affine[:3, :3] / work.step
    offset = (affine[:3, 3] - work.origin) / work.step
    return ndimage.affine_transform(values.astype(np.float32), matrix, offset, shape, order=1, mode="nearest")
