"""A phantom as it comes from a scanner: skull on, four series of thick slices, and a patient who moved between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation
from scipy import ndimage

from segmamba.datasets.phantom.case import Phantom, write_images
from segmamba.datasets.phantom.head import add_heads
from segmamba.errors import InputError


@dataclass(frozen=True)
class _Series:
    """codes: where the stored axes run, the last through the slices.

    thick: mm between slices. way, degrees: of the patient since T1c, RAS mm, about the vertical.
    """

    codes: str
    thick: float
    way: tuple[float, float, float] = (0.0, 0.0, 0.0)
    degrees: float = 0.0


_SERIES = {
    "t1n": _Series("LPS", 4.0, (4, -3, 2), 4),
    "t1c": _Series("LAS", 3.0),
    "t2w": _Series("RAS", 5.0, (-5, 4, 6), -5),
    "t2f": _Series("PSR", 4.0, (3, 5, -4), 3),
}


@dataclass(frozen=True)
class RawPhantom:
    """A synthetic case as from a scanner."""

    images: dict[str, tuple[np.ndarray, np.ndarray]]
    """Modality -> (X, Y, Z) float32 on a grid of its own, and its 4x4 affine to RAS mm."""
    label_map: np.ndarray
    """uint8, on the grid of t1c."""


def make_raw(phantom: Phantom, *, in_plane: float = 1.0) -> RawPhantom:
    """The four series of `phantom`, pixels of `in_plane` mm or, where they are coarser, the phantom's voxels.

    Raises InputError for a phantom whose voxels are no cubes along the body's axes.
    """
    step = np.linalg.norm(phantom.affine[:3, :3], axis=0)
    if np.ptp(step) > 1e-6 or np.count_nonzero(np.abs(phantom.affine[:3, :3]) > 1e-6) != 3:
        raise InputError("a raw phantom is made of cubes along the body's axes; leave out --oblique")
    step = float(step[0])
    order = io_orientation(phantom.affine)
    affine = phantom.affine @ inv_ornt_aff(order, phantom.label_map.shape)
    images, label_map = {}, phantom.label_map
    brains = {modality: apply_orientation(phantom.images[modality], order) for modality in _SERIES}
    heads, mask, before = add_heads(brains, step, np.random.default_rng(phantom.seed))
    place = affine.copy()
    place[:3, 3] -= affine[:3, :3] @ before
    for modality, series in _SERIES.items():
        head, brain = heads[modality], brains[modality]
        # the head's surface coils are left out of the brain: what a series needs to be prepared for is hard enough
        own = np.zeros_like(head)
        own[tuple(slice(start, start + size) for start, size in zip(before, brain.shape))] = brain
        head = np.where(mask, own, head)
        grid_shape, grid = _grid(place, head.shape, max(in_plane, step), series)
        move = _move(series, apply_affine(place, (np.array(head.shape) - 1) / 2))
        across = int(np.argmax(np.abs(grid[:3, 2])))
        head = ndimage.gaussian_filter1d(head, 0.35 * series.thick / step, axis=across)
        images[modality] = _sampled(head, move @ place, grid_shape, grid, 1).astype(np.float32), grid
        if modality == "t1c":
            labels = apply_orientation(phantom.label_map, order)
            label_map = _sampled(labels, affine, grid_shape, grid, 0)
    return RawPhantom(images=images, label_map=label_map)


def save_raw(raw: RawPhantom, folder: Path, case_id: str) -> dict[str, Path]:
    """Writes the four series and the label map on the grid of t1c, under the names of `save_phantom`.

    Args:
        raw: the case.
        folder: made where it does not exist.
        case_id: a file name.

    Returns:
        The paths by name (t1n, t1c, t2w, t2f, seg).

    Raises:
        InputError: for a `case_id` that is no file name.
    """
    return write_images(raw.images | {"seg": (raw.label_map, raw.images["t1c"][1])}, folder, case_id)


def _grid(place: np.ndarray, shape: tuple[int, ...], pixel: float, series: _Series) -> tuple[tuple, np.ndarray]:
    """Shape and affine of the series' grid over the field of view of a head at `place`."""
    spacing = np.full(3, pixel)
    spacing[2] = max(series.thick, pixel)
    axes = np.zeros((3, 3))
    for stored, (body, way) in enumerate(axcodes2ornt(series.codes)):
        axes[int(body), stored] = way
    extent = np.abs(place[:3, :3]) @ np.array(shape)
    count = np.ceil(np.abs(axes.T @ extent) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(spacing)
    affine[:3, 3] = apply_affine(place, (np.array(shape) - 1) / 2) - affine[:3, :3] @ ((count - 1) / 2)
    return tuple(int(n) for n in count), affine


def _move(series: _Series, centre: np.ndarray) -> np.ndarray:
    """4x4, RAS mm: what was at a point is now at move @ point."""
    cosine, sine = np.cos(np.radians(series.degrees)), np.sin(np.radians(series.degrees))
    move = np.eye(4)
    move[:2, :2] = [[cosine, -sine], [sine, cosine]]
    move[:3, 3] = centre - move[:3, :3] @ centre + series.way
    return move


def _sampled(array: np.ndarray, affine: np.ndarray, shape: tuple, grid: np.ndarray, order: int) -> np.ndarray:
    index = np.linalg.inv(affine) @ grid
    return ndimage.affine_transform(array, index[:3, :3], index[:3, 3], shape, order=order)
