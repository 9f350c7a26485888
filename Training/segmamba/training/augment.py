"""Augmentation of training patches, with MONAI's transforms, which are loaded where one is used.

The image is a stack of normalised channels whose background is 0, and stays so; the label is a stack of shares. Both
are warped together, linearly, in one resampling from a box that is just large enough.

Sets: "released", chances and ranges of the published code; "paper", the kinds that the paper names (additive
brightness, gamma, rotation, scaling, mirror, elastic deformation), with the published code's chances where the paper
gives none; "segmamba", ours: the published code's with additive brightness and shading beside; "none".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from monai.transforms import Transform

# MONAI smooths white noise of +-1 with a gaussian of sigma voxels and multiplies: with these a voxel moves by 1 to 3
# voxels (standard deviation), seldom by more than 12.
_ELASTIC_SIGMA = (6, 8)
_ELASTIC_MAGNITUDE = (200, 500)
_ELASTIC_REACH = 12


@dataclass(frozen=True)
class Warp:
    """A spatial deformation of one patch."""

    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Radians about D, H, W."""
    zoom: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of what is seen, along each."""
    elastic: int | None = None
    """Seed of a smooth deformation."""

    def reach(self, patch: Sequence[int]) -> tuple[int, int, int]:
        """Sides of the box, about the same centre, that holds all that the patch will show of it."""
        from monai.transforms.utils import create_rotate, create_scale

        matrix = create_rotate(3, self.rotation)[:3, :3] @ create_scale(3, [1 / z for z in self.zoom])[:3, :3]
        sides = np.abs(np.asarray(matrix)) @ np.asarray(patch, float)
        extra = 2 if self.elastic is None else 2 + 2 * _ELASTIC_REACH
        depth, height, width = (max(side, math.ceil(need + extra)) for side, need in zip(patch, sides))
        return depth, height, width

    def apply(self, box: Tensor, patch: Sequence[int]) -> Tensor:
        """The patch that the warp makes of a larger box around it: (C, *reach) -> (C, *patch)."""
        from monai.transforms import Affine, Rand3DElastic
        from monai.utils import convert_to_tensor

        if self.elastic is None:
            affine = Affine(
                rotate_params=self.rotation,
                scale_params=[1 / z for z in self.zoom],
                spatial_size=cast(tuple[int, int, int], patch),
                padding_mode="zeros",
                image_only=True,
            )
            return convert_to_tensor(affine(box))
        deform = Rand3DElastic(
            sigma_range=_ELASTIC_SIGMA,
            magnitude_range=_ELASTIC_MAGNITUDE,
            prob=1,
            rotate_range=[(angle, angle) for angle in self.rotation],
            scale_range=[(1 / z - 1, 1 / z - 1) for z in self.zoom],
            spatial_size=cast(tuple[int, int, int], patch),
            mode="bilinear",
            padding_mode="zeros",
        ).set_random_state(seed=self.elastic)
        return convert_to_tensor(deform(box))


@dataclass(frozen=True)
class Augmentation:
    """How training patches are changed."""

    rotate: float = 0.0
    """Chance that a patch is turned; the three are drawn apart."""
    zoom: float = 0.0
    """Chance that it is made larger or smaller."""
    elastic: float = 0.0
    """Chance that it is bent."""
    angle: float = math.radians(30)
    """Largest, radians about each axis."""
    zooms: tuple[float, float] = (0.7, 1.4)
    """Smallest and largest, the same along each axis."""
    mirror: float = 0.0
    """Chance per axis."""
    intensity: tuple[Transform, ...] = ()
    """The transforms of the image, in order."""
    modality_dropout: float = 0.0
    """Chance that a sample is without channels, which are then 0 everywhere."""

    def draw_warp(self, rng: np.random.Generator) -> Warp | None:
        """A deformation for one patch, or None for a patch that stays as it is."""
        rotate, zoom, elastic = rng.random(3) < (self.rotate, self.zoom, self.elastic)
        if not (rotate or zoom or elastic):
            return None
        warp = Warp()
        if rotate:
            warp = replace(warp, rotation=tuple(rng.uniform(-self.angle, self.angle, 3)))
        if zoom:
            warp = replace(warp, zoom=(float(rng.uniform(*self.zooms)),) * 3)
        return replace(warp, elastic=int(rng.integers(2**32))) if elastic else warp

    def apply(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mirrors a patch and its label, and changes the intensities of the patch; the background stays 0.

        Args:
            image: (C, D, H, W), 0 outside the head.
            label: (K, D, H, W), shares of the labels.
            rng: draws what is done.

        Returns:
            Both, of the same shapes; new tensors.
        """
        axes = [axis for axis in (1, 2, 3) if rng.random() < self.mirror]
        image, label = image.flip(axes), label.flip(axes)
        head = (image != 0).any(0, keepdim=True)  # gamma and shifts move the background away from 0
        seed = int(rng.integers(2**32))  # drawn in any case, so that what is drawn next stays the same
        if self.intensity:
            image = _transformed(image, self.intensity, seed) * head
        missing = _draw_missing(len(image), rng) if rng.random() < self.modality_dropout else []
        image[missing] = 0
        return image.contiguous(), label.contiguous()


def _transformed(image: Tensor, transforms: Sequence[Transform], seed: int) -> Tensor:
    from monai.transforms import Compose
    from monai.utils import convert_to_tensor

    return convert_to_tensor(Compose(transforms).set_random_state(seed=seed)(image))


def build_augmentation(name: str, modality_dropout: float = 0.0) -> Augmentation:
    """One of the sets above."""
    if name == "none":
        return Augmentation(modality_dropout=modality_dropout)
    from segmamba.training.intensity import intensity_transforms  # brings MONAI

    chances = {"paper": (0.2, 0.2, 0.2), "released": (0.2, 0.2, 0.0), "segmamba": (0.3, 0.3, 0.0)}[name]
    return Augmentation(*chances, mirror=0.5, intensity=intensity_transforms(name), modality_dropout=modality_dropout)


def _draw_missing(count: int, rng: np.random.Generator) -> list[int]:
    """Which of `count` channels a sample is without: one with half the chance, two with a quarter, ...; never all."""
    if count == 1:
        return []
    numbers = np.arange(1, count)
    weights = 0.5**numbers
    return rng.permutation(count)[: rng.choice(numbers, p=weights / weights.sum())].tolist()
