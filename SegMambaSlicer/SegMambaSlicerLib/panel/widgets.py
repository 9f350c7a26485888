"""What the panel's parts share: sections from files of their own, timers, and buttons that say why they are off."""

from __future__ import annotations

import qt
import slicer
import vtk

from ..results.segments import areLabelsSame
from ..volumes.scene import ijkToRas


def addSection(uiWidget, path: str, before) -> None:
    """Loads the section in the .ui file `path` and puts it into the panel above the widget `before`.

    Its widgets are then among those of `uiWidget` (slicer.util.childWidgetVariables); names must not occur twice.
    """
    layout = uiWidget.layout()
    layout.insertWidget(layout.indexOf(before), slicer.util.loadUI(path))


def addInto(section, path: str, index: int) -> None:
    """Loads the .ui file `path` and puts it into `section`, at `index` of its layout."""
    section.layout().insertWidget(index, slicer.util.loadUI(path))


def singleTimer(milliseconds: int, function):
    """A timer of our own, which `release` can stop: a static single shot would come after the widgets are gone."""
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(function)
    return timer


def allow(button, allowed: bool, text: str, reason: str) -> None:
    """Lets a button be pressed, with `text` as its tooltip, or says in `reason` why it cannot be."""
    button.setEnabled(allowed)
    button.setToolTip(text if allowed else reason)


def fillCombo(combo, choices: list[tuple[str, object]], chosen: object) -> None:
    """Offers `choices`, (text, value) each, and selects the value `chosen`, or else the first one.

    A list that is the same stays. The combo box signals changes meanwhile, which the caller has to ignore.
    """
    if [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count)] != choices:
        combo.clear()
        for text, value in choices:
            combo.addItem(text, value)
    values = [value for _text, value in choices]
    combo.setCurrentIndex(values.index(chosen) if chosen in values else 0)


class VolumeWatch:
    """Calls `changed` whenever one of the watched volumes is moved or renamed, or gets other voxels."""

    def __init__(self, changed):
        self._changed = changed
        self._nodes, self._observed = [], []
        self._known: dict = {}  # node -> name and geometry

    def watch(self, nodes: list) -> None:
        """Other volumes; [] for none."""
        if nodes == self._nodes:
            return
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._nodes, self._observed = list(nodes), []
        self._known = {node: _factsOf(node) for node in nodes}
        for node in nodes:
            for event in (node.TransformModifiedEvent, node.ImageDataModifiedEvent):
                self._observed.append((node, node.AddObserver(event, self._heard)))
            self._observed.append((node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._modified)))

    def _heard(self, caller=None, event=None):
        self._changed()

    def _modified(self, node, event=None):
        """Of its geometry alone no event tells; of much else that does not matter this one does."""
        facts = _factsOf(node)
        if facts != self._known.get(node):
            self._known[node] = facts
            self._changed()


def _factsOf(node) -> tuple:
    return node.GetName(), ijkToRas(node).tolist()


class MoveWatch:
    """Calls `moved` whenever a transform moves a watched volume or segmentation, or a volume's geometry changes."""

    def __init__(self, moved):
        self._moved = moved
        self._observed = []
        self._places: dict = {}  # volume -> geometry

    def watch(self, volumes: list, segmentations: list) -> None:
        """Others than before; [] for none."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._places = {node: ijkToRas(node).tolist() for node in volumes}
        nodes = [*volumes, *segmentations]
        self._observed = [(node, node.AddObserver(node.TransformModifiedEvent, self._heard)) for node in nodes]
        modified = vtk.vtkCommand.ModifiedEvent
        self._observed += [(node, node.AddObserver(modified, self._modified)) for node in volumes]

    def _heard(self, caller=None, event=None):
        self._moved()

    def _modified(self, node, event=None):
        if node in self._places and ijkToRas(node).tolist() != self._places[node]:
            self._moved()


class EditWatch:
    """Calls `edited` whenever segments of the watched segmentation are changed or taken away.

    Not where labels are shown as regions, or these as labels, and mean the same as before.
    displayed: called when its surfaces come or go, or are shown or hidden, by whoever.
    """

    def __init__(self, edited, displayed=None):
        self._changed, self._displayed = edited, displayed
        self._node = None
        self._observed = []

    def watch(self, node) -> None:
        """Another segmentation, or None."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._node, self._observed = node, []
        if node is not None:
            segmentation = node.GetSegmentation()
            for event in (segmentation.SourceRepresentationModified, segmentation.SegmentRemoved):
                self._observed.append((segmentation, segmentation.AddObserver(event, self._edited)))
            if self._displayed is not None:
                event = segmentation.ContainedRepresentationNamesModified
                self._observed.append((segmentation, segmentation.AddObserver(event, self._displayed)))
                self._observed.append((node, node.AddObserver(node.DisplayModifiedEvent, self._displayed)))

    def _edited(self, caller=None, event=None):
        if not areLabelsSame(self._node):
            self._changed()


class ViewWatch:
    """Calls `changed` whenever a slice view shows other volumes than before, by whoever."""

    def __init__(self, changed):
        self._changed = changed
        self._observed = []

    def watch(self, on: bool) -> None:
        """The slice views that there are now, or none."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode") if on else []
        self._observed = [(node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._changed)) for node in composites]
