"""A patient's dates measured, the baseline's lesions followed through them, and what the numbers may mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segmamba.errors import InputError
from segmamba.followup.burden import Burden, judge, together
from segmamba.followup.by_hand import ByHand, Clinician, with_lines
from segmamba.followup.criteria import SETS, Suggestion
from segmamba.followup.dates import Timepoint
from segmamba.followup.lesions import MIXED, Measured, measure, regions_of
from segmamba.followup.match import Matches, Registered, fingerprint, match, register_dates
from segmamba.followup.rounding import beside
from segmamba.followup.spread import spread
from segmamba.preparation.register import Registration

MINOR = 0.25  # share of decrease of the sum of products
TARGETS, MIXED_TARGETS = 3, 2  # the latter of each region
_OTHER_SPACING = 0.1  # share by which voxels of two dates may differ without a word


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a follow-up is done."""

    region: str = "ET"
    """Of lesions.CHOICES."""
    targets: int | None = None
    """How many lesions are followed in a sum, the largest measurable ones; None is 3 or, of mixed tumors, 2 of each
    region."""
    radiotherapy_end: int | None = None
    """Day it ended, counted from the baseline, or None where it is not known."""
    confirm_weeks: float = 12
    """Until so long after it, progression is preliminary."""
    volumetric_minor: float = 0.40
    """Share of decrease in volume from which a response is minor; it and MINOR are for the region that does not
    enhance."""

    def __post_init__(self) -> None:
        regions_of(self.region)
        if self.most_targets < 1:
            raise InputError(f"targets {self.targets}: expected 1 or more")
        if not 0 <= self.confirm_weeks < math.inf:
            raise InputError(
                f"weeks until progression counts {self.confirm_weeks}: expected a finite number, 0 or more"
            )
        if not 0 < self.volumetric_minor < 1:
            raise InputError(f"minor response in volume {self.volumetric_minor}: expected a share between 0 and 1")

    @property
    def most_targets(self) -> int:
        """Of each region."""
        if self.targets is not None:
            return self.targets
        return MIXED_TARGETS if self.region == MIXED else TARGETS

    def minor(self, region: str) -> dict[str, float | None]:
        """By criterion set: the share of decrease from which a response is minor, None where there is no such."""
        if region != "non-enhancing":
            return dict.fromkeys(SETS)
        return {"bidimensional": MINOR, "volumetric": self.volumetric_minor}


@dataclass(frozen=True, eq=False)
class Date:
    """One date's results."""

    timepoint: Timepoint
    """What there is of it."""
    measured: Measured
    """Its lesions."""
    registration: Registration | None
    """Registration of its T1c onto the baseline's, None at the baseline."""
    problem: str
    """Why lesions were not followed, or ""."""
    matches: Matches | None
    """None where they were not."""
    burdens: tuple[Burden, ...]
    """Of each region that is judged, in order."""
    suggestions: dict[str, Suggestion] = field(default_factory=dict)
    """By criterion set; of a mixed tumor overall."""
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Criterion sets of which a variant of the border gives another category, with these categories."""

    @property
    def day(self) -> int:
        """Days since the baseline."""
        return self.timepoint.day


@dataclass(frozen=True, eq=False)
class FollowUp:
    """One patient's dates side by side."""

    settings: Settings
    """With which it was made."""
    targets: tuple[int, ...]
    """Numbers of the baseline's lesions that are summed up."""
    dates: tuple[Date, ...]
    """The baseline first."""
    warnings: tuple[str, ...]
    """What a reader should know, one sentence each."""
    clinician: Mapping[int, Clinician] = field(default_factory=dict)
    """By day."""


