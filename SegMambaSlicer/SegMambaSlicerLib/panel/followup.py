"""The section "Follow-up": the lesions of one date, or of several and how they changed, with lines to be moved."""

from __future__ import annotations

import html

import slicer

from ..engine.client import asEngineError
from ..errors import InputError
from ..followup import chart, dates
from ..followup.lines import Lines, setVisible
from ..followup.measuring import MIXED, REGIONS, Measuring, Settings, regionTitle
from ..followup.views import SideBySide
from ..i18n import _
from .colors import paint
from .followupreports import Reports
from .followuptables import clearLesions, clickedPlace, fillDates, fillLesions, prepareTables, summary, tickedRows
from .widgets import EditWatch, MoveWatch, allow, singleTimer

LIST_MILLISECONDS = 200
TARGETS, TARGETS_MIXED = 3, 2


class FollowUpPanel:
    """start: Session.command; log: called with (level, text).

    What was measured is shown until the ticked dates, their segments or places, or a setting are others; then it is to
    be measured again. A line that is let go of is measured with at once.
    """

    def __init__(self, ui, start, log):
        self._ui = ui
        self._start = start
        self._log = log
        self._node = self._measuring = self._answer = None
        self._said: dict = {}  # by the physician, of which the last measuring was told
        self._cutShort = False  # whether DICOM was being written when something had to be measured anew
        self._results: list[dates.DatedResult] = []
        self._ticked: list = []  # segmentations
        self._filling = False
        self._watches: list[EditWatch] = []
        self._moves = MoveWatch(self._moved)
        self.lines, self.views = Lines(self._lineMoved), SideBySide()
        self._timer = singleTimer(LIST_MILLISECONDS, self.refresh)
        self._reports = Reports(ui, self._byHand, self._say, self._failed, self.showState)
        for region in REGIONS:
            ui.followUpRegionCombo.addItem(regionTitle(region), region)
        self._region = self._chosenRegion()
        for combo, titles in (
            (ui.followUpSteroidsCombo, {"": _("Not stated"), "less": _("Less"), "same": _("Same"), "more": _("More")}),
            (
                ui.followUpStatusCombo,
                {"": _("Not stated"), "better": _("Better"), "same": _("Same"), "worse": _("Worse")},
            ),
        ):
            for value, title in titles.items():
                combo.addItem(title, value)
            combo.currentIndexChanged.connect(self.onSaid)
        prepareTables(ui)
        ui.followUpDatesTable.cellChanged.connect(self.onDates)
        ui.followUpLesionsTable.cellClicked.connect(self.onLesion)
        ui.followUpRegionCombo.currentIndexChanged.connect(self.onRegion)
        for box in (ui.followUpTargetsSpin, ui.followUpWeeksSpin, ui.followUpMinorSpin):
            box.valueChanged.connect(self.onSettings)
        ui.followUpEndEdit.textChanged.connect(self.onSettings)
        ui.followUpOtherEdit.editingFinished.connect(self.onSaid)
        ui.followUpMeasureButton.clicked.connect(self.onMeasure)
        ui.followUpCancelButton.clicked.connect(self.onCancel)
        ui.followUpUndoButton.clicked.connect(self.onUndo)
        ui.followUpSideButton.clicked.connect(self.onSideBySide)
        ui.followUpChartButton.clicked.connect(self.onChart)
        scene = slicer.mrmlScene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent)
        self._observed = [scene.AddObserver(event, self._sceneChanged) for event in events]
        clearLesions(ui.followUpLesionsTable)
        self._say("")
        self.refresh()

    # --- the scene

    def setSegmentation(self, node) -> None:
        """Another present result, or None, as when the scene is closed."""
        if node is self._node:
            return
        before, self._node = self._node, node
        self._drop("")
        if None not in (before, node):
            setVisible(before, False)  # it would lie over the images of somebody else, or of another date
            setVisible(node, True)
        self._ticked = [] if node is None else [node]
        self._clearSaid()  # never of one patient to another
        self.refresh()

    def refresh(self) -> None:
        """The results that there are now, and what can be pressed."""
        if self._node is not None and slicer.mrmlScene.IsClosing():
            return
        self._results = [] if self._node is None else dates.findResults()
        present = [result.segmentation for result in self._results]
        left = [node for node in self._ticked if node in present]
        if len(left) < len(self._ticked):
            self._drop(_("A measured result was removed."))
        self._ticked = left
        self._filling = True
        fillDates(self._ui.followUpDatesTable, self._results, self._ticked, self._node)
        self._filling = False
        self.showState()

    def showState(self) -> None:
        """What can be pressed, and why the rest cannot."""
        ui = self._ui
        busy = self._isBusy
        answer = self._answer
        reason = self._reason()
        allow(
            ui.followUpMeasureButton,
            not busy and not reason,
            _("Measure the ticked dates."),
            reason or _("In progress."),
        )
        ui.followUpMeasureButton.setText(_("Compare") if len(self._ticked) > 1 else _("Measure"))
        ui.followUpCancelButton.setVisible(busy)
        unmeasured = _("In progress.") if busy else _("Measure first.")
        several = answer is not None and len(answer["dates"]) > 1
        single = unmeasured if answer is None else _("Needs two or more dates: tick another date and compare.")
        text, none = _("Moves the last moved line back."), _("No line was moved.")
        allow(ui.followUpUndoButton, self.lines.canUndo() and not busy, text, _("In progress.") if busy else none)
        text = _("Show the first and the last date in linked slice views.")
        allow(ui.followUpSideButton, several, text, single)
        allow(ui.followUpChartButton, several, _("Plot sums and volumes over days."), single)
        self._reports.showState(self._measuring, answer, _("In progress.") if busy else "")
        for widget in (ui.followUpSteroidsCombo, ui.followUpStatusCombo, ui.followUpOtherEdit):
            widget.setEnabled(len(self._ticked) > 1)

    def release(self) -> None:
        """For the end of the widget."""
        self._timer.stop()
        for tag in self._observed:
            slicer.mrmlScene.RemoveObserver(tag)
        self._observed = []
        self._drop("")
        self._node = None

    # --- what is measured

    def onDates(self, row, column=0):
        """A date was typed, or ticked."""
        if self._filling or row >= len(self._results):
            return
        node = self._results[row].segmentation
        problem = ""
        if column == 1:
            try:
                dates.setDate(node, self._ui.followUpDatesTable.item(row, column).text())
            except InputError as error:
                problem = str(error)
        self._ticked = [self._results[r].segmentation for r in tickedRows(self._ui.followUpDatesTable)]
        self._drop(problem)
        self._timer.start()  # not from within the table's own signal

    def onSettings(self, value=None):
        if self._answer is not None or self._isBusy:
            self._drop(_("A setting has changed. Measure again."))
        self.showState()

    def onRegion(self, index=0):
        """RANO 2.0 has three targets, of a mixed tumor two of each kind; a number of the user's own stays."""
        spin = self._ui.followUpTargetsSpin
        before, self._region = _targetsOf(self._region), self._chosenRegion()
        if spin.value == before:
            spin.setValue(_targetsOf(self._region))
        self.onSettings()

    def onSaid(self, index=0):
        """The physician has said something: it is in the report after measuring again, which is quick.

        A text field also speaks when it is merely left.
        """
        if not self._filling and self._measuring is not None and self._clinician() != self._said:
            self._measure()

    def onMeasure(self, checked=False):
        if self._isBusy or self._reason():
            return
        self._drop("")
        chosen = [result for result in self._results if result.segmentation in self._ticked]
        try:
            self._measuring = Measuring(self._start, chosen, self._settings())
        except Exception as error:  # whatever it is, it has to be said
            self._failed(asEngineError(error))
            self.showState()
            return
        for result in self._measuring.results:
            watch = EditWatch(self._edited)
            watch.watch(result.segmentation)
            self._watches.append(watch)
        self._moves.watch([result.volume for result in chosen], [result.segmentation for result in chosen])
        self._measure()

    def onCancel(self, checked=False):
        if self._measuring is not None and self._measuring.isWriting:
            self._measuring.cancel()  # what was measured holds
            self._say(_("Cancelled."))
        else:
            self._drop(_("Cancelled."))
        self.showState()

    def _measure(self) -> None:
        measuring = self._measuring
        several = len(measuring.results) > 1
        text = _("Registering and measuring...") if several and self._answer is None else _("Measuring...")
        self._say(text)
        self._said = self._clinician()
        self._cutShort = self._cutShort or measuring.isWriting
        try:
            measuring.measure(
                self._byHand(),
                lambda answer: self._handleAnswer(measuring, self._measured, answer),
                lambda error: self._handleAnswer(measuring, self._notMeasured, error),
            )
        except Exception as error:
            self._notMeasured(asEngineError(error))
        self.showState()

    def _handleAnswer(self, measuring, function, answer) -> None:
        if measuring is self._measuring:
            function(answer)
            self.showState()

    def _measured(self, answer: dict) -> None:
        self._answer = answer
        self.lines.show(answer, self._measuring.results)
        self.views.refresh()
        fillLesions(self._ui.followUpLesionsTable, answer, self._measuring.results)
        label = self._ui.followUpSummaryLabel
        label.setText(summary(answer, label))
        if self._cutShort:
            self._say(_("Measured again. DICOM was not written, for it would say what was before: write it again."))
        else:
            self._say(_("Measured. Drag a line to correct it: your line then counts."))
        self._cutShort = False
        if len(answer["dates"]) > 1:
            chart.updateChart(answer)

    def _notMeasured(self, error) -> None:
        """What was measured before goes too: lines, or what the physician says, are others since."""
        self._drop("")
        self._failed(error)

    def _failed(self, error) -> None:
        self._log("error", str(error))
        if getattr(error, "detail", ""):
            self._log("error", error.detail)
        self._say(_("Failed: {reason}").format(reason=error), failed=True)

    def _byHand(self) -> dict:
        results = self._measuring.results
        days = dates.daysOf(results) if len(results) > 1 else [0]
        lines = [
            {"day": day, **line}
            for day, result in zip(days, results)
            for line in self.lines.byHand(result.segmentation, self._measuring.settings.measured)
        ]
        said = self._clinician()
        return {"lines": lines, "clinician": [{"day": days[-1], **said}] if any(said.values()) else []}

    def _clinician(self) -> dict[str, str]:
        """What the physician says of the last date."""
        ui = self._ui
        return {
            "steroids": ui.followUpSteroidsCombo.itemData(ui.followUpSteroidsCombo.currentIndex) or "",
            "clinical_status": ui.followUpStatusCombo.itemData(ui.followUpStatusCombo.currentIndex) or "",
            "non_target_lesions": ui.followUpOtherEdit.text,
        }

    def _settings(self) -> Settings:
        ui = self._ui
        return Settings(
            region=self._chosenRegion(),
            targets=int(ui.followUpTargetsSpin.value),
            confirmWeeks=float(ui.followUpWeeksSpin.value),
            volumetricMinor=float(ui.followUpMinorSpin.value),
            radiotherapyEnd=ui.followUpEndEdit.text.strip(),
        )

    def _chosenRegion(self) -> str:
        combo = self._ui.followUpRegionCombo
        return combo.itemData(combo.currentIndex)

    # --- what is seen of it

    def onLesion(self, row, column=0):
        if self._answer is None or self._measuring is None:
            return
        found = clickedPlace(self._answer, row)
        if found is not None:
            number, ras = found
            self.views.goTo(self._measuring.results[number], ras)

    def onUndo(self, checked=False):
        self.lines.undo()

    def onSideBySide(self, checked=False):
        if not self._ui.followUpSideButton.isChecked() or self._answer is None:
            self.views.hide()
            return
        first, last = self._measuring.results[0], self._measuring.results[-1]
        date = self._answer["dates"][-1]
        found = date["registration"] if date["followed"] else None
        self.views.show(first, last, None if found is None else found["transform"])
        if found is None:
            self._say(_("The dates could not be registered: their views are not linked."))

    def onChart(self, checked=False):
        if self._answer is not None:
            chart.showChart(chart.updateChart(self._answer))

    # --- what changes under it

    @property
    def _isBusy(self) -> bool:
        return self._measuring is not None and self._measuring.isBusy

    def _reason(self) -> str:
        if self._node is None:
            return _("There is no result yet.")
        if not self._ticked:
            return _("Tick the dates that are to be measured.")
        try:
            dates.inOrder([result for result in self._results if result.segmentation in self._ticked])
        except InputError as error:
            return str(error)
        return ""

    def _lineMoved(self) -> None:
        if self._measuring is not None:
            self._measure()

    def _edited(self, caller=None, event=None):
        self._changed(_("The segments have changed. Measure again."))

    def _moved(self) -> None:
        self._changed(_("The volumes were moved. Measure again."))

    def _changed(self, why: str) -> None:
        if self._measuring is not None and not slicer.mrmlScene.IsClosing():
            self._drop(why)
            self.showState()

    def _drop(self, why: str) -> None:
        """Forgets what was measured; the lines stay in the scene, for those that were moved count again."""
        measuring = self._measuring
        self._measuring = None
        self._answer = None
        self._cutShort = False
        if measuring is not None:
            measuring.close()
        for watch in self._watches:
            watch.watch(None)
        self._watches = []
        self._moves.watch([], [])
        self.lines.drop()
        self.views.hide()
        self._ui.followUpSideButton.setChecked(False)
        clearLesions(self._ui.followUpLesionsTable)
        self._ui.followUpSummaryLabel.setText("")
        self._say(why)

    def _clearSaid(self) -> None:
        self._filling = True
        self._ui.followUpSteroidsCombo.setCurrentIndex(0)
        self._ui.followUpStatusCombo.setCurrentIndex(0)
        self._ui.followUpOtherEdit.setText("")
        self._ui.followUpEndEdit.setText("")
        self._filling = False

    def _sceneChanged(self, caller=None, event=None):
        if not slicer.mrmlScene.IsClosing():
            self._timer.start()

    def _say(self, text: str, failed: bool = False) -> None:
        self._ui.followUpStateLabel.setText(html.escape(text))
        paint(self._ui.followUpStateLabel, "wrong" if failed else "")
        self._ui.followUpStateLabel.setVisible(bool(text))


def _targetsOf(region: str) -> int:
    return TARGETS_MIXED if region == MIXED else TARGETS
