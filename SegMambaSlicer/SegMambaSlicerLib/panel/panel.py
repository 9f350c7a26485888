"""The panel as a whole: its parts, the parameter node they share, and what is said while something is under way."""

from __future__ import annotations

import ctk
import qt
import slicer
import vtk

from ..engine.client import EngineError, asEngineError
from ..i18n import _
from ..learning.watch import SiteWatch
from ..parameters import Parameters
from ..report import makeReport, secrets
from ..results.succession import isOf, resultOf, showInstead, takeOut
from ..results.uncertainty import uncertaintyOf
from ..volumes.checks import referenceOf
from .correcting import CorrectionPanel
from .followup import FollowUpPanel
from .inputs import InputsPanel
from .looking import LookingPanel
from .models import ModelsPanel
from .results import ResultsPanel, background
from .running import RunPanel, timeText
from .setup import SetupPanel
from .training import TrainingPanel
from .widgets import allow, singleTimer

CHECK_MILLISECONDS = 200  # after the last change of the volumes


class Panel:
    """ui: the widgets of the .ui file by name; logic: a SegMambaSlicerLogic."""

    def __init__(self, ui, logic):
        self.ui = ui
        self.logic = logic
        self.session = logic.session
        self.parameters: Parameters | None = None
        self._entered = False
        self._isInView = True
        self._isReleased = False
        self._isOfThisScene = True
        self._secrets: set[str] = set()  # of all the nodes that there were when the log was written
        ui.pythonPath.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Dirs
        ui.wheelsPath.filters = ctk.ctkPathLineEdit.Dirs
        self._checkTimer = singleTimer(CHECK_MILLISECONDS, self.onPaused)
        incomplete = lambda: self.running.incomplete()  # noqa: E731
        self.inputs = InputsPanel(ui, self.showState, incomplete, self._checkTimer.start, self.onVolumeChosen)
        self.looking = LookingPanel(ui, self.session.command, lambda: self.inputs.notes)
        self.watch = SiteWatch(self.session)
        self.running = RunPanel(ui, self.onApply, self.onCancel, self.watch)
        self.watch.onChange.append(self.onSiteChanged)
        self.results = ResultsPanel(ui, self.onResultChosen)
        self.setup = SetupPanel(ui, self.confirm, self.onSetupChanged, self.session.keepTicking)
        self.training, self.models = TrainingPanel(ui, self.watch), ModelsPanel(ui, self.watch)
        self.corrections = CorrectionPanel(ui, self.session.command, self.log, self.watch.refreshSoon)
        self.followUp = FollowUpPanel(ui, self.session.command, self.log)
        ui.sampleButton.clicked.connect(self.onSample)
        ui.sampleMenuButton.setMenu(self.sampleMenu())
        ui.labelsRadio.clicked.connect(self.onMode)
        ui.regionsRadio.clicked.connect(self.onMode)
        ui.copyReportButton.clicked.connect(self.onCopyReport)
        self.session.onLog.append(self.log)
        self.session.onMachine.append(self.onMachine)
        self.session.onTick.append(self.onTick)
        self._copiedTimer = singleTimer(1500, self._reportCopied)
        self.showState()

    # --- the scene

    def setParameterNode(self, node) -> bool:
        """Shows the state in `node`; False if it is shown already."""
        if self.parameters is not None and self.parameters.node is node:
            return False
        self.parameters = Parameters(node)
        self.inputs.setParameters(self.parameters)
        self.running.setParameters(self.parameters)
        self.results.showMode(self.parameters.get("Mode"))
        self.showResult(self.parameters.result("Segmentation"))
        self._checkTimer.start()
        return True

    def enter(self) -> None:
        """The module was opened: the volumes are looked at, and the worker is asked what this machine has.

        After a reload of the module Slicer may still say so to the old panel.
        """
        if self._isReleased:
            return
        self._isInView = True
        self._checkTimer.start()
        if not self._entered:
            self._entered = True
            self.setup.onCheck()
        self.watch.refresh()

    def exit(self) -> None:
        """Another module was opened: what is loaded there is looked at when this one is opened again.

        Until then it costs no time, and nothing is chosen, which would make a scene that was just loaded a changed one.
        """
        self._isInView = False

    def setSettled(self, isSettled: bool) -> None:
        """False from the start of closing, loading or restoring a scene to its end."""
        self.inputs.isSettled = isSettled

    def onParametersModified(self) -> None:
        if self.parameters is None or not self.inputs.isSettled:
            return  # read piece by piece; all of it is looked at when the scene is there
        self.inputs.show()
        self.running.show()
        segmentation = self.parameters.result("Segmentation")
        if segmentation is not self.results.segmentation:
            self.showResult(segmentation)
        self._checkTimer.start()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onSceneChanged(self, caller=None, event=None, node=None) -> None:
        if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
            return
        if not slicer.mrmlScene.IsBatchProcessing() and not slicer.mrmlScene.IsClosing():
            self._checkTimer.start()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller=None, event=None, node=None) -> None:
        if node is None or slicer.mrmlScene.IsClosing():
            return
        if node.IsA("vtkMRMLScalarVolumeNode"):
            self.inputs.leave(node)
        elif node.IsA("vtkMRMLSegmentationNode"):
            isShown, instead = node is self.results.segmentation, takeOut(node)
            if isShown and instead is not None and self.parameters is not None:
                self.onResultChosen(instead)
            elif not isShown:
                self.results.refresh()  # the one before or after may be gone

    def onSceneStartClose(self) -> None:
        self._isOfThisScene = False  # what was under way has no place in the next one
        self.session.cancel()
        if not self.session.isBusy():
            self.running.showIdle()
        self.showResult(None)
        self.looking.drop()
        self.parameters = None

    def onPaused(self) -> None:
        """Nothing has changed for a moment."""
        if self.parameters is None or not self._isInView:
            return
        self.results.refresh()
        self.inputs.guess()
        self.inputs.check()

    # --- a run

    def onApply(self, checked=False):
        if self.session.isBusy() or self.parameters is None:
            return
        parameters = self.parameters
        self._isOfThisScene = True
        self.running.showBusy(_("Writing the volumes..."))
        try:
            self.logic.segment(
                parameters.volumes(),
                model=self.running.model(),
                mirrorings=parameters.mirrorings,
                device=self.running.device(),
                mode=self.results.mode,
                prepare=parameters.prepare,
                postprocess=parameters.postprocess,
                previous=self._resultOf(parameters.volumes()),
                wait=False,
                onProgress=self.running.showProgress,
                onDone=self.onDone,
                onError=self.onError,
            )
            self.running.showStage(_("Starting the engine..."))
        except Exception as error:  # whatever it is, it may not leave the panel as if a run was under way
            self.onError(asEngineError(error))
        self.showState()

    def onCancel(self, checked=False):
        self.running.showCancelling()
        self.session.cancel()

    def onDone(self, result) -> None:
        if self._isReleased:
            return
        took = timeText(result.seconds)
        self.running.showIdle(_("Done in {time}.").format(time=took))
        for warning in result.warnings:
            self.log("warning", warning)
        if self.parameters is not None:
            with self.parameters.together():
                self.parameters.setResult("Segmentation", result.segmentation)
                self.parameters.setResult("Uncertainty", result.uncertainty)
            self.showResult(result.segmentation)
            self.inputs.showSteps(result)
            background(result.volumes[referenceOf(result.volumes)])
            self.results.showNew()
        self.queryEngine()  # it knows better now how long things take
        self.showState()

    def onError(self, error: EngineError) -> None:
        if self._isReleased:
            return
        isWrong = error.kind != "cancelled"
        self.running.showIdle(error.message if self._isOfThisScene else "", failed=isWrong)
        if isWrong:
            self.log("error", "\n".join(filter(None, (error.message, error.detail))))
        self.showState()

    def onSiteChanged(self) -> None:
        """The volumes are looked at again once the site tells what its model does without."""
        if self.running.isWaitingForSite and not self.watch.isSilent:
            self._checkTimer.start()

    def onVolumeChosen(self) -> None:
        """By hand: where these volumes have a result, as those of another patient, it is the one to go on with."""
        found = self._resultOf(self.parameters.volumes())
        if found is not None and found is not self.results.segmentation:
            self.onResultChosen(found)

    def _resultOf(self, volumes: dict):
        """The present result where it was made from these volumes, else another one that was; None for none."""
        present = self.results.segmentation
        return present if present is not None and isOf(present, volumes) else resultOf(volumes)

    def onResultChosen(self, segmentation) -> None:
        with self.parameters.together():
            self.parameters.setResult("Segmentation", segmentation)
            self.parameters.setResult("Uncertainty", uncertaintyOf(segmentation))
        self.showResult(segmentation)

    def showResult(self, segmentation) -> None:
        before = self.results.segmentation
        if segmentation is not before:  # else as the user has left it
            self.ui.resultSection.setProperty("collapsed", segmentation is None)
        self.results.setSegmentation(segmentation)
        self.corrections.setSegmentation(segmentation)
        self.followUp.setSegmentation(segmentation)  # which ends the view on two dates, with what it showed
        if segmentation is not before and None not in (segmentation, before):
            showInstead(segmentation, before)

    def onMode(self, checked=False):
        if self.parameters is not None:
            self.parameters.set("Mode", self.results.mode)

    # --- the sample

    def sampleMenu(self):
        """The kinds of sample case there are."""
        menu = qt.QMenu(self.ui.sampleMenuButton)
        menu.addAction(_("Prepared: brain extracted, same grid")).triggered.connect(self.onSample)
        menu.addAction(_("Raw: as from the scanner, with skull")).triggered.connect(self.onRawSample)
        return menu

    def onRawSample(self, checked=False):
        self.onSample(raw=True)

    def onSample(self, checked=False, raw=False):
        if self.session.isBusy():
            return
        self._isOfThisScene = True
        self.running.showBusy(_("Making a sample case (half a minute)..."))
        self.ui.progressBar.setMaximum(0)  # no end in sight: the bar runs to and fro
        try:
            self.session.makeSample(self.onSampleReady, self.onSampleFailed, raw)
        except Exception as error:  # likewise
            self.onSampleFailed(asEngineError(error))
        self.showState()

    def onSampleReady(self, volumes: dict) -> None:
        self.ui.progressBar.setMaximum(1000)
        self.running.showIdle(_("The sample case is loaded."))
        if self.parameters is not None:
            with self.parameters.together():
                for modality, node in volumes.items():
                    self.parameters.setVolume(modality, node)
            background(volumes["t1c"], fit=True)
        self.showState()

    def onSampleFailed(self, error: EngineError) -> None:
        self.ui.progressBar.setMaximum(1000)
        self.onError(error)

    # --- the rest

    def onTick(self) -> bool:
        self.setup.poll()
        return self.setup.isBusy()

    def onMachine(self, machine) -> None:
        self.running.setMachine(machine)
        self.showState()

    def onSetupChanged(self) -> None:
        """Packages or interpreter are others than before: the worker is to be asked again."""
        self.session.restart()
        if self.setup.plan is None and not self.setup.reason:
            self.setup.onCheck()
        else:
            self.queryEngine()
        if self.setup.reason:
            self.ui.setupSection.setProperty("collapsed", False)
        self.showState()

    def queryEngine(self) -> None:
        """Where nothing stands in its way; it would only fail."""
        try:
            if not self.setup.reason:
                self.session.queryEngine()
        except EngineError as error:
            self.log("error", error.message)

    def showState(self) -> None:
        """The button, or why it cannot be pressed."""
        busy, reason = self.session.isBusy(), self.setup.reason or self.inputs.reason
        self.running.showState(reason, busy, self.inputs.isRaw)
        if self.parameters is not None:
            self.looking.showState(self.parameters.volumes(), self.parameters.prepare, reason)
        sample = _("Make a synthetic case with a brain tumor on this computer (no download, not a patient).")
        other = _("Prepared, or raw as from a scanner")
        for button, text in ((self.ui.sampleButton, sample), (self.ui.sampleMenuButton, other)):
            allow(button, not busy and not self.setup.reason, text, self.setup.reason or _("In progress."))

    def confirm(self, question: str) -> bool:
        confirmed = slicer.util.confirmOkCancelDisplay(question, windowTitle=_("SegMamba: install packages"))
        if confirmed:
            self.session.restart()  # Windows does not replace files that the worker has open
        return confirmed

    def log(self, level: str, text: str) -> None:
        prefix = "" if level in ("info", "debug") else f"{level}: "
        self.ui.logText.appendPlainText(prefix + text)
        self._secrets |= secrets()

    def onCopyReport(self, checked=False):
        slicer.app.clipboard().setText(self.report())
        self.ui.copyReportButton.setText(_("Copied"))
        self._copiedTimer.start()

    def report(self) -> str:
        machine = self.session.machine or {}
        facts = {
            "Engine": machine.get("version", "not started"),
            "Engine's Python": machine.get("python", ""),
            "Packages": ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items()),
            "Devices": ", ".join(str(device.get("title")) for device in machine.get("devices") or []),
            "Scan": machine.get("scan_backend", ""),
        }
        if self.parameters is not None:
            names = ("Model", "Mirrorings", "Device", "Mode", "Prepare", "Postprocess")
            facts["Settings"] = ", ".join(f"{name} {self.parameters.get(name)}" for name in names)
        return makeReport(self.ui.logText.toPlainText().splitlines(), facts, self._secrets)

    def _reportCopied(self):
        self.ui.copyReportButton.setText(_("Copy report"))

    def release(self) -> None:
        """For the end of the widget: listens to nothing any more, and ends what it started."""
        self._checkTimer.stop()
        self._copiedTimer.stop()
        self._isReleased = True
        parts = (self.setup, self.inputs, self.looking, self.running, self.results, self.corrections, self.training)
        for part in (*parts, self.models, self.watch, self.followUp):
            part.release()
        self.session.onLog = []
        self.session.onMachine = []
        self.session.onTick = []
