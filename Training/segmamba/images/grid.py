"""The grid of an image: how far two lie apart, and what one is in words."""

from __future__ import annotations

from itertools import product

import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.orientations import aff2axcodes

GRID_TOLERANCE_MM = 1e-2  # at the corners: headers are rounded to some micrometres, and no scanner places to 10


def corner_distance(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """How far two affines put the corners of one grid apart.

    Args:
        shape: (X, Y, Z) in voxels; further axes do not matter.
        affine: (4, 4), voxel indices to RAS mm.
        other: (4, 4), likewise.

    Returns:
        The largest of the eight distances, in mm.
    """
    corners = np.array(list(product(*((0, n - 1) for n in shape[:3]))), float)
    difference = np.asarray(affine) - np.asarray(other)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def describe_shape(shape: tuple[int, ...]) -> str:
    """A shape in words: (240, 240, 155) gives "240 x 240 x 155"."""
    return " x ".join(str(n) for n in shape)


def describe_spacing(affine: np.ndarray) -> str:
    """The sizes of a voxel in mm as a text."""
    return " x ".join(f"{s:.4g}" for s in voxel_sizes(affine))


def describe_grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
    """'240 x 240 x 155 voxels of 1 x 1 x 1 mm, orientation LPS', and what is unusual about it."""
    text = f"{describe_shape(shape)} voxels of {describe_spacing(affine)} mm, orientation "
    text += "".join(aff2axcodes(affine))
    angle = float(np.degrees(obliquity(affine)).max())
    if angle > 0.5:
        text += f", oblique by {angle:.0f} degrees"
    if np.linalg.det(affine[:3, :3]) < 0:
        text += ", left-handed"
    return text
