"""A label map as editable segments: three labels side by side, or three regions one in another, each from the other.

Segments are known by their IDs (NCR, ED, ET, WT, TC), which renaming does not change. Segments that the clinician
adds stay as they are. Which of the two is shown is an attribute of the node and is saved with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

from ..errors import InputError
from ..i18n import _
from ..volumes.scene import parentMatrix, readLabelMap, toVolumeGrid
from . import history, succession
from .masks import BINARY, addLabels, addRegion, cutGeometry, geometryOf, matrixOf, segmentArray
from .vocabulary import LABELS, MODES, REGIONS

MODE_ATTRIBUTE = "SegMamba.Representation"
SURFACE = "Closed surface"
_SAME_LABELS = "SegMamba.SameLabels"  # while labels become regions, or these labels


def createSegmentation(labelMap, referenceVolume, previous=None, mode: str = "labels", name: str | None = None):
    """A new vtkMRMLSegmentationNode on the grid and under the transform of `referenceVolume`.

    labelMap: (K, J, I) array with 1 NCR, 2 ED, 3 ET, or the path of a file with it. `previous` is the result that
    this one takes the place of: it stays, hidden and renamed, for `succession.restorePrevious`. What the model said is
    kept beside (`history.originalLabels`). Raises InputError, with the scene unchanged, for a label map that does
    not fit the volume, or an unknown mode.
    """
    checkMode(mode)
    if isinstance(labelMap, (str, Path)):
        labels = readLabelMap(labelMap, referenceVolume)
    else:
        labels = _checkLabels(np.asarray(labelMap), referenceVolume)
    name = name or (previous and succession.plainName(previous)) or _nameAfter(referenceVolume)
    if previous is None:  # else the one that has the name is about to be renamed
        name = succession.freeName(name)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetName(name)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolume)
    node.GetSegmentation().SetSourceRepresentationName(BINARY)
    _fill(node, labels, mode)
    history.keepOriginal(node, labels)
    if previous is not None:
        succession.retire(previous, node)
    return node


def representation(segmentationNode) -> str:
    """ "labels" or "regions". Raises InputError for a segmentation that was not made here."""
    mode = segmentationNode.GetAttribute(MODE_ATTRIBUTE)
    if mode in MODES:
        # the editor's undo brings segments back across a switch, and leaves the attribute as it is
        present = set(segmentationNode.GetSegmentation().GetSegmentIDs())
        other = "regions" if mode == "labels" else "labels"
        own = present & (set(MODES[mode]) - {"ET"})
        if not own and present & (set(MODES[other]) - {"ET"}):
            mode = other
    else:
        raise InputError(
            _("{segmentation} is not a result of SegMamba. Choose one, or segment the volumes.").format(
                segmentation=segmentationNode.GetName()
            )
        )
    return mode


def switchRepresentation(segmentationNode, mode: str, surfaces: bool = True) -> list[str]:
    """Shows labels as regions or regions as labels, from the segments as they are now; returns what had to give way.

    Edits can leave regions that are not one in another, or labels that overlap; then the inner structure wins, and
    the returned sentences say how much changed hands. surfaces: make those anew where there were any; without, the
    caller does so (`surfaceSteps`). Raises InputError for an unknown mode.
    """
    checkMode(mode)
    if representation(segmentationNode) == mode:
        return []
    geometry = cutGeometry(segmentationNode, MODES[representation(segmentationNode)])
    labels, notes = labelArray(segmentationNode, geometry=geometry)
    shown3D = segmentationNode.GetSegmentation().ContainsRepresentation(SURFACE)
    _refill(segmentationNode, labels, mode, geometry, isSame=not notes)
    if shown3D and surfaces:
        show3D(segmentationNode)
    return notes


def areLabelsSame(segmentationNode) -> bool:
    """Whether its segments are being exchanged for others that say the same, so that nothing was edited."""
    return bool(segmentationNode.GetAttribute(_SAME_LABELS))


def setLabels(segmentationNode, labels: np.ndarray) -> None:
    """Other voxels for the segments: (K, J, I) uint8 on the reference geometry. Other segments stay."""
    shown3D = segmentationNode.GetSegmentation().ContainsRepresentation(SURFACE)
    _refill(segmentationNode, labels, representation(segmentationNode))
    if shown3D:
        show3D(segmentationNode)


def labelArray(segmentationNode, volume=None, geometry=None) -> tuple[np.ndarray, list[str]]:
    """(K, J, I) uint8 label map of the segments as they are now, and sentences about what did not fit together.

    It has the voxel order of the segmentation's reference geometry (or of `geometry`, a part of it: masks.cutGeometry),
    or that of `volume`. The two can differ: Slicer
    loads a left-handed volume of a saved scene in another order than it was saved in, and leaves the segmentation as
    it was. Raises InputError where `volume` is on another grid.
    """
    mode = representation(segmentationNode)
    masks = {segmentId: segmentArray(segmentationNode, segmentId, geometry) for segmentId in MODES[mode]}
    labels, notes = labelsFromMasks(masks) if mode == "labels" else labelsFromRegions(masks)
    return (labels if volume is None else onVolume(labels, segmentationNode, volume)), notes


def onVolume(labels: np.ndarray, segmentationNode, volume) -> np.ndarray:
    """(K, J, I) labels on the segmentation's reference geometry, in the voxel order of `volume`.

    Both are taken as they stand in the scene. Raises InputError where `volume` is on another grid.
    """
    matrix = parentMatrix(segmentationNode) @ matrixOf(geometryOf(segmentationNode))
    return toVolumeGrid(labels, matrix, volume, segmentationNode.GetName())


def labelsFromMasks(masks: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Label map of NCR, ED and ET; where two overlap ET goes before NCR, and NCR before ED."""
    labels = np.zeros(masks["ET"].shape, np.uint8)
    for segmentId in ("ED", "NCR", "ET"):
        labels[masks[segmentId]] = LABELS[segmentId]
    twice = int((sum(mask.astype(np.uint8) for mask in masks.values()) > 1).sum())
    notes = [_("{count} voxels belonged to more than one label; the inner one was kept.").format(count=twice)]
    return labels, notes if twice else []


