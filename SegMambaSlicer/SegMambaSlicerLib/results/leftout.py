"""What post-processing took for too small and left out: counted, shown on demand beside the result, or taken in."""

from __future__ import annotations

import numpy as np
import slicer

from ..i18n import _
from . import history
from .masks import addLabels
from .segments import labelArray, setLabels
from .vocabulary import LABELS

COLOR = (0.95, 0.35, 0.90)
_SPOTS, _ML = "SegMamba.LeftOutSpots", "SegMamba.LeftOutML"


def keepLeftOut(segmentationNode, labels: np.ndarray, facts: dict) -> None:
    """Keeps (K, J, I) uint8 `labels` of what was left out, hidden. facts: the engine's, with "spots" and "ml"."""
    history.keepLabels(segmentationNode, labels, history.LEFT_OUT_ROLE)
    segmentationNode.SetAttribute(_SPOTS, str(int(facts["spots"])))
    segmentationNode.SetAttribute(_ML, f"{float(facts['ml']):.3f}")


def leftOutText(segmentationNode) -> str:
    """One line about what was left out; "" for nothing."""
    spots, milliliters = (segmentationNode.GetAttribute(name) for name in (_SPOTS, _ML))
    if not spots or segmentationNode.GetNodeReference(history.LEFT_OUT_ROLE) is None:
        return ""
    if spots == "1":
        text = _("1 spot below the model's limits ({volume} mL) was left out.")
        return text.format(volume=f"{float(milliliters):.2f}")
    text = _("{count} spots below the model's limits ({volume} mL in all) were left out.")
    return text.format(count=spots, volume=f"{float(milliliters):.2f}")


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


def include(segmentationNode) -> None:
    """Adds what was left out to the segments; where the clinician has drawn something, that stays."""
    extra = leftOutLabels(segmentationNode)
    if extra is None:
        return
    labels, _notes = labelArray(segmentationNode)
    original = history.originalLabels(segmentationNode)
    free = (extra > 0) & (labels == original)  # untouched since the model made it
    setLabels(segmentationNode, np.where(free, extra, labels))
    show(segmentationNode, False)


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
