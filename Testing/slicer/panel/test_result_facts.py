"""What is said of a result where it cannot be measured, or stands elsewhere than it was made."""

import slicer
from panels import segment


def test_why_lesions_are_not_known_is_said_and_not_that_there_are_none(ready, pump):
    segmentation, button = segment(ready, pump), ready.ui.nextLesionButton
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    for isWarped in (True, False):
        segmentation.SetAndObserveTransformNodeID(warp.GetID() if isWarped else None)
        ready.results.measure()
        assert button.isEnabled() is not isWarped
        assert ("is warped by the transform Warp" in button.toolTip) is isWarped
    segmentation.GetSegmentation().RemoveAllSegments()
    ready.results.measure()
    assert button.toolTip == "No lesion was found."
