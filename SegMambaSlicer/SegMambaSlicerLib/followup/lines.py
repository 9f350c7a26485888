"""The two diameters of each lesion as markup lines. One that was dragged wins over the measured one, and is marked.

Both ends as measured are kept with the line, so that it can be seen, also after saving and loading, that it was moved.
"""

from __future__ import annotations

import json

import numpy as np
import slicer
import vtk

from ..i18n import _

SEGMENTATION_ROLE = "SegMambaLesion"
_LESION = "SegMamba.Lesion"
_WHICH = "SegMamba.Which"
_MEASURED = "SegMamba.Measured"
_REGION = "SegMamba.Region"
_ENDS = {"D1": "line1_ras_mm", "D2": "line2_ras_mm"}
_COLORS = {"D1": (1.0, 0.35, 0.35), "D2": (0.35, 0.78, 1.0)}
_BY_HAND = (1.0, 0.85, 0.2)
_SAME_MM = 1e-3


class Lines:
    """changed: called when a person has let go of a line, or took that back."""

    def __init__(self, changed):
        self._changed = changed
        self._observed: dict = {}  # node -> (tag, ends before the drag)
        self._undo: list = []  # (node, ends before)

    def show(self, answer: dict, results: list) -> None:
        """Lines for each lesion of each date of `answer`; those that are there already are kept, others go.

        A moved line of a region or a result that is not measured now is hidden until it is measured again.
        """
        kept = []
        regions = {burden["region"] for date in answer["dates"] for burden in date["burdens"]}
        measured = [result.segmentation for result in results]
        for date, result in zip(answer["dates"], results):
            for lesion in date["lesions"]:
                for which, key in _ENDS.items():
                    if lesion[key] is not None:
                        kept.append(self._put(result.segmentation, lesion, which, np.array(lesion[key], float)))
        for node in allLines():
            if node in kept:
                continue
            self.forget(node)
            owner = node.GetNodeReference(SEGMENTATION_ROLE)
            isElsewhere = owner not in measured or (node.GetAttribute(_REGION) or "") not in {"", *regions}
            if owner is not None and isElsewhere and isMoved(node):
                _setAside(node, True)
            else:
                slicer.mrmlScene.RemoveNode(node)

    def byHand(self, segmentationNode, regions) -> list[dict]:
        """The moved lines of a result in these regions: "which", "ends" in RAS mm, and "region", that of the lesion."""
        return [
            {
                "which": node.GetAttribute(_WHICH),
                "ends": endsOf(node).tolist(),
                "region": node.GetAttribute(_REGION) or "",
            }
            for node in linesOf(segmentationNode)
            if isMoved(node) and (node.GetAttribute(_REGION) or "") in {"", *regions}
        ]

    def canUndo(self) -> bool:
        return any(slicer.mrmlScene.IsNodePresent(node) for node, _ends in self._undo)

    def undo(self) -> None:
        """Takes the last move of a line back, of those that nobody has deleted."""
        self._undo = [entry for entry in self._undo if slicer.mrmlScene.IsNodePresent(entry[0])]
        if not self._undo:
            return
        node, ends = self._undo.pop()
        _setEnds(node, ends)
        self._observed[node] = (self._observed[node][0], ends)
        _mark(node)
        self._changed()

    def drop(self) -> None:
        """Observes nothing any more; the lines stay in the scene."""
        for node in list(self._observed):
            self.forget(node)

    def forget(self, node) -> None:
        """Of a line that goes."""
        found = self._observed.pop(node, None)
        if found:
            node.RemoveObserver(found[0])
        self._undo = [entry for entry in self._undo if entry[0] is not node]

    def _put(self, segmentationNode, lesion: dict, which: str, ends: np.ndarray):
        number, region = str(lesion["number"]), lesion["region"]
        mine = (line for line in linesOf(segmentationNode) if line.GetAttribute(_WHICH) == which)
        mine = (line for line in mine if (line.GetAttribute(_REGION) or "") in ("", region))
        node = next((line for line in mine if line.GetAttribute(_LESION) == number), None)
        byHand = which in lesion["by_hand"]
        if node is None:
            node = _newLine(segmentationNode, number, which)
        node.SetAttribute(_REGION, region)
        _setAside(node, False)
        if not byHand or node.GetAttribute(_MEASURED) is None:
            node.SetAttribute(_MEASURED, json.dumps([] if byHand else ends.tolist()))
        if not _isWhole(node) or not _same(endsOf(node), ends):
            _setEnds(node, ends)
        if node not in self._observed:
            tag = node.AddObserver(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent, self._released)
            self._observed[node] = (tag, ends)
        self._observed[node] = (self._observed[node][0], endsOf(node))
        _mark(node)
        return node

    def _released(self, node, event=None):
        if slicer.mrmlScene.IsClosing() or node not in self._observed or not _isWhole(node):
            return
        tag, before = self._observed[node]
        ends = endsOf(node)
        if _same(before, ends):
            return
        self._undo.append((node, before))
        self._observed[node] = (tag, ends)
        _mark(node)
        self._changed()


