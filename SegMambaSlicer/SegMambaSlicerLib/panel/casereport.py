"""What the engine said of a corrected case: what was changed, what was found, and which empty labels to confirm."""

from __future__ import annotations

import qt

from ..i18n import _
from ..results.vocabulary import LABELS, REGIONS, structure

_COLUMNS = 5


class ReportView:
    """confirmed: called when a person said that a label is absent, or took it back."""

    def __init__(self, ui, confirmed):
        self._ui, self._empty = ui, []
        self._boxes = {name: getattr(ui, f"absent{name}Box") for name in LABELS}
        for name, box in self._boxes.items():
            box.setText(_("{label} is truly absent").format(label=structure(name).name))
            box.clicked.connect(confirmed)
        table = ui.changesTable
        table.setColumnCount(_COLUMNS)
        table.setHorizontalHeaderLabels([_("Label"), _("mL before"), _("mL now"), _("Added"), _("Removed")])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in range(1, _COLUMNS):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)

    def clear(self) -> None:
        self.show({"findings": []})
        for box in self._boxes.values():
            box.setChecked(False)

    def confirmed(self) -> list[str]:
        """Labels without a voxel of which a person says that they are truly absent."""
        return [name for name, box in self._boxes.items() if name in self._empty and box.isChecked()]

    def setEnabled(self, enabled: bool) -> None:
        for box in self._boxes.values():
            box.setEnabled(enabled)

    def show(self, report: dict) -> None:
        """report: see Correction.check."""
        ui, changes = self._ui, report.get("changes") or {}
        ui.changesTable.setRowCount(len(changes))
        for row, (name, change) in enumerate(changes.items()):
            title = structure(name).name if name in LABELS else name
            volumes = [f"{change[key]:.2f}" for key in ("ml_before", "ml")]
            for column, text in enumerate([title, *volumes, str(change["added"]), str(change["removed"])]):
                cell = qt.QTableWidgetItem(text)
                if column:
                    cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                ui.changesTable.setItem(row, column, cell)
        ui.changesTable.setVisible(bool(changes))
        ui.changesTable.resizeRowsToContents()
        dice = report.get("dice") or {}
        values = ", ".join(f"{name} {dice[name]:.3f}" for name in REGIONS if name in dice)
        ui.diceLabel.setText(_("Dice of the model's result: {values}").format(values=values))
        ui.diceLabel.setVisible(bool(values))
        lines = findingLines(report)
        ui.findingsLabel.setText("\n".join(lines))
        ui.findingsLabel.setVisible(bool(lines))
        self._empty = list(report.get("empty") or [])
        for name, box in self._boxes.items():
            box.setVisible(name in self._empty)


def findingLines(report: dict, advice: bool = True) -> list[str]:
    """The findings, the worst first, each with how bad it is in words and what to do; with `advice` on sending it."""
    severities = {"wrong": _("Wrong"), "doubtful": _("Doubtful"), "note": _("Note")}
    known = [finding for finding in report["findings"] if finding["severity"] in severities]
    findings = sorted(known, key=lambda finding: list(severities).index(finding["severity"]))
    lines = []
    for finding in findings:
        text = _("{severity}: {text}").format(severity=severities[finding["severity"]], text=finding["text"])
        lines.append(
            _("{finding} ({remedy})").format(finding=text, remedy=finding["mend"]) if finding["mend"] else text
        )
    if advice and any(finding["severity"] == "doubtful" for finding in findings):
        text = _(
            "A doubtful case can be added, but is used for training only after a person has accepted it (Improve the "
            "model)."
        )
        lines.append(text)
    if report.get("earlier_versions"):
        text = _(
            "Note: this case was sent before; adding it creates version {version}, which replaces the earlier one."
        )
        lines.append(text.format(version=report["next_version"]))
    return lines
