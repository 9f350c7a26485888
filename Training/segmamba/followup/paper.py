"""The same report as PDF, on A4, by matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmamba.files.atomic import write_aside
from segmamba.followup.content import NOT_A_DEVICE, TITLE, Section, made_by
from segmamba.followup.follow import FollowUp

if TYPE_CHECKING:
    from matplotlib.backends.backend_pdf import PdfPages

_WIDTH = 8.27  # inches
_HEIGHT = 11.69
_MARGIN = 0.6
_INK = "#22303c"
_FAINT = "#6b7c88"
_LINE = "#dfe5ea"
_BODY, _SMALL = 8.5, 7.5  # points
_LEADING = 1.35
_GAP = 0.06  # inches, beside what stands in a column


def write_paper(result: FollowUp, report: list[Section], path: Path) -> None:
    """Writes a report, aside and renamed.

    Args:
        result: the follow-up that is reported.
        report: its `sections`.
        path: of the file.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": TITLE, "Creator": "segmamba", "Author": ""}) as pages:
        sheet = _Sheet(pages)
        sheet.text(TITLE, 18, weight="bold")
        sheet.text(made_by(result), _BODY, color=_FAINT)
        sheet.text(NOT_A_DEVICE, _BODY, weight="bold")
        for section in report:
            _write(sheet, section)
        sheet.close()
    write_aside(path, file.getvalue())


def _write(sheet: _Sheet, section: Section) -> None:
    sheet.space(0.14)
    sheet.need(0.9)
    sheet.text(section.title, 11, weight="bold")
    for paragraph in section.paragraphs:
        sheet.text(paragraph, _BODY)
    if section.table:
        sheet.table(section.table)
    if section.picture:
        sheet.picture(section.picture)


class _Sheet:
    """Pages that are filled from top to bottom. Lengths in inches, sizes of letters in points."""

    def __init__(self, pages: PdfPages):
        self._pages = pages
        self._turn()

    def close(self) -> None:
        self._pages.savefig(self._figure)

    def need(self, height: float) -> None:
        if self._y - height < _MARGIN:
            self.close()
            self._turn()

    def space(self, height: float) -> None:
        self._y -= height

    def text(self, text: str, size: float, **style: Any) -> None:
        for line in _in_lines(text, _WIDTH - 2 * _MARGIN, size, style.get("weight", "normal")):
            self.need(_line(size))
            self._y -= _line(size)
            self._put(_MARGIN, line, size, **style)

    def table(self, rows: tuple[tuple[str, ...], ...]) -> None:
        widths = _widths(rows)
        for place, row in enumerate(rows):
            cells = [_in_lines(cell, width - _GAP, _SMALL) for cell, width in zip(row, widths)]
            height = max(map(len, cells)) * _line(_SMALL) + 0.06
            self.need(height)
            top, x = self._y, _MARGIN
            if place:
                self._rule()
            for lines, width in zip(cells, widths):
                self._y = top - 0.03
                for line in lines:
                    self._y -= _line(_SMALL)
                    self._put(x, line, _SMALL, color=_INK if place else _FAINT)
                x += width
            self._y = top - height

    def picture(self, data: bytes) -> None:
        from matplotlib.image import imread

        image = imread(io.BytesIO(data))
        width = _WIDTH - 2 * _MARGIN
        height = width * image.shape[0] / image.shape[1]
        scale = min(1.0, (_HEIGHT - 2 * _MARGIN - 0.5) / height, 4.2 / height)
        width, height = width * scale, height * scale
        self.need(height + 0.05)
        self._y -= height + 0.05
        ax = self._figure.add_axes((_MARGIN / _WIDTH, self._y / _HEIGHT, width / _WIDTH, height / _HEIGHT))
        ax.imshow(image, aspect="auto")
        ax.set_axis_off()

    def _turn(self) -> None:
        from matplotlib.figure import Figure

        self._figure, self._y = Figure(figsize=(_WIDTH, _HEIGHT)), _HEIGHT - _MARGIN

    def _put(self, x: float, text: str, size: float, color: str = _INK, **style: Any) -> None:
        self._figure.text(x / _WIDTH, self._y / _HEIGHT, text, fontsize=size, color=color, parse_math=False, **style)

    def _rule(self) -> None:
        from matplotlib.lines import Line2D

        ends, y = (_MARGIN / _WIDTH, 1 - _MARGIN / _WIDTH), self._y / _HEIGHT
        self._figure.add_artist(Line2D(ends, (y, y), color=_LINE, linewidth=0.6))


def _line(size: float) -> float:
    return size * _LEADING / 72


def _wide(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a line of text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _in_lines(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines no wider than `width`; a word that is, in parts."""
    lines = [""]
    for word in text.split():
        while _wide(word, size, weight) > width and len(word) > 1:
            fitting = max(1, sum(_wide(word[:n], size, weight) <= width for n in range(1, len(word))))
            lines, word = [*lines, word[:fitting]], word[fitting:]
        longer = f"{lines[-1]} {word}".strip()
        if _wide(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[1:] if not lines[0] and len(lines) > 1 else lines


def _widths(rows: tuple[tuple[str, ...], ...]) -> list[float]:
    """Of the columns: as wide as what is in them where there is room, else the widest share what the others leave."""
    asked = [max(_wide(cell, _SMALL) for cell in column) + 2 * _GAP for column in zip(*rows)]
    room, widths = _WIDTH - 2 * _MARGIN, {}
    for left, (wide, place) in zip(range(len(asked), 0, -1), sorted((w, p) for p, w in enumerate(asked))):
        widths[place] = min(wide, room / left)
        room -= widths[place]
    return [widths[place] + room / len(asked) for place in range(len(asked))]
