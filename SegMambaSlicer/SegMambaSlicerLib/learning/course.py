"""How the site's models have come on: what each run's candidate did on the site's own cases that nobody trains on."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..i18n import _
from .following import number

_VERDICTS = {
    "promote": lambda: _("better"),
    "confirm": lambda: _("not worse"),
    "refuse": lambda: _("worse"),
}


@dataclass(frozen=True)
class JudgedRun:
    """dice: region -> mean Dice of (the model then in use, the run's candidate) over so many `cases`."""

    name: str
    started: float | None
    verdict: str
    cases: int
    dice: dict[str, tuple[float, float]]


def judgedRuns(runs: list[dict]) -> list[JudgedRun]:
    """runs: as `segmamba status` says them, the newest first -> those that own cases have judged, the oldest first."""
    found = []
    for run in reversed(runs):
        own = run.get("own")
        dice = own.get("dice") if isinstance(own, dict) else None
        if not isinstance(dice, dict):
            continue
        pairs = {str(region): _pair(values) for region, values in dice.items()}
        pairs = {region: pair for region, pair in pairs.items() if pair is not None}
        if pairs:
            cases = int(number(own.get("cases")) or 0)
            verdict, started = str(run.get("verdict") or ""), number(run.get("started"))
            found.append(JudgedRun(str(run.get("run")), started, verdict, cases, pairs))
    return found


def courseText(judged: list[JudgedRun]) -> str:
    """A line for each run, the newest first."""
    lines = []
    for run in reversed(judged):
        day = time.strftime("%Y-%m-%d", time.localtime(run.started)) if run.started else ""
        values = ", ".join(f"{region} {a:.3f} \u2192 {b:.3f}" for region, (a, b) in run.dice.items())
        verdict = _VERDICTS[run.verdict]() if run.verdict in _VERDICTS else run.verdict
        text = _("{day}  {run}: {values} on {count} own cases; {verdict}")
        lines.append(text.format(day=day, run=run.name, values=values, count=run.cases, verdict=verdict).strip())
    return "\n".join(lines)


def coursePoints(judged: list[JudgedRun]) -> dict[str, list[tuple[int, float]]]:
    """Region -> (number of the run, Dice of its candidate); number 0 is the model in use before the first run.

    What the gate refused is no step of the site's models: see `refusedPoints`.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for count, run in enumerate(judged, 1):
        for region, (before, after) in run.dice.items():
            line = points.setdefault(region, [(count - 1, before)])
            if run.verdict != "refuse":
                line.append((count, after))
    return points


def refusedPoints(judged: list[JudgedRun]) -> dict[str, list[tuple[int, float]]]:
    """The same of the candidates that the gate refused."""
    points: dict[str, list[tuple[int, float]]] = {}
    for count, run in enumerate(judged, 1):
        for region, (_before, after) in run.dice.items():
            if run.verdict == "refuse":
                points.setdefault(region, []).append((count, after))
    return points


def _pair(values: object) -> tuple[float, float] | None:
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        return None
    before, after = number(values[0]), number(values[1])
    return None if before is None or after is None else (before, after)
