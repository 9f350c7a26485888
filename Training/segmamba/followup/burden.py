"""What the lesions of one region amount to at a date, and the categories that this is compatible with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segmamba.followup.criteria import SETS, Suggestion, overall, suggest


@dataclass(frozen=True, eq=False)
class Burden:
    """What of one region is judged at a date."""

    region: str
    """Of lesions.REGIONS."""
    spd: float | None
    """Sum of products of the targets, mm^2, None where lesions were not followed."""
    volume_ml: float
    """Of all lesions."""
    spread: Mapping[str, tuple[float, float]]
    """See segmamba.followup.spread."""
    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    """By criterion set."""
    variants: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By criterion set: border -> category."""

    def value(self, name: str, variant: str | None = None) -> float | None:
        """What a criterion set compares, as measured or with another border."""
        if name == "bidimensional":
            return None if self.spd is None else self.spd if variant is None else self.spread[variant][0]
        return self.volume_ml if variant is None else self.spread[variant][1]

    @property
    def near(self) -> dict[str, tuple[str, ...]]:
        """See `near`."""
        return near(self.suggestions, self.variants)


def judge(
    burden: Burden, earlier: Sequence[Burden], days: Sequence[int], own: Mapping[str, Mapping[str, Any]], **facts: Any
) -> Burden:
    """A burden with what each set of criteria says of it.

    Args:
        burden: of the date that is judged.
        earlier: of the same region, the baseline first.
        days: of these and of `burden`.
        own: by criterion set, those arguments of `criteria.suggest` that are of one set.
        **facts: further ones, which are of all.

    Returns:
        The same with suggestions, and with the categories that other borders would give.
    """
    both = (*earlier, burden)
    borders = [v for v in burden.spread if all(v in other.spread for other in earlier)]
    suggestions, variants = {}, {}
    for name in SETS:
        more = {**facts, **own[name]}
        suggestions[name] = suggest(name, days, [one.value(name) for one in both], **more)
        variants[name] = {
            v: suggest(name, days, [one.value(name, v) for one in both], **more).category for v in borders
        }
    return replace(burden, suggestions=suggestions, variants=variants)


def together(
    burdens: Sequence[Burden], measurable: Collection[str]
) -> tuple[dict[str, Suggestion], dict[str, tuple[str, ...]]]:
    """Suggestions, and `near`, of a date: those of its only burden, or overall of several.

    measurable: regions with targets. What is not measurable has no response in volume either, and is judged by sums;
    a new lesion counts.
    """
    suggestions, variants = {}, {}
    for name in SETS:
        sets = {one.region: name if one.region in measurable else "bidimensional" for one in burdens}
        found = {one.region: one.suggestions[sets[one.region]] for one in burdens}
        own = {one.region: one.variants[sets[one.region]] for one in burdens}
        if len(burdens) == 1:
            (region,) = found
            suggestions[name], variants[name] = found[region], own[region]
            continue
        suggestions[name] = overall({region: one.category for region, one in found.items()})
        borders = [v for v in next(iter(own.values())) if all(v in categories for categories in own.values())]
        variants[name] = {v: overall({region: own[region][v] for region in own}).category for v in borders}
    return suggestions, near(suggestions, variants)


def near(
    suggestions: Mapping[str, Suggestion], variants: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Criterion sets of which another border gives another category -> these categories."""
    others = {name: set(variants[name].values()) - {found.category} for name, found in suggestions.items()}
    return {name: tuple(sorted(found)) for name, found in others.items() if found}
