"""The image series below a folder: each volume with its geometry, and which modality it is likely to be."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from segmamba.errors import InputError
from segmamba.images.dicom.geometry import Geometry, arrange
from segmamba.images.dicom.guess import Guess, conclude, is_reformat, judge, why_left_out
from segmamba.images.dicom.headers import Frame, read_headers
from segmamba.images.dicom.splitting import Part, split
from segmamba.shared.contrast_words import agent_said

log = logging.getLogger(__name__)

_AFTER_AGENT = {"perfusion"}  # which is taken while agent is given


@dataclass(frozen=True, eq=False)
class Series:
    """One volume of a DICOM series."""

    name: str
    """What a user calls it by: the series number; "7.2" for the second volume of series 7; "B7" in the second of
    several studies."""
    description: str
    """SeriesDescription as it stands there, or that of the protocol."""
    frames: tuple[Frame, ...]
    """Its slices in order, so that voxel (x, y, z) is column x of row y of slice z."""
    geometry: Geometry
    """Where its slices lie; its `fault` says why they cannot be read, or ''."""
    guess: Guess
    """Which modality it is likely to be."""
    left_out: str
    """Why no case is made of it unless asked for by name, or ''."""
    covers_head: bool
    """Whether nothing but its description speaks against making a case of it: an MR volume large and fine enough for a
    head."""
    reformatted: bool
    """Whether it was computed from another series' slices."""
    study: str
    """Letter of the study, "A", "B", ...; '' where there is only one."""

    @property
    def uid(self) -> str:
        """The SeriesInstanceUID."""
        return self.frames[0].header.series_uid

    @property
    def files(self) -> list[Path]:
        """The files of the volume, each once."""
        return list(dict.fromkeys(frame.header.path for frame in self.frames))

    @property
    def time(self) -> float | None:
        """Seconds since some day, to compare within a study."""
        times = [frame.time for frame in self.frames if frame.time is not None]
        return min(times) if times else None


def find_series(folder: Path | str) -> list[Series]:
    """Every image series below `folder`, at any depth, by study and number; non-DICOM files are passed over.

    A series that holds what must not be mixed comes as several. One that slices may be missing of, because their files
    cannot be read, has a note. Raises InputError for no folder, no image in it, and what the system does not let read.
    """
    frames, broken = read_headers(folder)
    if not frames:
        raise InputError(
            describe_broken(broken)
            if broken
            else f"{folder}: no DICOM image in it or below it; give the folder of an examination"
        )
    return _with_broken(series_of(frames), broken)


def describe_broken(broken: Sequence[Path]) -> str:
    """What is told of files, one and more, that look like DICOM and cannot be read."""
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{broken[0]}: looks like DICOM and cannot be read{more}; copy the slices again, or take out what is none"


def _with_broken(found: Sequence[Series], broken: Sequence[Path]) -> list[Series]:
    """`found` with notes of the files that cannot be read: at the series in their folder, or at all if it has none."""
    folders = {file.parent for series in found for file in series.files}
    noted = []
    for series in found:
        own = {file.parent for file in series.files}
        count = sum(path.parent in own or path.parent not in folders for path in broken)
        note = f"{count} files that may be slices of it look like DICOM and cannot be read: were they copied whole?"
        notes = series.geometry.notes + ((note,) if count else ())
        noted.append(replace(series, geometry=replace(series.geometry, notes=notes)))
    return noted


def series_of(frames: Sequence[Frame]) -> list[Series]:
    """The series that `frames`, one and more, make up, by study and number."""
    studies = _studies(frames)
    letters = dict(zip(studies, _letters(len(studies)))) if len(studies) > 1 else dict.fromkeys(studies, "")
    found = []
    for study, own in studies.items():
        by_number = defaultdict(list)
        for series in _group(own, _identity).values():
            by_number[series[0].header.number].extend((part, study) for part in split(series))
        # a missing number sorts last and is called "x"
        for number, parts in sorted(by_number.items(), key=lambda item: (item[0] is None, item[0])):
            for k, (part, _study) in enumerate(parts, 1):
                name = f"{letters[study]}{'x' if number is None else number}" + (f".{k}" if len(parts) > 1 else "")
                found.append(_series(name, part, letters[study]))
    return _after_agent(found)


def _identity(frame: Frame) -> Any:
    """What the slices of one series share: an anonymized one may have lost its UID, as a rule not its number.

    Another patient's may have that too, but not its frame of reference, nor, where that is lost as well, its folder.
    """
    header = frame.header
    return header.series_uid or (header.number, header.description, header.frame_of_reference or header.path.parent)


def _series(name: str, part: Part, study: str) -> Series:
    frames, geometry = arrange(part.frames)
    if part.notes:
        geometry = replace(geometry, notes=geometry.notes + part.notes)
    middle = frames[len(frames) // 2]
    left_out = why_left_out(middle, geometry, part.volumes)
    scores, reasons = judge(middle)
    guess = Guess(None, 0.0, left_out, scores) if left_out else conclude(scores, reasons)
    description = middle.header.description
    unnamed = replace(middle, header=replace(middle.header, description=""))
    covers_head = not why_left_out(unnamed, geometry, part.volumes)
    return Series(name, description, tuple(frames), geometry, guess, left_out, covers_head, is_reformat(middle), study)


def _after_agent(found: Sequence[Series]) -> list[Series]:
    """T1 series of which nothing says whether agent was given, by their time: agent, once given, stays for the hour."""
    first = {}
    for series in found:
        evidence = series.left_out in _AFTER_AGENT or (series.guess.modality == "t1c" and series.guess.confidence > 0.8)
        if evidence and series.time is not None:
            first[series.study] = min(series.time, first.get(series.study, series.time))
    return [_by_time(series, first.get(series.study)) for series in found]


def _by_time(series: Series, first: float | None) -> Series:
    guess = series.guess
    # a description that says both is for a person to read
    unsure = (
        agent_said(series.description) != "both"
        and guess.modality in ("t1n", "t1c")
        and abs(guess.scores["t1n"] - guess.scores["t1c"]) < 2
    )
    if first is None or series.time is None or not unsure or series.time == first:
        return series
    lean = 2.0 if series.time > first else -1.0
    scores = {**guess.scores, "t1c": guess.scores["t1c"] + lean, "t1n": guess.scores["t1n"] - lean}
    when = "after" if series.time > first else "before"
    return replace(series, guess=conclude(scores, [guess.reason, f"taken {when} contrast agent was first given"]))


def _studies(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """By StudyInstanceUID, the earliest first."""
    groups = _group(frames, lambda f: f.header.study_uid)
    return dict(sorted(groups.items(), key=lambda item: (min((f.time or 0) for f in item[1]), item[0])))


def _group(frames: Sequence[Frame], key: Callable[[Frame], Any]) -> dict[Any, list[Frame]]:
    groups = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return dict(groups)


def _letters(count: int) -> list[str]:
    """A, B, ... Z, AA, AB, ..."""
    names = list(ascii_uppercase)
    while len(names) < count:
        names += [a + b for a in names for b in ascii_uppercase]
    return names[:count]
