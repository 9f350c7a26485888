"""A clinician's hand: edits through Slicer's own Segment Editor logic, without its widget."""

from __future__ import annotations

import numpy as np
import slicer
from vtk.util import numpy_support


class Editor:
    """Paints and erases in one segmentation, as the Segment Editor does on `sourceVolume`.

    overwrite: "all" takes voxels from the other segments, "none" lets segments overlap.
    """

    def __init__(self, segmentationNode, sourceVolume, overwrite: str = "all"):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        node.SetOverwriteMode(node.OverwriteNone if overwrite == "none" else node.OverwriteAllSegments)
        self.node = node
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetSegmentEditorNode(node)
        self.logic.SetSegmentationNode(segmentationNode)
        self.logic.SetSourceVolumeNode(sourceVolume)
        self.segmentationNode = segmentationNode
        history = slicer.vtkSegmentationHistory()
        history.SetSegmentation(segmentationNode.GetSegmentation())
        self.logic.SetSegmentationHistory(history)
        self.history = history

    def paint(self, segmentId: str, mask: np.ndarray) -> None:
        """mask: (K, J, I) bool on the source volume's grid."""
        self._modify(segmentId, mask, self.logic.ModificationModeAdd)

    def erase(self, segmentId: str, mask: np.ndarray) -> None:
        self._modify(segmentId, mask, self.logic.ModificationModeRemove)

    def undo(self) -> None:
        self.logic.Undo()

    def _modify(self, segmentId, mask, mode):
        self.logic.SetCurrentSegmentID(segmentId)
        self.node.SetSelectedSegmentID(segmentId)
        self.logic.UpdateReferenceGeometryImage()
        self.logic.ResetModifierLabelmapToDefault()
        modifier = self.logic.GetModifierLabelmap()
        voxels = numpy_support.vtk_to_numpy(modifier.GetPointData().GetScalars())
        assert voxels.size == mask.size, (modifier.GetDimensions(), mask.shape)
        voxels[:] = mask.ravel()
        modifier.Modified()
        self.logic.SaveStateForUndo()
        self.logic.ModifySegmentByLabelmap(self.segmentationNode, segmentId, modifier, mode, False, False)
