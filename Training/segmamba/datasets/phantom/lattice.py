"""Fields that do not depend on the image grid: coarse lattices in world mm, smooth noise on them, warps.

Everything that shapes the phantom is drawn on lattices fixed in the world and interpolated at the voxels, so
that one seed gives one head and one tumour whatever the spacing or the tilt of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CENTRE = np.array([-118.0, 112.0, 69.0])  # where the middle of the brain lies in BraTS files, RAS mm
_HALF = np.array([84.0, 104.0, 84.0])


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of nodes around the head, `step` mm apart, axes along RAS."""

    step: float
    """mm from node to node."""

    @property
    def origin(self) -> np.ndarray:
        """The corner of the lattice in mm, (3,)."""
        return CENTRE - _HALF

    @property
    def shape(self) -> tuple[int, int, int]:
        """The points along each axis."""
        x, y, z = (int(n) for n in np.ceil(2 * _HALF / self.step) + 1)
        return x, y, z

    def points(self) -> np.ndarray:
        """World positions of the nodes, (3, N) float32."""
        axes = (o + self.step * np.arange(n) for o, n in zip(self.origin, self.shape))
        return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).astype(np.float32)

    def sample(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Linear interpolation of `field` (shape of the lattice) at world `points` (3, N) -> (N,) float32."""
        index = (points - self.origin[:, None].astype(np.float32)) / np.float32(self.step)
        return ndimage.map_coordinates(field.astype(np.float32), index, order=1, mode="nearest")

    def noise(self, rng: np.random.Generator, scale: float) -> np.ndarray:
        """A smooth random field, mean 0, sd about 1: a cubic B-spline of normal controls `scale` mm apart."""
        bases = [_bspline(n, self.step / scale) for n in self.shape]
        field = rng.standard_normal([b.shape[1] for b in bases]).astype(np.float32)
        for axis, basis in enumerate(bases):
            field = np.moveaxis(np.tensordot(basis, field, axes=(1, axis)), 0, axis)
        return field / 0.33  # the sd of a cubic B-spline sum of unit normals, about 0.69 per axis

    def fractal(self, rng: np.random.Generator, scale: float, octaves: int = 3, fall: float = 0.55) -> np.ndarray:
        """Noise of several scales, each weaker than the one before; sd about 1.

        Args:
            rng: draws it.
            scale: of the coarsest, mm; each further one has half of it.
            octaves: how many scales.
            fall: strength of a scale, as a share of that before.

        Returns:
            A value for each node.
        """
        weights = fall ** np.arange(octaves)
        field = sum(w * self.noise(rng, scale / 2**k) for k, w in enumerate(weights))
        return field / np.sqrt((weights**2).sum())


def _bspline(count: int, ratio: float) -> np.ndarray:
    """Cubic B-spline weights (count, controls) at positions 0, ratio, 2 ratio ... of unit-spaced controls."""
    position = np.arange(count) * ratio
    controls = np.arange(-1, int(np.ceil(position[-1])) + 2)
    t = np.abs(position[:, None] - controls[None])
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, inner, outer).astype(np.float32)


def exponential(lattice: Lattice, velocity: np.ndarray, squarings: int = 5) -> np.ndarray:
    """The flow of a stationary velocity field, by scaling and squaring (Arsigny et al. 2006).

    Args:
        lattice: that the field lies on.
        velocity: (3, *shape), mm.
        squarings: the flow is put together from 2 ** squarings small steps.

    Returns:
        Displacement (3, *shape) in mm, smooth and invertible.
    """
    moved = velocity.reshape(3, -1) / 2**squarings
    nodes = lattice.points()
    for _ in range(squarings):
        target = nodes + moved
        moved = moved + np.stack([lattice.sample(m.reshape(lattice.shape), target) for m in moved])
    return moved.reshape(velocity.shape)


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """3x3 rotation about `axis` (Rodrigues)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
