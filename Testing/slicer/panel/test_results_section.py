"""The section Result: what goes with the result that is shown, and nothing of another one."""

import numpy as np
import slicer
import synth
from panels import cells, segment
from SegMambaSlicerLib.results import leftout, segments, uncertainty
from SegMambaSlicerLib.volumes.scene import ijkToWorld


def test_the_overlay_the_label_and_the_names_follow_the_result_that_is_shown(ready, pump):
    """Nothing of one result lies over another: the map in the slices, what is said of it, and what is saved."""
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    first = segment(ready, pump)
    ready.ui.uncertaintyButton.click()
    assert composite.GetForegroundVolumeID() == uncertainty.uncertaintyOf(first).GetID()
    ready.parameters.set("Mirrorings", 7)
    second = segment(ready, pump)
    maps = [uncertainty.uncertaintyOf(node) for node in (first, second)]
    assert maps[0] is not maps[1]
    for shown, other, button, quality in (
        (1, 0, None, "best"),
        (0, 1, ready.ui.undoButton, "fast"),
        (1, 0, ready.ui.redoButton, "best"),
    ):
        if button is not None:
            button.click()
        node = (first, second)[shown]
        assert ready.parameters.result("Segmentation") is node
        assert ready.parameters.result("Uncertainty") is maps[shown]
        assert composite.GetForegroundVolumeID() == maps[shown].GetID()
        assert ready.ui.uncertaintyButton.isChecked()
        assert f"model fake-1, {quality}, " in ready.ui.resultLabel.text
        assert ready.ui.resultLabel.text.startswith(node.GetName() + ":")
        assert maps[shown].GetName() == f"{node.GetName()} uncertainty" != maps[other].GetName()
        assert (maps[shown].GetHideFromEditors(), maps[other].GetHideFromEditors()) == (0, 1)
    ready.ui.uncertaintyButton.click()
    ready.ui.undoButton.click()
    assert composite.GetForegroundVolumeID() is None and not ready.ui.uncertaintyButton.isChecked()
    slicer.mrmlScene.RemoveNode(maps[1])
    ready.ui.redoButton.click()
    assert composite.GetForegroundVolumeID() is None


def test_what_was_left_out_is_counted_shown_and_taken_in(choose, panel, module, volumes, pump):
    choose("leaving-out")
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled())
    segmentation = segment(panel, pump)
    ui = panel.ui
    spot = leftout.leftOutLabels(segmentation)
    assert not ui.leftOutWidget.isHidden()
    volume = 8 * np.prod(synth.SPACING) / 1000
    assert ui.leftOutLabel.text == f"1 spot below the model's limits ({volume:.2f} mL) was left out."
    assert spot.sum() == 2 * 8 and not segments.labelArray(segmentation)[0][spot > 0].any()
    ui.showLeftOutButton.click()
    (shown,) = set(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) - {segmentation}
    assert shown.GetDisplayNode().GetVisibility()
    np.testing.assert_array_equal(segments.segmentArray(shown, "ED"), spot == 2)
    ui.includeButton.click()
    assert (segments.labelArray(segmentation)[0][spot > 0] == 2).all()
    assert not shown.GetDisplayNode().GetVisibility()
    assert [row[0] for row in cells(ui.volumesTable)][-2:] == ["Lesion 1", "Lesion 2"]
    assert panel.parameters.result("Segmentation") is segmentation


def test_spots_below_the_limits_stay_where_the_box_is_not_checked(choose, panel, module, volumes, pump):
    choose("leaving-out")
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled())
    box = panel.ui.postprocessBox
    assert box.isChecked() and panel.parameters.postprocess == "auto"
    box.click()
    labels = segments.labelArray(segment(panel, pump))[0]
    assert (labels[:2, :2, :2] == 2).all() and panel.ui.leftOutWidget.isHidden()
    panel.parameters.set("Postprocess", "auto")  # as by a scene that is loaded
    assert box.isChecked()


def test_lesions_are_gone_through_and_t1c_lies_under_flair(ready, pump, volumes):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    segmentation = segment(ready, pump)
    labels = segments.labelArray(segmentation)[0]
    labels[0:2, 0:2, 0:3] = 2
    segments.setLabels(segmentation, labels)
    ready.results.measure()
    world = ijkToWorld(volumes["t1c"])

    def label():
        ras = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
        i, j, k = np.rint(np.linalg.inv(world) @ [*ras, 1])[:3].astype(int)
        return labels[k, j, i], (k, j, i)

    assert label()[0] in (1, 2, 3) and label()[1][0] > 2  # at the largest, from the first moment on
    ready.ui.nextLesionButton.click()
    assert ready.ui.placeLabel.text.startswith("Lesion 2 of 2: ")
    assert label()[0] == 2 and label()[1] < (2, 2, 3)
    assert composite.GetBackgroundVolumeID() == volumes["t1c"].GetID()
    ready.ui.backgroundButton.click()
    assert composite.GetBackgroundVolumeID() == volumes["t2f"].GetID() and ready.ui.backgroundButton.text == "Show T1c"
    ready.ui.opacitySlider.setValue(0)
    assert segmentation.GetDisplayNode().GetOpacity2DFill() == 0


def test_surfaces_that_were_wanted_last_are_made_of_a_new_result(ready, pump):
    segment(ready, pump)
    ready.ui.show3DButton.click()
    second = segment(ready, pump)
    pump(lambda: second.GetSegmentation().ContainsRepresentation("Closed surface"))
    ready.ui.show3DButton.click()
    third = segment(ready, pump)
    slicer.app.processEvents()
    assert not third.GetSegmentation().ContainsRepresentation("Closed surface")
