"""Where the model is uncertain: the map as a volume with its colors, and the views on it.

The map is the entropy of the model's probabilities over the largest possible, 0 certain to 1 undecided.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk

from ..i18n import _
from ..volumes.scene import DERIVED, readScalarMap
from .history import UNCERTAINTY_ROLE, nameCompanions

COLOR_NAME = "SegMamba uncertainty"
SHOWN_FROM = 0.1


def addUncertainty(uncertaintyMap, referenceVolume, segmentationNode=None):
    """The map as a vtkMRMLScalarVolumeNode with its colours on the grid of `referenceVolume`; returns the node.

    uncertaintyMap: (K, J, I) array, the path of a file, or what `makeUncertainty` made. Given `segmentationNode`, the
    map is found again through it (`uncertaintyOf`). Raises InputError for a file on another grid.
    """
    if isinstance(uncertaintyMap, (str, Path)):
        uncertaintyMap = readScalarMap(uncertaintyMap, referenceVolume)
    isArray = isinstance(uncertaintyMap, np.ndarray)
    node = makeUncertainty(uncertaintyMap, referenceVolume) if isArray else uncertaintyMap
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colors().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 1)
    display.AutoThresholdOff()
    display.SetThreshold(SHOWN_FROM, 1)
    display.ApplyThresholdOn()
    if segmentationNode is not None:
        segmentationNode.SetNodeReferenceID(UNCERTAINTY_ROLE, node.GetID())
        nameCompanions(segmentationNode)
    return node


def makeUncertainty(uncertaintyMap: np.ndarray, referenceVolume):
    """The volume node outside the scene: what takes its time, without a change that anybody sees."""
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(_("{volume} uncertainty").format(volume=referenceVolume.GetName()))
    node.SetAttribute(DERIVED, "uncertainty")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(uncertaintyMap, np.float32))
    matrix = vtk.vtkMatrix4x4()
    referenceVolume.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
    return node


def uncertaintyOf(segmentationNode):
    """The uncertainty volume that belongs to a segmentation, or None."""
    return segmentationNode.GetNodeReference(UNCERTAINTY_ROLE)


def isMap(volume) -> bool:
    """Whether a volume node is such a map, of whatever result."""
    display = volume.GetDisplayNode() if volume is not None else None
    colors = display.GetColorNode() if display is not None else None
    return colors is not None and colors.GetName() == COLOR_NAME


def jumpTo(ras) -> None:
    """Moves all slice views, and the crosshair, to (R, A, S) in mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*ras)


def _colors():
    """The colour table of the map: from transparent-looking yellow to red; one for the scene."""
    node = slicer.mrmlScene.GetFirstNode(COLOR_NAME, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", COLOR_NAME)
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    for i, part in enumerate(np.linspace(0, 1, 256)):
        node.SetColor(i, f"{part:.2f}", 1.0, 0.95 * (1 - part), 0.1 * (1 - part), 1.0)
    node.SetHideFromEditors(True)
    return node
