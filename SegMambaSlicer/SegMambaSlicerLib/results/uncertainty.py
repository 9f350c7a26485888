"""Where the model is unsure: the map as an overlay, and the places that are most worth a look, in order.

The map is the entropy of the model's probabilities over the largest possible, 0 certain to 1 undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..i18n import _
from ..volumes.scene import ijkToWorld, readScalarMap
from .history import UNCERTAINTY_ROLE, nameCompanions
from .masks import boundingBox
from .segments import labelArray
from .vocabulary import LABELS

COLOR_NAME = "SegMamba uncertainty"
THRESHOLD = 0.35  # of the entropy of four classes: what two equally likely ones give is 0.5
SMOOTHING_MM = 3.0
RADII = 2.0  # standard deviations that the smoothing looks at
APART_MM = 12.0
SHOWN_FROM = 0.1


@dataclass(frozen=True)
class Place:
    """ras: (R, A, S) in mm, in the world; volume: mL of uncertain tissue around it; text: what is there."""

    ras: tuple[float, float, float]
    volume: float
    text: str


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


def placesToCheck(uncertaintyNode, segmentationNode=None, count: int = 10) -> list[Place]:
    """Up to `count` places, the most uncertain first.

    Every outline is uncertain a voxel deep, and these thin shells join into one; so the map is smoothed (Gaussian,
    3 mm), which lets thick spots stand out, and its peaks are taken, none nearer than 12 mm to a better one.
    Raises InputError for a segmentation on another grid.
    """
    map_ = np.nan_to_num(slicer.util.arrayFromVolume(uncertaintyNode)).astype(np.float32)
    matrix = ijkToWorld(uncertaintyNode)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    box = _around(map_ >= THRESHOLD / 2, spacing)
    if box is None:
        return []
    smooth = _smooth(map_[box], spacing)
    candidates = np.argwhere(smooth >= THRESHOLD / 2)
    if not len(candidates):
        return []
    order = np.argsort(-smooth[tuple(candidates.T)], kind="stable")
    candidates = candidates[order] + [part.start for part in box]
    ras = (matrix[:3, :3] @ candidates[:, ::-1].T + matrix[:3, 3:]).T
    labels = None if segmentationNode is None else labelArray(segmentationNode, uncertaintyNode)[0]
    uncertain, milliliters = map_ >= THRESHOLD, abs(np.linalg.det(matrix[:3, :3])) / 1000
    places, free = [], np.ones(len(candidates), bool)
    while len(places) < count and free.any():
        peak = int(np.argmax(free))
        near = np.linalg.norm(ras - ras[peak], axis=1) < APART_MM
        free &= ~near
        inside = tuple(candidates[near].T)
        volume = float(uncertain[inside].sum() * milliliters)
        text = "" if labels is None else _describe(labels, inside)
        places.append(Place(tuple(float(x) for x in ras[peak]), volume, text))
    return places


def nextPlaceToCheck(uncertaintyNode, segmentationNode=None, after: int = -1) -> tuple[int, Place] | None:
    """(number, place) of the place after the one with number `after`, beginning again at the end; None without any."""
    places = placesToCheck(uncertaintyNode, segmentationNode)
    if not places:
        return None
    number = (after + 1) % len(places)
    return number, places[number]


def jumpTo(ras) -> None:
    """Moves all slice views, and the crosshair, to (R, A, S) in mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*ras)


def _describe(labels: np.ndarray, inside) -> str:
    """Between which structures a place lies, the two most frequent ones."""
    counts = np.bincount(labels[inside], minlength=4)
    names = {0: _("no tumor"), **{value: name for name, value in LABELS.items()}}
    common = [names[int(value)] for value in np.argsort(-counts)[:2] if counts[value]]
    if len(common) == 1:
        return _("inside {structure}").format(structure=common[0]) if counts[0] == 0 else _("outside the tumor")
    return _("between {one} and {other}").format(one=common[0], other=common[1])


def _around(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...] | None:
    """The box of what can be a peak once it is smoothed, with all that the smoothing looks at; None for nothing."""
    box = boundingBox(mask)
    reach = 2 * np.ceil(RADII * SMOOTHING_MM / spacing[::-1]).astype(int) + 1
    return box and tuple(slice(max(0, part.start - r), part.stop + r) for part, r in zip(box, reach))


def _smooth(array: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    gaussian = vtk.vtkImageGaussianSmooth()
    gaussian.SetInputData(image)
    gaussian.SetStandardDeviations(*(SMOOTHING_MM / spacing))
    gaussian.SetRadiusFactors(RADII, RADII, RADII)
    gaussian.Update()
    return numpy_support.vtk_to_numpy(gaussian.GetOutput().GetPointData().GetScalars()).reshape(array.shape)


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