def follow(
    timepoints: Sequence[Timepoint],
    settings: Settings,
    progress: Callable[[str], None] | None = None,
    by_hand: ByHand | None = None,
    known: Mapping[tuple[str, str], Registered] | None = None,
) -> FollowUp:
    """Measures the lesions of several dates, follows them from date to date, and compares.

    Args:
        timepoints: two or more, the baseline first.
        settings: the region, how many lesions are summed up, and when radiotherapy ended.
        progress: told of each date.
        by_hand: what a person has drawn and said, by day.
        known: registrations made before, by the fingerprints of the T1c of the baseline and of the later date.

    Returns:
        The dates side by side, with suggestions.

    Raises:
        InputError: for fewer than two dates, and for days that do not rise.
    """
    if len(timepoints) < 2:
        raise InputError(f"{len(timepoints)} date was given; expected two or more (one alone: segmamba measure)")
    days = [timepoint.day for timepoint in timepoints]
    by_hand = by_hand or ByHand()
    known = known or {}
    if sorted(set(days)) != days:
        raise InputError(
            f"the days {', '.join(map(str, days))} are not in increasing order; give the dates in order, each once"
        )
    if stray := by_hand.days - set(days):
        raise InputError(f"drawn or said by hand of day {min(stray)}, which is none of {', '.join(map(str, days))}")
    report = progress or (lambda text: None)
    dates: list[Date] = []
    targets: tuple[int, ...] = ()
    for timepoint in timepoints:
        report(f"day {timepoint.day}: measuring")
        measured = measure(timepoint.label_map, timepoint.affine, settings.region)
        measured = with_lines(measured, by_hand.lines.get(timepoint.day, ()))
        found = None
        problem = ""
        matches = None
        if not dates:
            targets = tuple(
                n for region in regions_of(settings.region) for n in _targets(measured.of(region), settings)
            )
            own = {lesion.number: (lesion.number,) for lesion in measured.lesions}
            matches = Matches(own, {}, ())
        else:
            pair = (fingerprint(timepoints[0].t1c), fingerprint(timepoint.t1c))
            if pair not in known:
                report(f"day {timepoint.day}: registering")
            found, problem = known[pair] if pair in known else register_dates(timepoints[0].t1c, timepoint.t1c)
            if found is not None and not problem:
                matches = match(dates[0].measured, measured, found.transform)
        report(f"day {timepoint.day}: other borders")
        counted = matches.lesions(list(targets)) if matches else None
        burdens = [_burden(measured.of(region), counted, timepoint) for region in regions_of(settings.region)]
        date = Date(timepoint, measured, found, problem, matches, tuple(burdens))
        dates.append(_judged(date, dates, counted or [], settings))
    warnings = _warnings(dates, targets, by_hand.clinician)
    return FollowUp(settings, targets, tuple(dates), tuple(warnings), by_hand.clinician)


def _targets(measured: Measured, settings: Settings) -> list[int]:
    largest = sorted(measured.lesions, key=lambda lesion: -lesion.product)
    return [lesion.number for lesion in largest if lesion.measurable][: settings.most_targets]


def _burden(measured: Measured, counted: Sequence[int] | None, timepoint: Timepoint) -> Burden:
    """Of one region. counted: what sums are made of, of all regions, or None where lesions were not followed."""
    products = {lesion.number: lesion.product for lesion in measured.lesions if lesion.number in (counted or ())}
    moved = spread(measured, list(products), timepoint.probabilities.get(measured.region), timepoint.affine)
    spd = None if counted is None else float(sum(products.values()))
    return Burden(measured.region, spd, measured.volume_ml, moved)


def _judged(date: Date, earlier: Sequence[Date], counted: Sequence[int], settings: Settings) -> Date:
    if not earlier:
        return date
    days, burdens = [*(other.day for other in earlier), date.day], []
    for place, burden in enumerate(date.burdens):
        own = [lesion for lesion in date.measured.lesions if lesion.region == burden.region]
        measurable = {lesion.number for lesion in own if lesion.measurable}
        facts = {
            "lesions": len(own),
            "new_measurable": len(measurable.intersection(date.matches.new)) if date.matches else None,
            "early": _early(date.day, settings),
        }
        # a sum is of targets alone, a volume of every lesion
        again = {"bidimensional": not measurable.isdisjoint(counted), "volumetric": bool(measurable)}
        minor = settings.minor(burden.region)
        of_set = {name: {"minor": minor[name], "measurable_again": again[name]} for name in SETS}
        burdens.append(judge(burden, [other.burdens[place] for other in earlier], days, of_set, **facts))
    baseline = earlier[0].measured.lesions
    suggestions, near = together(burdens, {lesion.region for lesion in baseline if lesion.measurable})
    return replace(date, burdens=tuple(burdens), suggestions=suggestions, near=near)


