"""The course of a training as a small picture: loss above, Dice of the validation cases below, steps to the right.

Drawn with a painter on a pixmap, which a label then shows: PythonQt does not let every widget paint itself anew.
"""

from __future__ import annotations

import qt

from ..i18n import _
from ..learning.following import Curve

HEIGHT = 210
COURSE_HEIGHT = 120
# pixels around the two fields
_LEFT = 46
_RIGHT = 10
_TOP = 16
_GAP = 26
_BOTTOM = 20
_PAPER = "#ffffff"
_INK = "#303030"
_GRID = "#dcdcdc"
_LOSS = "#303030"
# colours that the colour-blind tell apart, and another line for each besides
_LINES = {"WT": ("#0072b2", "SolidLine"), "TC": ("#d55e00", "DashLine"), "ET": ("#009e73", "DotLine")}
_OTHER = ("#8050a0", "DashDotLine")


def drawCurve(curve: Curve, width: int, steps: int = 0):
    """A qt.QPixmap of `width` x HEIGHT pixels. steps: to be done in all, 0 where that is not known."""
    width = max(200, int(width))
    pixmap = qt.QPixmap(width, HEIGHT)
    pixmap.fill(qt.QColor(_PAPER))
    painter = qt.QPainter()
    painter.begin(pixmap)
    try:
        painter.setRenderHint(qt.QPainter.Antialiasing, True)
        last = max([steps, 1, *(points[-1][0] for points in [curve.losses, *curve.dice.values()] if points)])
        field = (HEIGHT - _TOP - _GAP - _BOTTOM) // 2
        top = max([value for _step, value in curve.losses], default=1.0) or 1.0
        _draw(painter, _TOP, field, width, last, 0.0, top, {_("Loss"): (curve.losses, (_LOSS, "SolidLine"))})
        lines = {region: (points, _LINES.get(region, _OTHER)) for region, points in curve.dice.items()}
        low = min([value for points in curve.dice.values() for _step, value in points], default=0.0)
        low = max(0.0, int(10 * low - 0.5) / 10)  # a tenth at least below what is shown
        _draw(painter, _TOP + field + _GAP, field, width, last, low, 1.0, lines or {_("Dice"): ([], _OTHER)})
        painter.setPen(qt.QColor(_INK))
        _write(painter, width - _RIGHT - 160, HEIGHT - 4, 160, _("step {count}").format(count=last), right=True)
    finally:
        painter.end()  # left open, it takes Qt down with it
    return pixmap


def drawCourse(points: dict[str, list[tuple[int, float]]], width: int, refused: dict | None = None):
    """A qt.QPixmap of `width` x COURSE_HEIGHT pixels: Dice of each region over the judged runs of a site.

    points, refused: `coursePoints` and `refusedPoints`; these are hollow, and no line leads to them.
    """
    refused = refused or {}
    width = max(200, int(width))
    pixmap = qt.QPixmap(width, COURSE_HEIGHT)
    pixmap.fill(qt.QColor(_PAPER))
    painter = qt.QPainter()
    painter.begin(pixmap)
    try:
        painter.setRenderHint(qt.QPainter.Antialiasing, True)
        every = [point for line in (*points.values(), *refused.values()) for point in line]
        last = max([1, *(number for number, _value in every)])
        low = min([value for _number, value in every], default=0.0)
        low = max(0.0, int(10 * low - 0.5) / 10)
        lines = {region: (line, _LINES.get(region, _OTHER)) for region, line in points.items()}
        _draw(painter, _TOP, COURSE_HEIGHT - _TOP - _BOTTOM, width, last, low, 1.0, lines)
        for region, line in refused.items():
            painter.setPen(qt.QColor(_LINES.get(region, _OTHER)[0]))
            for number, value in line:
                field = (_TOP, COURSE_HEIGHT - _TOP - _BOTTOM, width - _RIGHT, last, low, 1.0)
                x, y = _place(number, value, *field)
                painter.drawRect(x - 3, y - 3, 6, 6)
        painter.setPen(qt.QColor(_INK))
        text = _("judged run {count}").format(count=last)
        _write(painter, width - _RIGHT - 160, COURSE_HEIGHT - 4, 160, text, right=True)
    finally:
        painter.end()  # left open, it takes Qt down with it
    return pixmap


def curveText(curve: Curve) -> str:
    """The newest values in words, for those who do not see the picture."""
    parts = []
    if curve.losses:
        step, loss = curve.losses[-1]
        parts.append(_("Loss {loss} at step {step}.").format(loss=f"{loss:.3f}", step=step))
    scored = {region: points[-1] for region, points in curve.dice.items() if points}
    if scored:
        values = ", ".join(f"{region} {value:.3f}" for region, (_step, value) in scored.items())
        step = max(step for step, _value in scored.values())
        parts.append(_("Dice of the validation cases at step {step}: {values}.").format(step=step, values=values))
    return " ".join(parts)


def _draw(painter, top: int, height: int, width: int, last: int, low: float, high: float, lines: dict) -> None:
    """One field: grid, what the ends of the scale are, the lines, and their names above it."""
    right = width - _RIGHT
    painter.setPen(qt.QColor(_GRID))
    for part in range(3):
        y = top + part * height // 2
        painter.drawLine(_LEFT, y, right, y)
    painter.setPen(qt.QColor(_INK))
    for value, y in ((high, top), (low, top + height)):
        _write(painter, 0, y + 4, _LEFT - 6, f"{value:.2f}" if high <= 1 else f"{value:.1f}", right=True)
    x = _LEFT
    for name, (points, (color, style)) in lines.items():
        pen = qt.QPen(qt.QColor(color))
        pen.setWidth(2)
        pen.setStyle(getattr(qt.Qt, style))
        painter.setPen(pen)
        if points:
            painter.drawLine(x, top - 8, x + 22, top - 8)
            x += 26
        _write(painter, x, top - 4, 60, name)
        x += 60
        ends = [_place(step, value, top, height, right, last, low, high) for step, value in points]
        for index in range(1, len(ends)):
            painter.drawLine(*ends[index - 1], *ends[index])
        if len(ends) < 30:
            for px, py in ends:
                painter.fillRect(px - 2, py - 2, 4, 4, qt.QColor(color))


def _place(step, value, top, height, right, last, low, high) -> tuple[int, int]:
    part = min(1.0, max(0.0, (value - low) / max(high - low, 1e-9)))
    return round(_LEFT + (right - _LEFT) * step / last), round(top + height * (1 - part))


def _write(painter, x: int, y: int, width: int, text: str, right: bool = False) -> None:
    side = qt.Qt.AlignRight if right else qt.Qt.AlignLeft
    painter.drawText(x, y - 14, width, 16, side, text)
