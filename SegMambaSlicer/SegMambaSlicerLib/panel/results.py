"""What was found: the table, labels or regions, 3-D, uncertainty, and the results before and after."""

from __future__ import annotations

import qt
import slicer

from ..errors import InputError
from ..i18n import _
from ..results import succession, uncertainty
from ..results.segments import representation, show3D, surfaceSteps, switchRepresentation
from ..results.statistics import updateTable
from .checking import CheckingPanel
from .resultfacts import ResultFacts
from .steps import Steps
from .widgets import EditWatch, MoveWatch, ViewWatch, allow

SHOW_3D_SETTING = "SegMamba/Show3D"

MEASURE_MILLISECONDS = 800  # after the last edit; measuring a whole head takes about a third of a second
_COLUMNS = 4


class ResultsPanel:
    """shown: called with the segmentation that takes the place of the present one (earlier and later results)."""

    def __init__(self, ui, shown):
        self._ui, self._shown = ui, shown
        self._node = None
        self._surfaces = Steps()
        self._firstLesion = 0  # its row in the table
        self._checking = CheckingPanel(ui, ui.placeLabel.setText)
        self._facts = ResultFacts(ui, ui.placeLabel.setText, self.measure)
        self._edits = EditWatch(self._edited, self._showSurfaces)
        self._moves = MoveWatch(self._edited)  # a transform may scale
        self._views = ViewWatch(self._othersChanged)
        self._timer = qt.QTimer()  # edits come in bursts; the table follows when they pause
        self._timer.setSingleShot(True)
        self._timer.setInterval(MEASURE_MILLISECONDS)
        self._timer.timeout.connect(self.measure)
        ui.labelsRadio.clicked.connect(self.onMode)
        ui.regionsRadio.clicked.connect(self.onMode)
        ui.show3DButton.clicked.connect(self.onShow3D)
        ui.uncertaintyButton.clicked.connect(self.onUncertainty)
        ui.editButton.clicked.connect(self.onEdit)
        ui.undoButton.clicked.connect(self.onUndo)
        ui.redoButton.clicked.connect(self.onRedo)
        ui.volumesTable.cellClicked.connect(self.onCell)
        ui.volumesTable.setColumnCount(_COLUMNS)
        titles = [_("Structure"), _("mL"), _("Diameters\nmm"), _("Edited\nmL")]
        ui.volumesTable.setHorizontalHeaderLabels(titles)
        ui.volumesTable.setWordWrap(False)
        ui.volumesTable.setTextElideMode(qt.Qt.ElideMiddle)  # in a narrow dock the abbreviation stays
        ui.volumesTable.verticalHeader().setVisible(False)
        ui.volumesTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in range(1, _COLUMNS):
            ui.volumesTable.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        self.setSegmentation(None)

    @property
    def segmentation(self):
        return self._node

    @property
    def mode(self) -> str:
        """ "labels" or "regions": as the buttons show the present result, and as the next one comes."""
        return "regions" if self._ui.regionsRadio.isChecked() else "labels"

    def setSegmentation(self, node) -> None:
        """Shows the result in `node`, or that there is none."""
        if node is not self._node:
            self._surfaces.stop()
            self._edits.watch(node)
            self._moves.watch([], [] if node is None else [node])
            self._views.watch(node is not None)
            self._node = node
            self._ui.placeLabel.setText("")  # a place of the result before
            self._facts.setSegmentation(node)
            self._followOverlay()
            self._checking.setSegmentation(node)
        self._ui.resultLabel.setText(self._facts.title())
        self.show()
        self.measure()

    def showNew(self) -> None:
        """A result that was just made: the views go to its largest lesion, with surfaces if they were wanted last."""
        if self._facts.lesions:
            self._facts.goTo(0)
        self._facts.show()  # after the volume under the segments was chosen
        if slicer.util.settingsValue(SHOW_3D_SETTING, False, converter=slicer.util.toBool):
            self._makeSurfaces()

    def show(self) -> None:
        """What can be pressed, and why the rest cannot."""
        ui, node = self._ui, self._node
        nothing = _("There is no result yet.")
        ui.volumesTable.setEnabled(node is not None)
        earlier = node is not None and succession.previousResult(node) is not None
        later = node is not None and succession.nextResult(node) is not None
        unsure = node is not None and uncertainty.uncertaintyOf(node) is not None
        allow(ui.show3DButton, node is not None, _("Surfaces of the segments in the 3-D view."), nothing)
        allow(ui.editButton, node is not None, _("Opens the result in the Segment Editor."), nothing)
        text = _("Shows over the slices where the model is uncertain.")
        none = nothing if node is None else _("There is no uncertainty map with this result.")
        allow(ui.uncertaintyButton, unsure, text, none)
        allow(
            ui.nextPlaceButton, unsure, _("Goes to the next place where the model is uncertain (Ctrl+Shift+J)."), none
        )
        allow(ui.undoButton, earlier, _("Shows the previous result."), _("There is no earlier result."))
        allow(ui.redoButton, later, _("Shows the next result again."), _("There is no later result."))
        if node is None:
            ui.show3DButton.setChecked(False)
            ui.uncertaintyButton.setChecked(False)
            ui.placeLabel.setText("")
            return
        self.showMode(representation(node))
        shown = shownMap()
        ui.uncertaintyButton.setChecked(shown is not None and shown is uncertainty.uncertaintyOf(node))
        self._showSurfaces()

    def refresh(self) -> None:
        """The buttons, after others have done something with the views, or have removed nodes."""
        self.show()
        self._facts.show()

    def _showSurfaces(self, caller=None, event=None):
        """The button, from what the 3-D views show; the editor and other modules change that too."""
        node = self._node
        if node is not None and not self._surfaces.isRunning:  # they are on their way
            display = node.GetDisplayNode()
            isMade = node.GetSegmentation().ContainsRepresentation("Closed surface")
            isShown = isMade and display is not None and bool(display.GetVisibility() and display.GetVisibility3D())
            self._ui.show3DButton.setChecked(isShown)

    def showMode(self, mode: str) -> None:
        """ "labels" or "regions": of the present result, or for the next one."""
        self._ui.labelsRadio.setChecked(mode == "labels")
        self._ui.regionsRadio.setChecked(mode == "regions")

    def measure(self) -> None:
        """The table in the panel, and the one in the scene, from the segments as they are now."""
        table, node = self._ui.volumesTable, self._node
        if slicer.mrmlScene.IsClosing():
            node = None
        if node is self._node:
            self._facts.measure()
        if node is None:
            table.setRowCount(0)
            return
        try:
            rows = _rows(updateTable(node))
        except InputError as error:
            table.setRowCount(0)  # of numbers that no longer hold
            self._ui.placeLabel.setText(str(error))
            return
        self._firstLesion = len(rows)
        lesions = self._facts.lesions if len(self._facts.lesions) > 1 else []  # of a single one it is all said
        rows += [_lesionRow(number, lesion) for number, lesion in enumerate(lesions, 1)]
        table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            for column, text in enumerate(row):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(text)
                if column:
                    cell.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(index, column, cell)
        table.resizeRowsToContents()

    def onMode(self, checked=False):
        if self._node is None:
            return
        shown3D = self._ui.show3DButton.isChecked()
        try:
            notes = switchRepresentation(self._node, self.mode, surfaces=False)
        except InputError as error:
            self._ui.placeLabel.setText(str(error))
            self.show()
            return
        if shown3D:
            self._makeSurfaces()
        self._ui.placeLabel.setText("\n".join(notes))
        self.show()

    def onShow3D(self, checked=False):
        if self._node is None:
            return
        shown = self._ui.show3DButton.isChecked()
        qt.QSettings().setValue(SHOW_3D_SETTING, shown)
        if shown:
            self._makeSurfaces(_lookAtAll)
        else:
            self._surfaces.stop()
            show3D(self._node, False)

    def _makeSurfaces(self, done=None) -> None:
        """A segment at a time: together they would hold up Slicer for the better part of a second."""
        self._ui.show3DButton.setChecked(True)
        self._surfaces.run(surfaceSteps(self._node), done)

    def onUncertainty(self, checked=False):
        volume = uncertainty.uncertaintyOf(self._node) if self._node is not None else None
        if volume is not None:
            overlay(volume if self._ui.uncertaintyButton.isChecked() else None)

    def _followOverlay(self) -> None:
        """The map of another result over this one would mislead: this one's own takes its place, or none."""
        own = uncertainty.uncertaintyOf(self._node) if self._node is not None else None
        shown = shownMap()
        if shown is not None and shown is not own and not slicer.mrmlScene.IsClosing():
            overlay(own)

    def onCell(self, row=0, column=0):
        if 0 <= row - self._firstLesion < len(self._facts.lesions):
            self._facts.goTo(row - self._firstLesion)

    def onEdit(self, checked=False):
        if self._node is None:
            return
        try:
            slicer.util.selectModule("SegmentEditor")
            editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        except (RuntimeError, AttributeError):
            self._ui.placeLabel.setText(_("The Segment Editor needs Slicer's main window."))
            return
        editor.setSegmentationNode(self._node)
        volume = self._node.GetNodeReference(self._node.GetReferenceImageGeometryReferenceRole())
        if volume is not None:
            editor.setSourceVolumeNode(volume)

    def onUndo(self, checked=False):
        self._exchange(succession.restorePrevious)

    def onRedo(self, checked=False):
        self._exchange(succession.restoreNext)

    def release(self) -> None:
        """Observes nothing any more; for the end of the widget."""
        self._timer.stop()
        self._surfaces.stop()
        self._checking.release()
        self._edits.watch(None)
        self._moves.watch([], [])
        self._views.watch(False)
        self._node = None

    def _exchange(self, function) -> None:
        if self._node is None:
            return
        try:
            self._shown(function(self._node))
        except InputError as error:
            self._ui.placeLabel.setText(str(error))

    def _edited(self, caller=None, event=None):
        self._timer.start()

    def _othersChanged(self, caller=None, event=None):
        if not slicer.mrmlScene.IsClosing():
            self.refresh()


