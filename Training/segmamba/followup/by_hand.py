"""What a person adds to a follow-up: lines that were moved, which win over measured ones, and what images do not say.

The file is JSON: {"schema": 1, "lines": [{"day", "which": "D1" or "D2", "ends": two points in RAS mm}],
"clinician": [{"day", "steroids", "clinical_status", "non_target_lesions"}]}, each part optional. A line may have a
"region", that of its lesion, where several are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

from segmamba.errors import InputError
from segmamba.followup.diameters import OFF_RIGHT_ANGLE, TOLERANCE_MM
from segmamba.followup.lesions import REGIONS, Lesion, Measured, unmeasurable_reason
from segmamba.followup.rounding import beside
from segmamba.settings import read_json, shown

STEROIDS, STATUS = ("less", "same", "more"), ("better", "same", "worse")
NEAR_MM = 5.0  # a line belongs to the lesion that has its middle, or both of its ends, within so much
_LINES = {"D1": ("d1", "line1"), "D2": ("d2", "line2")}
_HALF = 0.5 + 1e-6  # a slice or a voxel
_MOST_TEXT = 500
_FARTHEST_MM = 10_000  # from the scanner's middle


@dataclass(frozen=True, eq=False)
class Line:
    """A diameter that a person has drawn."""

    which: str
    """"D1" or "D2"."""
    ends: np.ndarray
    """(2, 3) RAS mm at that date."""
    region: str = ""
    """Of the lesion; "" for any."""

    @property
    def length(self) -> float:
        """Length of the line in mm."""
        return float(np.linalg.norm(self.ends[1] - self.ends[0]))


@dataclass(frozen=True)
class Clinician:
    """What a person has said of one date; "" where nothing was said."""

    steroids: str = ""
    """Of STEROIDS, against the date before."""
    clinical_status: str = ""
    """Of STATUS, against the date before."""
    non_target_lesions: str = ""
    """Free text on lesions that were not measured."""


@dataclass(frozen=True, eq=False)
class ByHand:
    """What a person has drawn and said."""

    lines: Mapping[int, Sequence[Line]] = field(default_factory=dict)
    """Diameters by day."""
    clinician: Mapping[int, Clinician] = field(default_factory=dict)
    """What was said, by day."""

    @property
    def days(self) -> set[int]:
        """The days of which anything was said."""
        return {*self.lines, *self.clinician}


def read_by_hand(path: Path) -> ByHand:
    """Reads what a person has drawn and said. Raises InputError for what is not such a file."""
    values = read_json(path)
    if not isinstance(values, dict) or values.get("schema") != 1 or set(values) - {"schema", "lines", "clinician"}:
        raise InputError(f"{path}: expected schema 1 with lines and clinician, as the panel writes it")
    lines: dict[int, list[Line]] = {}
    for entry in _list(values, "lines", path):
        day, line = _line(entry, path)
        lines.setdefault(day, []).append(line)
    said = dict(_clinician(entry, path) for entry in _list(values, "clinician", path))
    return ByHand(lines, said)


def with_lines(measured: Measured, lines: Sequence[Line]) -> Measured:
    """The same lesions with the lines of a person in place of the measured ones, each marked in `by_hand`.

    Lesions keep their numbers. A line that lies on no lesion is left out, and so is the second of two for one diameter;
    the notes say so. What was drawn counts, and a lesion's notes say what is odd about its two lines.
    """
    lesions, notes = {lesion.number: lesion for lesion in measured.lesions}, list(measured.notes)
    trees = {
        number: cKDTree(apply_affine(measured.affine, np.argwhere(measured.labelled == number))) for number in lesions
    }
    for line in lines:
        away = {
            number: _distances(line, tree)
            for number, tree in trees.items()
            if line.region in ("", lesions[number].region)
        }
        voxel = max(measured.spacing)
        nearest = min(away, key=lambda number: (max(away[number][0], voxel), away[number][1], number), default=None)
        if nearest is None or away[nearest][0] > NEAR_MM + voxel / 2:
            notes.append(f"a line moved by hand ({line.which}, {line.length:.1f} mm) lies on no lesion and is left out")
        elif line.which in lesions[nearest].by_hand:
            notes.append(f"lesion {nearest}: of two lines moved by hand for {line.which} the first is taken")
        else:
            lesions[nearest] = _with_line(lesions[nearest], line, measured)
    found = (replace(one, notes=_odd(one, measured)) if one.by_hand else one for one in lesions.values())
    return replace(measured, lesions=tuple(found), notes=tuple(notes))


def _odd(lesion: Lesion, measured: Measured) -> tuple[str, ...]:
    """What makes the product of a lesion's two lines, of which one at least is drawn, none of two crossed diameters."""
    lines = {name: line for name, line in (("D1", lesion.line1), ("D2", lesion.line2)) if line is not None}
    voxels = {name: apply_affine(np.linalg.inv(measured.affine), line) for name, line in lines.items()}
    odd = [f"{name} runs through slices" for name, ends in voxels.items() if np.ptp(ends[:, 2]) > _HALF]
    if len(lines) < len(_LINES):
        return tuple(odd)
    one, other = voxels.values()
    apart = abs(one[:, 2].mean() - other[:, 2].mean())
    if apart > _HALF:
        odd.append(f"D1 and D2 are {beside(apart, _HALF, 1)} slices apart")
    first, second = (line[1] - line[0] for line in lines.values())
    off = np.degrees(np.arcsin(min(1.0, abs(first @ second) / max(lesion.d1 * lesion.d2, TOLERANCE_MM))))
    if off > OFF_RIGHT_ANGLE + TOLERANCE_MM:
        odd.append(f"D2 is {beside(off, OFF_RIGHT_ANGLE, 1)} degrees off a right angle to D1")
    if not _cross(one[:, :2], other[:, :2]):
        odd.append("D2 does not cross D1")
    if lesion.d2 > lesion.d1 + TOLERANCE_MM:
        odd.append("D2 is longer than D1")
    return tuple(odd)


