"""Which result of the scene is most worth correcting next: the one that the model was least sure of teaches it most."""

from __future__ import annotations

import slicer

from ..i18n import _
from ..results import history, succession
from ..volumes.checks import REQUIRED
from .corrections import wasSent

_LISTED = 3


def casesToCorrect() -> list[tuple[object, float]]:
    """(segmentation, share that was unsure) of results that can be added and were not yet, the least sure first."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        share = history.unsureShare(node)
        isWhole = all(history.sourceVolumes(node)[modality] is not None for modality in REQUIRED)
        if share is not None and isWhole and not succession.isSetAside(node) and not wasSent(node):
            found.append((node, share))
    return sorted(found, key=lambda pair: (-pair[1], pair[0].GetName()))


def nextCaseText() -> str:
    """In a line; "" where there are not two to choose from."""
    cases = casesToCorrect()
    if len(cases) < 2:
        return ""
    names = [f"{succession.plainName(node)} ({share:.0%})" for node, share in cases[:_LISTED]]
    return _("Cases to correct next, with the share of the tumor that the model is uncertain of: {names}.").format(
        names=", ".join(names)
    )
