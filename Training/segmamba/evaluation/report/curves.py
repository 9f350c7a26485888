"""The curves of a run: loss, Dice per region, learning rate, seconds per step. Drawn without a display."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmamba.evaluation.report.colours import region_colours
from segmamba.evaluation.report.log import LOG, RunLog, mean_dice, read_log
from segmamba.files.atomic import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROGRESS = "progress.png"
_INK = "#22303c"
_FAINT = "#9fb0bd"
_GRID = "#e4e9ed"
_POINTS = 2000  # of one curve; more are thinned out
_SMOOTH = 20  # the moving average runs over this part of the curve

log = logging.getLogger(__name__)


def write_progress(run: Path | str) -> Path:
    """Draws run/progress.png anew and returns its path.

    For use inside a training: whatever is wrong with the log or the disk is logged, never raised, and an earlier
    picture stays.
    """
    path = Path(run) / PROGRESS
    try:
        write_aside(path, draw_curves(read_log(run), "png"))
    except Exception as error:  # a training of days must not end for want of a picture
        log.warning("%s was not drawn from %s: %s", path, LOG, error)
    return path


def draw_curves(run_log: RunLog, form: str) -> bytes:
    """The four panels as a file of `form` "png" or "svg". Panels without data say so."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    (loss, dice), (rate, seconds) = figure.subplots(2, 2, gridspec_kw={"height_ratios": (3, 2)})
    _style(loss, "Loss", "of the training patches")
    _style(dice, "Dice of the held-out cases", "whole volumes")
    _style(rate, "Learning rate", "")
    _style(seconds, "Seconds per step", "and the share of it spent waiting for data, %")
    steps = [entry["step"] for entry in run_log.steps]
    _draw_loss(loss, steps, [entry["loss"] for entry in run_log.steps])
    _draw_dice(dice, run_log)
    _line(rate, steps, [entry["learning_rate"] for entry in run_log.steps], color=_INK)
    _draw_seconds(seconds, run_log)
    end = max(1, run_log.last_step)
    for ax in (loss, dice, rate, seconds):
        ax.set_xlim(-0.02 * end, 1.02 * end)
        if not ax.has_data():
            ax.text(0.5, 0.5, "nothing yet", transform=ax.transAxes, ha="center", va="center", color=_FAINT)
            ax.set_yticks([])
    for ax in (rate, seconds):
        ax.set_xlabel("step", color=_INK, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=110, metadata={"Date": None} if form == "svg" else None)
    return file.getvalue()


def moving_average(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of the finite ones of the last `width` values at each place; NaN where there is none."""
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    sums, counts = (np.concatenate([[0], np.cumsum(v)]) for v in (np.where(finite, array, 0), finite))
    first = np.maximum(0, np.arange(len(array)) - width + 1)
    last = np.arange(len(values)) + 1
    count = counts[last] - counts[first]
    return np.where(count > 0, (sums[last] - sums[first]) / np.maximum(count, 1), math.nan)


def _style(ax: Axes, title: str, remark: str) -> None:
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=_INK)
    ax.set_title(remark, loc="right", fontsize=8, color="#6b7c88")
    ax.tick_params(labelsize=8, colors=_INK, length=0)
    ax.grid(color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for name, spine in ax.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_FAINT)


def _line(ax: Axes, steps: Sequence[float], values: Sequence[float], **style: Any) -> bool:
    """Draws what is finite, thinned out evenly; a lone point is drawn as a point. Returns whether there was any."""
    points = [(s, v) for s, v in zip(steps, values) if math.isfinite(v)]
    points = points[:: max(1, math.ceil(len(points) / _POINTS))]
    if not points:
        return False
    ax.plot(*zip(*points), **{"linewidth": 1.6, "marker": "o" if len(points) == 1 else "", "markersize": 4, **style})
    return True


def _draw_loss(ax: Axes, steps: list[int], loss: list[float]) -> None:
    smooth = moving_average(loss, max(1, len(loss) // _SMOOTH)).tolist()
    several = sum(map(math.isfinite, loss)) > 3
    if several:
        _line(ax, steps, loss, color=_FAINT, linewidth=0.8, label="as logged")
    drawn = _line(
        ax, steps, smooth if several else loss, color=_INK, label="moving average" if several else "as logged"
    )
    bad = [step for step, value in zip(steps, loss) if not math.isfinite(value)]
    for step in bad[:200]:
        ax.axvline(step, color="#d24b4b", alpha=0.35, linewidth=1)
    if drawn:
        ax.legend(fontsize=8, frameon=False, labelcolor=_INK)
        _limit(ax, [value for value in loss if math.isfinite(value)])


def _limit(ax: Axes, values: list[float]) -> None:
    """A few wild losses at the start must not press the rest of the curve flat."""
    low, high = min(values), float(np.percentile(values, 99))
    if max(values) > high + 2 * (high - low) and high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))


def _draw_dice(ax: Axes, run_log: RunLog) -> None:
    steps = [entry["step"] for entry in run_log.validations]
    drawn = False
    for region, colour in region_colours(run_log.regions).items():
        values = [entry["mean"].get(region, {}).get("dice", math.nan) for entry in run_log.validations]
        label = region if len(region) <= 24 else region[:23] + "…"
        last = next((value for value in reversed(values) if math.isfinite(value)), math.nan)
        line = {"color": colour, "marker": "o", "markersize": 3.5, "label": f"{label} {last:.3f}".lstrip("_")}
        drawn = _line(ax, steps, values, **line) or drawn
    if not drawn:
        return
    best = run_log.best
    if best is not None and math.isfinite(mean_dice(best["mean"])):
        ax.axvline(
            best["step"], color=_INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1, label=f"best, step {best['step']}"
        )
    ax.set_ylim(-0.02, 1.02)
    legend = ax.legend(fontsize=8, frameon=False, labelcolor=_INK, ncols=2 if len(run_log.regions) > 6 else 1)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names of regions are data: a dollar sign is no formula


def _draw_seconds(ax: Axes, run_log: RunLog) -> None:
    steps = [entry["step"] for entry in run_log.steps]
    if not _line(ax, steps, [entry["seconds_per_step"] for entry in run_log.steps], color=_INK):
        return
    ax.set_ylim(bottom=0)
    stall = [100 * entry["stall"] for entry in run_log.steps]
    if any(map(math.isfinite, stall)):
        other = ax.twinx()
        _line(other, steps, stall, color="#c9802b", linewidth=1)
        other.set_ylim(0, 100)
        other.tick_params(labelsize=8, colors="#c9802b", length=0)
        for spine in other.spines.values():
            spine.set_visible(False)
