"""Heads for tests of raw input: phantoms with a skull and a scalp put around them, two thirds as large as people.

What moves them is scipy, not the code under test. Small, because registration takes as long as there are voxels.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import chain

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation
from segmamba.datasets.phantom import Phantom, make_phantom
from segmamba.images.image_io import Image
from segmamba.preparation.grids import Grid
from segmamba.preparation.register import register

SPACING = (3.0, 3.5, 4.0)
SMALLER = 0.66  # 460 mL of brain
SCALP = {"t1n": 1.6, "t1c": 1.5, "t2w": 0.9, "t2f": 1.2}


@dataclass(frozen=True, eq=False)
class Heads:
    """phantom: of full size, bare. images: its arrays within a head; brain: bool; on the small `affine`."""

    phantom: Phantom
    images: dict[str, np.ndarray]
    brain: np.ndarray
    affine: np.ndarray

    @property
    def middle(self):
        """RAS mm of the middle of the brain."""
        return middle_of(self.brain, self.affine)

    @property
    def mask(self):
        return Image(self.brain.astype(np.uint8), self.affine)


@cache
def make_heads():
    """The four images with 8 mm of bone and 7 mm of scalp around the brain, and some noise in the air; then smaller."""
    phantom = make_phantom(4, spacing=SPACING, enhancing=True)
    brain = phantom.images["t1c"] > 0
    rng = np.random.default_rng(0)
    distance = ndimage.distance_transform_edt(~brain, sampling=SPACING)
    scalp, air = (distance > 8) & (distance <= 15), distance > 15
    made = {}
    for modality, image in phantom.images.items():
        level = float(np.median(image[brain]))
        values = np.where(brain, image / level, 0.1)
        values[scalp], values[air] = SCALP[modality], 0
        made[modality] = np.abs(values + 0.03 * rng.standard_normal(values.shape)).astype(np.float32)
    return Heads(phantom, made, brain, np.diag([SMALLER, SMALLER, SMALLER, 1]) @ phantom.affine)


@cache
def make_raw():
    """(four images as from a scanner, on four grids; how each was moved, by modality)."""
    heads = make_heads()
    middle = heads.middle
    grids = {
        "t1n": grid_of((2.6, 1.4, 1.4), "RAS", 4, middle + 3),
        "t1c": grid_of((1.4, 1.4, 3.3), "LAS", 10, middle),
        "t2w": grid_of((1.4, 1.4, 3.3), "LPS", 0, middle - 4),
        "t2f": grid_of((1.4, 3.3, 1.4), "PSR", 7, middle),
    }
    moves = {m: turned(middle, 8, 9, seed) if m != "t1c" else np.eye(4) for seed, m in enumerate(grids)}
    arrays = {m: sampled(heads.images[m], heads.affine, moves[m], grid) for m, grid in grids.items()}
    return {m: Image(array, grids[m].affine) for m, array in arrays.items()}, moves


def register_once(found, most=None):
    """`register`, run for what it has not been given before; `found` keeps what came of it, by what was given.

    most: how many pairs of images may differ.
    """

    def once(*levels, within=None, **more):
        digest = hashlib.sha256()
        arrays = [array for level in chain(*levels) for array in (level.array, level.head, level.grid.affine)]
        for array in (*arrays, *(within or ())):
            digest.update(np.ascontiguousarray(array).data)
        key = digest.hexdigest()
        if key not in found:
            assert most is None or len(found) < most, "what is registered is not what was registered before"
            found[key] = register(*levels, within=within, **more)
        return found[key]

    return once


def turned(centre, degrees, mm, seed=0):
    """A rigid move (4, 4) about `centre`, RAS mm."""
    rng = np.random.default_rng(seed)
    axis, way = rng.standard_normal((2, 3))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    move[:3, 3] = centre - move[:3, :3] @ centre + mm * way / np.linalg.norm(way)
    return move


def sampled(image, affine, move, grid):
    """What a scanner sees of the moved image on `grid`."""
    index = np.linalg.inv(move @ affine) @ grid.affine
    return ndimage.affine_transform(image, index[:3, :3], index[:3, 3], grid.shape, order=1, output=np.float32)


def grid_of(spacing, codes="RAS", degrees=0.0, middle=(0, 80, 51), mm=(126, 146, 112)):
    """A grid of that spacing whose axes run along `codes`, turned by some degrees."""
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turned(np.zeros(3), degrees, 0, 5)[:3, :3] @ axes @ np.diag(spacing)
    shape = np.ceil(np.abs(axes.T @ np.array(mm)) / spacing).astype(int)
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine.astype(np.float32).astype(float))  # as NIfTI files keep it


def middle_of(mask, affine):
    return apply_affine(affine, np.argwhere(mask)).mean(0)


def off(found, truth, mask, affine):
    """Mean distance in mm, over a mask, between where two transforms take a point."""
    points = apply_affine(affine, np.argwhere(mask)[::7])
    return np.linalg.norm(apply_affine(found, points) - apply_affine(truth, points), axis=1).mean()
