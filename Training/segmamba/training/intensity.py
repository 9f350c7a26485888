"""What augmentation changes of a patch's intensities: MONAI's transforms, and two that it has otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.transforms import (
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
from monai.utils import convert_to_tensor
from torch import Tensor


def intensity_transforms(name: str) -> tuple[Transform, ...]:
    """Those of one of the sets of training.augment, in order."""
    gamma = (
        EachChannel(RandAdjustContrast(prob=1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True), 0.1),
        EachChannel(RandAdjustContrast(prob=1, gamma=(0.7, 1.5), retain_stats=True), 0.3),
    )
    blur = RandGaussianSmooth(prob=1, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0))
    coarse = RandSimulateLowResolution(prob=1, zoom_range=(0.5, 1.0))
    brightness = RandShiftIntensity(prob=0.15, offsets=0.3, channel_wise=True)
    if name == "paper":
        return brightness, *gamma
    published = (
        RandGaussianNoise(prob=0.1, std=0.1),
        EachChannel(blur, 0.5, prob=0.2),
        RandScaleIntensity(prob=0.15, factors=0.25, channel_wise=True),
        RandScaleIntensityFixedMean(prob=0.15, factors=0.25, preserve_range=True, channel_wise=True),
        EachChannel(coarse, 0.5, prob=0.25),
        *gamma,
    )
    if name == "released":
        return published
    shading = (EachChannel(Shading(), 0.5, prob=0.5), Shading(prob=0.5))  # of one modality, and of the coil for all
    return *published, brightness, *shading


class Shading(Randomizable, Transform):
    """Adds a smooth field, as of a coil: the same in each channel, in samples drawn with chance `prob`.

    A polynomial of degree 2 over the patch, mostly within +-0.8.

    A coil's field b multiplies what the scanner measures. Normalised to mean 0 and standard deviation 1 that is
    b mean / std + b x, and mean / std of a real brain is 2 to 7: what adds is the most of it, and it is what is added.
    """

    def __init__(self, prob: float = 1.0):
        self.field = RandBiasField(prob=prob, degree=2, coeff_range=(-0.5, 0.5))  # MONAI's is exp(polynomial)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Shading:
        """Seeds the draws, as MONAI's transforms are seeded."""
        super().set_random_state(seed, state)
        self.field.set_random_state(state=self.R)
        return self

    def __call__(self, image: Tensor) -> Tensor:
        """(C, D, H, W) -> the same shape."""
        return image + convert_to_tensor(self.field(torch.ones_like(image))).log()


class EachChannel(Randomizable, Transform):
    """Applies a transform to each channel by itself with chance `each`, in samples drawn with chance `prob`.

    MONAI's own draw once for all channels; MRI sequences differ in sharpness and contrast each for itself.
    """

    def __init__(self, transform: Any, each: float, prob: float = 1.0):
        self.transform = transform
        self.each = each
        self.prob = prob

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> EachChannel:
        """Seeds the draws, and those of the transform."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, image: Tensor) -> Tensor:
        """(C, D, H, W) -> the same shape."""
        if self.R.random() >= self.prob:
            return image
        chosen = self.R.random(len(image)) < self.each
        channels = [self.transform(image[i : i + 1]) if chosen[i] else image[i : i + 1] for i in range(len(image))]
        return torch.cat([convert_to_tensor(channel) for channel in channels])
