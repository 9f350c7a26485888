"""What augmentation changes of intensities: each change for many channels at once, on any device.

A change has two halves. What is drawn for the channels of a sample is a small array, drawn where samples are made;
it is applied to the channels of a whole batch together, where the network is. Formulas, chances and ranges are those
of MONAI's transforms of the same names, which work on one sample of a CPU at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmamba.training.axes import along_axes, gaussians

_VOLUME = (1, 2, 3)  # the axes of a channel, in (n, D, H, W)
_POWERS = [(i, j, k) for i in range(3) for j in range(3 - i) for k in range(3 - i - j)]  # of degree 2 at most
_SHADING = 0.5  # largest coefficient

# the channels of a sample that are changed, and what was drawn for each: (n, values)
Drawn = tuple[tuple[int, ...], np.ndarray]


@dataclass(frozen=True)
class Alteration:
    """One kind of change."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    """What is drawn for n channels of a sample: (n, values)."""
    apply: Callable[[Tensor, np.ndarray], Tensor]
    """Channels (n, D, H, W), which it may write into, and what was drawn for each -> the channels changed."""
    sample: float = 1.0
    """Chance that a sample is changed."""
    channel: float = 1.0
    """Chance of each channel of such a sample: MRI sequences differ in sharpness and contrast each for itself."""

    def draw_for(self, channels: int, rng: np.random.Generator) -> Drawn:
        """Which channels of one sample are changed, and how."""
        if rng.random() >= self.sample:
            return (), np.empty((0, 0))
        chosen = tuple(np.flatnonzero(rng.random(channels) < self.channel).tolist())
        return chosen, self.draw(rng, len(chosen))


def alter(image: Tensor, alterations: Sequence[Alteration], drawn: Sequence[Sequence[Drawn]]) -> None:
    """Changes the intensities of a batch, in place.

    Args:
        image: (B, C, D, H, W).
        alterations: in order.
        drawn: of each sample, one for each of them.
    """
    channels = image.flatten(0, 1)
    for alteration, of_samples in zip(alterations, zip(*drawn)):
        rows = [number * image.shape[1] + c for number, (chosen, _) in enumerate(of_samples) for c in chosen]
        if rows:
            values = np.concatenate([values for chosen, values in of_samples if chosen])
            places = torch.tensor(rows).to(image.device, non_blocking=True)
            channels.index_copy_(0, places, alteration.apply(channels.index_select(0, places), values))


def alterations(name: str) -> tuple[Alteration, ...]:
    """Those of one of the sets of training.augment, in order."""
    gamma = _uniform(0.7, 1.5)
    inverted = partial(adjust_gamma, inverted=True)
    gammas = Alteration(gamma, inverted, channel=0.1), Alteration(gamma, adjust_gamma, channel=0.3)
    brightness = Alteration(_uniform(-0.3, 0.3), shift, 0.15)
    if name == "paper":
        return brightness, *gammas
    published = (
        Alteration(_draw_noise, add_noise, 0.1),
        Alteration(_uniform(0.5, 1.0, 3), blur, 0.2, 0.5),
        Alteration(_uniform(-0.25, 0.25), scale, 0.15),
        Alteration(_uniform(-0.25, 0.25), scale_about_mean, 0.15),
        Alteration(_uniform(0.5, 1.0), coarsen, 0.25, 0.5),
        *gammas,
    )
    if name == "released":
        return published
    field = _uniform(-_SHADING, _SHADING, len(_POWERS))
    # of one modality, and of the coil for all
    return *published, brightness, Alteration(field, shade, 0.5, 0.5), Alteration(_alike(field), shade, 0.5)


def _uniform(low: float, high: float, count: int = 1) -> Callable[[np.random.Generator, int], np.ndarray]:
    return partial(_draw_uniform, low, high, count)


def _draw_uniform(low: float, high: float, count: int, rng: np.random.Generator, channels: int) -> np.ndarray:
    return rng.uniform(low, high, (channels, count))


def _alike(draw: Callable) -> Callable[[np.random.Generator, int], np.ndarray]:
    return partial(_draw_alike, draw)


def _draw_alike(draw: Callable, rng: np.random.Generator, channels: int) -> np.ndarray:
    return np.repeat(draw(rng, 1), channels, axis=0)


def _draw_noise(rng: np.random.Generator, channels: int) -> np.ndarray:
    """A deviation for all, up to 0.1, and a seed for each."""
    return np.stack([np.full(channels, rng.uniform(0, 0.1)), rng.integers(2**32, size=channels)], axis=1)


def add_noise(x: Tensor, values: np.ndarray) -> Tensor:
    """Normal noise; values: deviation and seed."""
    for channel, (deviation, seed) in zip(x, values):
        generator = torch.Generator(x.device).manual_seed(int(seed))
        channel.add_(torch.randn(channel.shape, generator=generator, device=x.device), alpha=deviation)
    return x


def blur(x: Tensor, values: np.ndarray) -> Tensor:
    """Smooths by a gaussian; values: its deviation along D, H, W in voxels."""
    sigmas = _on(values, x)
    places = [torch.arange(side, device=x.device, dtype=torch.float) for side in x.shape[1:]]
    return along_axes(x, *(gaussians(place, place, sigma) for place, sigma in zip(places, sigmas.unbind(1))))


def scale(x: Tensor, values: np.ndarray) -> Tensor:
    """Times 1 + value."""
    return x * (1 + _column(values, x))


def scale_about_mean(x: Tensor, values: np.ndarray) -> Tensor:
    """Contrast: times 1 + value about the mean, held within the range that was."""
    mean = x.mean(_VOLUME, keepdim=True)
    low, high = x.amin(_VOLUME, keepdim=True), x.amax(_VOLUME, keepdim=True)
    return torch.lerp(mean, x, 1 + _column(values, x)).clamp_(low, high)


def coarsen(x: Tensor, values: np.ndarray) -> Tensor:
    """As if taken with larger voxels; values: the share of the voxels along each axis that is kept."""
    sides = set(x.shape[1:])
    made = {side: torch.stack([_coarse(side, share, x.device) for share in values[:, 0]]) for side in sides}
    return along_axes(x, *(made[side] for side in x.shape[1:]))


def _coarse(side: int, share: float, device: torch.device) -> Tensor:
    """(side, side): the nearest of so many voxels, and straight lines between them."""
    kept = F.interpolate(torch.eye(side, device=device)[None], size=max(1, round(side * share)), mode="nearest")
    return F.interpolate(kept, size=side, mode="linear", align_corners=False)[0].mT


def adjust_gamma(x: Tensor, values: np.ndarray, inverted: bool = False) -> Tensor:
    """Raises the range to the power of gamma; mean and deviation stay.

    Args:
        x: (n, D, H, W).
        values: gamma.
        inverted: of the negative.

    Returns:
        (n, D, H, W).
    """
    sign = -1 if inverted else 1
    x = x * sign
    deviation, mean = torch.std_mean(x, _VOLUME, keepdim=True)
    low = x.amin(_VOLUME, keepdim=True)
    reach = x.amax(_VOLUME, keepdim=True) - low
    y = ((x - low) / (reach + 1e-7)).pow_(_column(values, x)).mul_(reach).add_(low)
    now, middle = torch.std_mean(y, _VOLUME, keepdim=True)
    return y.sub_(middle).mul_(deviation / (now + 1e-8)).add_(mean).mul_(sign)


def shift(x: Tensor, values: np.ndarray) -> Tensor:
    """Plus value."""
    return x + _column(values, x)


def shade(x: Tensor, values: np.ndarray) -> Tensor:
    """Adds a smooth field, as of a coil; values: coefficients of a polynomial of degree 2, mostly within +-0.8.

    A coil's field b multiplies what the scanner measures. Normalised to mean 0 and standard deviation 1 that is
    b mean / std + b x, and mean / std of a real brain is 2 to 7: what adds is the most of it, and it is what is added.
    """
    coefficients = np.zeros((len(values), 3, 3, 3))
    coefficients[(slice(None), *np.transpose(_POWERS))] = values
    legendre = []
    for side in x.shape[1:]:
        t = torch.linspace(-1, 1, side, device=x.device)
        legendre.append(torch.stack([torch.ones_like(t), t, 1.5 * t**2 - 0.5], dim=1)[None])
    return x + along_axes(_on(coefficients, x), *legendre)


def _on(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device, non_blocking=True)


def _column(values: np.ndarray, x: Tensor) -> Tensor:
    """(n, 1) -> (n, 1, 1, 1)."""
    return _on(values, x).view(-1, 1, 1, 1)
