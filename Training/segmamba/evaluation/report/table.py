"""The table at the end of a training, and how numbers are written for people."""

from __future__ import annotations

import math
from pathlib import Path

from segmamba.evaluation.report.log import mean_dice, read_log, worst_first

FULL_TABLE = 60  # cases; of more the worst are shown


def format_table(run: Path | str) -> str:
    """For a terminal: the best step, Dice and HD95 (mm) per region, of each case the worst first, and the time.

    Raises InputError where the run has no log.
    """
    log = read_log(run)
    lines = [f"{log.last_step} steps in {format_seconds(log.training_seconds)}"]
    lines[0] += f", validation {format_seconds(log.validation_seconds)}" if log.validations else ", no validation"
    if log.steps and log.steps[-1]["skipped"] > 0:
        lines.append(f"skipped steps, of a loss that was not finite: {log.steps[-1]['skipped']:.0f}")
    best = log.best
    if best is None:
        return "\n".join(lines)
    last = log.validations[-1]
    text = f"best validation: step {best['step']}, mean Dice {format_score(mean_dice(best['mean']))}"
    if last["step"] != best["step"]:
        text += f" (the last one, step {last['step']}: {format_score(mean_dice(last['mean']))})"
    lines.append(text)
    regions = log.regions
    cases = worst_first(best["cases"])
    shown = cases[:FULL_TABLE]
    names = {case: printable(case) for case in shown}
    width = max(len(name) for name in [*names.values(), "case", "mean"])
    columns = {region: max(8, len(printable(region)) + 2) for region in regions}
    half = sum(columns.values())
    lines += ["", f"{'':{width}}{'Dice':>{half}}  {'HD95, mm':>{half}}"]
    head = "".join(f"{printable(region):>{columns[region]}}" for region in regions)
    lines.append(f"{'case':{width}}{head}  {head}")
    for name, scores in [*((names[case], best["cases"][case]) for case in shown), ("mean", best["mean"])]:
        dice = "".join(f"{format_score(_value(scores, r, 'dice')):>{columns[r]}}" for r in regions)
        hd95 = "".join(f"{format_score(_value(scores, r, 'hd95'), 2):>{columns[r]}}" for r in regions)
        lines.append(f"{name:{width}}{dice}  {hd95}")
    if len(cases) > len(shown):
        lines.append(f"and {len(cases) - len(shown)} better cases; all of them are in the report")
    return "\n".join(lines)


def format_score(value: float, digits: int = 3) -> str:
    """A score as tables show it, with `digits` decimals; "-" where it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def format_seconds(seconds: float) -> str:
    """3 s, 4 min 5 s, 6 h 7 min, 8 d 9 h."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {small_name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def printable(text: str) -> str:
    """Case ids come from file names: control characters of a terminal are shown as their code points."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _value(scores: dict, region: str, name: str) -> float:
    return scores.get(region, {}).get(name, math.nan)
