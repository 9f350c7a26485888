"""The outside of a head or brain in MR, brought to 0, which is what every later step takes for "no image".

Files come with outsides of -1024, of 5, of whatever 0 became when the whole volume was normalised, with a little noise,
or with 0 in the middle of the values of a brain that was normalised by itself. What is there is judged on the twelve
edges of the volume, where no head reaches, not even that of an image cut close to it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import ndimage

_CONSTANT = 0.5  # share of the edges' voxels that hold the same value
_FAINT = 0.005  # of the middle of the image: what an image with its skull has around it is 2 to 8 times as much
_WIDE = 8.0  # times the mean distance from the middle: beyond every value of normal noise but one in a billion
_DARK = 0.1  # of the brightest values: below lies no tissue
OVERSHOOT = 0.1  # share of negative voxels below which they come from interpolation, and stay
_ZEROS = 0.2  # share of the volume that is 0 where 0 is an outside


def clear_background(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """An image whose outside is 0 where it has an outside, and notes of what was done.

    An image that is as it should be comes back itself. One whose outside is neither constant nor nearly so, as of a
    head with noise in the air, keeps its values; but air far below 0 is raised to it. `array`: (X, Y, Z) float32,
    finite, not constant.
    """
    notes: list[str] = []
    edges = _edges(array)
    values, counts = np.unique(edges, return_counts=True)
    if counts.max() > _CONSTANT * edges.size:
        outside = values[counts.argmax()]
        if outside != 0:
            array, note = _from_constant(array, outside)
            notes.append(note)
            edges = _edges(array)
    if np.any(edges):
        array, note = _from_noise(array, edges)
        notes += note
    array, note = _above_zero(array)
    return array, notes + note


def _from_constant(array: np.ndarray, outside: np.float32) -> tuple[np.ndarray, str]:
    inside = array != outside
    rest = array[inside]
    low, high = np.percentile(rest[:: max(1, rest.size // 200_000)], (1, 99))
    # a value that was filled in, far from all others or with others on its wrong side: 0 would have done as well
    filled_in = outside < 0 <= rest.min() or outside > low or low - outside > 2 * (high - low) > 0
    if filled_in:
        return np.where(inside, array, np.float32(0)), f"the outside was {outside:.6g} everywhere: set to 0"
    return array - outside, f"the outside was {outside:.6g} everywhere: all values moved so that it is 0"


def _from_noise(array: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, list[str]]:
    outside = np.float32(np.median(edges))
    away = np.abs(array - outside)
    bright = _DARK * np.percentile(away[:: max(1, len(away) // 64)], 99.5)
    tissue = away[away > bright]
    near = edges[np.abs(edges - outside) <= bright]
    if not tissue.size or near.size < _CONSTANT * edges.size:
        return array, []
    spread = float(np.abs(near - outside).mean())
    if spread == 0 == outside:
        return array, []
    if spread > _FAINT * float(np.median(tissue)):
        if near.min() >= 0 or outside >= 0:
            return array, []
        return array - near.min(), [f"the air around the head was at {outside:.4g}: all values raised to 0 and more"]
    dark = away <= max(_WIDE * spread, _loudest(away, bright, _WIDE * _FAINT * float(np.median(tissue))))
    pieces, _ = ndimage.label(dark)
    touching = np.unique(_edges(pieces))
    air = np.isin(pieces, touching[touching > 0])
    if not array[air].any():
        return array, []
    note = f"faint noise around the head (up to {np.abs(array[air] - outside).max():.3g}) set to 0"
    return np.where(air, np.float32(0), array - min(outside, np.float32(0))), [note]


def _loudest(away: np.ndarray, bright: float, loud: float) -> float:
    """The largest distance from the outside on the edges, up to `bright`, that is no tissue.

    Where a brain was cut through, dark tissue lies there too: above `loud` it hangs together with bright tissue.
    """
    pieces, _ = ndimage.label(away > loud)
    tissue = np.unique(pieces[away > bright])
    on_edges = _edges(away)
    alone = ~np.isin(_edges(pieces), tissue[tissue > 0])
    return float(on_edges[alone & (on_edges <= bright)].max(initial=0))


def _above_zero(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A brain that was normalised by itself, with an outside of 0 among its values, raised above it."""
    inside = array != 0
    count, negative = np.count_nonzero(inside), np.count_nonzero(array < 0)
    if negative <= OVERSHOOT * count or count > (1 - _ZEROS) * array.size:
        return array, []
    low, high = float(array.min()), float(array.max())
    raised = np.where(inside, array - np.float32(low) + np.float32(0.01 * (high - low)), np.float32(0))
    return raised, [f"{negative / count:.0%} of the values were below the outside of 0: all raised above it"]


def _edges(array: np.ndarray) -> np.ndarray:
    """The voxels of the twelve edges of a volume (X, Y, Z), as (N,)."""
    lines = []
    for axis in range(3):
        for ends in itertools.product((0, -1), repeat=2):
            place: list[Any] = [*ends]
            place.insert(axis, slice(None))
            lines.append(array[tuple(place)])
    return np.concatenate(lines)
