"""The two diameters of a lesion as they are drawn by hand: lines in one slice that never leave the lesion.

Lines run from the middle of one voxel at the lesion's border to the middle of another, as callipers do. A line stays in
the lesion where every pixel that it runs through, and does not merely touch at a corner, belongs to it: in whole
numbers, so that the answer depends neither on where a line is sampled nor on how axes are stored.

The second line is at a right angle to the first as far as pixels allow: within 2 degrees, or so near that its end lies
half a pixel from where that of the exact right angle would be. Without the latter, coarse pixels and thin lesions leave
no line at all, or one that is much too short.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TOLERANCE_MM = 1e-6
OFF_RIGHT_ANGLE = 2.0  # degrees, of the second line
_AT_ONCE = 1 << 20  # pairs of voxels
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Diameters:
    """The longest line in a lesion, and the longest at a right angle to it in the same slice."""

    d1: float
    """Length of `line1` in mm."""
    d2: float
    """Length of `line2` in mm, 0 without it."""
    slice: int
    """Index along the third axis."""
    line1: np.ndarray | None
    """(2, 2) voxel indices of the ends of the longest diameter in its slice; None where there is no such line."""
    line2: np.ndarray | None
    """Those of the diameter at a right angle to it, likewise."""
    off: float
    """Degrees by which the angle between them is no right one, 0 without line2."""


def diameters(mask: np.ndarray, affine: np.ndarray) -> Diameters:
    """The longest line in any slice of a lesion, and the longest one across it.

    `mask` (X, Y, Z) bool, of which the slices lie along Z. The second line lies in the same slice and crosses the first
    at a right angle, give or take 2 degrees or half a pixel.

    affine: (4, 4) voxel indices to mm; only its first two axes count. Of several longest lines (to 1e-6 mm) the one
    with the longest second line is taken, then that in the lowest slice, then the first by its voxel indices.
    """
    metric = affine[:3, :2].T @ affine[:3, :2]
    slices = [(k, _border(mask[:, :, k])) for k in np.flatnonzero(mask.any(axis=(0, 1)))]
    # the widest slices first: what they hold need not be looked for in narrower ones
    slices.sort(key=lambda item: -_span(item[1], metric))
    best, ties = 0.0, []
    for k, points in slices:
        if _span(points, metric) < best - TOLERANCE_MM:
            continue
        for length, line in _longest(mask[:, :, k], points, metric, best):
            if length > best + TOLERANCE_MM:
                ties = []
            best = max(best, length)
            ties.append((k, line))
    if not ties:
        first = min(slices, default=(0, None), key=lambda item: item[0])[0]
        return Diameters(0.0, 0.0, int(first), None, None, 0.0)
    border = dict(slices)
    ties.sort(key=lambda item: (item[0], *item[1].ravel()))
    crossed = [(k, line, *_across(mask[:, :, k], border[k], line, metric)) for k, line in ties]
    most = max(d2 for *_, d2, _line in crossed)
    k, line, d2, second = next(item for item in crossed if item[2] >= most - TOLERANCE_MM)
    return Diameters(best, d2, int(k), line, second, _off(line, second, metric))


def stays_inside(mask: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which lines run through pixels of a mask alone.

    Args:
        mask: (X, Y) bool.
        starts: (N, 2), indices of pixels.
        ends: (N, 2), likewise.

    Returns:
        (N,) bool.
    """
    result = np.zeros(len(starts), bool)
    steep = np.abs(ends - starts)[:, 1] > np.abs(ends - starts)[:, 0]
    for image, chosen, order in ((mask, ~steep, [0, 1]), (mask.T, steep, [1, 0])):
        where = np.flatnonzero(chosen)
        result[where] = _flat_stays_inside(image, starts[where][:, order], ends[where][:, order])
    return result


