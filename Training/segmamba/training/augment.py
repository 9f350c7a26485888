"""Augmentation of training patches: what is done to a sample is drawn on its own, and done to a batch on any device.

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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmamba.training.intensity import Alteration, Drawn, alter, alterations
from segmamba.training.warp import Warp, draw_elastic

_VALID = 0.99  # share of a voxel, after a warp, that must be known

Sample = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Change:
    """What was drawn for one sample."""

    warp: Warp | None = None
    """How the patch is deformed."""
    mirrored: tuple[int, ...] = ()
    """Axes that are flipped: 1 D, 2 H, 3 W."""
    intensities: tuple[Drawn, ...] = ()
    """For each alteration of the augmentation."""
    missing: tuple[int, ...] = ()
    """Channels that are 0 everywhere."""


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
    intensity: tuple[Alteration, ...] = ()
    """The changes of the image, in order."""
    modality_dropout: float = 0.0
    """Chance that a sample is without channels, which are then 0 everywhere."""

    def draw(self, channels: int, rng: np.random.Generator) -> Change:
        """What is done to one sample of so many channels."""
        warp = self.draw_warp(rng)
        mirrored = tuple(axis for axis in (1, 2, 3) if rng.random() < self.mirror)
        intensities = tuple(alteration.draw_for(channels, rng) for alteration in self.intensity)
        missing = _draw_missing(channels, rng) if rng.random() < self.modality_dropout else ()
        return Change(warp, mirrored, intensities, missing)

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
        return replace(warp, elastic=draw_elastic(rng)) if elastic else warp

    def make_batch(self, samples: Sequence[Sample], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Makes a batch of samples, on `device`.

        Args:
            samples: of training.samples.PatchDataset, with what was drawn for each.
            device: where the network is.

        Returns:
            {"image": (B, C, *patch) float32, "label": (B, K, *patch) float32, "case": ids}. label: the share of each
            label in each voxel; where the label is not known, 0 of every one, of background too.
        """
        first = samples[0]
        image = torch.zeros((len(samples), len(first["image"]), *first["patch"]), device=device)
        label = torch.zeros((len(samples), first["labels"], *first["patch"]), device=device)
        for sample, one, shares in zip(samples, image, label):
            _fill(sample, one, shares)
        changes = [sample["change"] for sample in samples]
        if self.intensity:
            head = (image != 0).any(1, keepdim=True)  # gamma and shifts move the background away from 0
            alter(image, self.intensity, [change.intensities for change in changes])
            image *= head
        for one, change in zip(image, changes):
            for channel in change.missing:
                one[channel] = 0
        return {"image": image, "label": label, "case": [sample["case"] for sample in samples]}


def _fill(sample: Sample, image: Tensor, label: Tensor) -> None:
    """Puts a sample, warped and mirrored, into its place of a batch, (C, *patch) and (K, *patch), both 0 so far."""
    change: Change = sample["change"]
    names = [name for name in ("image", "label", "valid") if name in sample]
    parts = [sample[name].to(image.device, non_blocking=True) for name in names]
    parts[1] = _shares(parts[1], len(label))
    if change.warp:
        sides = parts[0].shape[1:]
        shift = [a + (side - size) / 2 for a, side, size in zip(sample["start"], sample["patch"], sides)]
        box = change.warp.apply(torch.cat([part.float() for part in parts]), sample["patch"], shift)
        parts = list(box.flip(change.mirrored).split([len(part) for part in parts]))
        place = [slice(None)] * 3
    else:
        parts, place = _mirrored(parts, sample["start"], sample["patch"], change.mirrored)
    inside = (slice(None), *place)
    image[inside] = parts[0]
    label[1:][inside] = parts[1].to(label.dtype)
    label[0] = 1 - label[1:].sum(0)  # what lies outside the image is background
    if len(parts) > 2:
        known = torch.zeros_like(label[:1])
        known[inside] = (parts[2] > _VALID).to(known.dtype)
        label *= known


def _mirrored(
    parts: Sequence[Tensor], start: Sequence[int], patch: Sequence[int], axes: Sequence[int]
) -> tuple[list[Tensor], list[slice]]:
    """-> boxes, mirrored and cut to the patch, and where in it they lie."""
    sides = parts[0].shape[1:]
    start = [n - side - a if axis in axes else a for axis, a, side, n in zip((1, 2, 3), start, patch, sides)]
    seen = [slice(max(0, a), min(n, a + side)) for a, side, n in zip(start, patch, sides)]
    place = [slice(part.start - a, part.stop - a) for part, a in zip(seen, start)]
    return [(part.flip(list(axes)) if axes else part)[:, seen[0], seen[1], seen[2]] for part in parts], place


def _shares(label: Tensor, count: int) -> Tensor:
    """A stored label, (1, D, H, W) uint8 or (K, D, H, W) half -> shares (K - 1, D, H, W) without background."""
    if label.dtype != torch.uint8:
        return label[1:]
    values = torch.arange(1, count, dtype=torch.uint8, device=label.device)
    return label == values.view(-1, 1, 1, 1)


def build_augmentation(name: str, modality_dropout: float = 0.0, mirror: bool = True) -> Augmentation:
    """One of the sets above.

    Args:
        name: of the set.
        modality_dropout: chance that a sample is without channels.
        mirror: whether axes are flipped, where the set does it.

    Returns:
        The augmentation.
    """
    if name == "none":
        return Augmentation(modality_dropout=modality_dropout)
    chances = {"paper": (0.2, 0.2, 0.2), "released": (0.2, 0.2, 0.0), "segmamba": (0.3, 0.3, 0.0)}[name]
    chance = 0.5 if mirror else 0.0
    return Augmentation(*chances, mirror=chance, intensity=alterations(name), modality_dropout=modality_dropout)


def _draw_missing(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Which of `count` channels a sample is without: one with half the chance, two with a quarter, ...; never all."""
    if count == 1:
        return ()
    numbers = np.arange(1, count)
    weights = 0.5**numbers
    return tuple(rng.permutation(count)[: rng.choice(numbers, p=weights / weights.sum())].tolist())
