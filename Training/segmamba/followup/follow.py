"""A patient's dates measured, the baseline's lesions followed through them, and what the numbers may mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segmamba.errors import InputError
from segmamba.followup.criteria import SETS, Suggestion, suggest
from segmamba.followup.dates import Timepoint
from segmamba.followup.lesions import REGIONS, Measured, measure
from segmamba.followup.match import Matches, match, register_dates
from segmamba.followup.spread import spread
from segmamba.preparation.register import Registration

_OTHER_SPACING = 0.1  # share by which voxels of two dates may differ without a word


@dataclass(frozen=True, kw_only=True)
class Settings:
    """region: of lesions.REGIONS. targets: how many lesions are followed in the sum, the largest measurable ones.

    radiotherapy_end: day it ended, counted from the baseline, or None where it is not known. confirm_weeks: until so
    long after it, progression is preliminary.
    """

    region: str = "ET"
    targets: int = 3
    radiotherapy_end: int | None = None
    confirm_weeks: float = 12

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise InputError(f"region {self.region!r}: expected one of {', '.join(REGIONS)}")
        if self.targets < 1:
            raise InputError(f"targets {self.targets}: expected 1 or more")


@dataclass(frozen=True, eq=False)
class Date:
    """One date's results. registration: of its T1c onto the baseline's, None at the baseline. problem: why lesions were
    not followed, or "". matches: None where they were not. spd: sum of products of the targets, mm^2, or None.

    spread: see segmamba.followup.spread. near: criterion sets of which a variant of the border gives another category,
    with these categories.
    """

    timepoint: Timepoint
    measured: Measured
    registration: Registration | None
    problem: str
    matches: Matches | None
    spd: float | None
    spread: dict[str, tuple[float, float]]
    suggestions: dict[str, Suggestion] = field(default_factory=dict)
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def day(self) -> int:
        return self.timepoint.day

    def value(self, name: str, variant: str | None = None) -> float | None:
        """What a criterion set compares, as measured or with another border."""
        if name == "bidimensional":
            return None if self.spd is None else self.spd if variant is None else self.spread[variant][0]
        return self.measured.volume_ml if variant is None else self.spread[variant][1]


@dataclass(frozen=True, eq=False)
class FollowUp:
    """targets: numbers of the baseline's lesions that are summed up. dates: the baseline first."""

    settings: Settings
    targets: tuple[int, ...]
    dates: tuple[Date, ...]
    warnings: tuple[str, ...]


def follow(
    timepoints: Sequence[Timepoint], settings: Settings, progress: Callable[[str], None] | None = None
) -> FollowUp:
    """Two dates or more, the baseline first. Raises InputError for fewer, and for days that do not rise."""
    if len(timepoints) < 2:
        raise InputError(f"{len(timepoints)} date was given; expected two or more (one alone: segmamba measure)")
    days = [timepoint.day for timepoint in timepoints]
    if sorted(set(days)) != days:
        raise InputError(f"the days {', '.join(map(str, days))} do not rise; give the dates in order, each once")
    tell = progress or (lambda text: None)
    dates: list[Date] = []
    targets: tuple[int, ...] = ()
    for timepoint in timepoints:
        tell(f"day {timepoint.day}: measuring")
        measured = measure(timepoint.label_map, timepoint.affine, settings.region)
        found, problem, matches = None, "", None
        if not dates:
            targets = tuple(lesion.number for lesion in measured.lesions if lesion.measurable)[: settings.targets]
            own = {lesion.number: (lesion.number,) for lesion in measured.lesions}
            matches = Matches(own, {}, ())
        else:
            tell(f"day {timepoint.day}: registering")
            found, problem = register_dates(timepoints[0].t1c, timepoint.t1c)
            if found is not None and not problem:
                matches = match(dates[0].measured, measured, found.transform)
        counted = matches.lesions(list(targets)) if matches else []
        products = {lesion.number: lesion.product for lesion in measured.lesions}
        spd = float(sum(products[number] for number in counted)) if matches else None
        tell(f"day {timepoint.day}: other borders")
        moved = spread(measured, counted, timepoint.probability, timepoint.affine)
        date = Date(timepoint, measured, found, problem, matches, spd, moved)
        dates.append(_judged(date, dates, targets, settings))
    return FollowUp(settings, targets, tuple(dates), tuple(_warnings(dates)))


def _judged(date: Date, earlier: Sequence[Date], targets: Sequence[int], settings: Settings) -> Date:
    if not earlier:
        return date
    days = [*(other.day for other in earlier), date.day]
    lesions = {lesion.number: lesion for lesion in date.measured.lesions}
    counted = date.matches.lesions(list(targets)) if date.matches else []
    facts = {
        "lesions": len(lesions),
        "new_measurable": sum(lesions[n].measurable for n in date.matches.new) if date.matches else 0,
        "measurable_again": any(lesions[n].measurable for n in counted),
        "minor_response": settings.region == "non-enhancing",
        "early": _early(date.day, settings),
    }
    suggestions, near = {}, {}
    variants = [v for v in date.spread if all(v in other.spread for other in earlier)]
    for name in SETS:
        suggestions[name] = suggest(name, days, [d.value(name) for d in (*earlier, date)], **facts)
        others = [suggest(name, days, [d.value(name, v) for d in (*earlier, date)], **facts).category for v in variants]
        near[name] = tuple(sorted(set(others) - {suggestions[name].category}))
    return replace(date, suggestions=suggestions, near={name: other for name, other in near.items() if other})


def _early(day: int, settings: Settings) -> str:
    if settings.radiotherapy_end is None:
        return ""
    weeks = (day - settings.radiotherapy_end) / 7
    if not 0 <= weeks < settings.confirm_weeks:
        return ""
    return f"{weeks:.1f} weeks after radiotherapy, fewer than {settings.confirm_weeks:g}"


def _warnings(dates: Sequence[Date]) -> list[str]:
    first, found = dates[0], []
    for date in dates:
        day, timepoint = f"day {date.day}", date.timepoint
        found += [f"{day}: {note}" for note in (*timepoint.notes, *date.measured.notes)]
        if timepoint.absent:
            found.append(f"{day}: segmented without {', '.join(timepoint.absent)}")
        found += [f"{day}, lesion {one.number}: {note}" for one in date.measured.lesions for note in one.notes]
        if date is first:
            continue
        if date.problem:
            found.append(
                f"{day}: its T1c could not be registered onto the baseline's ({date.problem}): measured, not followed"
            )
        if timepoint.scanner and first.timepoint.scanner and timepoint.scanner != first.timepoint.scanner:
            found.append(f"{day}: another scanner than at baseline")
        one, other = np.array(first.measured.spacing), np.array(date.measured.spacing)
        if abs(other[2] / one[2] - 1) > _OTHER_SPACING:
            found.append(f"{day}: slices {other[2]:.3g} mm apart, at baseline {one[2]:.3g} mm")
        if (abs(other[:2] / one[:2] - 1) > _OTHER_SPACING).any():
            found.append(f"{day}: pixels of {other[0]:.3g} mm, at baseline {one[0]:.3g} mm")
        if timepoint.made_by != first.timepoint.made_by:
            found.append(f"{day}: segmented by another model, or otherwise, than the baseline")
        for number, into in (date.matches.merged if date.matches else {}).items():
            found.append(f"{day}: lesion {number} of the baseline has merged with another into lesion {into}")
        for name, categories in date.near.items():
            text = f"near a threshold: another border of the segmentation gives {', '.join(categories)}"
            found.append(f"{day}, {name} criteria: {text}")
    return found
