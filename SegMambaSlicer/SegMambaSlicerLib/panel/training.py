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
from .curve import HEIGHT, curveText, drawCurve
from .running import timeText
from .widgets import allow, singleTimer


class TrainingPanel:
    """watch: a SiteWatch."""

    def __init__(self, ui, watch):
        self._ui, self._watch, self._filling = ui, watch, True
        self._message = ""  # why what was asked for was not done
        self._copied = singleTimer(1500, lambda: ui.copyCommandButton.setText(_("Copy command")))
        for text, value in zip((_("Fine-tune the model in use"), _("Train anew on all cases")), WAYS):
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
            text = self._watch.site.reason or (_("Looking...") if self._watch.isLooking else "")
        else:
            count = {name: int(number(found.get(name)) or 0) for name in (*_COUNTS, "sent")}
            parts = [_("{count} to train on").format(count=count["train"])]
            parts.append(_("{count} to check the model by").format(count=count["validation"]))
            for name, part in _COUNTS.items():
                if part and count[name]:
                    parts.append(part().format(count=count[name]))
            text = _("{count} corrected cases: {parts}.").format(count=count["sent"], parts=", ".join(parts))
            rows = [row for row in found.get("rows") or [] if isinstance(row, dict)]
        ui.casesLabel.setText(text)
        ui.casesLabel.setVisible(bool(text))
        lines = [line for row in rows if row.get("status") in ("refused", "waiting") for line in _reasons(row)]
        if ui.refusedText.toPlainText() != "\n".join(lines):
            ui.refusedText.setPlainText("\n".join(lines))
        ui.refusedText.setVisible(bool(lines))

    def _showButtons(self) -> None:
        ui, watch, run = self._ui, self._watch, self._watch.run
        counts = watch.corrections
        busy = watch.doing
        common = busy or watch.site.workReason
        if not common and counts is None:
            common = watch.workProblem or (_("Looking...") if watch.isLooking else _("Press Look again."))
        starting = common
        if not starting and watch.isRunning:
            starting = _("A training is under way. Stop it first, or wait for it.")
        if not starting and not sum(int(number(counts.get(name)) or 0) for name in ("train", "new")):
            starting = _("There is no corrected case to train on yet. Correct a result and add it to training.")
        says = _("Trains a candidate from the corrected cases and holds it against the model in use.")
        allow(ui.startButton, not starting, says, starting)
        stopping = common or ("" if watch.isRunning else _("No training is under way."))
        allow(ui.stopButton, not stopping, _("Saves the training and ends it; it can be resumed."), stopping)
        resuming = common
        if not resuming and (run is None or run.get("state") not in RESUMABLE):
            resuming = _("A training is under way.") if watch.isRunning else _("No training was broken off.")
        allow(ui.resumeButton, not resuming, _("Goes on with the training that was broken off."), resuming)
        looking = watch.site.reason or (_("Looking...") if watch.isLooking else "")
        allow(ui.lookButton, not looking, _("Asks again how far it is."), looking)
        for widget in (ui.wayCombo, ui.stepsBox):
            widget.setEnabled(not busy and not watch.isRunning)
        for widget in (ui.whereCombo, *self._edits.values()):
            widget.setEnabled(not busy)
        text = self._message or watch.workProblem or ("" if watch.isRunning else starting)
        isWrong = not busy and bool(self._message or watch.workProblem)
        ui.improveReasonLabel.setText(text)
        ui.improveReasonLabel.setStyleSheet("color: #a02020" if isWrong else "")
        ui.improveReasonLabel.setVisible(bool(text))

    def _showRun(self) -> None:
        ui, run, curve = self._ui, self._watch.run, self._watch.curve
        ui.improveLabel.setVisible(run is not None)
        ui.improveBar.setVisible(run is not None and run.get("state") in (*ACTIVE, "stopped", "lost", "failed"))
        steps = int(number((run or {}).get("steps")) or 0)
        if run is not None:
            ui.improveLabel.setText("\n".join([runText(run, curve), *self._elsewhere(run)]))
            ui.improveLabel.setStyleSheet("color: #a02020" if run.get("state") in ("failed", "lost") else "")
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
        run = str(self._watch.run["run"])
        self._act(lambda site: site.improveCommand(run=run), _("The training is being resumed..."))

    def onStop(self, checked=False):
        run = str(self._watch.run["run"])
        self._act(lambda site: site.stopCommand(run), _("The training is asked to stop..."))

    def onLook(self, checked=False):
        self._message = ""
        self._watch.refresh()

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
        self._message = text
        self.show()


_COUNTS = {
    "train": None,
    "validation": None,
    "new": lambda: _("{count} new"),
    "waiting": lambda: _("{count} waiting"),
    "refused": lambda: _("{count} refused"),
    "replaced": lambda: _("{count} replaced by newer versions"),
}


def runText(run: dict, curve) -> str:
    """Name, state, step and time left of a run, and what it says itself."""
    names = {
        "preparing": _("is being prepared"),
        "training": _("is training"),
        "judging": _("is being compared with the model in use"),
        "done": _("is done"),
        "stopped": _("was stopped"),
        "failed": _("failed"),
        "lost": _("was ended from outside"),
    }
    state = str(run.get("state", ""))
    text = _("{run} {state}").format(run=run.get("run", "?"), state=names.get(state, state))
    step, steps, left = (number(run.get(name)) for name in ("step", "steps", "seconds_left"))
    if step is not None and steps and state != "done":
        text += _(", step {step} of {steps}").format(step=int(step), steps=int(steps))
    says = str(run.get("text") or "")
    if state == "training" and step:  # it says the same in its own words
        says = ""
        text += _(", about {time} left").format(time=longTimeText(left)) if left is not None else ""
    lines = [text + ".", says]
    if state in ACTIVE and curve.note:
        lines.append(curve.note)
    return "\n".join(line for line in lines if line)


def longTimeText(seconds: float) -> str:
    """As timeText; trainings take hours."""
    minutes = round(seconds / 60)
    if minutes < 90:
        return timeText(seconds)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def _reasons(row: dict) -> list[str]:
    """Why a sending is not used: a line for each finding, with what to do."""
    states = {"refused": _("refused"), "waiting": _("waiting")}
    head = f"{row.get('name', '?')}: {states.get(row.get('status'), row.get('status'))}"
    found = row.get("findings")
    texts = []
    for finding in found if isinstance(found, list) else []:
        if isinstance(finding, dict):
            texts.append("; ".join(str(finding[name]) for name in ("text", "mend") if finding.get(name)))
        else:
            texts.append(str(finding))
    return [f"{head}: {text}" for text in texts] or [head]
