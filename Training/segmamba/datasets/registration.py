"""Whether the images of a case lie on one another: where one that was moved would fit better than where it lies.

The measure is normalised mutual information (Studholme et al., Pattern Recognition 32, 1999) of ranked intensities on
a grid of about 2 mm, within both foregrounds, their rims left out, so that a common brain mask does not decide it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy import ndimage

from segmamba.cases.case import Case
from segmamba.datasets.reading import foreground

_STEP_MM = 2.0  # the grid of the search
_FIRST_MM = 12.0  # how far along each axis the search looks before it climbs
_MOST_MM = 16.0
_MIRROR_MM = 4.0  # how far a mirrored image may be moved: the middle of the box need not be that of the head
_RIM = 2  # voxels of that grid
_BINS = 32
_FEWEST = 2000  # voxels within both foregrounds
_OVERLAP = 0.85  # of the overlap as given: fewer voxels give more information by chance
SHIFT_MM = 4.0  # smaller ones are not reported: BraTS itself has up to 3 mm
# Of the information there is, by which another place must have more. 63 real cases, 189 images: up to 0.24 where they
# lie, but for five, of which one fits 10 mm away by 0.60; a third of them moved by 5 mm 0.40 or more, but for one.
_SHIFTED = 0.25
_MIRRORED = 0.13  # likewise: up to 0.09 as they are, 0.19 or more mirrored, but for one


@dataclass(frozen=True)
class Misplaced:
    """An image that fits the others better elsewhere."""

    modality: str
    """The image that fits better elsewhere."""
    shift_mm: tuple[float, float, float] | None = None
    """Where to, along the stored axes."""
    mirrored: str = ""
    """Or along which axis of the body ("left-right", ...)."""

    @property
    def distance(self) -> float:
        """The length of the shift in mm; 0 where there is none."""
        return float(np.linalg.norm(self.shift_mm)) if self.shift_mm else 0.0


def find_misplaced(case: Case) -> list[Misplaced]:
    """Images that do not lie on the reference (T1c, or the first), as far as this can be told. Empty for one image.

    Where all of several others seem moved by the same, it is the reference that is.
    """
    reference = "t1c" if "t1c" in case.images else next(iter(case.images))
    spacing = voxel_sizes(case.affine)
    factors = np.maximum(np.rint(_STEP_MM / spacing).astype(int), 1)
    fixed, found = _ranks(case.images[reference], factors), []
    others = [m for m in case.images if m != reference]
    for modality in others:
        best = _best_place(fixed, _ranks(case.images[modality], factors), spacing * factors)
        if best is None:
            continue
        shift, axis = best
        if axis is not None:
            code = aff2axcodes(case.affine)[axis]
            names = {"R": "left-right", "L": "left-right", "A": "front-back", "P": "front-back"}
            found.append(Misplaced(modality, mirrored=names.get(code, "top-bottom")))
        elif np.linalg.norm(shift * spacing * factors) >= SHIFT_MM:
            found.append(Misplaced(modality, _three(shift * spacing * factors)))
    return _blame_reference(found, others, reference)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _blame_reference(found: list[Misplaced], others: list[str], reference: str) -> list[Misplaced]:
    if len(others) < 2 or len(found) < len(others):
        return found
    axes = [f.mirrored for f in found if f.mirrored]
    if 2 * len(axes) > len(found) and len(set(axes)) == 1:
        return [Misplaced(reference, mirrored=axes[0])]
    shifts = [np.array(f.shift_mm) for f in found if f.shift_mm]
    if len(shifts) == len(found) and max(np.linalg.norm(s - shifts[0]) for s in shifts) < SHIFT_MM:
        return [Misplaced(reference, _three(0 - np.mean(shifts, 0)))]
    return found


def _ranks(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """On the coarser grid: 0 outside the foreground and on its rim, else 1 to _BINS - 1 by rank."""
    inside = ndimage.binary_erosion(_blocks(foreground(image), factors) == 1, iterations=_RIM)
    ranks = np.zeros(inside.shape, np.int16)
    if inside.any():
        values = _blocks(image, factors)[inside]
        edges = np.quantile(values, np.linspace(0, 1, _BINS)[1:-1])
        ranks[inside] = 1 + np.searchsorted(edges, values)
    return ranks


def _blocks(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Means over blocks of `factors` voxels; what is over at the far end is left out."""
    size = [n // f for n, f in zip(image.shape, factors)]
    image = image[tuple(slice(n * f) for n, f in zip(size, factors))]
    shape = [v for pair in zip(size, factors) for v in pair]
    return image.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)


