"""Whether two images of a case were given in each other's place, judged by their intensities.

T1 and T1c are told by the bright tail, which is heavier with contrast agent. For every other pair `fit` says how well
the images go with the places that they were given: fluid is dark in FLAIR as it is in T1, the two T1 are alike, and
away from fluid T2 is like FLAIR and not like T1. It is compared with what it would be after the exchange; all of its
terms are differences of correlations, and count alike. What it tells, and what it does not, is measured in
Testing/benchmarks/swap_guard.py. Nothing here is certain: it is a reason to look. The sentences for users are written
where they are shown: cases/swaps.py in the engine, SegMambaSlicerLib/volumes/swaps.py, translated, in the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
COARSE, POINTS = 40_000, 30_000  # points on which the brain is found, air and all, and on which it is judged
FEWEST = 500  # common points of tissue below which nothing is said
# By how much another order has to fit better. An exchange that is undone wins as much as it lost, so 0 lies in the
# middle; the rest is caution. The right order lost by up to 0.24 in 72 brains (0.42 was its next smallest gain), and
# by up to 0.34 with the skull on, as a rule not registered
LIMIT, HEAD_LIMIT = 0.3, 0.5
_LARGEST_BRAIN_ML = 2300.0  # a convex hull; brains have up to 1700
_DEPTH_MM = 20.0  # below the skin: past scalp and bone
_RIM_MM = 10.0  # below the surface of a brain: what stripping leaves of fat there is bright on T1, and thinner on T1c
_HEIGHT_MM = 110.0  # from the top of the head down: no jaw, no neck
_FLUID = 75  # percentile of T2 above which there may be fluid
TITLES = {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"}


@dataclass(frozen=True, eq=False)
class Samples:
    """What the images show at common points of the brain."""

    values: dict[str, np.ndarray]
    """Modality -> (N,) float64, the middle half scaled to 1; {} where there are too few points."""
    is_head: bool
    """Whether the skull is on, so that only what lies deep in the head was taken; of a brain all but its rim."""


def find_exchange(found: Mapping[tuple[str, str], float], is_head: bool) -> tuple[str, str] | None:
    """The pair that `gains` speaks for most clearly, if clearly enough."""
    limit = HEAD_LIMIT if is_head else LIMIT
    pairs = [pair for pair in found if found[pair] < -limit]
    # whatever stands in the place of T1 or T1c has its own bright tail: another pair that is found says more
    return min([pair for pair in pairs if pair != ("t1n", "t1c")] or pairs, key=found.__getitem__, default=None)


def gains(values: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """By how much the images fit better than with each pair exchanged: negative where the exchange is the better.

    Pairs that the images at hand cannot tell are left out.
    """
    names = [name for name in MODALITIES if name in values]
    own = fit(values) if names else 0.0
    return {
        (one, other): contrast(values[one], values[other])
        if (one, other) == ("t1n", "t1c")  # fit says the same of both
        else own - fit({**values, one: values[other], other: values[one]})
        for one, other in combinations(names, 2)
        if _can_be_told(one, other, names)
    }


def _can_be_told(one: str, other: str, names: Sequence[str]) -> bool:
    """With one T1 only, T2 and FLAIR are both needed, and which of T1 and T2 is which remains open.

    With two T1 but no T2 that of T1 and FLAIR does: a T1 may be liker to FLAIR than to T1c.
    """
    if {"t1n", "t1c"} <= set(names):
        return "t2w" in names or other == "t1c"
    return len(names) == 3 and (one, other) not in (("t1n", "t2w"), ("t1c", "t2w"))


def fit(values: Mapping[str, np.ndarray]) -> float:
    """How well images (N,), at common points and on the scale of `Samples`, go with their places; no unit."""
    t1n, t1c, t2w, t2f = (values.get(name) for name in MODALITIES)
    t1 = [image for image in (t1n, t1c) if image is not None]
    total = 0.0
    if t1n is not None and t1c is not None:
        total += _correlation(_ranks(t1n), _ranks(t1c))
    if t1 and t2w is not None and t2f is not None:
        both = t1[0] if len(t1) == 1 else t1[0] + t1[1]
        total += _correlation(both, t2f) - _correlation(both, t2w)
    if t2w is not None:
        dry = t2w < np.percentile(t2w, _FLUID)
        order = _ranks(t2w[dry])
        if t2f is not None:
            total += _correlation(order, _ranks(t2f[dry]))
        if t1:
            total -= sum(_correlation(order, _ranks(image[dry])) for image in t1) / len(t1)
    return total


def sample_together(images: Mapping[str, np.ndarray], affines: Mapping[str, np.ndarray]) -> Samples:
    """Images (X, Y, Z), each with its affine to RAS mm, at common points of the brain, on a lattice of T1c's axes."""
    first = "t1c" if "t1c" in images else next(iter(images))
    size, spacing = np.array(images[first].shape), np.linalg.norm(affines[first][:3, :3], axis=0)
    edge = np.cbrt((size * spacing).prod() / COARSE)
    step = np.maximum(np.floor(edge / spacing + 0.01).astype(int), 1)
    axes = [np.arange(0, n, s) for n, s in zip(size, step)]
    index = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    world = _world(affines[first], index)
    values, common, shown = _look_up(images, affines, world)
    hull = _hull(shown.reshape([len(axis) for axis in axes]))
    spacing = step * spacing
    is_head = bool(np.count_nonzero(hull) * spacing.prod() / 1000 > _LARGEST_BRAIN_ML)
    tissue = common & shown & _eroded(hull, spacing, _DEPTH_MM if is_head else _RIM_MM).ravel()
    if is_head:  # scalp and marrow outshine the brain, and have contrasts of their own
        top = np.percentile(world[2, hull.ravel()], 99.8)
        tissue &= world[2] > top - _HEIGHT_MM
    found = index[:, tissue]
    if found.shape[1] < FEWEST:
        return Samples({}, is_head)
    parts = max(1, round(np.cbrt(POINTS / max(found.shape[1], 1))))
    if parts > 1:  # each point becomes a block of them
        inner = ((np.indices((parts,) * 3).reshape(3, -1) + 0.5) / parts - 0.5) * step[:, None]
        found = (found[:, :, None] + inner[:, None, :]).reshape(3, -1)
        values, common, shown = _look_up(images, affines, _world(affines[first], found))
        tissue = common & shown
    return Samples({name: _scaled(found[tissue]) for name, found in values.items()}, is_head)


