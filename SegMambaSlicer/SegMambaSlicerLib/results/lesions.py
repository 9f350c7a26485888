"""The lesions of a result: what hangs together of the whole tumor, the largest first, each with a place to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volumes.scene import parentMatrix
from .masks import cutGeometry, matrixOf
from .segments import labelArray, representation
from .statistics import diameters
from .vocabulary import MODES

LEAST_VOXELS = 3  # fewer are no lesion, as in the follow-up


@dataclass(frozen=True)
class Lesion:
    """volume in mL; longest and perpendicular diameters in mm; ras: (R, A, S) in mm in the world, a voxel inside it."""

    volume: float
    longest: float
    perpendicular: float
    ras: tuple[float, float, float]


def lesionsOf(segmentationNode) -> list[Lesion]:
    """The lesions of the segments as they are now, in the world, the largest first. Raises InputError as `measure`."""
    world = parentMatrix(segmentationNode)
    geometry = cutGeometry(segmentationNode, MODES[representation(segmentationNode)])
    labels, _notes = labelArray(segmentationNode, geometry=geometry)
    matrix = world @ matrixOf(geometry)
    milliliters = abs(np.linalg.det(matrix[:3, :3])) / 1000
    first = geometry.GetExtent()[::2]
    found = []
    for voxels in components(labels > 0):
        if len(voxels) < LEAST_VOXELS:
            continue
        low, high = voxels.min(0), voxels.max(0) + 1
        mask = np.zeros(high - low, bool)
        mask[tuple((voxels - low).T)] = True
        middle = voxels[np.abs(voxels - voxels.mean(0)).sum(1).argmin()]  # of a ring the mean lies outside
        ras = (matrix @ [*(middle[::-1] + first), 1])[:3]
        found.append(
            Lesion(len(voxels) * milliliters, *diameters(mask, matrix), tuple(float(x) for x in ras)),
        )
    return sorted(found, key=lambda lesion: -lesion.volume)


def components(mask: np.ndarray) -> list[np.ndarray]:
    """(N, 3) voxel indices of each part of a (K, J, I) mask that hangs together over faces, edges or corners.

    Voxels in a row make a run; runs of neighboring rows that touch are joined until nothing changes.
    """
    size = np.array(mask.shape) + 2  # with a rim, no row is the neighbor of the next plane's first
    padded = np.pad(mask, 1).ravel()
    edges = np.flatnonzero(padded[1:] != padded[:-1]) + 1
    begins, ends = edges[::2], edges[1::2] - 1
    names = np.arange(len(begins))
    pairs = [_touching(begins, ends, offset * size[2]) for offset in (1, size[1] - 1, size[1], size[1] + 1)]
    one, other = np.concatenate(pairs, axis=1) if len(begins) else np.zeros((2, 0), int)
    while True:
        least = names.copy()
        np.minimum.at(least, one, names[other])
        np.minimum.at(least, other, names[one])
        least = least[least]
        if np.array_equal(least, names):
            break
        names = least
    lengths = ends - begins + 1
    flat = np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    of = np.repeat(names, lengths)
    order = np.argsort(of, kind="stable")
    voxels = np.stack(np.unravel_index(flat[order], size), 1) - 1
    return np.split(voxels, np.flatnonzero(np.diff(of[order])) + 1) if len(voxels) else []


def _touching(begins: np.ndarray, ends: np.ndarray, offset: int) -> np.ndarray:
    """(2, N) runs, and runs that many voxels on that they touch."""
    first = np.searchsorted(ends, begins + offset - 1)
    count = np.maximum(np.searchsorted(begins, ends + offset + 1, side="right") - first, 0)
    one = np.repeat(np.arange(len(begins)), count)
    return np.stack([one, np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)])
