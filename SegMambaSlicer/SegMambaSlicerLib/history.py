"""What a segmentation was before: the model's own answer beside the corrected one, and the results before this one.

All of it is kept in hidden nodes that the segmentation refers to, so that it is saved and loaded with the scene.
"""

from __future__ import annotations

import numpy as np
import slicer

from .errors import InputError
from .i18n import _
from .masks import boundingBox, geometryOf, matrixOf, onGeometry
from .scene import ijkToRas

ORIGINAL_ROLE = "SegMambaOriginal"
PREVIOUS_ROLE = "SegMambaPrevious"
NEXT_ROLE = "SegMambaNext"
NAME_ATTRIBUTE = "SegMamba.Name"  # of a result that was set aside: what it was called


def keepOriginal(segmentationNode, labels: np.ndarray) -> None:
    """Keeps (K, J, I) uint8 `labels` as the model's answer, cut to the tumour, in a hidden label map volume."""
    geometry = geometryOf(segmentationNode)
    box = boundingBox(labels) or (slice(0, 1),) * 3
    matrix = matrixOf(geometry)
    matrix[:3, 3] += matrix[:3, :3] @ [part.start for part in box[::-1]]
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(labels[box]),
        ijkToRAS=matrix,
        name=_("{segmentation} as the model made it").format(segmentation=segmentationNode.GetName()),
        nodeClassName="vtkMRMLLabelMapVolumeNode",
    )
    node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    node.SetHideFromEditors(True)
    segmentationNode.SetNodeReferenceID(ORIGINAL_ROLE, node.GetID())


def originalLabels(segmentationNode) -> np.ndarray:
    """(K, J, I) uint8, the label map as the model made it, on the segmentation's geometry.

    Raises InputError where it is not kept, as in a segmentation that was not made here.
    """
    node = segmentationNode.GetNodeReference(ORIGINAL_ROLE)
    if node is None or node.GetImageData() is None:
        raise InputError(
            _("{segmentation} has no copy of what the model made.").format(segmentation=segmentationNode.GetName())
        )
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(node.GetImageData())
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijkToRas(node)))
    return onGeometry(image, geometryOf(segmentationNode)).astype(np.uint8)


def retire(segmentationNode, successor) -> None:
    """Sets a result aside for `successor`: hidden, and renamed so that the two are not mixed up."""
    name = plainName(segmentationNode)
    successor.SetNodeReferenceID(PREVIOUS_ROLE, segmentationNode.GetID())
    segmentationNode.SetNodeReferenceID(NEXT_ROLE, successor.GetID())
    _setAside(segmentationNode, name, _("{name} (before)").format(name=name))


def previousResult(segmentationNode):
    """The result before this one, or None."""
    return segmentationNode.GetNodeReference(PREVIOUS_ROLE)


def nextResult(segmentationNode):
    """The result that took the place of this one, or None."""
    return segmentationNode.GetNodeReference(NEXT_ROLE)


def restorePrevious(segmentationNode):
    """Shows the result before this one again and sets this one aside; returns the one that is shown.

    Nothing is lost: `restoreNext` takes the step back. Raises InputError where there is no result before.
    """
    return _exchange(segmentationNode, previousResult(segmentationNode), _("There is no earlier result."))


def restoreNext(segmentationNode):
    """Takes `restorePrevious` back; returns the one that is shown. Raises InputError where there is no later one."""
    return _exchange(segmentationNode, nextResult(segmentationNode), _("There is no later result."))


def plainName(segmentationNode) -> str:
    """What a result is called, also while it is set aside under another name."""
    return segmentationNode.GetAttribute(NAME_ATTRIBUTE) or segmentationNode.GetName()


def _exchange(shown, other, problem: str):
    if other is None:
        raise InputError(problem)
    name = plainName(shown)
    _setAside(shown, name, _("{name} (set aside)").format(name=name))
    other.SetName(plainName(other))
    other.RemoveAttribute(NAME_ATTRIBUTE)
    _setHidden(other, False)
    return other


def _setAside(node, name: str, asideName: str) -> None:
    node.SetAttribute(NAME_ATTRIBUTE, name)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(asideName) if _isTaken(asideName) else asideName)
    _setHidden(node, True)


def _isTaken(name: str) -> bool:
    return slicer.mrmlScene.GetFirstNodeByName(name) is not None


def _setHidden(node, hidden: bool) -> None:
    node.SetHideFromEditors(hidden)
    if node.GetDisplayNode() is not None:
        node.GetDisplayNode().SetVisibility(not hidden)