def overlay(volume) -> None:
    """Lays `volume` over the slices in every slice view, or takes the overlay away (None)."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetForegroundVolumeID(volume.GetID() if volume is not None else None)
        composite.SetForegroundOpacity(0.6 if volume is not None else 0.0)


def endOverlay(volume) -> None:
    """Takes `volume` away where it lies over the slices; what somebody has laid there since stays."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetForegroundVolumeID() == volume.GetID():
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)


def shownMap():
    """The uncertainty map that lies over the slices, of whatever result; None for none."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        volume = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        if uncertainty.isMap(volume):
            return volume
    return None


def background(volume, fit: bool = False) -> None:
    """Shows `volume` in every slice view; with `fit` as large as the view."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(volume.GetID())
    if fit and slicer.app.layoutManager() is not None:
        slicer.util.resetSliceViews()


def _lookAtAll() -> None:
    if slicer.app.layoutManager() is not None:
        slicer.util.resetThreeDViews()  # else the camera looks at where the scene was before


def _lesionRow(number: int, lesion) -> tuple[str, ...]:
    diameters = f"{lesion.longest:.0f} \u00d7 {lesion.perpendicular:.0f}"
    return _("Lesion {number}").format(number=number), f"{lesion.volume:.2f}", diameters, "\u2013"


def _rows(tableNode) -> list[tuple[str, ...]]:
    """The scene's table as texts: name, mL, longest x perpendicular diameter in mm, mL edited."""
    rows = []
    for index in range(tableNode.GetNumberOfRows()):
        name, *texts = (tableNode.GetCellText(index, column) for column in range(tableNode.GetNumberOfColumns()))
        volume, longest, perpendicular, *edited = map(float, texts)
        diameters = f"{longest:.0f} \u00d7 {perpendicular:.0f}" if longest else "\u2013"
        rows.append((name, f"{volume:.2f}", diameters, f"{edited[0]:.2f}" if edited else "\u2013"))
    return rows
