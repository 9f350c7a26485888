"""Tumours of one training case carved into another: CarveMix (Zhang et al., MICCAI 2021, NeuroImage 2023).

Where d is the signed distance of a voxel to the donor's lesion, in mm and negative inside, the voxels with d below a
drawn limit are the donor's, image and label; the limit lies between half of the lesion's depth inside it and all of
its depth outside. Two scanners give one tissue different values: the donor's are brought to the host's, channel by
channel, by mean and deviation of the healthy tissue around, which CarveMix leaves to the reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from segmamba.errors import InputError
from segmamba.models.specs import PreprocessSpec

_SHELL = 5.0  # mm around what is carved, and around the lesion, where both are compared
_FEW = 50  # voxels of a shell below which the donor's intensities stay as they are
_STRETCH = 1.5  # most by which contrasts are raised or lowered: shells hold more or less fluid
_TUMOUR = 0.5  # share of a voxel that makes it the lesion's
_HEALTHY = 0.01  # share of a voxel up to which it is not


class Case(Protocol):
    """A training case, as far as carving knows it."""

    @property
    def cached(self) -> Path:
        """Its tensors (training.samples.store)."""
        ...

    @property
    def digest(self) -> str:
        """What tells it from the others."""
        ...


@dataclass(frozen=True)
class Graft:
    """Which part of which donor is carved into a sample."""

    donor: Path
    """Its tensors."""
    place: tuple[int, int, int]
    """The voxel of the donor in the middle of the sample."""
    centre: list[int]
    """The voxel of the host in the middle of the sample."""
    mirrored: int | None
    """The axis along which the donor is mirrored, if any."""
    draw: float
    """As of `carve`."""

    def start(self, first: Sequence[int], size: Sequence[int]) -> list[int]:
        """First voxel of the box of the donor that lies, mirrored or not, in the box of the host from `first` on."""
        starts = [p + f - c for p, f, c in zip(self.place, first, self.centre)]
        if (axis := self.mirrored) is not None:
            starts[axis] = self.place[axis] + self.centre[axis] - first[axis] - size[axis] + 1
        return starts


class Carving:
    """Which samples are given which tumour: drawn for each by its number, and none else is drawn otherwise for it."""

    def __init__(
        self,
        chance: float,
        spec: PreprocessSpec,
        cases: Sequence[Sequence[Case]],
        shares: Sequence[float],
        seed: int,
    ):
        """A tumour for samples with `chance`, of `cases` by source, of which each has its share.

        Raises InputError where fewer than two cases can be donors, labelled whole with a label other than background,
        and where zeros of the preprocessed images are not what is outside the brain.
        """
        check_background(spec)
        self.chance = chance
        self.spacing = spec.spacing
        self.left_right = next(axis for axis, letter in enumerate(spec.orientation) if letter in "LR")
        self.donors = [[case for case in group if _is_donor(case)] for group in cases]
        self.shares = np.asarray(shares, float)
        self.seed = seed
        if len({case.digest for group in self.donors for case in group}) < 2:
            raise InputError("augment.carve: fewer than two training cases have a tumour to carve out; set it to 0")

    def draw(
        self,
        host: Case,
        stored: Any,
        index: int,
        draw_centre: Callable[[Any, Sequence[int], np.random.Generator], list[int]],
    ) -> Graft | None:
        """What is carved into a sample.

        Args:
            host: the case of the sample.
            stored: its tensors, opened.
            index: number of the sample.
            draw_centre: of a case, its grid and a generator, where a sample is centred; here one in the donor.

        Returns:
            A part of another case; None for a sample that stays as it is, as all of a host labelled in part do.
        """
        rng = np.random.default_rng((self.seed, index, 1))
        if rng.random() >= self.chance or is_partly_labelled(stored):
            return None
        groups = [[case for case in group if case.digest != host.digest] for group in self.donors]
        weights = self.shares * [bool(group) for group in groups]
        if not weights.any():
            return None
        group = groups[rng.choice(len(groups), p=weights / weights.sum())]
        donor = group[rng.integers(len(group))]
        with safe_open(donor.cached, framework="pt") as opened:
            grid = opened.get_slice("image").get_shape()[1:]
            d, h, w = draw_centre(opened, grid, rng)
        same, across = self.opposite((d, h, w), grid, stored.get_slice("image").get_shape()[1:])
        mirrored = _distance_to_label(stored, across) > _distance_to_label(stored, same)  # where no tumour is yet
        centre = across if mirrored else same
        axis = self.left_right if mirrored else None
        return Graft(donor.cached, (d, h, w), centre, axis, float(rng.uniform(-1, 1)))

    def opposite(self, place: Sequence[int], grid: Sequence[int], other: Sequence[int]) -> tuple[list[int], list[int]]:
        """Where a voxel of a case lies in another, and its mirror image across the midline.

        Args:
            place: the voxel.
            grid: of its case; both are cropped to the brain, and a place is the same where it is the same part of each.
            other: grid of the other.

        Returns:
            The voxel of the other, and the one across.
        """
        same = [min(int((p + 0.5) * new / old), new - 1) for p, old, new in zip(place, grid, other)]
        across = [*same]
        across[self.left_right] = other[self.left_right] - 1 - same[self.left_right]
        return same, across


def check_background(spec: PreprocessSpec) -> None:
    """Raises InputError where zeros of a preprocessed image are not what is outside the brain."""
    if spec.normalisation != "zscore_nonzero":
        raise InputError(
            f"augment.carve: with preprocess.normalisation {spec.normalisation!r} a case does not tell where its "
            "brain ends; take 'zscore_nonzero', or set carve to 0"
        )


def places_of(stored: Any) -> list[str]:
    """Names of the tensors of an opened case that hold voxels of a label."""
    return [name for name in stored.keys() if name.startswith("places")]  # noqa: SIM118  safe_open is no dict


def is_partly_labelled(stored: Any) -> bool:
    """Whether an opened case is labelled in part."""
    return "valid" in stored.keys()  # noqa: SIM118  safe_open is no dict


def _is_donor(case: Case) -> bool:
    with safe_open(case.cached, framework="pt") as stored:
        return bool(places_of(stored)) and not is_partly_labelled(stored)


def _distance_to_label(stored: Any, place: Sequence[int]) -> float:
    """Voxels to the nearest labelled one that is kept."""
    labelled = [stored.get_tensor(name).float() for name in places_of(stored)]
    return float(torch.cdist(torch.cat(labelled), torch.tensor([place]).float()).min()) if labelled else math.inf


def carve(
    image: Tensor,
    label: Tensor,
    donor_image: Tensor,
    donor_label: Tensor,
    spacing: Sequence[float],
    draw: float,
) -> tuple[Tensor, Tensor]:
    """A host with the lesion of a donor in it.

    Args:
        image: the host's (C, D, H, W), normalised, 0 outside the brain.
        label: the shares of its labels (K, D, H, W).
        donor_image: what lies in the same place of the donor, of the same shape.
        donor_label: likewise.
        spacing: of D, H, W in mm.
        draw: from -1, as much again around the lesion, over 0, the lesion itself, to 1, what is deeper than half.

    Returns:
        New image and label; those given where the donor has no lesion there.
    """
    lesion = (donor_label[1:].sum(0) > _TUMOUR).numpy()
    if not lesion.any():
        return image, label
    box, taken, shell = _zones(lesion, spacing, draw)
    part = (slice(None), *box)
    own, theirs = image[part], donor_image[part]
    brain = (own != 0).any(0) & (theirs != 0).any(0)
    healthy = (label[part][1:].sum(0) <= _HEALTHY) & (donor_label[part][1:].sum(0) <= _HEALTHY)
    compared = torch.from_numpy(shell) & brain & healthy
    zone = torch.from_numpy(taken) & brain
    image, label = image.clone(), label.clone()
    image[part][:, zone] = _matched(theirs[:, zone], theirs[:, compared], own[:, compared])
    label[part][:, zone] = donor_label[part][:, zone]
    return image, label


def _zones(
    lesion: np.ndarray, spacing: Sequence[float], draw: float
) -> tuple[tuple[slice, ...], np.ndarray, np.ndarray]:
    """-> a box around the lesion (D, H, W), and in it what is taken over, and the shell."""
    from scipy.ndimage import distance_transform_edt, find_objects  # here: only who carves needs it

    (tight,) = find_objects(lesion.astype(np.uint8))
    near = _wider(tight, [1, 1, 1], lesion.shape)
    core = lesion[near]
    depth = np.zeros(lesion.shape, np.float32)
    depth[near] = min(spacing) if core.all() else distance_transform_edt(core, sampling=spacing)
    limit = -draw * float(depth.max()) / (2 if draw > 0 else 1)
    edge = max(limit, 0.0)
    box = _wider(tight, [math.ceil((edge + _SHELL) / step) for step in spacing], lesion.shape)
    outside = distance_transform_edt(~lesion[box], sampling=spacing)
    taken = outside < limit if limit > 0 else depth[box] > -limit
    return box, taken, (outside > 0) & (outside >= edge) & (outside <= edge + _SHELL)


def _wider(box: tuple[slice, ...], by: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(max(0, s.start - n), min(size, s.stop + n)) for s, n, size in zip(box, by, shape))


def _matched(values: Tensor, donor: Tensor, host: Tensor) -> Tensor:
    """`values` (C, N) of the donor as the host's, by the healthy voxels (C, M) of both."""
    if donor.shape[1] < _FEW:
        return values
    ratio = host.std(1, correction=0) / donor.std(1, correction=0).clamp(min=1e-6)
    ratio = ratio.clamp(1 / _STRETCH, _STRETCH)
    return (values - donor.mean(1)[:, None]) * ratio[:, None] + host.mean(1)[:, None]
