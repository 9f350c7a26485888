"""One DICOM series to the volumes in it: what must not be mixed, though the scanner filed it under one number.

Planes of a localizer, echoes, magnitude and phase, inversion times always make volumes of their own; time points,
b-values and repeated acquisitions do so where they hold the same places more than once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segmamba.images.dicom.geometry import SAME_PLACE_MM, normal_of, places
from segmamba.images.dicom.headers import Frame, pixels_of

_PARALLEL = 1e-3
_TIMES = (0.1, 0.5)  # echo and inversion times differ by more than this share, and by more than these ms


@dataclass(frozen=True)
class Part:
    """The frames of one volume, in no order."""

    frames: tuple[Frame, ...]
    """Its slices."""
    volumes: int = 1
    """How many stand at one place, where they were left together."""
    notes: tuple[str, ...] = ()
    """What is odd about them, in plain words."""


def split(frames: Sequence[Frame], most: int = 3) -> list[Part]:
    """The volumes of one series, in the order of acquisition.

    Where more than `most` stand at one place (perfusion, diffusion, a dynamic series) they stay one part.
    """
    groups = [list(frames)]
    for separate in (_by_grid, _by_orientation, _by_image_type, _by_echo, _by_inversion):
        groups = [part for group in groups for part in separate(group)]
    parts = [part for group in groups for part in _by_time(group, most)]
    return sorted(parts, key=lambda part: min((f.time or 0, f.instance or 0, f.index) for f in part.frames))


def _by(frames: Iterable[Frame], key: Callable[[Frame], object]) -> list[list[Frame]]:
    groups = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return list(groups.values())


def _by_grid(frames: list[Frame]) -> list[list[Frame]]:
    return _by(frames, lambda f: (f.header.rows, f.header.columns, f.header.samples, tuple(np.round(f.spacing, 3))))


def _by_image_type(frames: list[Frame]) -> list[list[Frame]]:
    return _by(frames, lambda f: f.image_type)


def _by_orientation(frames: list[Frame]) -> list[list[Frame]]:
    found: list[tuple[np.ndarray, list[Frame]]] = []
    for frame in frames:
        axes = np.array(frame.orientation or (0.0,) * 6)
        group = next((group for other, group in found if np.abs(axes - other).max() <= _PARALLEL), None)
        if group is None:
            found.append((axes, [frame]))
        else:
            group.append(frame)
    return [group for _axes, group in found]


def _by_echo(frames: list[Frame]) -> list[list[Frame]]:
    return [g for group in _by(frames, lambda f: f.echo_number) for g in _by_value(group, lambda f: f.echo_time)]


def _by_inversion(frames: list[Frame]) -> list[list[Frame]]:
    return _by_value(frames, lambda f: f.inversion_time)


def _by_value(frames: list[Frame], key: Callable[[Frame], float | None]) -> list[list[Frame]]:
    """Groups whose values are clearly apart: makers round times, and vary them a little from slice to slice."""
    share, least = _TIMES
    groups, last = [], None
    for frame in sorted(frames, key=lambda f: key(f) or 0.0):
        value = key(frame) or 0.0
        if last is None or value - last > max(least, share * last):
            groups.append([])
        groups[-1].append(frame)
        last = value
    return groups


def _by_time(frames: list[Frame], most: int) -> list[Part]:
    """Volumes at the same places: by what the scanner counts, else by the order at each place."""
    volumes = _most_at_one_place(frames)
    if volumes == 1:
        return [Part(tuple(frames))]
    frames, copies = _without_copies(frames) if volumes <= most else (frames, 0)
    notes = (f"{copies} slices were there twice",) if copies else ()
    volumes = _most_at_one_place(frames)
    if volumes == 1:
        return [Part(tuple(frames), notes=notes)]
    if volumes > most:
        return [Part(tuple(frames), volumes)]
    for key in _COUNTERS:
        groups = _by(frames, key)
        if len(groups) == volumes and all(_most_at_one_place(group) == 1 for group in groups):
            return [Part(tuple(group), notes=notes) for group in groups]
    ranks = _ranks(frames)
    groups = [[f for f, rank in zip(frames, ranks) if rank == k] for k in range(volumes)]
    if len({len(group) for group in groups}) == 1 and len({_moment(f) for f in frames}) == len(frames):
        return [Part(tuple(group), notes=notes) for group in groups]
    return [Part(tuple(frames), notes=notes)]


_COUNTERS = (
    lambda f: f.temporal,
    lambda f: f.acquisition,
    lambda f: f.b_value,
    lambda f: f.header.path if f.header.frames > 1 else None,
    lambda f: f.trigger,
    lambda f: f.time,
)


def _moment(frame: Frame) -> tuple:
    return (frame.time or 0, frame.trigger or 0, frame.instance if frame.time is None else 0, frame.index)


def _ranks(frames: Sequence[Frame]) -> list[int]:
    """How many slices at the same place were taken before each."""
    keys = _place_keys(frames)
    order = sorted(range(len(frames)), key=lambda i: (keys[i], *_moment(frames[i])))
    ranks = [0] * len(frames)
    last = None
    count = 0
    for i in order:
        count = count + 1 if keys[i] == last else 0
        ranks[i], last = count, keys[i]
    return ranks


def _most_at_one_place(frames: Sequence[Frame]) -> int:
    return int(np.bincount(_place_keys(frames)).max())


def _place_keys(frames: Sequence[Frame]) -> list[int]:
    """Numbers that are equal for slices at one place along the normal; all different where nothing is known."""
    if not normal_of(frames[0]).any() or not all(frame.position for frame in frames):
        return list(range(len(frames)))
    along = places(frames)
    order = np.argsort(along, kind="stable")
    keys = np.zeros(len(frames), int)
    keys[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) >= SAME_PLACE_MM)])
    return keys.tolist()


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], int]:
    """Leaves out slices that hold the very pixels of another at their place, sent twice under two identities."""
    keep, seen = [], set()
    crowded = {key for key, count in enumerate(np.bincount(_place_keys(frames))) if count > 1}
    for frame, key in zip(frames, _place_keys(frames)):
        if key in crowded and frame.header.frames == 1:
            pixels = pixels_of(frame.header.path)
            if pixels is not None:
                mark = (key, frame.rescale, hash(pixels))
                if mark in seen:
                    continue
                seen.add(mark)
        keep.append(frame)
    return keep, len(frames) - len(keep)
