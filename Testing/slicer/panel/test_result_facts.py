"""What is said of a result where it cannot be measured, or stands elsewhere than it was made."""

import slicer
import synth
from panels import cells, segment


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


def test_a_result_is_measured_anew_where_a_transform_comes_or_goes_or_is_another(ready, pump):
    segmentation, table = segment(ready, pump), ready.ui.volumesTable
    transform = synth.addTransform()
    whole = float(cells(table)[0][1])

    def grown():
        return round(float(cells(table)[0][1]) / whole)

    segmentation.SetAndObserveTransformNodeID(synth.addTransform(scale=2).GetID())
    pump(lambda: grown() == 8)
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    pump(lambda: grown() == 1)
    transform.SetMatrixTransformToParent(synth.addTransform(scale=3).GetMatrixTransformToParent())
    pump(lambda: grown() == 27)
    segmentation.SetAndObserveTransformNodeID(None)
    pump(lambda: grown() == 1)