def _counted(date: Date, targets: Sequence[int]) -> list[int]:
    """The lesions of a date that its sum of products is made of."""
    return date.matches.lesions(list(targets)) if date.matches else []


def _grown(first: Date, date: Date) -> str:
    """Numbers of lesions that are in no sum, for they were too small."""
    before = {lesion.number for lesion in first.measured.lesions if not lesion.measurable}
    parts = {part for number in before for part in (date.matches.parts[number] if date.matches else ())}
    return ", ".join(str(one.number) for one in date.measured.lesions if one.number in parts and one.measurable)


def _early(day: int, settings: Settings) -> str:
    if settings.radiotherapy_end is None:
        return ""
    weeks = (day - settings.radiotherapy_end) / 7
    if not 0 <= weeks < settings.confirm_weeks:
        return ""
    return f"{beside(weeks, settings.confirm_weeks, 1)} weeks after radiotherapy, fewer than {settings.confirm_weeks:g}"


def _warnings(dates: Sequence[Date], targets: Sequence[int], clinician: Mapping[int, Clinician]) -> list[str]:
    first, found = dates[0], []
    regions = {lesion.region for lesion in first.measured.lesions if lesion.number in targets}
    if len(first.burdens) > 1:
        found += [
            f"day 0: no measurable lesion of {one.region}: this is no mixed tumor, and the other region alone decides"
            for one in first.burdens
            if one.region not in regions
        ]
    days_of: dict[str, int] = {}
    for date in dates:
        day, timepoint = f"day {date.day}", date.timepoint
        same = days_of.setdefault(fingerprint(timepoint.t1c), date.day)
        if same != date.day:
            found.append(f"{day}: its T1c is that of day {same}, voxel for voxel; give each date its own")
        found += [f"{day}: {note}" for note in (*timepoint.notes, *date.measured.notes)]
        if timepoint.absent:
            found.append(f"{day}: segmented without {', '.join(timepoint.absent)}")
        found += [
            f"{day}, lesion {one.number}: {note}"
            for one in date.measured.lesions
            for note in one.notes
            if one.by_hand or one.number in _counted(date, targets)
        ]
        drawn = [one for one in date.measured.lesions if one.by_hand]
        found += [f"{day}, lesion {one.number}: {', '.join(one.by_hand)} drawn by hand" for one in drawn]
        if date is first:
            continue
        said = clinician.get(date.day, Clinician())
        if said.steroids == "more" and any(s.category == "SD" for s in date.suggestions.values()):
            found.append(f"{day}: stable images under more steroids are not assessable")
        if said.clinical_status == "worse":
            found.append(f"{day}: a worse clinical state, where nothing else explains it, counts as progression")
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
        lesions = {lesion.number: lesion for lesion in date.measured.lesions}
        small = [str(number) for number in (date.matches.new if date.matches else ()) if not lesions[number].measurable]
        if small:
            found.append(f"{day}: new, but not measurable: lesion {', '.join(small)}; look whether it is one")
        grown = _grown(first, date)
        if grown:
            found.append(
                f"{day}: not measurable at baseline, measurable now: lesion {grown}; look whether it progresses"
            )
        for number, into in (date.matches.merged if date.matches else {}).items():
            found.append(f"{day}: lesion {number} of the baseline has merged with another into lesion {into}")
        for name, categories in date.near.items():
            text = f"near a threshold: another border of the segmentation gives {', '.join(categories)}"
            found.append(f"{day}, {name} criteria: {text}")
    return found