def _flat_stays_inside(mask: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The same for lines that rise by one row a column at the most: a column holds one or two pixels of them."""
    backward = ends[:, 0] < starts[:, 0]
    starts, ends = np.where(backward[:, None], ends, starts), np.where(backward[:, None], starts, ends)
    across, rise = (ends - starts).T
    sign, rise = np.sign(rise), np.abs(rise)
    result = np.zeros(len(starts), bool)
    alive = np.arange(len(starts))

    def check(alive: np.ndarray, column: np.ndarray | int) -> np.ndarray:
        n = across[alive]
        # heights where the line enters and leaves the column, in 1 / 2n of a pixel
        low = rise[alive] * np.maximum(2 * column - 1, 0)
        high = rise[alive] * np.minimum(2 * column + 1, 2 * n)
        first, last = (low + n) // (2 * n), -(-(high + n) // (2 * n)) - 1
        x = starts[alive, 0] + column
        y = starts[alive, 1]
        up = sign[alive]
        return alive[mask[x, y + up * first] & mask[x, y + up * last]]

    for part in (2, 4, 8):  # most lines that leave a hollow or bent lesion do so in the middle
        alive = check(alive, across[alive] // part)
    for column in range(int(across.max(initial=-1)) + 1):
        done = across[alive] < column
        result[alive[done]] = True
        alive = check(alive[~done], column)
        if not len(alive):
            return result
    result[alive] = True
    return result


def _border(mask: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of a mask (X, Y) that touch a pixel outside of it along an edge, in order."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def _span(points: np.ndarray, metric: np.ndarray) -> float:
    """No line between the points is longer than this, mm."""
    box = np.ptp(points, axis=0)
    return float(max(_lengths(np.array([box, box * (1, -1)]), metric)))


def _lengths(differences: np.ndarray, metric: np.ndarray) -> np.ndarray:
    x, y = differences[:, 0].astype(float), differences[:, 1].astype(float)
    return np.sqrt(metric[0, 0] * x * x + 2 * metric[0, 1] * x * y + metric[1, 1] * y * y)


def _pairs(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair once, the earlier point first, in blocks of about _AT_ONCE."""
    count = len(points)
    rows = max(1, _AT_ONCE // max(1, count))
    for begin in range(0, count, rows):
        one, other = np.nonzero(np.arange(begin, min(begin + rows, count))[:, None] < np.arange(count))
        yield points[one + begin], points[other]


def _longest(
    mask: np.ndarray, points: np.ndarray, metric: np.ndarray, at_least: float
) -> list[tuple[float, np.ndarray]]:
    """The lines inside that are the longest to 1e-6 mm, each with its length, or [] where none reaches `at_least`."""
    best, found = at_least, []
    for starts, ends in _pairs(points):
        length = _lengths(ends - starts, metric)
        far = length >= best - TOLERANCE_MM
        for value, line in _first_inside(mask, starts[far], ends[far], length[far]):
            if value > best + TOLERANCE_MM:
                found = []
            best = max(best, value)
            found.append((value, line))
    return found


def _first_inside(
    mask: np.ndarray, starts: np.ndarray, ends: np.ndarray, length: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """Of the lines those that are inside and, among these, the longest to 1e-6 mm; in the order they came in."""
    order = np.argsort(-length, kind="stable")
    found: list[int] = []
    for begin in range(0, len(order), _CHUNK):
        some = order[begin : begin + _CHUNK]
        if found and length[some[0]] < length[found[0]] - TOLERANCE_MM:
            break
        found += some[stays_inside(mask, starts[some], ends[some])].tolist()
    if not found:
        return []
    longest = length[found[0]]
    kept = sorted(k for k in found if length[k] >= longest - TOLERANCE_MM)
    return [(float(length[k]), np.array([starts[k], ends[k]])) for k in kept]


def _across(
    mask: np.ndarray, points: np.ndarray, line: np.ndarray, metric: np.ndarray
) -> tuple[float, np.ndarray | None]:
    """The longest line inside that crosses `line` at a right angle, and its length; (0, None) where there is none."""
    along = line[1] - line[0]
    best, found = 0.0, None
    for starts, ends in _pairs(points):
        difference = ends - starts
        length = _lengths(difference, metric)
        # how far the line runs along the first, and how far it may, both times the first's length
        runs, edges = np.abs(difference @ metric @ along), np.abs(metric @ along)
        may = np.maximum(length * _lengths(along[None], metric) * np.sin(np.radians(OFF_RIGHT_ANGLE)), edges.max() / 2)
        meets = (runs <= may * (1 + 1e-9)) & (length > best + TOLERANCE_MM)
        starts = starts[meets]
        ends = ends[meets]
        length = length[meets]
        meets = _crosses(starts, ends, line)
        longest = _first_inside(mask, starts[meets], ends[meets], length[meets])
        if longest:
            best, found = longest[0]
    return best, found


def _off(line: np.ndarray, second: np.ndarray | None, metric: np.ndarray) -> float:
    """Degrees between the lines' angle and a right one."""
    if second is None:
        return 0.0
    one, other = line[1] - line[0], second[1] - second[0]
    lengths = _lengths(np.array([one, other]), metric)
    return float(np.degrees(np.arcsin(min(1.0, abs(one @ metric @ other) / lengths.prod()))))


def _crosses(starts: np.ndarray, ends: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Whether lines that are not parallel to `line` meet it, ends included."""

    def side(of: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return np.sign((end - start)[..., 0] * (of - start)[..., 1] - (end - start)[..., 1] * (of - start)[..., 0])

    a, b = line
    return (side(starts, a, b) * side(ends, a, b) <= 0) & (side(a, starts, ends) * side(b, starts, ends) <= 0)