def _best_place(fixed: np.ndarray, moving: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, int | None] | None:
    """(shift in voxels, None), or (no shift, axis mirrored); None where too little is common to both.

    No shift where no other place is clearly better (_SHIFTED, _MIRRORED).
    """
    overlap = int(np.count_nonzero((fixed > 0) & (moving > 0)))
    here = (0, 0, 0)
    if overlap < _FEWEST:
        return None

    @functools.cache
    def fit(shift: tuple[int, ...]) -> float:
        return _information(fixed, moving, shift, _OVERLAP * overlap)

    line: list[tuple[int, ...]] = [here]
    for axis in range(3):
        reach = round(_FIRST_MM / step[axis])
        steps = range(-reach, reach + 1, 2 if reach > 3 else 1)
        line += [tuple(k if a == axis else 0 for a in range(3)) for k in steps]
    best = _climb(max(line, key=fit), fit, step, _MOST_MM)
    turned = [_fit_mirrored(fixed, moving, axis, step, _OVERLAP * overlap) for axis in range(3)]
    chance = _chance(overlap)

    def gain(other: float) -> float:  # of what is hardly more than chance every place gains something
        return (other - fit(here)) / max(fit(here) - 1 - chance, 2 * chance)

    is_shifted = gain(fit(best)) > _SHIFTED
    if gain(max(turned)) > _MIRRORED and (max(turned) > fit(best) or not is_shifted):
        return np.zeros(3), int(np.argmax(turned))
    return np.array(best if is_shifted else here), None


def _fit_mirrored(fixed: np.ndarray, moving: np.ndarray, axis: int, step: np.ndarray, fewest: float) -> float:
    """How well an image fits mirrored along an axis of its box, and moved a little."""
    box = ndimage.find_objects((moving > 0).astype(np.uint8))[0]
    flipped = moving.copy()
    flipped[box] = np.flip(moving[box], axis)

    @functools.cache
    def fit(shift: tuple[int, ...]) -> float:
        return _information(fixed, flipped, shift, fewest)

    return fit(_climb((0, 0, 0), fit, step, _MIRROR_MM))


def _climb(
    best: tuple[int, ...], fit: Callable[[tuple[int, ...]], float], step: np.ndarray, most_mm: float
) -> tuple[int, ...]:
    """From voxel to neighbouring voxel while the fit grows, at most so far from where the image lies."""
    while True:
        near = [tuple(int(v) for v in np.add(best, d)) for d in itertools.product((-1, 0, 1), repeat=3)]
        better = max((s for s in near if np.linalg.norm(s * step) <= most_mm), key=fit)
        if fit(better) <= fit(best):
            return best
        best = better


def _information(fixed: np.ndarray, moving: np.ndarray, shift: tuple[int, ...], fewest: float) -> float:
    """(H(A) + H(B)) / H(A, B) over voxels that are foreground in both; 0 where they are fewer than `fewest`."""
    to = tuple(slice(max(0, k), n + min(0, k)) for k, n in zip(shift, fixed.shape))
    of = tuple(slice(max(0, -k), n + min(0, -k)) for k, n in zip(shift, fixed.shape))
    a, b = fixed[to], moving[of]
    both = (a > 0) & (b > 0)
    count = int(np.count_nonzero(both))
    if count < fewest:
        return 0.0
    joint = np.bincount(a[both].astype(np.int64) * _BINS + b[both], minlength=_BINS * _BINS).reshape(_BINS, _BINS)
    joint = joint / count
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / _entropy(joint.ravel())


def _chance(count: int) -> float:
    """What `_information` finds beyond 1 in `count` voxels of two images that have nothing to do with one another."""
    ranks = _BINS - 1
    return (ranks - 1) ** 2 / (2 * count) / (2 * np.log(ranks))


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
