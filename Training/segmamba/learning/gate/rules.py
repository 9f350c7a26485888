"""The criteria by which a candidate may replace the champion, said before anything is scored, and how they are judged.

The form is that of a predetermined change control plan (FDA, December 2024): quantitative acceptance criteria on cases
that are never trained on. What may be lost follows from the spread of the champion's own scores on the anchor cases,
which no candidate can widen: other cases of the same kind would move its mean by the standard error. Dice counts where
a region truly is (scores.present_dice), false spots everywhere; on the site's own cases they count where no region is,
which Dice cannot see: where one is, it says whether the answer is better, spots and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segmamba.errors import InputError
from segmamba.evaluation.confidence import paired_lower_bound
from segmamba.learning.gate.looks import Look, find_looks, grave_losses
from segmamba.learning.gate.scores import Pair, present_dice, table

SEED = 2023  # the same scores give the same bounds
ENOUGH = 25  # anchor cases; of fewer, chance moves the means
_MARGINS = 0.01, 0.05  # of a mean Dice, however narrow or wide the spread
_FEW = 5  # anchor cases with a region, below which little is known of it
_SPOTS = 0.25  # false spots a case, however narrow the spread; of fewer cases than four one spot in all


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What the gate asks of a candidate."""

    margin: float | None = None
    """By which a mean Dice may be worse on the anchor set; None: the standard error of the champion's mean there, 0.01
    to 0.05."""
    local_cases: int = 10
    """With so many the improvement on local cases must be sure (lower bound above 0); with fewer its mean decides, as
    low evidence."""

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 <= self.margin <= 1:
            raise InputError(f"margin {self.margin} must be 0 to 1")

    def margin_for(self, dices: np.ndarray) -> float:
        """What may be lost of a mean Dice, given those of the champion: (cases,), two or more."""
        return self.margin if self.margin is not None else float(np.clip(_standard_error(dices), *_MARGINS))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate."""

    name: str
    """What is asked, in a few words."""
    holds: bool
    """Whether it is so."""
    otherwise: str
    """What the verdict is where it does not hold: "refuse", or "confirm" (a person looks and decides)."""
    text: str
    """On what numbers."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a candidate, with what it rests on."""

    verdict: str
    """"promote" (the candidate is better), "confirm" (not worse: a person decides) or "refuse" (worse)."""
    checks: tuple[Check, ...]
    """All that were made, in order."""
    low_evidence: tuple[str, ...]
    """Why the cases are too few to be sure; or empty."""
    look_first: tuple[Look, ...]
    """The cases that lost most, worst first."""
    harm: float
    """The largest loss of a region on the anchor set over what is allowed; above 1 the verdict is "refuse"."""


def judge(anchor: Pair, local: Pair, spots: Mapping[str, float], criteria: Criteria) -> Judgement:
    """The verdict on a candidate from the scores of both models.

    Args:
        anchor: scores of champion and candidate on the anchor cases.
        local: likewise on the site's own; empty where there are none.
        spots: region -> mm3, as of `scores.kept_mm3`.
        criteria: what is asked of the candidate.

    Returns:
        The verdict, with what it rests on.

    Raises:
        InputError: where fewer than two anchor cases hold a tumour: they have no spread.
    """
    seen = _Dice.of(anchor, spots)
    if len(seen.means) < 2:
        raise InputError(
            f"an anchor set of {len(anchor[0])} case(s), {len(seen.means)} with a tumour; expected two at the very "
            "least, better 100"
        )
    losses = [*_dice_losses(seen, criteria), *_spot_losses(anchor)]
    margin = criteria.margin_for(seen.means[:, 0])
    checks = [
        _finite(anchor, local),
        *(loss.check() for loss in losses),
        _sure(seen, margin),
        _better_at_home(_Dice.of(local, spots), len(local[0]), margin, criteria),
        *(loss.check() for loss in _spots_where_none_is(local, spots)),
        _no_case_lost((anchor, local), seen, spots),
    ]
    failed = {check.otherwise for check in checks if not check.holds}
    low = []
    if len(anchor[0]) < ENOUGH:
        low.append(f"{len(anchor[0])} anchor cases, fewer than {ENOUGH}: chance moves their means")
    low += [f"{region} is in {n} of the anchor cases" for region, n in seen.counts().items() if n < _FEW]
    if len(local[0]) < criteria.local_cases:
        low.append(f"{len(local[0])} local validation cases, fewer than {criteria.local_cases}")
    return Judgement(
        verdict="refuse" if "refuse" in failed else "confirm" if failed else "promote",
        checks=tuple(checks),
        low_evidence=tuple(low),
        look_first=find_looks({"anchor": anchor, "local": local}),
        harm=max(loss.found / max(loss.allowed, 1e-9) for loss in losses),
    )


