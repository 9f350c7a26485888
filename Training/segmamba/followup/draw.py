"""The pictures of a follow-up: each date's T1c with the diameters, and the curves. Drawn without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import numpy as np
from nibabel.affines import apply_affine

from segmamba.followup.burden import Burden
from segmamba.followup.follow import Date, FollowUp
from segmamba.followup.lesions import Measured
from segmamba.preparation.grids import upright

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT = "#22303c", "#9fb0bd"
_OUTLINE = "#ffd84a"
_LINE1 = "#ff5050"
_LINE2 = "#50c8ff"
_CURVES = (_INK, "#b3591b")
_COLUMNS = 4


def draw_dates(result: FollowUp) -> bytes:
    """A PNG with a picture a date and region, as radiologists look at it: the patient's right on the left."""
    shown = [(date, burden) for date in result.dates for burden in date.burdens]
    figure, subplots = _figure(len(shown))
    for ax, (date, burden) in zip(subplots, shown):
        _draw_date(ax, date, burden)
    for ax in subplots:
        ax.set_axis_off()
    return _png(figure, "black")


def draw_chart(result: FollowUp) -> bytes:
    """A PNG: sums of products and volumes over days, with the range that other borders give."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (name, title) in zip(
        figure.subplots(1, 2), (("bidimensional", "Sum of products, mm2"), ("volumetric", "Volume, mL"))
    ):
        highest = 0.0
        for place, color in zip(range(len(result.dates[0].burdens)), _CURVES):
            burdens = [(date.day, date.burdens[place]) for date in result.dates]
            known = [(day, one, value) for day, one in burdens if (value := one.value(name)) is not None]
            days, values = [day for day, _, _ in known], [value for _, _, value in known]
            ranges = [
                [*cast(list[float], [one.value(name, variant) for variant in one.spread]), value]
                for _, one, value in known
            ]
            ax.vlines(days, [min(r) for r in ranges], [max(r) for r in ranges], color=_FAINT, linewidth=5)
            ax.plot(days, values, color=color, marker="o", label=result.dates[0].burdens[place].region)
            for day, value in zip(days, values):
                text = f"{value:.0f}" if name == "bidimensional" else f"{value:.1f}"
                ax.annotate(text, (day, value), (6, 6), textcoords="offset points", fontsize=9, color=color)
            highest = max([highest, *(max(r) for r in ranges)])
        if len(result.dates[0].burdens) > 1:
            ax.legend(fontsize=9, frameon=False)
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=_INK)
        ax.set_xlabel("days since baseline", fontsize=9, color=_INK)
        ax.set_ylim(0, None if highest > 0 else 1)
        ax.margins(x=0.12)
        ax.set_xticks([date.day for date in result.dates])
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=_INK)
    return _png(figure, "white")


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns, 4.3 * rows), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _draw_date(ax: Axes, date: Date, burden: Burden) -> None:
    image, affine = upright(date.timepoint.t1c.array, date.timepoint.t1c.affine)
    measured = date.measured.of(burden.region)
    level = _level(measured)
    low, high = _window(image)
    shown = np.clip((image[:, :, level].T - low) / (high - low), 0, 1)
    aspect = measured.spacing[1] / measured.spacing[0]
    ax.imshow(shown, cmap="gray", origin="lower", aspect=aspect, vmin=0, vmax=1)
    mask = measured.labelled[:, :, level].T > 0
    if mask.any():
        ax.contour(mask, levels=[0.5], colors=[_OUTLINE], linewidths=0.8)
    to_voxels = np.linalg.inv(affine)
    for lesion in measured.lesions:
        for line, colour in ((lesion.line1, _LINE1), (lesion.line2, _LINE2)):
            if line is None:
                continue
            ends = apply_affine(to_voxels, line)
            if round(ends[0, 2]) == level:
                ax.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=1.4)
        place = np.argwhere(measured.labelled[:, :, level] == lesion.number)
        if len(place):
            ax.annotate(
                str(lesion.number),
                place[place[:, 1].argmax()],
                (2, 2),
                textcoords="offset points",
                fontsize=8,
                color=_OUTLINE,
            )
    _crop(ax, image)
    ax.invert_xaxis()  # the first axis runs to the patient's right
    spd = "not followed" if burden.spd is None else f"SPD {burden.spd:.0f} mm2"
    name = f", {burden.region}" if len(date.burdens) > 1 else ""
    ax.set_title(f"day {date.day}{name}\n{spd}, {burden.volume_ml:.2f} mL", color="white", fontsize=10)


def _level(measured: Measured) -> int:
    """The slice of the largest lesion's diameters; without a lesion that of the middle."""
    lesions = measured.lesions
    if not lesions:
        return measured.labelled.shape[2] // 2
    place = lesions[0].centre if lesions[0].line1 is None else lesions[0].line1[0]
    return int(np.rint(apply_affine(np.linalg.inv(measured.affine), place)[2]))


def _window(image: np.ndarray) -> tuple[float, float]:
    inside = image[image > 0]
    low, high = np.percentile(inside, (0.5, 99.7)) if inside.size else (0.0, 1.0)
    return float(min(low, 0)), float(max(high, low + 1e-6))


def _crop(ax: Axes, image: np.ndarray) -> None:
    for axis, limit in ((0, ax.set_xlim), (1, ax.set_ylim)):
        others = tuple(k for k in range(3) if k != axis)
        places = np.flatnonzero((image > 0.05 * image.max()).any(axis=others))
        if len(places):
            limit(places[0] - 4, places[-1] + 4)


def _png(figure: Figure, background: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, facecolor=background)
    return file.getvalue()