def allLines() -> list:
    """Those of any result in the scene."""
    return [n for n in slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode") if n.GetAttribute(_WHICH) in _ENDS]


def linesOf(segmentationNode) -> list:
    return [node for node in allLines() if node.GetNodeReference(SEGMENTATION_ROLE) is segmentationNode]


def setVisible(segmentationNode, isVisible: bool) -> None:
    """Shows or hides the lines of a result, but for those that are set aside."""
    for node in linesOf(segmentationNode):
        if not node.GetHideFromEditors():
            node.SetDisplayVisibility(isVisible)


def endsOf(node) -> np.ndarray:
    """(2, 3) RAS mm, in the world, of a line that has both."""
    return np.array([node.GetNthControlPointPositionWorld(index) for index in range(2)])


def isMoved(node) -> bool:
    """Whether the line lies elsewhere than it was measured; one that has lost an end does not count."""
    if not _isWhole(node):
        return False
    measured = json.loads(node.GetAttribute(_MEASURED) or "[]")
    return len(measured) != 2 or not _same(np.array(measured, float), endsOf(node))


def _newLine(segmentationNode, number: str, which: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", f"{which} {number}")
    node.SetAttribute(_LESION, number)
    node.SetAttribute(_WHICH, which)
    node.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetPropertiesLabelVisibility(True)
    node.GetDisplayNode().SetPointLabelsVisibility(False)
    owner = segmentationNode.GetDisplayNode()
    node.SetDisplayVisibility(owner is None or bool(owner.GetVisibility()))
    return node


def _setAside(node, aside: bool) -> None:
    """Hides a line, or shows one again that was hidden here; what a person has hidden stays so."""
    if bool(node.GetHideFromEditors()) != aside:
        node.SetHideFromEditors(aside)
        node.SetDisplayVisibility(not aside)


def _isWhole(node) -> bool:
    """Not where a person has deleted an end, or taken its position away, which then reads as the origin."""
    return node.GetNumberOfControlPoints() == node.GetNumberOfDefinedControlPoints() == 2


def _setEnds(node, ends: np.ndarray) -> None:
    while node.GetNumberOfControlPoints() < 2:
        node.AddControlPointWorld(vtk.vtkVector3d(0, 0, 0))
    for index, point in enumerate(ends):
        node.SetNthControlPointPositionWorld(index, *point)


def _mark(node) -> None:
    which, number = node.GetAttribute(_WHICH), node.GetAttribute(_LESION)
    moved = isMoved(node)
    text = _("Lesion {number} {which}, moved") if moved else _("Lesion {number} {which}")
    node.SetName(text.format(number=number, which=which))
    color = _BY_HAND if moved else _COLORS[which]
    node.GetDisplayNode().SetColor(*color)
    node.GetDisplayNode().SetSelectedColor(*color)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() < _SAME_MM)