def beside_doubts(judgement: Judgement, cases: Sequence[str]) -> Judgement:
    """The judgement where a person accepted corrected cases against the advice of intake.

    What is wrong with them is learnt, and the cases that it is judged by share it: what looks better is not recommended
    then, a person decides.

    Args:
        judgement: on the scores alone.
        cases: names of the corrected cases that were accepted so; none: nothing changes.

    Returns:
        The judgement with one check more.
    """
    if not cases:
        return judgement
    text = (
        f"{len(cases)} corrected case(s) that intake found doubtful were accepted by a person: "
        f"{', '.join(cases[:5])}; whether they teach something wrong, "
        f"{ENOUGH} labelled patients or more as anchor cases would show, these cannot"
    )
    check = Check(name="doubtful cases", holds=False, otherwise="confirm", text=text)
    verdict = "refuse" if judgement.verdict == "refuse" else "confirm"
    return replace(judgement, verdict=verdict, checks=(*judgement.checks, check))


def is_guard(anchor: Pair, spots: Mapping[str, float]) -> bool:
    """Whether so many anchor cases hold a tumour that more than chance moves their means."""
    return count_with_tumor(anchor, spots) >= ENOUGH


def count_with_tumor(pair: Pair, spots: Mapping[str, float]) -> int:
    """How many cases hold a tumour, of which Dice says something."""
    return len(_Dice.of(pair, spots).means)


def local_change(local: Pair, spots: Mapping[str, float]) -> float | None:
    """Of the mean Dice over local cases and the regions that are in them; None without a case that has any."""
    means = _Dice.of(local, spots).means
    return float((means[:, 1] - means[:, 0]).mean()) if len(means) else None


@dataclass(frozen=True, kw_only=True)
class _Dice:
    """Dice of champion and candidate where regions truly are.

    by_region: region -> (cases that have it, 2). means: (cases that have any, 2), over the regions of a case.
    """

    by_region: dict[str, np.ndarray]
    means: np.ndarray

    @classmethod
    def of(cls, pair: Pair, spots: Mapping[str, float]) -> _Dice:
        if not pair[0]:
            return cls(by_region={}, means=np.empty((0, 2)))
        both = np.stack([present_dice(model, spots) for model in pair], axis=-1)  # (cases, regions, 2)
        here = np.isfinite(both[..., 0])
        by_region = {region: both[here[:, k], k] for k, region in enumerate(spots)}
        return cls(by_region=by_region, means=np.nanmean(both[here.any(axis=1)], axis=1))

    def counts(self) -> dict[str, int]:
        return {region: len(values) for region, values in self.by_region.items()}


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """Of a region on one of the two sets: what the candidate loses, and may lose."""

    name: str
    found: float
    allowed: float
    text: str
    otherwise: str = "refuse"

    def check(self) -> Check:
        return Check(name=self.name, holds=self.found <= self.allowed + 1e-9, otherwise=self.otherwise, text=self.text)


def _dice_losses(seen: _Dice, criteria: Criteria) -> list[_Loss]:
    losses = []
    for region, values in seen.by_region.items():
        if len(values) < 2:  # said as low evidence
            continue
        change, margin = float((values[:, 1] - values[:, 0]).mean()), criteria.margin_for(values[:, 0])
        text = f"change of the mean {change:+.4f} over {len(values)} cases; allowed {-margin:+.3f}"
        losses.append(_Loss(name=f"anchor Dice {region}", found=-change, allowed=margin, text=text))
    return losses


