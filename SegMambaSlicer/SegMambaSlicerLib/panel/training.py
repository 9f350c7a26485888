"""Improve the model: the corrected cases there are, and a training that is started, followed, stopped and resumed.

The training is a process of its own, here or on a server, and outlives Slicer; when the panel opens again it is found
by its status. Segmenting goes on meanwhile with the model in use.
"""

from __future__ import annotations

import slicer

from ..errors import InputError
from ..i18n import _
from ..learning.following import ACTIVE, RESUMABLE, number
from ..learning.site import SERVER_SETTINGS, WAYS, WHERE_SETTING, write
from .colors import paint
from .curve import HEIGHT, curveText, drawCurve
from .trainingtexts import COUNTS, runText, unusedLines
from .waiting import WaitingPanel
from .widgets import allow, singleTimer


class TrainingPanel:
    """watch: a SiteWatch."""

    def __init__(self, ui, watch):
        self._ui, self._watch = ui, watch
        self._filling = True
        self._waiting = WaitingPanel(ui, watch)
        self._stopping = ""  # the run that was asked to stop
        self._chosen: tuple[int, int] | None = None  # way and steps for the next run, while those of another are shown
        self._message = ""  # why what was asked for was not done
        self._copied = singleTimer(1500, lambda: ui.copyCommandButton.setText(_("Copy command")))
        for text, value in zip((_("Fine-tune the model in use"), _("Train from scratch on all cases")), WAYS):
            ui.wayCombo.addItem(text, value)
        for text, value in ((_("This computer"), "here"), (_("A server"), "server")):
            ui.whereCombo.addItem(text, value)
        self._edits = {"host": ui.hostEdit, "python": ui.serverPythonEdit, "folder": ui.serverFolderEdit}
        self.showSettings()
        ui.wayCombo.currentIndexChanged.connect(self.show)
        ui.stepsBox.valueChanged.connect(self.show)
        ui.whereCombo.currentIndexChanged.connect(self.onWhere)
        for edit in self._edits.values():
            edit.textChanged.connect(self.onServer)
        ui.copyCommandButton.clicked.connect(self.onCopy)
        ui.startButton.clicked.connect(self.onStart)
        ui.stopButton.clicked.connect(self.onStop)
        ui.resumeButton.clicked.connect(self.onResume)
        ui.lookButton.clicked.connect(self.onLook)
        ui.trainingSection.contentsCollapsed.connect(self.onFolded)
        watch.onChange.append(self.show)
        self._filling = False
        self.show()

    def release(self) -> None:
        """For the end of the widget. A training that was started goes on."""
        self._copied.stop()
        self._waiting.release()
        self._filling = True

    # --- from what is known to the widgets

    def showSettings(self) -> None:
        """What the settings say of the server."""
        site, ui = self._watch.site, self._ui
        ui.whereCombo.setCurrentIndex(1 if site.where == "server" else 0)
        for name, setting in SERVER_SETTINGS.items():
            self._edits[name].setText(slicer.util.settingsValue(setting, "", converter=str))

    def show(self, value=None) -> None:
        if self._filling:
            return
        site = self._watch.site
        self._ui.serverFields.setVisible(site.where == "server")
        self._showByHand()
        self._showCases()
        self._showButtons()
        self._showRun()

    def _showCases(self) -> None:
        ui, found = self._ui, self._watch.corrections
        rows = []
        if found is None:
            text = _("Looking...") if self._watch.isLooking else ""
        else:
            count = {name: int(number(found.get(name)) or 0) for name in (*COUNTS, "sent")}
            parts = [_("{count} for training").format(count=count["train"])]
            parts.append(_("{count} for validation").format(count=count["validation"]))
            for name, part in COUNTS.items():
                if part and count[name]:
                    parts.append(part().format(count=count[name]))
            sent = count["sent"]
            text = _("1 corrected case") if sent == 1 else _("{count} corrected cases").format(count=sent)
            text = _("{cases}: {parts}.").format(cases=text, parts=", ".join(parts)) if sent else text + "."
            rows = [row for row in found.get("rows") or [] if isinstance(row, dict)]
        ui.casesLabel.setText(text)
        ui.casesLabel.setVisible(bool(text))
        lines = [line for row in rows if row.get("status") in ("refused", "waiting") for line in unusedLines(row)]
        if ui.refusedText.toPlainText() != "\n".join(lines):
            ui.refusedText.setPlainText("\n".join(lines))
        ui.refusedText.setVisible(bool(lines))

    def _showButtons(self) -> None:
        ui, watch = self._ui, self._watch
        run = watch.run
        counts = watch.corrections
        busy = watch.doing
        common = busy or watch.site.workReason
        if not common and counts is None:
            common = watch.workProblem or (_("Looking...") if watch.isLooking else _("Press Refresh."))
        starting = common
        if not starting and watch.isRunning:
            starting = _("A training is in progress. Stop it first, or wait for it.")
        starting = starting or self._nothingToTrainOn(counts)
        says = _("Trains a candidate from the corrected cases and compares it with the model in use.")
        allow(ui.startButton, not starting, says, starting)
        stopping = common or ("" if watch.isRunning else _("No training is in progress."))
        isStopping = watch.isRunning and self._stopping == str((run or {}).get("run"))
        asked = _("It is stopping: it saves its state after the current step.")
        stopping = stopping or (asked if isStopping else "")
        allow(ui.stopButton, not stopping, _("Saves the training and ends it; it can be resumed."), stopping)
        resuming = common
        if not resuming and (run is None or run.get("state") not in RESUMABLE):
            resuming = _("A training is in progress.") if watch.isRunning else _("No training was interrupted.")
        if not resuming and not number(run.get("step")):  # it ended before it had its cases, or for want of them
            resuming = self._nothingToTrainOn(counts)
        allow(ui.resumeButton, not resuming, _("Continues the interrupted training."), resuming)
        looking = watch.site.reason or (_("Looking...") if watch.isLooking else "")
        allow(ui.lookButton, not looking, _("Asks for its progress again."), looking)
        for widget in (ui.wayCombo, ui.stepsBox):
            widget.setEnabled(not busy and not watch.isRunning)
        for widget in (ui.whereCombo, *self._edits.values()):
            widget.setEnabled(not busy)
        text = busy or self._message or watch.workProblem or (stopping if isStopping else "")
        if not text and not watch.isRunning:
            text = starting
        isWrong = not busy and bool(self._message or watch.workProblem)
        ui.improveReasonLabel.setText(text)
        paint(ui.improveReasonLabel, "wrong" if isWrong else "")
        ui.improveReasonLabel.setVisible(bool(text))

    def _nothingToTrainOn(self, counts: dict) -> str:
        """Why a training would find no case; "" where it finds one."""
        count = {name: int(number(counts.get(name)) or 0) for name in ("train", "new", "doubtful")}
        if count["train"]:
            return ""
        if count["new"] and self._watch.examineProblem:
            return _("The new cases could not be examined: {reason}").format(reason=self._watch.examineProblem)
        if count["doubtful"]:
            return _("No case can be used for training yet: decide on the waiting cases above, or add others.")
        return _("There is no corrected case to train on yet. Correct a result and add it to training.")

    def _showRun(self) -> None:
        ui = self._ui
        run = self._watch.run
        curve = self._watch.curve
        ui.improveLabel.setVisible(run is not None)
        ui.improveBar.setVisible(run is not None and run.get("state") in (*ACTIVE, "stopped", "lost", "failed"))
        steps = int(number((run or {}).get("steps")) or 0)
        self._showChoice(run)
        if run is not None:
            ui.improveLabel.setText("\n".join([runText(run, curve), *self._elsewhere(run)]))
            paint(ui.improveLabel, "wrong" if run.get("state") in ("failed", "lost") else "")
            known = run.get("state") == "training" or run.get("state") not in ACTIVE
            ui.improveBar.setMaximum(max(steps, 1) if known else 0)  # 0: no end in sight, it runs to and fro
            ui.improveBar.setValue(min(steps, int(number(run.get("step")) or 0)) if known else 0)
        text = curveText(curve)
        ui.curveTextLabel.setText(text)
        for widget in (ui.curveLabel, ui.curveTextLabel):
            widget.setVisible(run is not None and bool(text))
        if run is not None and text and not ui.trainingSection.collapsed:
            ui.curveLabel.setMinimumHeight(HEIGHT)
            ui.curveLabel.setPixmap(drawCurve(curve, ui.curveLabel.width, steps))
            ui.curveLabel.setToolTip(text)

    def _showChoice(self, run: dict | None) -> None:
        """Way and steps of the run that is under way, and again those for the next one when it has ended."""
        ui, running = self._ui, self._watch.isRunning
        if not running and self._chosen is None:
            return
        if running and self._chosen is None:
            self._chosen = (ui.wayCombo.currentIndex, int(ui.stepsBox.value))
        way, steps = self._chosen
        if running:
            way = WAYS.index(run["way"]) if run.get("way") in WAYS else way
            steps = int(number(run.get("steps")) or 0)  # 0 until they are known, shown as "Automatic"
        else:
            self._chosen = None
        self._filling = True
        try:
            ui.wayCombo.setCurrentIndex(way)
            ui.stepsBox.setValue(steps)
        finally:
            self._filling = False

    def _elsewhere(self, run: dict) -> list[str]:
        """That the candidate is not in the folder here, where it could be looked at."""
        name, models = run.get("candidate"), self._watch.models
        if run.get("state") != "done" or not name or models is None or name in (models.get("states") or {}):
            return []
        text = _("{name} is not in {folder} on this computer: the server has another folder. Copy its models here.")
        return [text.format(name=name, folder=self._watch.site.path)]

    def _showByHand(self) -> None:
        try:
            text, reason = self._watch.site.byHand(*self._asked()), ""
        except InputError as error:
            text, reason = "", str(error)
        if self._ui.byHandEdit.text != text:
            self._ui.byHandEdit.setText(text)
            self._ui.byHandEdit.setCursorPosition(0)
        allow(self._ui.copyCommandButton, bool(text), _("Copy the command to the clipboard."), reason)

    # --- from the widgets

    def onStart(self, checked=False):
        self._act(lambda site: site.improveCommand(*self._asked()), _("The training is being started..."))

    def onResume(self, checked=False):
        run, self._stopping = str(self._watch.run["run"]), ""
        self._act(lambda site: site.improveCommand(run=run), _("The training is being resumed..."))

    def onStop(self, checked=False):
        run = self._stopping = str(self._watch.run["run"])
        self._act(lambda site: site.stopCommand(run), _("Asking the training to stop..."))

    def onLook(self, checked=False):
        self._message = ""
        self._watch.refreshByHand()

    def onFolded(self, collapsed=False):
        if not self._filling and not collapsed:
            self.onLook()

    def onWhere(self, index=0):
        if not self._filling:
            write(WHERE_SETTING, self._ui.whereCombo.itemData(self._ui.whereCombo.currentIndex))
            self.onLook()

    def onServer(self, text=""):
        if not self._filling:
            for name, edit in self._edits.items():
                write(SERVER_SETTINGS[name], edit.text)
            self._message = ""
            self._watch.refreshSoon()

    def onCopy(self, checked=False):
        slicer.app.clipboard().setText(self._ui.byHandEdit.text)
        self._ui.copyCommandButton.setText(_("Copied"))
        self._copied.start()

    def _asked(self) -> tuple[str, int]:
        return self._ui.wayCombo.itemData(self._ui.wayCombo.currentIndex), int(self._ui.stepsBox.value)

    def _act(self, call, text: str) -> None:
        self._message = ""
        try:
            self._watch.act(call(self._watch.site), text, onError=self._refused)
        except InputError as error:
            self._refused(str(error))

    def _refused(self, text: str) -> None:
        self._message, self._stopping = text, ""
        self.show()
