"""What a segmentation was before, and what it was made from: the model's own answer beside the corrected one, volumes,
model, time spent on edits.

All of it is kept in attributes and hidden nodes of the segmentation, so that it is saved and loaded with the scene.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import slicer

from ..errors import InputError
from ..i18n import _
from ..volumes.modalities import MODALITIES
from ..volumes.scene import ijkToRas
from .masks import boundingBox, geometryOf, matrixOf, onGeometry, shapeOf

ORIGINAL_ROLE = "SegMambaOriginal"
UNCERTAINTY_ROLE = "SegMambaUncertainty"
TABLE_ROLE = "SegMambaTable"
LEFT_OUT_ROLE = "SegMambaLeftOut"
LEFT_OUT_SHOWN_ROLE = "SegMambaLeftOutShown"
VOLUME_ROLE = "SegMambaVolume"  # with the modality after it
PAUSE_SECONDS = 30.0  # a longer pause between two edits counts as so much
_GEOMETRY_ROLE = "SegMambaGeometry"  # of a kept label map: the volume that the segmentation's geometry was taken from
_PLACE = "SegMamba.Place"  # of the same: that geometry as it was then
_SECONDS = "SegMamba.EditorSeconds"
_MODEL = "SegMamba.Model"
_WEIGHTS = "SegMamba.Weights"
_MIRRORINGS = "SegMamba.Mirrorings"
_DEVICE = "SegMamba.Device"
_TOOK = "SegMamba.Seconds"
_WARNINGS = "SegMamba.Warnings"
_UNSURE = "SegMamba.Unsure"


def keepOriginal(segmentationNode, labels: np.ndarray) -> None:
    """Keeps (K, J, I) uint8 `labels` as the model's answer."""
    keepLabels(segmentationNode, labels, ORIGINAL_ROLE)


def keepLabels(segmentationNode, labels: np.ndarray, role: str) -> None:
    """Keeps (K, J, I) uint8 `labels`, cut to what is not 0, in a hidden label map volume with that role."""
    geometry = geometryOf(segmentationNode)
    box = boundingBox(labels) or (slice(0, 1),) * 3
    matrix = matrixOf(geometry)
    place = {"matrix": matrix.tolist(), "shape": shapeOf(geometry)}
    matrix[:3, 3] += matrix[:3, :3] @ [part.start for part in box[::-1]]
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(labels[box]), ijkToRAS=matrix, nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    node.SetAttribute(_PLACE, json.dumps(place))
    reference = _geometrySource(segmentationNode)
    node.SetNodeReferenceID(_GEOMETRY_ROLE, reference.GetID() if reference is not None else None)
    node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    node.SetHideFromEditors(True)
    segmentationNode.SetNodeReferenceID(role, node.GetID())
    nameCompanions(segmentationNode)


def originalLabels(segmentationNode, geometry=None) -> np.ndarray:
    """(K, J, I) uint8, the label map as the model made it, on the segmentation's geometry (or `geometry`).

    Raises InputError where it is not kept, as in a segmentation that was not made here.
    """
    labels = keptLabels(segmentationNode, ORIGINAL_ROLE, geometry)
    if labels is None:
        raise InputError(
            _("{segmentation} has no copy of what the model made.").format(segmentation=segmentationNode.GetName())
        )
    return labels


def keptLabels(segmentationNode, role: str, geometry=None) -> np.ndarray | None:
    """What `keepLabels` kept, (K, J, I) uint8 on the segmentation's geometry (or `geometry`); None for nothing."""
    image = keptImage(segmentationNode, role)
    return None if image is None else onGeometry(image, geometry or geometryOf(segmentationNode)).astype(np.uint8)


def keptImage(segmentationNode, role: str = ORIGINAL_ROLE):
    """The same as a vtkOrientedImageData, cut as it is kept; None for nothing."""
    node = segmentationNode.GetNodeReference(role)
    if node is None or node.GetImageData() is None:
        return None
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(node.GetImageData())
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(_matrixOfKept(segmentationNode, node)))
    return image


def _matrixOfKept(segmentationNode, node) -> np.ndarray:
    """(4, 4) matrix of a label map that `keepLabels` kept, from its voxels to the segmentation's own frame.

    Where a transform was hardened on the segmentation, its geometry has moved, and nobody can do the same to a hidden
    node; so it moves along with the geometry, unless that was taken from another volume since.
    """
    own, geometry = ijkToRas(node), geometryOf(segmentationNode)
    try:
        place = json.loads(node.GetAttribute(_PLACE) or "{}")
        before, shape = np.array(place["matrix"], float).reshape(4, 4), tuple(place["shape"])
    except (ValueError, TypeError, KeyError, RecursionError):  # a scene of an earlier version
        return own
    isSame = shape == shapeOf(geometry) and node.GetNodeReference(_GEOMETRY_ROLE) is _geometrySource(segmentationNode)
    return matrixOf(geometry) @ np.linalg.inv(before) @ own if isSame else own