def _world(affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    return affine @ np.vstack([index, np.ones(index.shape[1])])


def _look_up(
    images: Mapping[str, np.ndarray], affines: Mapping[str, np.ndarray], world: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Of points (4, N): the nearest voxels' values by image, whether all images show them, and more than air there."""
    values = {}
    common = np.ones(world.shape[1], bool)
    brightness = np.zeros(world.shape[1])
    for name, image in images.items():
        place = np.rint((np.linalg.inv(affines[name]) @ world)[:3]).astype(int)
        inside = ((place >= 0) & (place < np.array(image.shape)[:, None])).all(0)
        found = np.zeros(world.shape[1])
        found[inside] = image[tuple(place[:, inside])]
        found[~np.isfinite(found)] = 0
        common &= inside & (found > 0)
        bright = np.percentile(found[inside], 98) if inside.any() else 0
        brightness = brightness + found / (bright or 1)
        values[name] = found
    return values, common, brightness > 0.15 * len(images)  # air around a head that has its skull is noise, not 0


def contrast(t1n: np.ndarray, t1c: np.ndarray) -> float:
    """How much heavier the bright tail of T1c is, in itself and after T1 is taken away: -1 to 1, the rest cut off."""
    more = t1c - t1n
    low, high = np.percentile(more - np.median(more), [1, 99])
    brightest = [max(np.percentile(image, 99.5), 0.05) for image in (t1c, t1n)]
    return float(np.clip((low + high) / max(high - low, 1e-6) + np.log(brightest[0] / brightest[1]), -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """For Spearman's correlation; ties, of few grey values, in the order in which they come."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread else 0.0


def _scaled(values: np.ndarray) -> np.ndarray:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return (values - middle) / max(high - low, 1e-6)


def _hull(mask: np.ndarray) -> np.ndarray:
    """What has something of `mask` (X, Y, Z) on both sides along every axis."""
    hull = np.ones_like(mask)
    for axis in range(3):
        before = np.maximum.accumulate(mask, axis)
        hull &= before & np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis)
    return hull


def _eroded(mask: np.ndarray, spacing: np.ndarray, depth: float) -> np.ndarray:
    """What lies `depth` mm inside `mask` along every axis; beyond the field of view there is nothing."""
    for axis, mm in enumerate(spacing):
        reach = round(depth / mm)
        width = [(reach + 1, reach) if axis == other else (0, 0) for other in range(3)]
        counts = np.cumsum(np.pad(mask, width), axis, dtype=np.int32)
        ends = np.arange(mask.shape[axis])
        mask = np.take(counts, ends + 2 * reach + 1, axis) - np.take(counts, ends, axis) == 2 * reach + 1
    return mask
