"""From ideal values to an image: resolution, misregistration, bias field, noise, intensity scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from segmamba.datasets.phantom.lattice import CENTRE, Lattice

_WIDE = Lattice(8.0)
_SCALE = {"t1n": 700.0, "t1c": 800.0, "t2w": 500.0, "t2f": 650.0}  # median of white matter in real files


def draw_scanner(rng: np.random.Generator) -> dict[str, dict]:
    """What the scanner does to each modality, in mm, so that it holds for every grid."""
    shifted = rng.random() < 0.3
    slipped = rng.choice([*_SCALE]) if rng.random() < 0.15 else ""  # registered badly along z, as some real ones are
    slip = np.array([0, 0, rng.uniform(1.0, 3.0) * rng.choice([-1, 1])])
    return {
        m: {
            "blur": rng.uniform(0.2, 0.75),
            "thick": float(rng.uniform(2.5, 6)) if rng.random() < (0.15 if m == "t1c" else 0.45) else 0.0,
            "shift": rng.uniform(-0.6, 0.6, 3) * (shifted and m != "t1n") + slip * (m == slipped),
            "bias": abs(rng.normal(0, 0.1)) + 0.01,
            "field": _WIDE.noise(rng, 70.0) + _edge_of_the_coil(rng),
            "noise": rng.uniform(0.015, 0.065),
            "scale": scale * rng.lognormal(0, 0.5),
        }
        for m, scale in _SCALE.items()
    }


def _edge_of_the_coil(rng: np.random.Generator) -> np.ndarray:
    """On the lattice: a rise or fall of up to about 3 towards the lowest slices, in one modality out of three."""
    below = (CENTRE[2] - rng.uniform(0, 40) - _WIDE.points()[2]) / 50
    return (rng.random() < 0.35) * rng.normal(0, 2.5) * np.clip(below, 0, 1).reshape(_WIDE.shape)


def scan(
    rng: np.random.Generator,
    ideal: np.ndarray,
    mask: np.ndarray,
    points: np.ndarray,
    spacing: np.ndarray,
    setting: dict,
) -> np.ndarray:
    """What a scanner makes of ideal values.

    Args:
        rng: draws noise.
        ideal: (N,), values at the voxels of `mask`, in its order.
        mask: (X, Y, Z) bool, the brain.
        points: (3, N), RAS mm of these voxels.
        spacing: (3,), mm along X, Y and Z.
        setting: of the scanner: blur, shift, slice thickness, noise, bias field and scale.

    Returns:
        (X, Y, Z) float32 of whole numbers, 0 outside the mask and at least 1 within.
    """
    image = np.zeros(mask.shape, np.float32)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    mask = mask[box]
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = ideal
    sigma = np.sqrt(setting["blur"] ** 2 + 0.16 * (np.maximum(spacing, 1) ** 2 - 1)) / spacing
    sigma = np.where(sigma < 0.25, 0, sigma)
    # divided by the blurred mask, so that the dark outside does not leak in
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=3)
    volume = ndimage.gaussian_filter(volume, sigma, truncate=3) / np.maximum(weight, 1e-3)
    volume = np.where(weight > 1e-2, volume, 0.4)
    if np.any(setting["shift"]):
        volume = ndimage.shift(volume, setting["shift"] / spacing, order=1, mode="nearest")
    # large voxels are means of small ones, thick slices as well
    amplitude = setting["noise"] / np.prod(np.maximum(spacing, 1)) ** 0.35
    if setting["thick"] > 1.5 * spacing[2]:
        volume = _thick_slices(volume, setting["thick"] / spacing[2], lambda v: _rician(rng, v, amplitude))
    else:
        volume = _rician(rng, volume, amplitude)
    if spacing.max() < 1.3:  # resampled once, as published images are
        volume = ndimage.gaussian_filter(volume, 0.5)
    value = volume[mask] * np.exp(setting["bias"] * _WIDE.sample(setting["field"], points))
    image[box][mask] = np.clip(np.rint(value * setting["scale"]), 1, 32000)
    return image


def _rician(rng: np.random.Generator, volume: np.ndarray, amplitude: float) -> np.ndarray:
    """The magnitude of a complex signal with normal noise in both parts."""
    real, imaginary = amplitude * rng.standard_normal((2, *volume.shape), dtype=np.float32)
    return np.hypot(volume + real, imaginary)


def _thick_slices(volume: np.ndarray, ratio: float, noisy: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Slices `ratio` voxels thick along the last axis, made `noisy`, linearly interpolated back."""
    smooth = ndimage.gaussian_filter1d(volume, 0.35 * ratio, axis=2)
    count = volume.shape[2]
    stations = np.arange(0, count - 1 + ratio, ratio)
    down = noisy(_linear(smooth, stations.clip(0, count - 1)))
    return _linear(down, (np.arange(count) / ratio).clip(0, len(stations) - 1))


def _linear(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`volume` at fractional `positions` of its last axis."""
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, volume.shape[2] - 1)
    part = (positions - low).astype(np.float32)
    return volume[..., low] * (1 - part) + volume[..., high] * part
