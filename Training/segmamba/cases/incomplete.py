"""Cases of which a modality is missing: what a model does without, and what that costs.

A model is trained for it by leaving channels out at random (`augment.modality_dropout`); a channel that is missing is 0
everywhere. What it is allowed to do without is what somebody has measured: the rest is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from segmamba.errors import InputError


@dataclass(frozen=True)
class Incomplete:
    """Part of a manifest."""

    measured_on: str
    """Id of the model."""
    cases: int
    """How many it had not seen."""
    dice: dict[str, float]
    """Region -> mean Dice with every modality."""
    without: dict[str, dict[str, float]]
    """What is missing, such as "t2w" or "t1n+t2w" -> the same."""

    def warning(self, absent: tuple[str, ...]) -> str:
        """What to say of a result without `absent`, one of the sets in `without`."""
        verb = "is" if len(absent) == 1 else "are"
        return (
            f"{' and '.join(absent)} {verb} missing: without, {self.measured_on} reached a mean Dice of "
            f"{_scores(self.without['+'.join(absent)])} on {self.cases} cases that it had not seen, with all images "
            f"{_scores(self.dice)}"
        )


def find_absent(modalities: Iterable[str], given: Iterable[str], known: Incomplete | None) -> tuple[str, ...]:
    """Which modalities of a model are missing of a case.

    Args:
        modalities: of the model.
        given: of the case.
        known: of the model's manifest; None: it needs them all.

    Returns:
        The missing ones in the model's order; () for a complete case, and where a name is none of a modality, which is
        told where the images are read.

    Raises:
        InputError: where the model cannot be used without them.
    """
    modalities, given = tuple(modalities), tuple(given)
    absent = tuple(m for m in modalities if m not in given)
    if not absent or set(given) - set(modalities):
        return ()  # a name that is none of a modality is told where the images are read
    without = known.without if known else {}
    if "+".join(absent) in without:
        return absent
    text = f"no image for {', '.join(absent)}; the model needs {', '.join(modalities)}"
    if without:
        text += f", and does without {' or '.join(name.replace('+', ' and ') for name in without)} alone"
    raise InputError(f"{text}; got {', '.join(given) or 'none'}")


def _scores(dice: dict[str, float]) -> str:
    return ", ".join(f"{region} {value:.2f}" for region, value in dice.items())
