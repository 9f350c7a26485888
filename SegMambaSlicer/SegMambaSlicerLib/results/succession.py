"""Results that take the place of one another: one is shown, those before and after it are set aside and within reach.

They refer to each other, so that this too is saved and loaded with the scene.
"""

from __future__ import annotations

from collections.abc import Mapping

import slicer

from ..errors import InputError
from ..i18n import _
from ..volumes.checks import referenceOf
from .history import ORIGINAL_ROLE, nameCompanions, removeHidden, sourceVolumes

PREVIOUS_ROLE = "SegMambaPrevious"
NEXT_ROLE = "SegMambaNext"
NAME_ATTRIBUTE = "SegMamba.Name"  # of a result that was set aside: what it was called


def isOf(segmentationNode, volumes: Mapping[str, object]) -> bool:
    """Whether a result was made from the examination of `volumes` (modality -> node or None).

    The volume on whose grid one of the two lies is then among those of the other: either may be without T1c.
    """
    made, given = _present(sourceVolumes(segmentationNode)), _present(volumes)
    if not (made and given):
        return False
    return given[referenceOf(given)] in made.values() or made[referenceOf(made)] in given.values()


def resultOf(volumes: Mapping[str, object]):
    """The latest result of the scene that `isOf` these volumes and is not set aside; None where there is none.

    Copies of a result are none: they come after it, and have the model's answer in common with it.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    found = [node for node in nodes if not isSetAside(node) and isOf(node, volumes)]
    first: dict = {}  # of those with one model's answer
    for node in found:
        first.setdefault(node.GetNodeReferenceID(ORIGINAL_ROLE) or node.GetID(), node)
    return list(first.values())[-1] if first else None


def retire(segmentationNode, successor) -> None:
    """Sets a result aside for `successor`: hidden, and renamed so that the two are not mixed up.

    The successor comes after all there are of these results, so that none is out of reach, and the one that is shown,
    an earlier or later one perhaps, is the one that goes.
    """
    chain = _chain(segmentationNode)
    name = plainName(segmentationNode)
    successor.SetNodeReferenceID(PREVIOUS_ROLE, chain[-1].GetID())
    chain[-1].SetNodeReferenceID(NEXT_ROLE, successor.GetID())
    for node in chain:
        if not isSetAside(node):
            _setAside(node, name, _("{name} (before)").format(name=name))


def previousResult(segmentationNode):
    """The result before this one, or None."""
    return segmentationNode.GetNodeReference(PREVIOUS_ROLE)


def nextResult(segmentationNode):
    """The result that took the place of this one, or None."""
    return segmentationNode.GetNodeReference(NEXT_ROLE)


def showInstead(segmentationNode, other) -> None:
    """Shows a result and no longer `other`, which keeps its place in lists: as that of another patient, or date."""
    for node, isShown in ((other, False), (segmentationNode, True)):
        if slicer.mrmlScene.IsNodePresent(node) and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(isShown)


def restorePrevious(segmentationNode):
    """Shows the result before this one again and sets this one aside; returns the one that is shown.

    Nothing is lost: `restoreNext` takes the step back. Raises InputError where there is no result before.
    """
    return _exchange(segmentationNode, previousResult(segmentationNode), _("There is no earlier result."))


def restoreNext(segmentationNode):
    """Takes `restorePrevious` back; returns the one that is shown. Raises InputError where there is no later one."""
    return _exchange(segmentationNode, nextResult(segmentationNode), _("There is no later result."))


def takeOut(segmentationNode):
    """For a result that is about to be removed from the scene; returns the one that is shown instead, or None.

    Those before and after it follow on one another. What is hidden and belongs to it alone is removed from the scene.
    """
    earlier, later = previousResult(segmentationNode), nextResult(segmentationNode)
    # a copy of a result refers to the neighbors of that one, which know nothing of it
    earlier = earlier if earlier is not None and nextResult(earlier) is segmentationNode else None
    later = later if later is not None and previousResult(later) is segmentationNode else None
    for node, role, other in ((earlier, NEXT_ROLE, later), (later, PREVIOUS_ROLE, earlier)):
        if node is not None:
            node.SetNodeReferenceID(role, other.GetID() if other is not None else None)
    instead = None if isSetAside(segmentationNode) else earlier or later
    if instead is not None:
        _bringForward(instead)
    removeHidden(segmentationNode)
    return instead


def isSetAside(segmentationNode) -> bool:
    """Whether another result is shown in the place of this one: a later one, or an earlier one again."""
    return bool(segmentationNode.GetAttribute(NAME_ATTRIBUTE))


def plainName(segmentationNode) -> str:
    """What a result is called, also while it is set aside under another name."""
    return segmentationNode.GetAttribute(NAME_ATTRIBUTE) or segmentationNode.GetName()


def freeName(name: str) -> str:
    """`name`, with a number after it where a node of the scene has it already."""
    isTaken = slicer.mrmlScene.GetFirstNodeByName(name) is not None
    return slicer.mrmlScene.GenerateUniqueName(name) if isTaken else name


def _exchange(shown, other, problem: str):
    if other is None:
        raise InputError(problem)
    name = plainName(shown)
    _setAside(shown, name, _("{name} (set aside)").format(name=name))
    _bringForward(other)
    return other


def _bringForward(node) -> None:
    node.SetName(plainName(node))
    node.RemoveAttribute(NAME_ATTRIBUTE)
    _setHidden(node, False)
    nameCompanions(node)


def _setAside(node, name: str, asideName: str) -> None:
    node.SetAttribute(NAME_ATTRIBUTE, name)
    node.SetName(freeName(asideName))
    _setHidden(node, True)
    nameCompanions(node)


def _chain(segmentationNode) -> list:
    """The results that took the place of one another, this one among them, the earliest first."""
    chain = [segmentationNode]
    while (earlier := previousResult(chain[0])) is not None and earlier not in chain:
        chain.insert(0, earlier)
    while (later := nextResult(chain[-1])) is not None and later not in chain:
        chain.append(later)
    return chain


def _present(volumes: Mapping[str, object]) -> dict:
    return {modality: node for modality, node in volumes.items() if node is not None}


def _setHidden(node, hidden: bool) -> None:
    node.SetHideFromEditors(hidden)
    if node.GetDisplayNode() is not None:
        node.GetDisplayNode().SetVisibility(not hidden)
