"""The models of the site: the one in use and its parents, candidates with the gate's evidence, and one click back.

Every decision goes through `segmamba models`, which holds the lock of the registry; here nothing is written.
"""

from __future__ import annotations

from pathlib import Path

import qt
import slicer

from ..errors import InputError
from ..i18n import _
from ..learning.verdicts import (
    Evidence,
    caseOf,
    eventsOf,
    hasReport,
    historyText,
    plainName,
    readReport,
    rowsOf,
    sinceText,
)
from .colors import paint
from .course import CourseView
from .widgets import allow, fillCombo


class ModelsPanel:
    """watch: a SiteWatch."""

    def __init__(self, ui, watch):
        self._ui, self._watch = ui, watch
        self._filling = False
        self._message = ""
        self._isWrong = False
        self._known: set[str] = set()
        self._shown: tuple | None = None  # the answer and the candidate whose evidence is in the widgets
        self._evidence = Evidence({})
        self._pictures: list[Path] = []
        self._picture = 0
        self._course = CourseView(ui, watch)
        titles = [_("Region"), _("Dice"), _("Change (95 %)"), _("False pos."), _("Worst case")]
        table = ui.comparisonTable
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().setVisible(False)
        for column in range(len(titles) - 1):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(len(titles) - 1, qt.QHeaderView.Stretch)
        ui.candidateCombo.currentIndexChanged.connect(self.onCandidate)
        ui.modelReasonEdit.textChanged.connect(self.onReason)
        ui.previousPictureButton.clicked.connect(self.onPrevious)
        ui.nextPictureButton.clicked.connect(self.onNext)
        ui.enlargeButton.clicked.connect(self.onEnlarge)
        ui.promoteButton.clicked.connect(self.onPromote)
        ui.refuseButton.clicked.connect(self.onRefuse)
        ui.adoptButton.clicked.connect(self.onAdopt)
        ui.backButton.clicked.connect(self.onBack)
        ui.modelsSection.contentsCollapsed.connect(self.onFolded)
        watch.onChange.append(self.show)
        self.show()

    def release(self) -> None:
        """For the end of the widget."""
        self._filling = True

    # --- from what is known to the widgets

    def show(self) -> None:
        if self._filling:
            return
        models = self._watch.models or {}
        self._showInUse(models)
        states = models.get("states") if isinstance(models.get("states"), dict) else {}
        order = {"candidate": 0, "refused": 1, "retired": 2}
        added = {event.get("model"): place for place, event in enumerate(eventsOf(models))}
        names = sorted((n for n in states if states[n] in order), key=lambda n: (order[states[n]], -added.get(n, -1)))
        self._fill([(f"{plainName(name)} ({_STATES[states[name]]()})", name) for name in names])
        self._showEvidence()
        self._showButtons()
        self._course.show()
        text = historyText(models)
        if self._ui.historyText.toPlainText() != text:
            self._ui.historyText.setPlainText(text)
        self._ui.historyText.setVisible(bool(text))

    @property
    def candidate(self) -> str:
        """The name of the chosen model; "" for none."""
        return self._ui.candidateCombo.itemData(self._ui.candidateCombo.currentIndex) or ""

    def _showInUse(self, models: dict) -> None:
        watch, champion = self._watch, models.get("champion")
        if self._watch.models is None:
            text = watch.site.reason or watch.problem or (_("Looking...") if watch.isLooking else _("Not known yet."))
        elif not champion:
            text = _("No model of this site is in use yet. The first improvement starts from the extension's model.")
        else:
            since = sinceText(models)
            text = _("In use since {day}: {name}.") if since else _("In use: {name}.")
            text = text.format(day=since, name=plainName(champion))
            parents = [plainName(str(name)) for name in models.get("parents") or []]
            if parents:
                text += "\n" + _("It was fine-tuned from {names}.").format(names=", ".join(parents))
            if watch.problem:
                text += "\n" + watch.problem
        self._ui.inUseLabel.setText(text)
        self._ui.inUseLabel.setToolTip(str(champion or ""))
        paint(self._ui.inUseLabel, "wrong" if watch.problem else "")

    def _fill(self, choices: list[tuple[str, str]]) -> None:
        combo, before = self._ui.candidateCombo, self.candidate
        values = [name for _text, name in choices]
        isNew = bool(values) and values[0] not in self._known
        self._known.update(values)
        self._filling = True
        try:
            fillCombo(combo, choices, "" if isNew else before)
            if self.candidate != before:
                self._ui.modelReasonEdit.setText("")  # it was for the one before
        finally:
            self._filling = False

    def _showEvidence(self) -> None:
        """Reads it once for each answer; while the site is silent what is shown of the same model stays."""
        ui = self._ui
        name = self.candidate
        models = self._watch.models
        isSilent = self._watch.isSilent
        if self._shown is not None and self._shown[1] == name and (isSilent or self._shown[0] is models):
            return
        folder = self._folder()
        report = readReport(folder)
        isUnreadable = not report and (isSilent or hasReport(folder))
        self._shown = None if isSilent else (models, name)
        self._evidence = Evidence(report, (models or {}).get("id"), isUnreadable)
        self._pictures = self._evidence.picturesOf(folder) if folder is not None and report else []
        self._picture = 0
        ui.verdictLabel.setText(self._evidence.verdictText if name else _("There is no candidate."))
        ui.criteriaLabel.setText(self._evidence.criteriaText)
        ui.criteriaLabel.setVisible(bool(report))
        rows = rowsOf(report)
        table = ui.comparisonTable
        table.clearSpans()
        table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            for column, text in enumerate(row):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(text)
                table.setItem(index, column, cell)
            if len(row) == 1:
                table.setSpan(index, 0, 1, table.columnCount)
        table.resizeRowsToContents()
        table.setVisible(bool(rows))
        self._showPicture()

    def _showPicture(self) -> None:
        ui, count = self._ui, len(self._pictures)
        buttons = (ui.previousPictureButton, ui.nextPictureButton, ui.enlargeButton)
        for widget in (ui.gatePicture, ui.pictureLabel, *buttons):
            widget.setVisible(count > 0)
        if not count:
            return
        path = self._pictures[self._picture]
        pixmap = qt.QPixmap(str(path))
        case = caseOf(path)
        text = _("Case {case} ({number} of {count}): truth, model in use, candidate")
        if self._evidence.isOwn(case):
            text = _("Own corrected case {case} ({number} of {count}): truth, model in use, candidate")
        text = text.format(case=case, number=self._picture + 1, count=count)
        if pixmap.isNull():
            text = _("{name} cannot be shown.").format(name=path.name)
        else:
            pixmap = pixmap.scaledToWidth(max(300, int(ui.gatePicture.width)), qt.Qt.SmoothTransformation)
            ui.gatePicture.setMinimumHeight(pixmap.height())
        ui.gatePicture.setPixmap(pixmap)
        ui.pictureLabel.setText(text)
        first = self._picture == 0
        allow(ui.previousPictureButton, not first, _("Shows the previous picture."), _("This is the first picture."))
        last = self._picture == count - 1
        allow(ui.nextPictureButton, not last, _("Shows the next picture."), _("This is the last picture."))

    def _showButtons(self) -> None:
        ui, watch = self._ui, self._watch
        models = watch.models or {}
        states = models.get("states") or {}
        common = watch.doing or watch.site.reason or watch.problem
        if not common and watch.models is None:
            common = _("Looking...") if watch.isLooking else _("Not known yet.")
        chosen = common or ("" if self.candidate else _("There is no candidate."))
        promoting = chosen or self._evidence.noPromotionReason
        if not promoting and states.get(self.candidate) != "candidate":
            promoting = _("It is no longer a candidate. It can be adopted, with a reason.")
        allow(ui.promoteButton, not promoting, _("Uses it from now on: the gate found it better."), promoting)
        reasoned = chosen or ("" if ui.modelReasonEdit.text.strip() else _("Enter a reason first."))
        refusing = reasoned
        if not chosen and states.get(self.candidate) == "refused":
            refusing = _("It has been refused already.")
        allow(ui.refuseButton, not refusing, _("Marks it as not to be used."), refusing)
        allow(
            ui.adoptButton, not reasoned, _("Uses it from now on, whatever the gate says, with your reason."), reasoned
        )
        previous = models.get("previous")
        going = common or ("" if previous else _("There is no model before this one."))
        allow(ui.backButton, not going, _("Takes effect at once: the next segmentation uses it."), going)
        ui.backButton.setText(_("Go back to {name}").format(name=plainName(previous)) if previous else _("Go back"))
        text = watch.doing or self._message
        ui.modelsMessageLabel.setText(text)
        paint(ui.modelsMessageLabel, "wrong" if self._isWrong and not watch.doing else "")
        ui.modelsMessageLabel.setVisible(bool(text))

    # --- from the widgets

    def onCandidate(self, index=0):
        if not self._filling:
            self._message = ""
            self._ui.modelReasonEdit.setText("")
            self._showEvidence()
            self._showButtons()

    def onReason(self, text=""):
        if not self._filling:
            self._showButtons()

    def onFolded(self, collapsed=False):
        if not self._filling and not collapsed:
            self._watch.refresh()  # with whose answer the picture gets the width that there is now

    def onPrevious(self, checked=False):
        self._turn(-1)

    def onNext(self, checked=False):
        self._turn(1)

    def onEnlarge(self, checked=False):
        if self._pictures:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._pictures[self._picture])))

    def onPromote(self, checked=False):
        self._act("promote", self.candidate, done=_("{name} is in use now."))

    def onRefuse(self, checked=False):
        self._act("refuse", self.candidate, self._ui.modelReasonEdit.text.strip(), _("{name} is refused."))

    def onAdopt(self, checked=False):
        if self._evidence.isUnreadable:  # for the moment, perhaps
            self._shown = None
            self._showEvidence()
            self._showButtons()
        # while the question stands, an answer may bring another one forward
        name, reason = self.candidate, self._ui.modelReasonEdit.text.strip()
        isWorse = self._evidence.verdict == "refuse"
        text = _("The gate found {name} worse than {other}. Take it into use all the same?")
        text = text.format(name=plainName(name), other=self._evidence.comparedWith)
        if isWorse and not slicer.util.confirmOkCancelDisplay(text):
            return
        if self._ui.candidateCombo.findData(name) < 0:
            text = _("Nothing was changed: {name} is no longer in the list.")
            self._failed(text.format(name=plainName(name)))
            return
        self._act("adopt", name, reason, _("{name} is in use now."), againstGate=isWorse)

    def onBack(self, checked=False):
        self._act("rollback", done=_("Back to {name}."))

    def _turn(self, step: int) -> None:
        self._picture = min(max(0, self._picture + step), max(0, len(self._pictures) - 1))
        self._showPicture()

    def _act(self, action: str, name: str = "", reason: str = "", done: str = "", againstGate: bool = False) -> None:
        def finished(answer):
            found = answer if isinstance(answer, dict) else {}
            inUse = found.get("in_use") or found.get("name") or ""
            self._message, self._isWrong = done.format(name=plainName(name or inUse)), False
            self._ui.modelReasonEdit.setText("")

        self._message = ""
        try:
            call = self._watch.site.modelsCommand(action, name, reason, againstGate=againstGate)
            self._watch.act(call, _("The models are being changed..."), finished, self._failed)
        except InputError as error:
            self._failed(str(error))

    def _failed(self, text: str) -> None:
        self._message, self._isWrong = text, True
        self.show()

    def _folder(self) -> Path | None:
        if not self.candidate or self._watch.isSilent:
            return None
        try:
            return self._watch.site.modelFolder(self.candidate)
        except InputError:
            return None


_STATES = {
    "candidate": lambda: _("candidate"),
    "refused": lambda: _("refused"),
    "retired": lambda: _("was in use"),
}
