"""What others do with the views and the nodes: the buttons of the result tell of it."""

import slicer
from panels import segment
from SegMambaSlicerLib.results import uncertainty


def test_the_buttons_follow_what_others_do_with_the_views_and_the_nodes(ready, pump, volumes):
    ui = ready.ui
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    first, second = segment(ready, pump), segment(ready, pump)
    map_ = uncertainty.uncertaintyOf(second)
    composite.SetForegroundVolumeID(map_.GetID())  # as in the bar of a slice view
    assert ui.uncertaintyButton.isChecked()
    composite.SetForegroundVolumeID(volumes["t2f"].GetID())
    assert not ui.uncertaintyButton.isChecked() and ui.backgroundButton.text == "Show FLAIR"
    composite.SetBackgroundVolumeID(volumes["t2f"].GetID())
    assert ui.backgroundButton.text == "Show T1c"
    assert ui.undoButton.isEnabled()
    slicer.mrmlScene.RemoveNode(first)
    assert not ui.undoButton.isEnabled()
    slicer.mrmlScene.RemoveNode(map_)
    pump(lambda: not ui.uncertaintyButton.isEnabled() and not ui.nextPlaceButton.isEnabled())
    assert "no uncertainty map" in ui.uncertaintyButton.toolTip
    assert ui.backgroundButton.isEnabled()
    slicer.mrmlScene.RemoveNode(volumes["t2f"])
    pump(lambda: not ui.backgroundButton.isEnabled())