def _geometrySource(segmentationNode):
    """The volume that the reference geometry was taken from, or None where it is gone."""
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def keepOrigin(segmentationNode, volumes: dict, answer: dict, seconds: float | None = None) -> None:
    """Keeps what a result was made from (modality -> volume) and with: model, hash of its weights, mirrorings, device,
    time, and what the engine warned of.

    answer: the worker's; the hash is in the summary file that it names.
    """
    for modality, volume in volumes.items():
        if volume is not None:
            segmentationNode.SetNodeReferenceID(VOLUME_ROLE + modality, volume.GetID())
    try:
        summary = json.loads(Path(answer["summary"]).read_text(encoding="utf-8"))
        weights = str(summary["settings"]["weights_sha256"])
    except (KeyError, TypeError, ValueError, RecursionError, OSError):
        weights = ""  # an engine that does not say it
    facts = {_MODEL: answer.get("model"), _WEIGHTS: weights, _MIRRORINGS: answer.get("mirrorings")}
    facts |= {_DEVICE: answer.get("device"), _TOOK: None if seconds is None else f"{seconds:.1f}"}
    facts[_UNSURE] = answer.get("unsure")
    warnings = [str(text) for text in answer.get("warnings") or []]
    facts[_WARNINGS] = json.dumps(warnings) if warnings else None
    for name, value in facts.items():
        if value not in (None, ""):
            segmentationNode.SetAttribute(name, str(value))


def sourceVolumes(segmentationNode) -> dict:
    """Modality -> the volume that the result was made from; None where it is not known, or no longer in the scene."""
    return {modality: segmentationNode.GetNodeReference(VOLUME_ROLE + modality) for modality in MODALITIES}


def modelFacts(segmentationNode) -> dict[str, str]:
    """What is known of how the result was made: "model", "weights_sha256", "mirrorings", "device", "seconds"; else a
    key is absent."""
    names = {"model": _MODEL, "weights_sha256": _WEIGHTS, "mirrorings": _MIRRORINGS}
    names |= {"device": _DEVICE, "seconds": _TOOK}
    values = {key: segmentationNode.GetAttribute(name) for key, name in names.items()}
    return {key: value for key, value in values.items() if value}


def unsureShare(segmentationNode) -> float | None:
    """Of the tissue that may be tumor the share that the model was unsure of, 0 to 1; None where it is not known."""
    try:
        return float(segmentationNode.GetAttribute(_UNSURE) or "")
    except ValueError:
        return None


def warningsOf(segmentationNode) -> list[str]:
    """What the engine warned of when it made the result, in sentences."""
    try:
        found = json.loads(segmentationNode.GetAttribute(_WARNINGS) or "[]")
    except (ValueError, RecursionError):  # a scene that was edited by hand
        found = []
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def noteEdit(segmentationNode, last: float | None, now: float | None = None) -> float:
    """Counts the time since the edit before, at most PAUSE_SECONDS of it; returns the time of this one for the next.

    last: None for the first edit of a sitting, which counts nothing: when it was begun is not known. So the sum is
    rather too small, and an undo counts as an edit. It is kept with the segmentation.
    """
    now = time.monotonic() if now is None else now
    if last is not None:
        seconds = (editorSeconds(segmentationNode) or 0.0) + min(max(now - last, 0.0), PAUSE_SECONDS)
        segmentationNode.SetAttribute(_SECONDS, f"{seconds:.3f}")
    return now


def editorSeconds(segmentationNode) -> float | None:
    """Time spent on edits as `noteEdit` counted it; None where none was counted."""
    text = segmentationNode.GetAttribute(_SECONDS)
    return float(text) if text else None


def removeHidden(segmentationNode) -> None:
    """Takes out of the scene what belongs to this result alone and is in no list of nodes: nobody else could."""
    others = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n is not segmentationNode]
    for role in (ORIGINAL_ROLE, UNCERTAINTY_ROLE, TABLE_ROLE, LEFT_OUT_ROLE, LEFT_OUT_SHOWN_ROLE):
        node = segmentationNode.GetNodeReference(role)
        if node is None or not node.GetHideFromEditors():
            continue
        if not any(other.GetNodeReference(role) is node for other in others):  # as a copy of a result does
            slicer.mrmlScene.RemoveNode(node)


def nameCompanions(segmentationNode) -> None:
    """What belongs to a result bears its name, and is offered in lists of nodes only where the result is."""
    names = {
        ORIGINAL_ROLE: _("{segmentation} as the model made it"),
        UNCERTAINTY_ROLE: _("{segmentation} uncertainty"),
        TABLE_ROLE: _("{segmentation} volumes"),
        LEFT_OUT_ROLE: _("{segmentation} left out"),
    }
    for role, name in names.items():
        node = segmentationNode.GetNodeReference(role)
        if node is not None:
            node.SetName(name.format(segmentation=segmentationNode.GetName()))
            if role in (UNCERTAINTY_ROLE, TABLE_ROLE):
                node.SetHideFromEditors(segmentationNode.GetHideFromEditors())
