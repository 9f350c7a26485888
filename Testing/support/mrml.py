"""Slicer's own scene and module logics, from the slicer-core wheel, without the application around them.

`slicer.mrmlScene` and `slicer.modules.<name>.logic()` are what `slicer.util` and the extension ask for. The scene is
one for the process, as in Slicer, and is cleared between tests.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import slicer
import vtk

# Module -> class of its logic. "Colors" comes first: without it every volume that is read logs an error.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


SHARE = Path(__file__).resolve().parent / "share"  # a few entries of Slicer's terminologies, which the wheel lacks


class CoreApplication:
    """A scene, its application logic, and the module logics; `install` puts them where `slicer.util` looks."""

    def __init__(self):
        self.scene = slicer.vtkMRMLScene()
        self.scene.AddNode(slicer.vtkMRMLCrosshairNode())
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        self.modules = {name: self._moduleLogic(name, className) for name, className in LOGICS.items()}
        self._readMrb()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)

    @classmethod
    @cache
    def shared(cls) -> CoreApplication:
        """The one of this process, installed."""
        return cls().install()

    def _moduleLogic(self, name: str, className: str):
        logic = getattr(slicer, className)()
        logic.SetMRMLApplicationLogic(self.logic)
        if name == "Terminologies":
            logic.SetModuleShareDirectory(str(SHARE))
        vtk.vtkObject.SetGlobalWarningDisplay(name != "Colors")  # it looks for files that only the application has
        logic.SetMRMLScene(self.scene)
        vtk.vtkObject.SetGlobalWarningDisplay(True)
        self.logic.SetModuleLogic(name, logic)
        return logic

    def _readMrb(self):
        """A scene reads .mrb only with these two, and a folder to unpack it in."""
        self.cache = tempfile.TemporaryDirectory(prefix="slicer-cache-")
        self.remote = slicer.vtkMRMLRemoteIOLogic()
        self.remote.SetMRMLApplicationLogic(self.logic)
        self.remote.SetMRMLScene(self.scene)
        self.remote.GetCacheManager().SetRemoteCacheDirectory(self.cache.name)
        self.remote.AddDataIOToScene()
        self.dataIo = slicer.vtkDataIOManagerLogic()
        self.dataIo.SetMRMLApplicationLogic(self.logic)
        self.dataIo.SetMRMLScene(self.scene)
        self.dataIo.SetAndObserveDataIOManager(self.remote.GetDataIOManager())

    def install(self):
        slicer.mrmlScene = self.scene
        slicer.modules = SimpleNamespace(
            **{name.lower(): SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self.modules.items()}
        )
        return self

    def clear(self):
        """Takes all out of the scene but what Slicer itself keeps there; of that, views go too."""
        self.scene.Clear(0)
        for className in ("vtkMRMLAbstractViewNode", "vtkMRMLSliceCompositeNode"):
            for node in slicer.util.getNodesByClass(className):
                self.scene.RemoveNode(node)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
