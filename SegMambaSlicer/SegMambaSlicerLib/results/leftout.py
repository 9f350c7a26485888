"""What post-processing took for too small and left out: counted, shown on demand beside the result, or taken in."""

from __future__ import annotations

import numpy as np
import slicer

from ..i18n import _
from . import history
from .masks import addLabels, cutGeometry
from .segments import labelArray, setLabels
from .vocabulary import LABELS

COLOR = (0.95, 0.35, 0.90)
_SPOTS, _ML = "SegMamba.LeftOutSpots", "SegMamba.LeftOutML"


def keepLeftOut(segmentationNode, labels: np.ndarray, facts: dict) -> None:
    """Keeps (K, J, I) uint8 `labels` of what was left out, hidden. facts: the engine's, with "spots" and "ml"."""
    history.keepLabels(segmentationNode, labels, history.LEFT_OUT_ROLE)
    segmentationNode.SetAttribute(_SPOTS, str(int(facts["spots"])))
    segmentationNode.SetAttribute(_ML, f"{float(facts['ml']):.3f}")


def leftOutText(segmentationNode, isIncluded: bool = False) -> str:
    """One line about what was left out; "" for nothing. isIncluded: whether it is in the segments by now."""
    spots, milliliters = (segmentationNode.GetAttribute(name) for name in (_SPOTS, _ML))
    if not spots or segmentationNode.GetNodeReference(history.LEFT_OUT_ROLE) is None:
        return ""
    if spots == "1":
        text, added = _("1 spot below the model's limits ({volume} mL) was left out."), _("It was added since.")
    else:
        text = _("{count} spots below the model's limits ({volume} mL in all) were left out.")
        added = _("They were added since.")
    text = text.format(count=spots, volume=f"{float(milliliters):.2f}")
    return f"{text} {added}" if isIncluded else text


def leftOutLabels(segmentationNode) -> np.ndarray | None:
    """(K, J, I) uint8 on the segmentation's geometry; None where nothing was left out."""
    return history.keptLabels(segmentationNode, history.LEFT_OUT_ROLE)


def isShown(segmentationNode) -> bool:
    node = segmentationNode.GetNodeReference(history.LEFT_OUT_SHOWN_ROLE)
    return node is not None and bool(node.GetDisplayNode().GetVisibility())


def show(segmentationNode, on: bool = True) -> None:
    """Outlines of what was left out, in a segmentation of their own, or none."""
    node = segmentationNode.GetNodeReference(history.LEFT_OUT_SHOWN_ROLE)
    if on and node is None:
        node = _make(segmentationNode)
    if node is not None:
        node.GetDisplayNode().SetVisibility(on)
        node.SetHideFromEditors(not on)


def canInclude(segmentationNode) -> bool:
    """Whether anything of what was left out is still to be added. Raises InputError as `labelArray`."""
    kept = history.keptImage(segmentationNode, history.LEFT_OUT_ROLE)
    if kept is None:
        return False
    geometry = cutGeometry(segmentationNode, (), [kept])
    extra = history.keptLabels(segmentationNode, history.LEFT_OUT_ROLE, geometry)
    return bool(_free(segmentationNode, extra, labelArray(segmentationNode, geometry=geometry)[0], geometry).any())


def include(segmentationNode) -> None:
    """Adds what was left out to the segments; where the clinician has drawn something, that stays."""
    extra = leftOutLabels(segmentationNode)
    if extra is None:
        return
    labels, _notes = labelArray(segmentationNode)
    setLabels(segmentationNode, np.where(_free(segmentationNode, extra, labels), extra, labels))
    show(segmentationNode, False)


def _free(segmentationNode, extra: np.ndarray, labels: np.ndarray, geometry=None) -> np.ndarray:
    """(K, J, I) bool: of what was left out the voxels that are untouched since the model made its result."""
    return (extra > 0) & (labels == history.originalLabels(segmentationNode, geometry))


def _make(segmentationNode):
    labels = leftOutLabels(segmentationNode)
    name = _("{segmentation}, left out").format(segmentation=segmentationNode.GetName())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentationNode.GetSegmentation().GetConversionParameter(parameter)
    node.GetSegmentation().SetConversionParameter(parameter, geometry)
    addLabels(node, labels)
    display = node.GetDisplayNode()
    for segmentId in LABELS:
        node.GetSegmentation().GetSegment(segmentId).SetColor(*COLOR)
    display.SetAllSegmentsOpacity2DFill(0.2)
    display.SetSliceIntersectionThickness(2)
    segmentationNode.SetNodeReferenceID(history.LEFT_OUT_SHOWN_ROLE, node.GetID())
    return node