def _cross(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lines in a slice (2, 2) meet, in voxels; half a voxel may be lacking, as lines end in middles."""
    along = np.array([one[1] - one[0], other[0] - other[1]])
    lengths = np.linalg.norm(along, axis=1)
    if abs(np.linalg.det(along)) <= TOLERANCE_MM * lengths.prod():
        return False
    places = np.linalg.solve(along.T, other[0] - one[0]) * lengths  # of the meeting point, from each line's start
    return bool((places >= -_HALF).all() and (places <= lengths + _HALF).all())


def _distances(line: Line, tree: cKDTree) -> tuple[float, float]:
    """From a lesion in mm: of the line's middle or, as necrosis may lie there, of its farther end; then of the middle.

    The second decides where the line's ends lie on one lesion, within a voxel, and its middle on another.
    """
    middle = float(tree.query(line.ends.mean(0))[0])
    return min(middle, float(tree.query(line.ends)[0].max())), middle


def _with_line(lesion: Lesion, line: Line, measured: Measured) -> Lesion:
    length, ends = _LINES[line.which]
    values = {length: line.length, ends: line.ends, "by_hand": tuple(sorted((*lesion.by_hand, line.which)))}
    if line.which == "D1":
        index = apply_affine(np.linalg.inv(measured.affine), line.ends.mean(0))[2]
        values["slice"] = int(measured.stored_slices[int(np.clip(np.rint(index), 0, len(measured.stored_slices) - 1))])
    # what was said of the measured second line is no longer so
    moved = replace(lesion, **values, notes=())
    reason = unmeasurable_reason(moved.d1, moved.d2, moved.slices, measured.spacing[2])
    return replace(moved, not_measurable=reason)


def _list(values: dict, name: str, path: Path) -> list:
    found = values.get(name, [])
    if not isinstance(found, list):
        raise InputError(f"{path}: {name} is {shown(found)}; expected a list")
    return found


def _day(entry: Any, path: Path) -> int:
    if not isinstance(entry, dict) or not isinstance(entry.get("day"), int) or isinstance(entry["day"], bool):
        raise InputError(f"{path}: {shown(entry)}; expected an entry with a day, counted from the baseline")
    return entry["day"]


def _line(entry: Any, path: Path) -> tuple[int, Line]:
    day = _day(entry, path)
    which = entry.get("which")
    region = entry.get("region", "")
    try:
        ends = np.array(entry.get("ends"), float)
    except (TypeError, ValueError):
        ends = np.empty(0)
    known = which in tuple(_LINES) and region in ("", *REGIONS)
    if not known or ends.shape != (2, 3) or not (np.abs(ends) <= _FARTHEST_MM).all():
        raise InputError(f"{path}: {shown(entry)}; expected which (D1 or D2) and ends, two points in mm")
    return day, Line(which, ends, region)


def _clinician(entry: Any, path: Path) -> tuple[int, Clinician]:
    day, said = _day(entry, path), {name: entry.get(name, "") for name in Clinician.__dataclass_fields__}
    for name, known in (("steroids", STEROIDS), ("clinical_status", STATUS)):
        if said[name] not in ("", *known):
            raise InputError(f"{path}: {name} is {shown(said[name])}; expected one of {', '.join(known)}, or nothing")
    text = said["non_target_lesions"]
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise InputError(
            f"{path}: non_target_lesions is {shown(text)}; expected a text of {_MOST_TEXT} letters or less"
        )
    return day, Clinician(**said)
