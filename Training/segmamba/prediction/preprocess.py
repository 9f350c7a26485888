"""From a case to the tensor that a model asks for, and back to the case's own grid.

The way there: permute and flip (nibabel), crop to the head, correct the bias field where the model wants it, normalise
as MONAI does, and, where the spacing differs, resample. The way back is the same in reverse, on probabilities, by
linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from segmamba.cases.case import Case
from segmamba.errors import InputError
from segmamba.images.grid import describe_shape
from segmamba.images.parallel import for_each
from segmamba.images.resample import Axis, to_image, to_model
from segmamba.limits import VOXELS
from segmamba.models.specs import PreprocessSpec
from segmamba.preparation.bias import correct_bias


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a model sees it."""

    tensor: torch.Tensor
    """(C, D, H, W) float32."""
    affine: np.ndarray
    """(4, 4), from the tensor's voxels (D, H, W) to RAS mm."""
    original_shape: tuple[int, int, int]
    """(X, Y, Z) of the case."""
    orientation: np.ndarray = field(repr=False)
    """(3, 2), nibabel's transform from the stored axes to D, H, W."""
    axes: tuple[Axis, Axis, Axis] = field(repr=False)
    """How D, H and W lie over the crop of the image."""

    def undo(self, probabilities: torch.Tensor) -> np.ndarray:
        """Probabilities (K, D, H, W) back onto the case's grid: (K, X, Y, Z) float32, by linear interpolation.

        Outside the crop channel 0, the background, is 1 and the others are 0.
        """
        self._check(probabilities.shape[1:])
        result = np.zeros((len(probabilities), *self.original_shape), np.float32)
        result[0] = 1
        for channel, target in zip(probabilities, result):
            self._place(channel, target)
        return result

    def undo_scalar(self, values: torch.Tensor) -> np.ndarray:
        """One map (D, H, W), as of uncertainty -> (X, Y, Z) float32 on the case's grid; 0 off the crop."""
        self._check(values.shape)
        result = np.zeros(self.original_shape, np.float32)
        self._place(values, result)
        return result

    def undo_labels(
        self, share: torch.Tensor, found: torch.Tensor, decode: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Labels on the case's grid, decoded from probabilities only where there may be one.

        Args:
            share: (K, D, H, W) on the model's grid.
            found: (D, H, W) bool, where a label other than 0 is possible; beyond the voxels that these reach nothing is
                restored and nothing is decoded: there is 0.
            decode: from probabilities (K, ...) on the case's grid to labels (...).

        Returns:
            (X, Y, Z) uint8.
        """
        self._check(share.shape[1:])
        result = np.zeros(self.original_shape, np.uint8)
        if not found.any():
            return result
        box = []
        for dim, axis in enumerate(self.axes):
            hit = found.any(dim=[d for d in range(3) if d != dim]).nonzero()
            box.append(axis.reached(int(hit[0]), int(hit[-1])))
        if any(first == end for first, end in box):
            return result
        channels = torch.stack([to_image(c, self.axes, box) for c in share.detach().to("cpu", torch.float32)])
        place = tuple(slice(axis.start + first, axis.start + end) for axis, (first, end) in zip(self.axes, box))
        apply_orientation(result, self.orientation)[place] = decode(channels.numpy())
        return result

    def to_crop(self, image: np.ndarray) -> torch.Tensor:
        """An array (X, Y, Z) on the case's grid in the model's orientation, cropped, not resampled; a copy."""
        box = tuple(slice(axis.start, axis.stop) for axis in self.axes)
        return torch.from_numpy(np.array(apply_orientation(image, self.orientation)[box], order="C"))

    def _check(self, shape: Sequence[int]) -> None:
        expected = tuple(self.tensor.shape[1:])
        if tuple(shape) != expected:
            raise ValueError(f"shape {tuple(shape)} is not that of the prepared tensor, {expected}")

    def _place(self, values: torch.Tensor, target: np.ndarray) -> None:
        values = to_image(values.detach().to("cpu", torch.float32), self.axes)
        box = tuple(slice(axis.start, axis.stop) for axis in self.axes)
        view = apply_orientation(target, self.orientation)
        view[box] = values.numpy()


def preprocess(case: Case, spec: PreprocessSpec, absent: Sequence[str] = ()) -> Prepared:
    """The tensor that a model with `spec` takes. Where the spacing is right already, nothing is interpolated.

    The z-score comes before resampling, as in the published code: its mean and deviation are those of voxels as
    measured.

    Args:
        case: with every modality of the spec but the absent ones.
        spec: channel order, orientation, spacing in mm, normalization and crop.
        absent: modalities of the spec that are missing; their channels are 0 everywhere.

    Returns:
        The tensor, with what brings results back onto the case's grid.

    Raises:
        InputError: where another modality of the spec is missing, or the case has no foreground.
    """
    present = [m for m in spec.modalities if m not in absent]
    missing = [m for m in present if m not in case.images]
    if missing:
        raise InputError(f"case {case.id}: the model needs {', '.join(missing)}; the case has {', '.join(case.images)}")
    orientation = ornt_transform(io_orientation(case.affine), axcodes2ornt(spec.orientation))
    spacing = voxel_sizes(case.affine)[np.argsort(orientation[:, 0])]
    views = [apply_orientation(case.images[m], orientation) for m in present]
    if spec.crop == "foreground":
        box = _foreground(views, spec.margin_mm / spacing, case.id)
    else:
        box = [(0, size) for size in views[0].shape]
    first, second, third = (Axis.over(*limits, own, wanted) for limits, own, wanted in zip(box, spacing, spec.spacing))
    axes = (first, second, third)

    affine = case.affine @ inv_ornt_aff(orientation, case.shape) @ _oriented_from_model(axes)
    size = tuple(axis.size for axis in axes)
    if math.prod(size) > VOXELS:
        raise InputError(
            f"case {case.id}: {describe_shape(size)} voxels at the model's spacing of {spec.spacing} mm; expected at "
            f"most {VOXELS}: check the spacing of the images, and of the model"
        )
    tensor = torch.zeros((len(spec.modalities), *size))
    prepared = Prepared(tensor, affine, case.shape, orientation, axes)

    def fill(modality: str, image: np.ndarray) -> None:
        crop = prepared.to_crop(image)
        if spec.bias_correction == "n4":
            crop = torch.from_numpy(correct_bias(crop.numpy(), spacing))
        tensor[spec.modalities.index(modality)] = to_model(_normalised(crop, spec), axes)

    for_each({m: case.images[m] for m in present}, fill)
    return prepared


def _normalised(image: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """(D, H, W) float32 -> the same bits as MONAI's ScaleIntensityRange and NormalizeIntensity give."""
    if spec.normalisation == "window":
        assert spec.intensity is not None  # as the spec has checked
        low, high = spec.intensity
        return ((image - low) / (high - low) * math.sqrt(12)).clamp(0.0, math.sqrt(12))
    if spec.normalisation == "zscore_box":
        return (image - image.mean().item()) / _deviation(image)
    inside = image != 0
    values = image[inside]
    if not values.numel():
        return image
    return image.masked_scatter(inside, (values - values.mean().item()) / _deviation(values))


def _deviation(values: torch.Tensor) -> float:
    return values.std(unbiased=False).item() or 1.0  # of a constant image nothing is left but 0


def preprocess_label(label_map: np.ndarray, case: Case, prepared: Prepared, count: int = 4) -> torch.Tensor:
    """The share of each label in each voxel of the model's grid.

    Without a change of spacing the shares are 0 and 1. On a coarser grid they are soft targets: through 1.5 mm and back
    they keep a mean Dice of ET of 0.955, where a hard label map keeps 0.883 (five enhancing BraTS cases).

    Args:
        label_map: (X, Y, Z), values 0 to count - 1.
        case: on whose grid it is.
        prepared: the case after `preprocess`.
        count: labels, background included.

    Returns:
        (count, D, H, W) float32.

    Raises:
        InputError: where the label map is not on the case's grid.
    """
    if label_map.shape != case.shape:
        raise InputError(f"case {case.id}: label map of shape {label_map.shape} on images of shape {case.shape}")
    crop = prepared.to_crop(label_map)
    return torch.stack([to_model((crop == label).float(), prepared.axes) for label in range(count)])


def _foreground(images: Sequence[np.ndarray], margin: np.ndarray, case_id: str) -> list[tuple[int, int]]:
    """First and last + 1 index, per axis, of the voxels nonzero in any image, `margin` voxels wider."""
    box = []
    for dim, size in enumerate(images[0].shape):
        others = tuple(d for d in range(3) if d != dim)
        hit = np.flatnonzero(np.any([image.any(axis=others) for image in images], axis=0))
        if not len(hit):
            raise InputError(f"case {case_id}: every voxel of every modality is 0; expected an image")
        extra = math.ceil(margin[dim] - 1e-6)
        box.append((max(0, int(hit[0]) - extra), min(size, int(hit[-1]) + 1 + extra)))
    return box


def _oriented_from_model(axes: Sequence[Axis]) -> np.ndarray:
    affine = np.diag([*(axis.step for axis in axes), 1.0])
    affine[:3, 3] = [axis.start + axis.centres()[0] for axis in axes]
    return affine
