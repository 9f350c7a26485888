"""Bias-field correction: the brightness that a coil adds to one side of a head is taken away again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from segmamba.images.background import OVERSHOOT

_WORKING_MM = 8.0  # 4 mm takes six times as long; a known field is found to 1 % with both
_ITERATIONS = (20, 20)


def correct_bias(image: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """An image divided by the smooth field by which a scanner brightens it here and darkens it there.

    N4 (Tustison et al., 2010, doi:10.1109/TMI.2010.2046908) of SimpleITK over the nonzero voxels, worked out on voxels
    of some 8 mm: a modality of a head takes 0.4 s. Against 4 mm the answers for three cases agree with a Dice of WT of
    0.993 to 0.999 (of a small ET 0.92), and are as near to the experts' labels. One thread, so that the result does
    not depend on the machine. N4 takes logarithms: the few negative values that resampling makes count as outside of
    the head, and stay. What has more of them, which no scanner makes, no contrast, or a single slice comes back as it
    is.

    Args:
        image: (D, H, W), 0 outside the head.
        spacing: mm along D, H and W.

    Returns:
        (D, H, W) float32; 0 stays 0.
    """
    head = image > 0
    negative = np.count_nonzero(image < 0)
    if negative > OVERSHOOT * np.count_nonzero(image) or not head.any() or image[head].min() == image.max():
        return image.astype(np.float32)
    if min(image.shape) == 1:  # a spline of a field needs two places on each axis
        return image.astype(np.float32)
    whole = _as_itk(np.where(head, image, 0).astype(np.float32), spacing)
    sides = zip(reversed(spacing), reversed(image.shape))
    shrink = [max(1, min(round(_WORKING_MM / step), length // 2)) for step, length in sides]
    coarse = sitk.Shrink(whole, shrink)
    mask = sitk.Shrink(_as_itk(head.astype(np.uint8), spacing), shrink)
    if not sitk.GetArrayViewFromImage(mask).any():
        return image.astype(np.float32)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    n4.SetNumberOfThreads(1)
    n4.Execute(coarse, mask)
    field = sitk.Resample(
        n4.GetLogBiasFieldAsImage(coarse), whole, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32, True
    )
    return np.where(head, image / np.exp(sitk.GetArrayViewFromImage(field)), image).astype(np.float32)


def _as_itk(image: np.ndarray, spacing: Sequence[float]) -> sitk.Image:
    result = sitk.GetImageFromArray(np.ascontiguousarray(image))
    result.SetSpacing([float(step) for step in reversed(spacing)])
    return result