def _spot_losses(anchor: Pair) -> list[_Loss]:
    counts = np.stack([table(model, "false_positives") for model in anchor], axis=-1)  # (cases, regions, 2)
    regions = next(iter(anchor[0].values())).scores["false_positives"]
    return [_spot_loss(f"anchor false positives {region}", counts[:, k], "refuse") for k, region in enumerate(regions)]


def _spots_where_none_is(local: Pair, spots: Mapping[str, float]) -> list[_Loss]:
    """Of each region that some of the site's own cases do not have, over these."""
    if not local[0]:
        return []
    counts = np.stack([table(model, "false_positives") for model in local], axis=-1)
    absent = np.isnan(present_dice(local[0], spots))  # (cases, regions)
    return [
        _spot_loss(f"local false positives {region} where none is", counts[absent[:, k], k], "confirm")
        for k, region in enumerate(spots)
        if absent[:, k].any()
    ]


def _spot_loss(name: str, counts: np.ndarray, otherwise: str) -> _Loss:
    """counts: of false spots, (cases, 2): champion and candidate."""
    before, after = counts.T
    spread = 2 * _standard_error(before) if len(before) > 1 else 0.0
    rise, allowed = float((after - before).mean()), max(_SPOTS, 1 / len(before), spread)
    text = f"{before.mean():.2f} to {after.mean():.2f} a case; allowed {allowed:+.2f}"
    return _Loss(name=name, found=rise, allowed=allowed, text=text, otherwise=otherwise)


def _finite(anchor: Pair, local: Pair) -> Check:
    bad = sorted(case for pair in (anchor, local) for case, scored in pair[1].items() if not scored.finite)
    text = f"not finite in {', '.join(bad[:5])}" if bad else "all probabilities are finite"
    return Check(name="finite", holds=not bad, otherwise="refuse", text=text)


def _sure(seen: _Dice, margin: float) -> Check:
    """That as a whole nothing was lost must be sure, not only found."""
    champion, candidate = seen.means.T
    bound = float(paired_lower_bound(candidate, champion, rng=np.random.default_rng(SEED)))
    change = float((candidate - champion).mean())
    text = f"change of the mean {change:+.4f}, not below {bound:+.4f} (95 %); allowed {-margin:+.3f}"
    return Check(name="anchor Dice", holds=bound >= -margin - 1e-9, otherwise="confirm", text=text)


def _better_at_home(local: _Dice, cases: int, margin: float, criteria: Criteria) -> Check:
    """cases: all that were kept for judging; `local` has those with a tumour."""
    name, count = "local Dice", len(local.means)
    if not count:
        found = f"none of {cases} local validation case(s) has a tumour larger than a spot"
        text = f"{found if cases else 'no local validation case yet'}: nothing shows that it is better here"
        return Check(name=name, holds=False, otherwise="confirm", text=text)
    champion, candidate = local.means.T
    mean = float((candidate - champion).mean())
    otherwise = "refuse" if mean < -margin else "confirm"
    if count < max(2, criteria.local_cases):
        text = f"change of the mean {mean:+.4f} over {count} case(s); must be above 0 (low evidence)"
        return Check(name=name, holds=mean > 0, otherwise=otherwise, text=text)
    bound = float(paired_lower_bound(candidate, champion, rng=np.random.default_rng(SEED)))
    text = f"change of the mean {mean:+.4f}, not below {bound:+.4f} (95 %); must be above 0"
    return Check(name=name, holds=bound > 0, otherwise=otherwise, text=text)


def _no_case_lost(pairs: tuple[Pair, ...], seen: _Dice, spots: Mapping[str, float]) -> Check:
    spread = {r: float(np.std(v[:, 0], ddof=1)) if len(v) > 1 else 0.0 for r, v in seen.by_region.items()}
    grave, largest = grave_losses(pairs, spread, spots)
    text = "; ".join(grave[:5]) + (f" and {len(grave) - 5} more" if len(grave) > 5 else "")
    return Check(name="worst case", holds=not grave, otherwise="confirm", text=text or largest)
