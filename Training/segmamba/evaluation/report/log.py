"""run/log.jsonl: one JSON object a line, as the training wrote it, put back in order.

A run that was killed and resumed, or rolled back, repeats steps. What came later counts: a step line takes away every
step line of its step or a later one that stands above it, and every validation of a later step, for they belong to
work that was lost; a validation replaces an earlier one of its step. Lines cut in half by a kill are passed over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import read_bytes
from segmamba.settings import parse_json

LOG = "log.jsonl"
_START = '{"kind"'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunLog:
    """Records of a run in order of their steps; events in order of time."""

    steps: list[dict]
    """{"step", "time", "loss", "learning_rate", "gradient_norm", "seconds_per_step", "stall", "skipped"} each."""
    validations: list[dict]
    """{"step", "time", "mean", "cases", "seconds", "best"}."""
    events: list[dict]
    """{"step", "time", "text"}. A number that is missing or no number is NaN."""
    damaged: int = 0
    """How many lines could not be read."""

    @property
    def regions(self) -> tuple[str, ...]:
        """Every region that was scored, in the order in which the newest validation has them."""
        return tuple(dict.fromkeys(region for entry in reversed(self.validations) for region in entry["mean"]))

    @property
    def best(self) -> dict | None:
        """The last validation marked as the best so far; without a mark the one of the highest mean Dice."""
        marked = [entry for entry in self.validations if entry["best"]]
        if marked:
            return marked[-1]
        return max(self.validations, key=lambda entry: _order(mean_dice(entry["mean"])), default=None)

    @property
    def last_step(self) -> int:
        """The last step that was logged; 0 before the first."""
        return max((entry["step"] for entry in (*self.steps[-1:], *self.validations[-1:])), default=0)

    @property
    def training_seconds(self) -> float:
        """Time spent in steps that count, without pauses and validations.

        Steps before the first line are taken to be as fast as its.
        """
        total, before = 0.0, 0
        for entry in self.steps:
            if math.isfinite(entry["seconds_per_step"]):
                total += entry["seconds_per_step"] * (entry["step"] - before)
            before = entry["step"]
        return total

    @property
    def validation_seconds(self) -> float:
        """Seconds that all validations took together."""
        return sum(entry["seconds"] for entry in self.validations if math.isfinite(entry["seconds"]))


def read_log(run: Path | str) -> RunLog:
    """Reads the log of a training run. Raises InputError where `run` has none that can be read."""
    path = Path(run) / LOG
    try:
        text = read_bytes(path).decode(errors="replace")
    except InputError as error:
        raise InputError(f"{error}; give the folder that a training wrote (its run folder)") from None
    steps: dict[int, dict] = {}
    validations: dict[int, dict] = {}
    events: dict[tuple[int, str], dict] = {}
    damaged = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        entry = _parse(line)
        if entry is None:
            damaged += 1
        elif entry["kind"] == "step":
            steps = (
                {step: old for step, old in steps.items() if step < entry["step"]} if _repeats(steps, entry) else steps
            )
            if validations and max(validations) > entry["step"]:
                validations = {step: old for step, old in validations.items() if step <= entry["step"]}
            steps[entry["step"]] = _step(entry)
        elif entry["kind"] == "validation":
            validations[entry["step"]] = _validation(entry)
        elif entry["kind"] == "event":
            events[entry["step"], str(entry.get("text", ""))] = {**_head(entry), "text": str(entry.get("text", ""))}
    if damaged:
        logger.info("%s: %d lines cannot be read and are left out", path, damaged)
    return RunLog(
        [steps[step] for step in sorted(steps)],
        [validations[step] for step in sorted(validations)],
        sorted(events.values(), key=lambda entry: _order(entry["time"])),
        damaged,
    )


def mean_dice(scores: Mapping[str, Mapping[str, float]]) -> float:
    """The mean Dice over the regions of {region: {"dice", "hd95"}}; NaN without any."""
    return sum(entry["dice"] for entry in scores.values()) / len(scores) if scores else math.nan


def worst_first(cases: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Case ids by mean Dice, the worst first, NaN before all; ties by the larger mean HD95, then by id."""

    def badness(case: str) -> tuple[float, float, str]:
        scores = cases[case]
        distance = sum(_order(entry["hd95"], math.inf) for entry in scores.values())
        return _order(mean_dice(scores)), -distance, case

    return sorted(cases, key=badness)


def _repeats(steps: dict[int, dict], entry: dict) -> bool:
    return bool(steps) and entry["step"] <= next(reversed(steps))


def _parse(line: str) -> dict | None:
    """The record of a line; of a line that a kill cut short and the resumed run went on with, the second one."""
    for text in (line, line[max(0, line.rfind(_START)) :]):
        try:
            entry = parse_json(text, "")
        except InputError:
            continue
        if isinstance(entry, dict) and entry.get("kind") and _is_step(entry.get("step", 0)):
            return {"step": 0, **entry}
    return None


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _order(value: float, absent: float = -math.inf) -> float:
    return value if math.isfinite(value) else absent


def _head(entry: dict) -> dict:
    return {"step": entry["step"], "time": _number(entry.get("time"))}


def _step(entry: dict) -> dict:
    names = ("loss", "learning_rate", "gradient_norm", "seconds_per_step", "stall", "skipped")
    return {**_head(entry), **{name: _number(entry.get(name)) for name in names}}


def _validation(entry: dict) -> dict:
    cases = entry.get("cases")
    cases = cases if isinstance(cases, dict) else {}
    return {
        **_head(entry),
        "mean": _scores(entry.get("mean")),
        "cases": {str(case): _scores(scores) for case, scores in cases.items()},
        "seconds": _number(entry.get("seconds")),
        "best": bool(entry.get("best")),
    }


def _scores(values: object) -> dict[str, dict[str, float]]:
    if not isinstance(values, dict):
        return {}
    found = {region: entry if isinstance(entry, dict) else {} for region, entry in values.items()}
    return {region: {name: _number(entry.get(name)) for name in ("dice", "hd95")} for region, entry in found.items()}
