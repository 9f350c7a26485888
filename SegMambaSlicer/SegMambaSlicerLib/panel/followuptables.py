"""The tables of the section "Follow-up", and what it says of the numbers."""

from __future__ import annotations

import html

import qt

from ..followup.measuring import MIXED, regionTitle
from ..i18n import _
from .colors import painted


def prepareTables(ui) -> None:
    heads = {
        ui.followUpDatesTable: [_("Measure"), _("Date"), _("Result")],
        ui.followUpLesionsTable: [_("Day"), _("No."), _("D1 \u00d7 D2\nmm"), _("mm\u00b2"), _("mL"), _("Remark")],
    }
    for table, titles in heads.items():
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().setVisible(False)
        for column in range(len(titles)):
            last = column == len(titles) - 1
            mode = qt.QHeaderView.Stretch if last else qt.QHeaderView.ResizeToContents
            table.horizontalHeader().setSectionResizeMode(column, mode)


def fillDates(table, results: list, ticked: list, present) -> None:
    """results: DatedResult. ticked: segmentations. present: that of the panel, in bold."""
    table.setRowCount(len(results))
    fixed = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
    for row, result in enumerate(results):
        tick, date, name = (qt.QTableWidgetItem(text) for text in ("", result.date, result.segmentation.GetName()))
        tick.setFlags(fixed | qt.Qt.ItemIsUserCheckable)
        tick.setCheckState(qt.Qt.Checked if result.segmentation in ticked else qt.Qt.Unchecked)
        date.setToolTip(_("A date such as 2026-01-31, or a number of days for all results."))
        name.setFlags(fixed)
        font = name.font()
        font.setBold(result.segmentation is present)
        name.setFont(font)
        for column, cell in enumerate((tick, date, name)):
            table.setItem(row, column, cell)


def tickedRows(table) -> list[int]:
    return [row for row in range(table.rowCount) if table.item(row, 0).checkState() == qt.Qt.Checked]


def fillLesions(table, answer: dict, results: list) -> None:
    """A row a lesion and date; `clickedPlace` says where it is."""
    rows = _rows(answer)
    table.setRowCount(len(rows))
    table.setVisible(bool(rows))
    for row, (number, lesion) in enumerate(rows):
        date = answer["dates"][number]
        diameters = f"{lesion['d1_mm']:.1f} \u00d7 {lesion['d2_mm']:.1f}"
        if lesion["by_hand"]:
            lines = ", ".join(lesion["by_hand"])
            diameters = _("{diameters} ({lines} moved)").format(diameters=diameters, lines=lines)
        texts = [
            str(date["day"]),
            str(lesion["number"]),
            diameters,
            f"{lesion['product_mm2']:.0f}",
            f"{lesion['volume_ml']:.2f}",
            _remark(answer, number, lesion),
        ]
        for column, text in enumerate(texts):
            cell = qt.QTableWidgetItem(text)
            cell.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            cell.setToolTip("\n".join([results[number].segmentation.GetName(), *lesion["notes"]]))
            table.setItem(row, column, cell)
    table.resizeRowsToContents()


def clearLesions(table) -> None:
    table.setRowCount(0)
    table.setVisible(False)


def clickedPlace(answer: dict, row: int):
    """(number of the date, point in RAS mm) of a row: the middle of the longest line, else of the lesion; or None."""
    rows = _rows(answer)
    if not 0 <= row < len(rows):
        return None
    number, lesion = rows[row]
    line = lesion["line1_ras_mm"]
    return number, lesion["centre_ras_mm"] if line is None else [(a + b) / 2 for a, b in zip(*line)]


def summary(answer: dict, label) -> str:
    """Sums, changes, what they are compatible with, and warnings; as rich text, everything from outside escaped."""
    lines = []
    for date in answer["dates"]:
        text = _("<b>Day {day}</b>: {volume} mL").format(day=date["day"], volume=f"{date['volume_ml']:.2f}")
        burdens = date["burdens"]
        if len(burdens) == 1 and burdens[0]["sum_of_products_mm2"] is not None:
            text += _sum(burdens[0])
        lines.append(text)
        for burden in burdens if len(burdens) > 1 else ():  # of a mixed tumor; what follows is overall then
            text = html.escape(f"{regionTitle(burden['region'])}: {burden['volume_ml']:.2f} mL")
            lines.append(f"&nbsp;&nbsp;{text}{'' if burden['sum_of_products_mm2'] is None else _sum(burden)}")
            lines += [f"&nbsp;&nbsp;{line}" for line in _compatible(burden["suggestions"])]
        lines += _compatible(date.get("suggestions") or {})
    lines += [painted(f"\u26a0 {text}", "doubtful", label) for text in answer["warnings"]]
    return "<br>".join(lines)


def _sum(burden: dict) -> str:
    return _(", sum of products {sum} mm\u00b2").format(sum=f"{burden['sum_of_products_mm2']:.0f}")


def _compatible(suggestions: dict) -> list[str]:
    """A line a criterion set, with the rules that are met."""
    lines = []
    for name, found in suggestions.items():
        title = _("by products") if name == "bidimensional" else _("by volume")
        near = ", ".join(found["near_threshold"])
        text = _("{title}: compatible with {category}").format(title=title, category=html.escape(found["category"]))
        changes = [_change(_("from baseline"), found["from_baseline"]), _change(_("from nadir"), found["from_nadir"])]
        text += f" ({', '.join(filter(None, changes))})" if any(changes) else ""
        text += _("; near threshold: {near}").format(near=html.escape(near)) if near else ""
        rules = "; ".join(rule["text"] for rule in found["rules"] if rule["met"])
        lines.append(f"&nbsp;&nbsp;{text}<br>&nbsp;&nbsp;&nbsp;&nbsp;<i>{html.escape(rules)}</i>")
    return lines


def _change(title: str, share) -> str:
    return "" if share is None else f"{share:+.1%} {title}"


def _rows(answer: dict) -> list[tuple[int, dict]]:
    return [(number, lesion) for number, date in enumerate(answer["dates"]) for lesion in date["lesions"]]


def _remark(answer: dict, number: int, lesion: dict) -> str:
    """Of a mixed tumor its kind; target, new or which lesion of the first date it was; why it is not measurable."""
    date = answer["dates"][number]
    parts = [regionTitle(lesion["region"])] if date["region"] == MIXED else []
    of = [int(first) for first, own in (date.get("parts") or {}).items() if lesion["number"] in own]
    if lesion["number"] in (date.get("new") or []):
        parts.append(_("new"))
    elif of and any(first in answer["targets"] for first in of):
        parts.append(_("target") if number == 0 else _("target {number}").format(number=of[0]))
    elif of and number:
        parts.append(_("was {number}").format(number=of[0]))
    if lesion["not_measurable"]:
        parts.append(_("not measurable: {why}").format(why=lesion["not_measurable"]))
    return "; ".join(parts)
