"""How training patches are deformed: rotated, zoomed, moved smoothly, all in one linear resampling, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmamba.training.axes import along_axes, gaussians

# White noise of +-1, smoothed with a gaussian of sigma voxels and multiplied, as MONAI's Rand3DElastic has it: with
# these a voxel moves by 1 to 3 voxels (standard deviation), seldom by more than 12.
_SIGMA = (6, 8)
_MAGNITUDE = (200, 500)
_REACH = 12
_CELL = 4  # voxels a side that share their noise: after a gaussian of 6 nothing of it is seen


@dataclass(frozen=True)
class Elastic:
    """A smooth random movement of voxels."""

    seed: int
    """Of the noise."""
    sigma: float
    """Of the gaussian that smooths it, in voxels."""
    magnitude: float
    """What it is multiplied by then, in voxels."""

    def movement(self, patch: Sequence[int], device: torch.device | str) -> Tensor:
        """(3, *patch): voxels along D, H, W. Noise lies in the patch alone, so that its faces move less."""
        generator = torch.Generator(device).manual_seed(self.seed)
        cells = [-(-side // _CELL) for side in patch]
        noise = 2 * torch.rand((3, *cells), generator=generator, device=device) - 1
        sigma = torch.full((1,), self.sigma, device=device)
        matrices = []
        for side, count in zip(patch, cells):
            voxels = torch.arange(side, device=device, dtype=torch.float)
            middles = torch.arange(count, device=device) * float(_CELL) + (_CELL - 1) / 2
            matrices.append(gaussians(voxels, middles, sigma) * _CELL**0.5)  # the variance of noise in every voxel
        return self.magnitude * along_axes(noise, *matrices)


def draw_elastic(rng: np.random.Generator) -> Elastic:
    """One of the usual strength."""
    return Elastic(int(rng.integers(2**32)), float(rng.uniform(*_SIGMA)), float(rng.uniform(*_MAGNITUDE)))


@dataclass(frozen=True)
class Warp:
    """A spatial deformation of one patch."""

    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Radians about D, H, W."""
    zoom: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of what is seen, along each."""
    elastic: Elastic | None = None
    """Before the others, on the grid of the patch."""

    def reach(self, patch: Sequence[int]) -> tuple[int, int, int]:
        """Sides of the box, about the same centre, that holds all that the patch will show of it."""
        sides = np.abs(self._matrix()) @ np.asarray(patch, float)
        extra = 2 if self.elastic is None else 2 + 2 * _REACH
        depth, height, width = (max(side, math.ceil(need + extra)) for side, need in zip(patch, sides))
        return depth, height, width

    def apply(self, box: Tensor, patch: Sequence[int], shift: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
        """Cuts the deformed patch out of a box.

        Args:
            box: (C, d, h, w).
            patch: (D, H, W), its size.
            shift: where its centre lies, from that of the box, in voxels.

        Returns:
            (C, *patch); what lies outside the box is 0.
        """
        matrix = self._matrix()
        # grid_sample counts along W, H, D, from -1 to 1 between the faces of a volume
        to_box = np.diag(2 / np.asarray(box.shape[:0:-1], float))
        turned = to_box @ matrix[::-1, ::-1]
        theta = np.c_[turned @ np.diag(np.asarray(patch[::-1], float) / 2), to_box @ np.asarray(shift, float)[::-1]]
        size = [1, len(box), *patch]
        grid = F.affine_grid(_on(theta[None], box), size, align_corners=False)
        if self.elastic is not None:
            movement = self.elastic.movement(patch, box.device).flip(0)
            grid = grid + torch.einsum("ij,jdhw->dhwi", _on(turned, box), movement)
        return F.grid_sample(box[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]

    def _matrix(self) -> np.ndarray:
        """(3, 3): from the patch to what it shows, in D, H, W; zoomed, then turned about W, then H, then D."""
        (a, b, c), (i, j, k) = self.rotation, np.cos(self.rotation)
        about_d = np.array([[1, 0, 0], [0, i, -math.sin(a)], [0, math.sin(a), i]])
        about_h = np.array([[j, 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, j]])
        about_w = np.array([[k, -math.sin(c), 0], [math.sin(c), k, 0], [0, 0, 1]])
        return about_d @ about_h @ about_w @ np.diag([1 / z for z in self.zoom])


def _on(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(like.device, non_blocking=True)
