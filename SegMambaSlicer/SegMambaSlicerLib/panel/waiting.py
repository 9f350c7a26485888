"""Corrected cases that wait for a person: what is doubtful about each, its picture, and Accept or Withdraw."""

from __future__ import annotations

import qt
import slicer

from ..errors import InputError
from ..i18n import _
from ..learning.site import checkedName
from .casereport import findingLines
from .widgets import allow, fillCombo


class WaitingPanel:
    """watch: a SiteWatch."""

    def __init__(self, ui, watch):
        self._ui, self._watch = ui, watch
        self._filling = False
        self._message = ""
        self._rows: list[dict] = []
        self._pictured: tuple = (None, "")  # the answer, and the case of it, whose picture was read
        ui.waitingCombo.currentIndexChanged.connect(self.onCase)
        ui.waitingReasonEdit.textChanged.connect(self.onReason)
        ui.acceptButton.clicked.connect(self.onAccept)
        ui.withdrawButton.clicked.connect(self.onWithdraw)
        ui.enlargeWaitingButton.clicked.connect(self.onEnlarge)
        watch.onChange.append(self.show)
        self.show()

    def release(self) -> None:
        """For the end of the widget."""
        self._filling = True

    def show(self) -> None:
        """The cases that wait, and the chosen one."""
        if self._filling:
            return
        ui, found = self._ui, self._watch.corrections or {}
        self._rows = [
            row for row in found.get("rows") or [] if isinstance(row, dict) and row.get("status") == "doubtful"
        ]
        names = [str(row.get("name", "?")) for row in self._rows]
        title = _("Case {number} of {count} to decide on: {name}")
        titles = [title.format(number=n, count=len(names), name=_short(name)) for n, name in enumerate(names, 1)]
        chosen, self._filling = self._name, True
        try:
            fillCombo(ui.waitingCombo, list(zip(titles, names)), chosen)
            if self._name != chosen:
                ui.waitingReasonEdit.setText("")  # what was typed is about the case before; what went wrong there stays
        finally:
            self._filling = False
        ui.waitingWidget.setVisible(bool(names))
        if names:
            self._showCase()
        self._showButtons()

    @property
    def _name(self) -> str:
        """Of the chosen case; "" for none."""
        return self._ui.waitingCombo.itemData(self._ui.waitingCombo.currentIndex) or ""

    @property
    def _picture(self):
        """Path of the picture that intake drew, also where intake works on a server, to which the folder is another."""
        try:
            return self._watch.site.path / "corrections" / "verdicts" / f"{checkedName(self._name)}.png"
        except InputError:
            return None

    def _showCase(self) -> None:
        ui, row = self._ui, self._rows[max(0, self._ui.waitingCombo.currentIndex)]
        found = row.get("findings") if isinstance(row.get("findings"), list) else []
        findings = [
            {"severity": f.get("severity", "note"), "text": f.get("text", ""), "mend": f.get("mend", "")}
            for f in found
            if isinstance(f, dict)
        ]
        ui.waitingTextLabel.setText("\n".join(findingLines({"findings": findings}, advice=False)))
        self._showPicture()

    def _showPicture(self) -> None:
        """Reads it once for each answer; while the site is silent what is shown of the same case stays."""
        ui, watch = self._ui, self._watch
        answer, name = self._pictured
        if name == self._name and (watch.isSilent or answer is watch.corrections):
            return
        self._pictured = (None, "") if watch.isSilent else (watch.corrections, self._name)
        path = None if watch.isSilent else self._picture
        pixmap = qt.QPixmap(str(path)) if path is not None else qt.QPixmap()
        for widget in (ui.waitingPicture, ui.enlargeWaitingButton):
            widget.setVisible(not pixmap.isNull())
        if not pixmap.isNull():
            pixmap = pixmap.scaledToWidth(max(260, int(ui.waitingWidget.width)), qt.Qt.SmoothTransformation)
            ui.waitingPicture.setMinimumHeight(pixmap.height())
            ui.waitingPicture.setPixmap(pixmap)

    def _showButtons(self) -> None:
        ui, busy = self._ui, self._watch.doing or self._watch.site.workReason
        text = _("The next run uses it for training. Your reason is kept with it.")
        reason = busy or ("" if ui.waitingReasonEdit.text.strip() else _("Enter first why the case is right."))
        allow(ui.acceptButton, not reason, text, reason)
        allow(ui.withdrawButton, not busy, _("Deletes this case from the training folder; asks first."), busy)
        ui.waitingMessageLabel.setText(self._message)
        ui.waitingMessageLabel.setVisible(bool(self._message))

    # --- from the widgets

    def onCase(self, index=0):
        if not self._filling and self._rows:
            self._message = ""
            self._ui.waitingReasonEdit.setText("")
            self._showCase()
            self._showButtons()

    def onReason(self, text=""):
        if not self._filling:
            self._showButtons()

    def onEnlarge(self, checked=False):
        if self._picture is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._picture)))

    def onAccept(self, checked=False):
        reason = self._ui.waitingReasonEdit.text.strip()
        self._act(lambda site: site.intakeCommand(accept=self._name, reason=reason), _("The case is being accepted..."))

    def onWithdraw(self, checked=False):
        name = self._name  # while the question stands, an answer may bring another one forward
        text = _("Delete the corrected case {name} from the training folder? This cannot be undone.")
        if not slicer.util.confirmOkCancelDisplay(text.format(name=name), windowTitle=_("SegMamba: withdraw a case")):
            return
        if self._ui.waitingCombo.findData(name) < 0:
            text = _("Nothing was deleted: {name} is no longer among the cases to decide on.")
            self._refused(text.format(name=name))
            return
        self._act(lambda site: site.intakeCommand(withdraw=name), _("The case is being withdrawn..."))

    def _act(self, call, text: str) -> None:
        self._message = ""
        try:
            self._watch.act(call(self._watch.site), text, self._done, self._refused)
        except InputError as error:
            self._refused(str(error))

    def _done(self, answer) -> None:
        self._ui.waitingReasonEdit.setText("")

    def _refused(self, text: str) -> None:
        self._message = text
        self.show()


def _short(name: str) -> str:
    """Enough of a case's hash to tell it from others, and its version."""
    case, _dash, version = name.rpartition("-")
    return f"{case[:8]} {version}"
