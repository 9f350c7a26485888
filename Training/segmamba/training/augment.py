"""Augmentation of training patches, with MONAI's transforms.

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

import numpy as np
import torch
from monai.transforms import (
    Affine,
    Compose,
    Rand3DElastic,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    Randomizable,
    RandScaleIntensity,
    RandScaleIntensityFixedMean,
    RandShiftIntensity,
    RandSimulateLowResolution,
    Transform,
)
from monai.transforms.utils import create_rotate, create_scale
from monai.utils import convert_to_tensor
from torch import Tensor

# MONAI smooths white noise of +-1 with a gaussian of sigma voxels and multiplies: with these a voxel moves by 1 to 3
# voxels (standard deviation), seldom by more than 12.
_ELASTIC_SIGMA = (6, 8)
_ELASTIC_MAGNITUDE = (200, 500)
_ELASTIC_REACH = 12


@dataclass(frozen=True)
class Warp:
    """rotation: radians about D, H, W. zoom: of what is seen, along each. elastic: seed of a smooth deformation."""

    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: tuple[float, float, float] = (1.0, 1.0, 1.0)
    elastic: int | None = None

    def reach(self, patch: Sequence[int]) -> tuple[int, int, int]:
        """Sides of the box, about the same centre, that holds all that the patch will show of it."""
        matrix = create_rotate(3, self.rotation)[:3, :3] @ create_scale(3, [1 / z for z in self.zoom])[:3, :3]
        sides = np.abs(np.asarray(matrix)) @ np.asarray(patch, float)
        extra = 2 if self.elastic is None else 2 + 2 * _ELASTIC_REACH
        return tuple(max(side, math.ceil(need + extra)) for side, need in zip(patch, sides))

    def apply(self, box: Tensor, patch: Sequence[int]) -> Tensor:
        """(C, *reach) -> (C, *patch)."""
        if self.elastic is None:
            affine = Affine(
                rotate_params=self.rotation,
                scale_params=[1 / z for z in self.zoom],
                spatial_size=patch,
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
            spatial_size=patch,
            mode="bilinear",
            padding_mode="zeros",
        ).set_random_state(seed=self.elastic)
        return convert_to_tensor(deform(box))


@dataclass(frozen=True)
class Augmentation:
    """rotate, zoom, elastic: chance of each, drawn apart. angle: largest, radians about each axis. zooms: smallest
    and largest, the same along each axis. intensity: the transforms of the image, in order. mirror: chance per axis.
    modality_dropout: chance that a sample lacks channels, which are then 0 everywhere.
    """

    rotate: float = 0.0
    zoom: float = 0.0
    elastic: float = 0.0
    angle: float = math.radians(30)
    zooms: tuple[float, float] = (0.7, 1.4)
    mirror: float = 0.0
    intensity: tuple[Transform, ...] = ()
    modality_dropout: float = 0.0

    def draw_warp(self, rng: np.random.Generator) -> Warp | None:
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
        """Mirrors both and changes the intensities of the image (C, *patch); the background stays 0."""
        axes = [axis for axis in (1, 2, 3) if rng.random() < self.mirror]
        image, label = image.flip(axes), label.flip(axes)
        head = (image != 0).any(0, keepdim=True)  # gamma and shifts move the background away from 0
        transform = Compose(self.intensity)
        transform.set_random_state(seed=int(rng.integers(2**32)))
        image = convert_to_tensor(transform(image)) * head
        missing = _draw_missing(len(image), rng) if rng.random() < self.modality_dropout else []
        image[missing] = 0
        return image.contiguous(), label.contiguous()


def build_augmentation(name: str, modality_dropout: float = 0.0) -> Augmentation:
    """One of the sets above."""
    if name == "none":
        return Augmentation(modality_dropout=modality_dropout)
    gamma = (
        EachChannel(RandAdjustContrast(prob=1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True), 0.1),
        EachChannel(RandAdjustContrast(prob=1, gamma=(0.7, 1.5), retain_stats=True), 0.3),
    )
    blur = RandGaussianSmooth(prob=1, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0))
    coarse = RandSimulateLowResolution(prob=1, zoom_range=(0.5, 1.0))
    brightness = RandShiftIntensity(prob=0.15, offsets=0.3, channel_wise=True)
    if name == "paper":
        return Augmentation(
            0.2, 0.2, 0.2, mirror=0.5, intensity=(brightness, *gamma), modality_dropout=modality_dropout
        )
    published = (
        RandGaussianNoise(prob=0.1, std=0.1),
        EachChannel(blur, 0.5, prob=0.2),
        RandScaleIntensity(prob=0.15, factors=0.25, channel_wise=True),
        RandScaleIntensityFixedMean(prob=0.15, factors=0.25, preserve_range=True, channel_wise=True),
        EachChannel(coarse, 0.5, prob=0.25),
        *gamma,
    )
    if name == "released":
        return Augmentation(0.2, 0.2, mirror=0.5, intensity=published, modality_dropout=modality_dropout)
    shading = (EachChannel(Shading(), 0.5, prob=0.5), Shading(prob=0.5))  # of one modality, and of the coil for all
    ours = (*published, brightness, *shading)
    return Augmentation(0.3, 0.3, mirror=0.5, intensity=ours, modality_dropout=modality_dropout)


class Shading(Randomizable, Transform):
    """Adds a smooth field, a polynomial of degree 2 over the patch, mostly within +-0.8: a coil's, the same in each
    channel, in samples drawn with chance `prob`.

    A coil's field b multiplies what the scanner measures. Normalised to mean 0 and standard deviation 1 that is
    b mean / std + b x, and mean / std of a real brain is 2 to 7: what adds is the most of it, and it is what is added.
    """

    def __init__(self, prob: float = 1.0):
        self.field = RandBiasField(prob=prob, degree=2, coeff_range=(-0.5, 0.5))  # MONAI's is exp(polynomial)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Shading:
        super().set_random_state(seed, state)
        self.field.set_random_state(state=self.R)
        return self

    def __call__(self, image: Tensor) -> Tensor:
        return image + convert_to_tensor(self.field(torch.ones_like(image))).log()


class EachChannel(Randomizable, Transform):
    """Applies a transform to each channel by itself with chance `each`, in samples drawn with chance `prob`.

    MONAI's own draw once for all channels; MRI sequences differ in sharpness and contrast each for itself.
    """

    def __init__(self, transform: Transform, each: float, prob: float = 1.0):
        self.transform = transform
        self.each = each
        self.prob = prob

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> EachChannel:
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, image: Tensor) -> Tensor:
        if self.R.random() >= self.prob:
            return image
        chosen = self.R.random(len(image)) < self.each
        channels = [self.transform(image[i : i + 1]) if chosen[i] else image[i : i + 1] for i in range(len(image))]
        return torch.cat([convert_to_tensor(channel) for channel in channels])


def _draw_missing(count: int, rng: np.random.Generator) -> list[int]:
    """Which of `count` channels a sample lacks: one with half the chance, two with a quarter, ...; never all."""
    if count == 1:
        return []
    numbers = np.arange(1, count)
    weights = 0.5**numbers
    return rng.permutation(count)[: rng.choice(numbers, p=weights / weights.sum())].tolist()
