"""The criteria by which a candidate may replace the champion, said before anything is scored, and how they are judged.

The form is that of a predetermined change control plan (FDA, December 2024): quantitative acceptance criteria on cases
that are never trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segmamba.errors import InputError
from segmamba.evaluation.confidence import paired_lower_bound
from segmamba.learning.gate.scores import Scored

SEED = 2023  # the same scores give the same bounds
_MANY = 100  # anchor cases with which a margin of 0.01 can be passed: (2.486 x 0.04 / 0.01)^2
_ENOUGH = 25  # anchor cases with which one of 0.02 can


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """margin: by which the mean Dice of a region may be worse on the anchor set, at the lower bound of 95 %; None: 0.01
    where there are 100 cases, else 0.02. false_positives: by which their mean number a case and region may rise there.
    worst: Dice that a region of one case may lose before a person must look. local_cases: with so many the improvement
    on local cases must be sure (lower bound above 0); with fewer its mean decides, as low evidence.
    """

    margin: float | None = None
    false_positives: float = 0.1
    worst: float = 0.10
    local_cases: int = 10

    def __post_init__(self):
        for name in ("margin", "false_positives", "worst"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} {value} must be 0 to 1")

    def margin_for(self, cases: int) -> float:
        return self.margin if self.margin is not None else 0.01 if cases >= _MANY else 0.02


@dataclass(frozen=True, kw_only=True)
class Check:
    """otherwise: what the verdict is where it does not hold: "refuse", or "confirm" (a person looks and decides)."""

    name: str
    holds: bool
    otherwise: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """verdict: "promote", "confirm" or "refuse". low_evidence: why the cases are too few to be sure; or empty."""

    verdict: str
    checks: tuple[Check, ...]
    low_evidence: tuple[str, ...]


Pair = tuple[Mapping[str, Scored], Mapping[str, Scored]]  # champion, candidate: the same cases


def judge(anchor: Pair, local: Pair, criteria: Criteria) -> Judgement:
    """Raises InputError for fewer than two anchor cases: nothing can be said of a spread."""
    if len(anchor[0]) < 2:
        raise InputError(f"an anchor set of {len(anchor[0])} case(s); expected two at the very least, better 100")
    checks = [
        *_sound(anchor, local),
        *_not_inferior(anchor, criteria),
        *_no_more_false_positives(anchor, criteria),
        _better_at_home(local, criteria),
        _worst((anchor, local), criteria),
    ]
    failed = {check.otherwise for check in checks if not check.holds}
    verdict = "refuse" if "refuse" in failed else "confirm" if failed else "promote"
    low = []
    if len(anchor[0]) < _ENOUGH:
        low.append(f"{len(anchor[0])} anchor cases: below {_ENOUGH} even a harmless candidate fails by chance at times")
    if len(local[0]) < criteria.local_cases:
        low.append(f"{len(local[0])} local validation cases, fewer than {criteria.local_cases}")
    return Judgement(verdict=verdict, checks=tuple(checks), low_evidence=tuple(low))


def dice_table(scored: Mapping[str, Scored]) -> np.ndarray:
    """(cases, regions) Dice, cases by id."""
    return np.array([list(scored[case].scores["dice"].values()) for case in sorted(scored)], float)


def _regions(scored: Mapping[str, Scored]) -> list[str]:
    return list(next(iter(scored.values())).scores["dice"])


def _sound(anchor: Pair, local: Pair) -> list[Check]:
    bad = sorted(case for pair in (anchor, local) for case, scored in pair[1].items() if not scored.finite)
    text = f"not finite in {', '.join(bad[:5])}" if bad else "all probabilities are finite"
    return [Check(name="finite", holds=not bad, otherwise="refuse", text=text)]


def _not_inferior(anchor: Pair, criteria: Criteria) -> list[Check]:
    champion, candidate = dice_table(anchor[0]), dice_table(anchor[1])
    margin = criteria.margin_for(len(champion))
    bounds = paired_lower_bound(candidate, champion, rng=np.random.default_rng(SEED))
    means = (candidate - champion).mean(axis=0)
    return [
        Check(
            name=f"anchor Dice {region}",
            holds=bool(bound >= -margin),
            otherwise="refuse",
            text=f"change {mean:+.4f}, not worse than {bound:+.4f} (95 %); allowed {-margin:+.3f}",
        )
        for region, mean, bound in zip(_regions(anchor[0]), means, bounds)
    ]


def _no_more_false_positives(anchor: Pair, criteria: Criteria) -> list[Check]:
    checks = []
    for region in _regions(anchor[0]):
        one, other = (np.mean([s.scores["false_positives"][region] for s in model.values()]) for model in anchor)
        checks.append(
            Check(
                name=f"anchor false positives {region}",
                holds=bool(other - one <= criteria.false_positives + 1e-9),
                otherwise="refuse",
                text=f"{one:.2f} to {other:.2f} a case; allowed {criteria.false_positives:+g}",
            )
        )
    return checks


def _better_at_home(local: Pair, criteria: Criteria) -> Check:
    name, count = "local Dice", len(local[0])
    if not count:
        text = "no local validation case yet: nothing shows that it is better here"
        return Check(name=name, holds=False, otherwise="refuse", text=text)
    champion, candidate = (dice_table(model).mean(axis=1) for model in local)
    mean = float((candidate - champion).mean())
    if count < max(2, criteria.local_cases):
        text = f"change of the mean {mean:+.4f} over {count} case(s); must be above 0 (low evidence)"
        return Check(name=name, holds=mean > 0, otherwise="refuse", text=text)
    bound = float(paired_lower_bound(candidate, champion, rng=np.random.default_rng(SEED)))
    text = f"change of the mean {mean:+.4f}, not below {bound:+.4f} (95 %); must be above 0"
    return Check(name=name, holds=bound > 0, otherwise="refuse", text=text)


def _worst(pairs: tuple[Pair, ...], criteria: Criteria) -> Check:
    losses = []
    for champion, candidate, case in ((*pair, case) for pair in pairs for case in pair[0]):
        one, other = champion[case].scores["dice"], candidate[case].scores["dice"]
        losses += [(one[r] - other[r], f"{case} {r} {one[r]:.3f} -> {other[r]:.3f}") for r in one]
    losses.sort(reverse=True)
    grave = [text for loss, text in losses if loss > criteria.worst]
    text = "; ".join(grave[:5]) + (f" and {len(grave) - 5} more" if len(grave) > 5 else "")
    text = text or f"largest loss {losses[0][0]:.3f}; allowed {criteria.worst:g}"
    return Check(name="worst case", holds=not grave, otherwise="confirm", text=text)