def labelsFromRegions(masks: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Label map of WT, TC and ET; a region that reaches out of the next larger one enlarges it."""
    labels = np.zeros(masks["ET"].shape, np.uint8)
    labels[masks["WT"]] = LABELS["ED"]
    labels[masks["TC"]] = LABELS["NCR"]
    labels[masks["ET"]] = LABELS["ET"]
    notes = []
    for inner, outer in (("ET", "TC"), ("TC", "WT")):
        outside = int((masks[inner] & ~masks[outer]).sum())
        if outside:
            text = _("{count} voxels of {inner} lay outside {outer} and were added to it.")
            notes.append(text.format(count=outside, inner=inner, outer=outer))
    return labels, notes


def regionsFromLabels(labels: np.ndarray) -> dict[str, np.ndarray]:
    """(K, J, I) bool for each of WT, TC, ET."""
    return {name: np.isin(labels, [LABELS[part] for part in parts]) for name, parts in REGIONS.items()}


def show3D(segmentationNode, on: bool = True) -> None:
    """Surfaces of all segments in the 3-D views, or none; made when asked for, for they slow down editing."""
    display = segmentationNode.GetDisplayNode()
    if on:
        segmentationNode.CreateClosedSurfaceRepresentation()
        display.SetVisibility3D(True)
    else:
        display.SetVisibility3D(False)
        segmentationNode.RemoveClosedSurfaceRepresentation()


def surfaceSteps(segmentationNode):
    """The same as show3D, a segment at each step of the generator: for who must not wait for all of them.

    Surfaces are made beside the segmentation, and put into it together at the end.
    """
    segmentation, surfaces = segmentationNode.GetSegmentation(), []
    for segmentId in list(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segmentId)
        voxels = segment.GetRepresentation(BINARY) if segment is not None else None
        if voxels is not None:
            surfaces.append((segmentId, voxels, voxels.GetMTime(), _surface(segmentation, segment, voxels)))
            yield
    for segmentId, voxels, time, surface in surfaces:
        segment = segmentation.GetSegment(segmentId)
        isSame = segment is not None and segment.GetRepresentation(BINARY) is voxels and voxels.GetMTime() == time
        if isSame and surface is not None:
            segment.AddRepresentation(SURFACE, surface)
    show3D(segmentationNode)  # makes what is missing still, as where it was edited meanwhile


def _surface(segmentation, segment, voxels):
    """The closed surface of one segment, as Slicer makes it, beside the segmentation; None for an empty one."""
    copy = slicer.vtkSegment()
    copy.SetLabelValue(segment.GetLabelValue())
    copy.AddRepresentation(BINARY, voxels)
    beside = slicer.vtkSegmentation()
    beside.SetSourceRepresentationName(BINARY)
    beside.CopyConversionParameters(segmentation)
    beside.AddSegment(copy, "beside")
    beside.CreateRepresentation(SURFACE)
    return copy.GetRepresentation(SURFACE)


def _refill(node, labels: np.ndarray, mode: str, geometry=None, isSame: bool = False) -> None:
    """Other voxels and perhaps another representation, as one change of the node. isSame: see `areLabelsSame`."""
    wasModified = node.StartModify()
    try:
        node.SetAttribute(_SAME_LABELS, "1" if isSame else None)
        for segmentId in MODES[representation(node)]:
            node.GetSegmentation().RemoveSegment(segmentId)
        _fill(node, labels, mode, geometry)
    finally:
        node.RemoveAttribute(_SAME_LABELS)
        node.EndModify(wasModified)
    _order(node, mode)


def _order(node, mode: str) -> None:
    """The model's segments first, in the order of their list. Nothing here relies on it, but people do.

    Again after every observer was told: Slicer's subject hierarchy keeps a list of its own, in which ET, which is both
    a label and a region, can keep its old place before the others.
    """
    segmentation = node.GetSegmentation()
    present = list(segmentation.GetSegmentIDs())
    wanted = [*MODES[mode], *(other for other in present if other not in MODES[mode])]
    if present != wanted:
        segmentation.ReorderSegments(wanted)


def _fill(node, labels: np.ndarray, mode: str, geometry=None) -> None:
    if mode == "labels":
        addLabels(node, labels, geometry)
    else:
        for segmentId, region in regionsFromLabels(labels).items():
            addRegion(node, segmentId, region, geometry)
    _order(node, mode)
    node.SetAttribute(MODE_ATTRIBUTE, mode)
    display = node.GetDisplayNode()
    for segmentId in MODES[mode]:
        outer = segmentId in ("ED", "WT")  # seen through, so that what is inside shows
        display.SetSegmentOpacity2DFill(segmentId, 0.35 if outer else 0.6)
        display.SetSegmentOpacity3D(segmentId, 0.2 if outer else 0.7 if segmentId == "TC" else 1.0)


def checkMode(mode: str) -> None:
    """Raises InputError for what is neither "labels" nor "regions"."""
    if mode not in MODES:
        raise InputError(_("Unknown representation {mode}; expected labels or regions.").format(mode=repr(mode)))


def _checkLabels(labels: np.ndarray, referenceVolume) -> np.ndarray:
    shape = slicer.util.arrayFromVolume(referenceVolume).shape
    if labels.shape != shape:
        raise InputError(
            _("The label map is {found}, {volume} is {expected} (slices, rows, columns).").format(
                found=labels.shape, volume=referenceVolume.GetName(), expected=shape
            )
        )
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *LABELS.values()})
    if unknown:
        raise InputError(_("Labels {unknown} are unknown; expected 0 to 3.").format(unknown=unknown[:5]))
    return labels.astype(np.uint8)


def _nameAfter(referenceVolume) -> str:
    return _("{volume} tumor").format(volume=referenceVolume.GetName())
