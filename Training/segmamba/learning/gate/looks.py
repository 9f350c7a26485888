"""Which cases became worse: those that a person should see before deciding, and those that forbid a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segmamba.learning.gate.scores import Pair

_WORTH_A_LOOK = 0.10  # of Dice that a region of a case loses
_FAR = 2.0  # of the champion's own spread over cases: a case that was among its usual ones is no longer
_LOOKS = 5


@dataclass(frozen=True, kw_only=True)
class Look:
    """A case to look at."""

    part: str
    """"anchor" or "local"."""
    case: str
    """Its id."""
    text: str
    """What became worse in it."""


def find_looks(pairs: Mapping[str, Pair]) -> tuple[Look, ...]:
    """The cases in which a region lost 0.10 of Dice or gained a false spot, the largest loss first; at most five."""
    found = []
    for part, (champion, candidate) in pairs.items():
        for case in champion:
            one, other = champion[case].scores, candidate[case].scores
            losses = {r: one["dice"][r] - other["dice"][r] for r in one["dice"]}
            spots = {r: other["false_positives"][r] - one["false_positives"][r] for r in one["false_positives"]}
            texts = [
                f"Dice {r} {one['dice'][r]:.3f} -> {other['dice'][r]:.3f}"
                for r in sorted(losses, key=lambda r: -losses[r])
                if losses[r] >= _WORTH_A_LOOK - 1e-9
            ]
            texts += [f"{spots[r]:.0f} false spot(s) of {r} more" for r in spots if spots[r] > 0]
            if texts:
                found.append((max(losses.values()), Look(part=part, case=case, text="; ".join(texts))))
    found.sort(key=lambda row: -row[0])
    return tuple(look for _, look in found[:_LOOKS])


def grave_losses(
    pairs: tuple[Pair, ...], spread: Mapping[str, float], spots: Mapping[str, float]
) -> tuple[list[str], str]:
    """Losses of a region of one case that a person should look at.

    Those that exceed 0.10 of Dice and twice the region's spread. Regions that are truly absent, or smaller than what
    counts as a spot, are left out: there one voxel decides between 0 and 1, and what is found too much is counted as a
    false spot.

    Args:
        pairs: the scores of champion and candidate, for each set of cases.
        spread: region -> standard deviation of the champion's own Dice over the anchor cases that have it.
        spots: region -> mm3, as of `scores.kept_mm3`.

    Returns:
        A line for each, the largest loss first; and a line about the largest of all.
    """
    losses = []
    for champion, candidate, case in ((*pair, case) for pair in pairs for case in pair[0]):
        one, other = champion[case].scores["dice"], candidate[case].scores["dice"]
        for region in one:
            if champion[case].truth_mm3[region] >= spots[region]:
                allowed = max(_WORTH_A_LOOK, _FAR * float(spread[region]))
                text = f"{case} {region} {one[region]:.3f} -> {other[region]:.3f}"
                losses.append((one[region] - other[region], allowed, text))
    losses.sort(reverse=True)
    grave = [text for loss, allowed, text in losses if loss > allowed + 1e-9]
    if not losses:
        return grave, "no case has a region large enough to lose"
    return grave, f"largest loss {losses[0][0]:.3f} ({losses[0][2]}); allowed {losses[0][1]:.2f}"
