"""The module's state in its parameter node, so that it is saved with the scene and found again.

A plain vtkMRMLScriptedModuleNode: it exists in every Slicer version that is supported, and outside the application.
"""

from __future__ import annotations

from contextlib import contextmanager

from .volumes.checks import PREPARE
from .volumes.modalities import MODALITIES

_DEFAULTS = {
    "Model": "", "Mirrorings": "0", "Device": "auto", "Mode": "labels", "Prepare": "auto", "Postprocess": "auto",
}  # fmt: skip
_ROLES = ("Segmentation", "Uncertainty", "Table")
QUALITIES = (0, 1, 7)  # mirrorings of Fast, Standard and Best


class Parameters:
    """Reads and writes one parameter node."""

    def __init__(self, node):
        self.node = node

    def volume(self, modality: str):
        """The volume chosen for t1n, t1c, t2w or t2f, or None."""
        return self.node.GetNodeReference(modality)

    def volumes(self) -> dict:
        return {modality: self.volume(modality) for modality in MODALITIES}

    def setVolume(self, modality: str, node) -> None:
        if modality not in MODALITIES:
            raise KeyError(modality)
        self._refer(modality, node)

    def result(self, role: str):
        """The node of the present result: role "Segmentation", "Uncertainty" or "Table"; or None."""
        return self.node.GetNodeReference(_known(role, _ROLES))

    def setResult(self, role: str, node) -> None:
        self._refer(_known(role, _ROLES), node)

    def get(self, name: str) -> str:
        """Model, Mirrorings, Device, Mode, Prepare or Postprocess, as text."""
        return self.node.GetParameter(_known(name, _DEFAULTS)) or _DEFAULTS[name]

    def set(self, name: str, value) -> None:
        value = str(value)
        if self.get(name) != value:
            self.node.SetParameter(name, value)

    @contextmanager
    def together(self):
        """Several writes as one Modified event: who observes it sees all of them or none."""
        before = self.node.StartModify()
        try:
            yield
        finally:
            self.node.EndModify(before)

    @property
    def mirrorings(self) -> int:
        text = self.get("Mirrorings")
        return int(text) if text in ("0", "1", "3", "7") else 0

    @property
    def prepare(self) -> str:
        """ "auto" or "never"."""
        text = self.get("Prepare")
        return text if text in PREPARE else PREPARE[0]

    @property
    def postprocess(self) -> str:
        """ "auto" leaves out what the model calls too small, "never" nothing."""
        return "never" if self.get("Postprocess") == "never" else "auto"

    def _refer(self, role: str, node) -> None:
        identifier = node.GetID() if node is not None else None
        if self.node.GetNodeReferenceID(role) != identifier:
            self.node.SetNodeReferenceID(role, identifier)


def _known(name: str, names) -> str:
    if name not in names:
        raise KeyError(name)
    return name
