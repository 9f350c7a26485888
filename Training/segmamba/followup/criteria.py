"""The category of response that the numbers are compatible with, and each rule with the number that decided it.

Thresholds of RANO 2.0 (Wen et al., J Clin Oncol 41, 2023, 10.1200/JCO.23.01059) for sums of products, and those that
CFB-GBM v2.0 publishes for volumes; all inclusive. A suggestion: steroids, the patient's state, and lesions that were
not measured are for a physician to weigh.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmamba.followup.rounding import beside, decimals_beside

_SLACK = 1e-9
NO_DISEASE, NOT_ASSESSED = "no measurable disease", "not assessed"
PRELIMINARY = "preliminary PD"
# Mixed tumors: both parts are judged, and the first of these that either is, is the overall category. RANO 2.0, as
# rano2.0-assist quotes it: PD with any is PD; PR or MR with SD is PR or MR; CR with SD, MR or PR is SD, MR or PR.
_OVERALL = ("PD", PRELIMINARY, NOT_ASSESSED, "PR", "MR", "SD", "CR", NO_DISEASE)


@dataclass(frozen=True)
class CriterionSet:
    """What is compared, and how large a change has to be."""

    title: str
    """In reports."""
    quantity: str
    """What is compared, in words."""
    unit: str
    """Of the quantity: "mm2" or "mL"."""
    response: float
    """The decrease from baseline of a partial response, as a share; inclusive."""
    progression: float
    """The increase over the nadir of progression, as a share; inclusive."""
    decimals: int
    """Of the quantity in texts, where no limit asks for more."""


SETS = {
    "bidimensional": CriterionSet("Bidimensional", "sum of products", "mm2", 0.50, 0.25, 0),
    "volumetric": CriterionSet("Volumetric", "volume", "mL", 0.65, 0.40, 2),
}


@dataclass(frozen=True)
class Rule:
    """One rule of a set, applied."""

    category: str
    """That it leads to."""
    met: bool
    """Whether it is."""
    text: str
    """On what numbers, in words."""


@dataclass(frozen=True)
class Suggestion:
    """What a set of criteria says of a date."""

    category: str
    """CR, PR, MR, SD, PD, preliminary PD, or why there is none."""
    from_baseline: float | None
    """Change of the quantity against the baseline, as a share; None where that is 0 or nothing was compared."""
    from_nadir: float | None
    """Change against the least value before this date, likewise."""
    nadir_day: int | None
    """Day of the least value before this date; None where nothing was compared."""
    rules: tuple[Rule, ...]
    """That were looked at; of those that are met the first decides."""


def suggest(
    name: str,
    days: Sequence[int],
    values: Sequence[float | None],
    *,
    lesions: int,
    new_measurable: int | None,
    measurable_again: bool,
    minor: float | None = None,
    early: str = "",
) -> Suggestion:
    """What a set of criteria says of the last of several dates.

    Args:
        name: of SETS.
        days: of every date from baseline to the one that is judged, which is the last.
        values: of these dates, in the set's unit; None where the lesions could not be followed.
        lesions: how many there are now, of any size.
        new_measurable: of these, how many measurable ones the baseline did not have; None where they were not
            followed. Then growth is still growth, but what does not grow may be progression all the same.
        measurable_again: whether a lesion that the quantity is of is measurable now.
        minor: share of decrease from which MR is, inclusive; None: there is no MR.
        early: why progression needs a confirming scan, or "".

    Returns:
        The category, the changes, and the rules with their numbers.
    """
    rule_set = SETS[name]
    now, baseline = values[-1], values[0]
    if now is None or baseline is None:
        text = f"the {rule_set.quantity} of the baseline's lesions is not known at this date"
        return _unmeasured(NOT_ASSESSED, text)
    earlier = [(value, day) for value, day in zip(values[:-1], days[:-1]) if value is not None]
    nadir, nadir_day = min(earlier)
    from_baseline = now / baseline - 1 if baseline > 0 else None
    from_nadir = now / nadir - 1 if nadir > 0 else None
    rules = [_growth(rule_set, now, nadir, nadir_day, from_nadir, measurable_again), _new(new_measurable)]
    if from_baseline is not None:
        rules.append(Rule("CR", lesions == 0, f"lesions of any size left: {lesions}; CR where there is none"))
        if lesions and new_measurable is None:
            text = "lesions were not followed: a measurable one may be new, which would be PD"
            rules.append(Rule(NOT_ASSESSED, met=True, text=text))
        rules += _decrease(rule_set, now, baseline, from_baseline, minor)
    met = next((rule.category for rule in rules if rule.met), "SD" if baseline > 0 else NO_DISEASE)
    if met == "SD":
        rules.append(Rule("SD", met=True, text="none of the above"))
    if met == NO_DISEASE:
        text = f"the {rule_set.quantity} at baseline is 0: no change can be given"
        rules.append(Rule(NO_DISEASE, met=True, text=text))
    if met == "PD" and early:
        met = PRELIMINARY
        rules.append(Rule(met, met=True, text=f"{early}: a later scan is to confirm it"))
    return Suggestion(met, from_baseline, from_nadir, nadir_day, tuple(rules))


def overall(categories: Mapping[str, str]) -> Suggestion:
    """Region -> its category: that of a mixed tumor."""
    category = next(one for one in _OVERALL if one in categories.values())
    text = ", ".join(f"{region} {found}" for region, found in categories.items())
    return _unmeasured(category, f"{text}: together {category}")


def _unmeasured(category: str, text: str) -> Suggestion:
    """A category that does not follow from a change."""
    rule = Rule(category, met=True, text=text)
    return Suggestion(category, from_baseline=None, from_nadir=None, nadir_day=None, rules=(rule,))


def _growth(
    rule_set: CriterionSet, now: float, nadir: float, nadir_day: int, from_nadir: float | None, measurable_again: bool
) -> Rule:
    limit = rule_set.progression
    if from_nadir is None:
        met = now > 0 and measurable_again
        text = f"{now:.{rule_set.decimals}f} {rule_set.unit}, after 0 on day {nadir_day}"
        return Rule("PD", met, f"{text}; PD where a lesion is measurable again")
    change, before = _compared(rule_set, now, nadir, from_nadir, limit)
    text = f"{change} against the nadir, {before} on day {nadir_day}; PD from {_percent(limit)}"
    return Rule("PD", from_nadir >= limit - _SLACK, text)


def _new(count: int | None) -> Rule:
    known = "not known, lesions were not followed" if count is None else str(count)
    text = f"measurable lesions that the baseline did not have: {known}; PD from 1"
    return Rule("PD", bool(count), text)


def _decrease(rule_set: CriterionSet, now: float, baseline: float, change: float, minor: float | None) -> list[Rule]:
    limits = {"PR": -rule_set.response} if minor is None else {"PR": -rule_set.response, "MR": -minor}
    rules = []
    for category, limit in limits.items():
        text, before = _compared(rule_set, now, baseline, change, limit)
        text += f" against the baseline's {before}; {category} from {_percent(limit)}"
        rules.append(Rule(category, change <= limit + _SLACK, text))
    return rules


def _compared(rule_set: CriterionSet, now: float, before: float, change: float, limit: float) -> tuple[str, str]:
    """The quantity with its change, and what it was before; as exact as the limit asks for."""

    def shown(decimals: int) -> float:
        was = round(before, decimals)
        return round(now, decimals) / was - 1 if was else math.nan

    digits = decimals_beside(change, limit, rule_set.decimals, shown, _SLACK)
    percent = beside(100 * change, 100 * limit, 1, 100 * _SLACK, "+")
    text = f"{rule_set.quantity} {now:.{digits}f} {rule_set.unit}, {percent}%"
    return text, f"{before:.{digits}f} {rule_set.unit}"


def _percent(limit: float) -> str:
    return f"{100 * limit:+g}%"
