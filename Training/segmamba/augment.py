"""Augmentation of training patches, with MONAI's transforms.

Chances and ranges follow the published recipe, with additive brightness and a bias field beside it. The image
is a stack of z-scored channels whose background is 0, and stays so; the label is a stack of shares, warped linearly.
"""

from __future__ import annotations

import math

from monai.transforms import (
    Compose,
    MaskIntensityd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCropByLabelClassesd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    SpatialPadd,
    Transform,
)

KEYS = ["image", "label"]


def training_transform(patch: tuple[int, int, int], classes: int, foreground: float) -> Compose:
    """{"image": (C, D, H, W), "label": (K, D, H, W)} of any size -> augmented patches of size `patch`.

    foreground: chance that a patch is centred on a voxel of a label drawn among those present.
    """
    ratios = [1 - foreground] + [foreground / (classes - 1)] * (classes - 1)
    return Compose(
        [
            SpatialPadd(KEYS, patch),
            RandAffined(
                KEYS,
                prob=0.4,
                rotate_range=[math.radians(30)] * 3,
                scale_range=[(-0.3, 0.3)] * 3,
                mode="bilinear",
                padding_mode="zeros",
                cache_grid=False,
            ),
            RandCropByLabelClassesd(
                KEYS,
                label_key="label",
                spatial_size=patch,
                ratios=ratios,
                num_classes=classes,
                num_samples=1,
                warn=False,
            ),
            CompleteSample(),
            *(RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandGaussianNoised("image", prob=0.15, std=0.1),
            RandGaussianSmoothd("image", prob=0.1, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8)),
            RandScaleIntensityd("image", prob=0.3, factors=0.3, channel_wise=True),
            RandShiftIntensityd("image", prob=0.3, offsets=0.3, channel_wise=True),
            RandSimulateLowResolutiond("image", prob=0.15, zoom_range=(0.5, 1.0)),
            RandBiasFieldd("image", prob=0.15, degree=3, coeff_range=(0.0, 0.1)),
            RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            MaskIntensityd("image", mask_key="brain"),  # gamma and shifts move the background away from 0
        ]
    )


class CompleteSample(Transform):
    """Gives the voxels that padding or warping left empty to the background, and remembers where the brain is."""

    def __call__(self, sample: dict) -> dict:
        label = sample["label"]
        label[0] = 1 - label[1:].sum(0)
        return {**sample, "brain": (sample["image"] != 0).any(0, keepdim=True)}
