"""The section Result: what goes with the result that is shown, and nothing of another one."""

import types

import numpy as np
import slicer
import synth
from editor import Editor
from panels import cells, segment
from SegMambaSlicerLib.results import history, leftout, segments, succession, uncertainty
from SegMambaSlicerLib.results.segments import representation
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
    assert "was left out" in ui.leftOutLabel.text and "It was added" in ui.leftOutLabel.text
    assert not ui.includeButton.isEnabled() and "in the segments already" in ui.includeButton.toolTip
    editor = Editor(segmentation, volumes["t1c"])
    editor.erase("ED", spot > 0)
    pump(lambda: ui.includeButton.isEnabled())  # an edit, or the editor's undo, has taken it out again
    assert ui.leftOutLabel.text.endswith("was left out.")


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


def test_a_result_that_is_removed_is_no_longer_shown(ready, pump):
    slicer.mrmlScene.RemoveNode(segment(ready, pump))
    assert ready.parameters.result("Segmentation") is None
    assert ready.results.segmentation is None
    assert ready.ui.volumesTable.rowCount == 0
    assert not ready.ui.editButton.isEnabled()


def test_where_a_result_is_removed_the_one_before_is_shown_and_nothing_hidden_stays(ready, pump):
    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    first, second, third = (segment(ready, pump) for _time in range(3))
    ready.ui.undoButton.click()
    slicer.mrmlScene.RemoveNode(second)  # the one in the middle, which is shown
    assert ready.results.segmentation is ready.parameters.result("Segmentation") is first
    assert isVisible(first) and not first.GetHideFromEditors()
    ready.ui.redoButton.click()
    assert ready.results.segmentation is third
    slicer.mrmlScene.RemoveNode(third)
    assert ready.results.segmentation is first
    slicer.mrmlScene.RemoveNode(first)
    assert ready.results.segmentation is None
    left = [node for node in slicer.util.getNodesByClass("vtkMRMLNode") if node.GetID() not in before]
    assert not [node.GetName() for node in left if node.IsA("vtkMRMLVolumeNode") and node.GetHideFromEditors()]
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_a_copy_of_a_result_that_is_removed_takes_nothing_of_it_along(ready, pump):
    first, second = segment(ready, pump), segment(ready, pump)
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.Copy(second)  # as Clone in the module Data does, with the references
    slicer.mrmlScene.RemoveNode(copy)
    assert ready.results.segmentation is second and first.GetHideFromEditors()
    assert history.originalLabels(second).any()
    ready.ui.undoButton.click()
    ready.ui.redoButton.click()
    assert ready.results.segmentation is second


def test_labels_and_regions_can_be_exchanged(ready, pump):
    segmentation = segment(ready, pump)
    ready.ui.regionsRadio.click()
    assert representation(segmentation) == "regions"
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["WT", "TC", "ET"]
    assert ready.parameters.get("Mode") == "regions"
    ready.ui.labelsRadio.click()
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["NCR", "ED", "ET"]


def test_a_new_result_comes_as_the_buttons_say(ready, pump):
    """They follow the result that is shown; what was clicked last may have been for another one."""
    segment(ready, pump)
    ready.ui.regionsRadio.click()
    segment(ready, pump)
    ready.ui.labelsRadio.click()
    ready.ui.undoButton.click()
    assert ready.ui.regionsRadio.isChecked()
    assert representation(segment(ready, pump)) == "regions"


def test_segments_that_are_surfaces_alone_are_not_measured_as_nothing(choose, panel, module, volumes, pump):
    """As where somebody made the surfaces the source in the module Segmentations, and removed the voxels."""
    choose("leaving-out")
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled())
    segmentation, ui = segment(panel, pump).GetSegmentation(), panel.ui
    segmentation.CreateRepresentation("Closed surface")
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    for act in (panel.results.measure, ui.regionsRadio.click, ui.includeButton.click):
        ui.placeLabel.setText("")
        act()
        assert "has no binary labelmap" in ui.placeLabel.text
        assert ui.labelsRadio.isChecked()
    assert ui.volumesTable.rowCount == 0
    assert set(segmentation.GetSegmentIDs()) == {"NCR", "ED", "ET"}
    segmentation.CreateRepresentation("Binary labelmap")
    segmentation.SetSourceRepresentationName("Binary labelmap")
    ui.regionsRadio.click()
    assert set(segmentation.GetSegmentIDs()) == {"WT", "TC", "ET"}


def test_an_edit_shows_in_the_table(ready, pump):
    segmentation = segment(ready, pump)
    assert {row[3] for row in cells(ready.ui.volumesTable)} == {"0.00"}
    volume = ready.parameters.volume("t1c")
    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "ET", volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros_like(array), segmentation, "ET", volume)
    pump(lambda: cells(ready.ui.volumesTable)[2][1] == "0.00")
    assert float(cells(ready.ui.volumesTable)[2][3]) > 0


def test_the_result_before_is_kept_and_comes_back(ready, pump):
    first = segment(ready, pump)
    assert not ready.ui.undoButton.isEnabled()
    assert "no earlier" in ready.ui.undoButton.toolTip
    second = segment(ready, pump)
    assert second is not first
    assert first.GetHideFromEditors()
    ready.ui.undoButton.click()
    assert ready.parameters.result("Segmentation") is first
    assert not first.GetHideFromEditors()
    ready.ui.redoButton.click()
    assert ready.parameters.result("Segmentation") is second
    assert succession.previousResult(second) is first


def chooseOthers(panel, pump):
    """Four volumes of another patient, chosen by hand; modality -> node."""
    others = {m: synth.addVolume(f"Second {m}", "RAS", seed=40 + i) for i, m in enumerate(("t1n", "t1c", "t2w", "t2f"))}
    choose(panel, others)
    pump(lambda: panel.ui.applyButton.isEnabled())
    return others


def choose(panel, volumes):
    for modality, node in volumes.items():
        getattr(panel.ui, f"{modality}Selector").setCurrentNode(node)


def isVisible(segmentation):
    return bool(segmentation.GetDisplayNode().GetVisibility())


def test_a_result_of_another_patient_takes_the_place_of_none(ready, pump, volumes):
    """It bears its own name; the one before stays what it was, is not drawn over these images, and is found again."""
    first = segment(ready, pump)
    name = first.GetName()
    others = chooseOthers(ready, pump)
    second = segment(ready, pump)
    assert history.sourceVolumes(second) == others
    assert second.GetName() == "Second t1c tumor"
    assert succession.previousResult(second) is None and succession.nextResult(first) is None
    assert first.GetName() == name and not first.GetHideFromEditors()
    assert not ready.ui.undoButton.isEnabled()
    assert isVisible(second) and not isVisible(first)
    pump(lambda: ready.ui.followUpDatesTable.rowCount == 2)  # they can be compared, as two dates of one patient
    choose(ready, volumes)
    assert ready.parameters.result("Segmentation") is ready.results.segmentation is first
    assert isVisible(first) and not isVisible(second)
    again = segment(ready, pump)
    assert again.GetName() == name and succession.previousResult(again) is first
    choose(ready, others)
    assert ready.results.segmentation is second and not second.GetHideFromEditors()


def test_without_one_of_the_volumes_it_is_still_the_same_patient(ready, pump, volumes):
    first = segment(ready, pump)
    ready.ui.t2wSelector.setCurrentNode(None)
    pump(lambda: ready.ui.applyButton.isEnabled())
    second = segment(ready, pump)
    assert history.sourceVolumes(second)["t2w"] is None and succession.previousResult(second) is first


def test_a_new_result_after_an_earlier_one_was_looked_at_loses_none(ready, pump):
    """Whenever that is: before the run, or while it is under way. One is shown, and the others are within reach."""
    first = segment(ready, pump)
    second = segment(ready, pump)
    ready.ui.undoButton.click()
    third = segment(ready, pump)
    ready.ui.applyButton.click()
    ready.ui.undoButton.click()
    pump(lambda: not ready.session.isBusy())
    results = [first, second, third, ready.parameters.result("Segmentation")]
    assert len(set(results)) == 4
    for shown in reversed(results):
        assert ready.results.segmentation is shown
        assert [node for node in results if isVisible(node)] == [shown]
        assert [node for node in results if not node.GetHideFromEditors()] == [shown]
        ready.ui.undoButton.click()


def test_surfaces_and_uncertainty_are_shown_on_demand(ready, pump):
    segmentation = segment(ready, pump)
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    ready.ui.show3DButton.click()
    pump(lambda: segmentation.GetSegmentation().ContainsRepresentation("Closed surface"))
    assert segmentation.GetDisplayNode().GetVisibility3D()
    ready.ui.regionsRadio.click()
    pump(lambda: segmentation.GetSegmentation().ContainsRepresentation("Closed surface"))
    assert all(
        segmentation.GetSegmentation().GetSegment(name).GetRepresentation("Closed surface")
        for name in ("WT", "TC", "ET")
    )
    assert ready.ui.show3DButton.isChecked()
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    ready.ui.uncertaintyButton.click()
    assert composite.GetForegroundVolumeID() == ready.parameters.result("Uncertainty").GetID()
    ready.ui.uncertaintyButton.click()
    assert composite.GetForegroundVolumeID() is None


def test_next_place_goes_round(ready, pump):
    """Also where it is asked for before the places are found; a result of another map begins anew."""
    segment(ready, pump)
    ready.results._checking.setSegmentation(ready.results.segmentation)  # anew, so that they are not there yet
    ready.ui.nextPlaceButton.click()
    assert ready.ui.placeLabel.text == "Looking for the places to check..."
    pump(lambda: ready.ui.placeLabel.text.startswith("Check 1 of "))
    assert ready.ui.placeLabel.text.endswith("? 0.3 mL")
    count = int(ready.ui.placeLabel.text.split()[3].rstrip(":"))
    for number in (*range(2, count + 1), 1):
        ready.ui.nextPlaceButton.click()
        assert ready.ui.placeLabel.text.startswith(f"Check {number} of {count}: ")
    segment(ready, pump)
    slicer.util.updateVolumeFromArray(ready.parameters.result("Uncertainty"), np.zeros(synth.SHAPE, np.float32))
    ready.ui.nextPlaceButton.click()
    pump(lambda: ready.ui.placeLabel.text.startswith("No larger uncertain place was found; look at every"))


def test_a_warped_map_is_spoken_of_when_a_place_is_asked_for(ready, pump):
    segment(ready, pump)
    map_, checking = ready.parameters.result("Uncertainty"), ready.results._checking
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    map_.SetAndObserveTransformNodeID(warp.GetID())
    before = ready.ui.placeLabel.text
    checking.setSegmentation(ready.results.segmentation)
    pump(lambda: not checking._search.isRunning)
    assert ready.ui.placeLabel.text == before
    ready.ui.nextPlaceButton.click()
    pump(lambda: "is warped by the transform Warp" in ready.ui.placeLabel.text)


def test_the_place_of_one_result_is_not_that_of_another(ready, pump):
    segment(ready, pump)
    segment(ready, pump)
    ready.ui.nextPlaceButton.click()
    pump(lambda: ready.ui.placeLabel.text.startswith("Check 1 of "))
    ready.ui.undoButton.click()
    assert ready.ui.placeLabel.text == ""


def test_the_3d_button_follows_what_others_do_with_the_surfaces(ready, pump):
    button, segmentation = ready.ui.show3DButton, segment(ready, pump)
    button.click()
    assert button.isChecked()
    pump(lambda: segmentation.GetSegmentation().ContainsRepresentation("Closed surface"))  # they are made in steps
    segmentation.GetDisplayNode().SetVisibility3D(False)
    assert not button.isChecked()
    segmentation.GetDisplayNode().SetVisibility3D(True)
    assert button.isChecked()
    segmentation.RemoveClosedSurfaceRepresentation()
    assert not button.isChecked()


def test_the_result_opens_itself_and_the_rest_stays_folded(ready, pump):
    folded = ("optionsSection", "correctionsSection", "trainingSection", "modelsSection", "setupSection", "logSection")
    assert ready.ui.resultSection.collapsed
    segment(ready, pump)
    assert not ready.ui.resultSection.collapsed
    assert all(getattr(ready.ui, name).collapsed for name in folded)
    ready.ui.resultSection.setProperty("collapsed", True)
    ready.parameters.set("Device", "cpu")  # anything of the same scene
    assert ready.ui.resultSection.collapsed  # as the user has left it
    slicer.mrmlScene.Clear(0)
    assert ready.ui.resultSection.collapsed


def test_the_result_opens_in_the_segment_editor(ready, pump, volumes, monkeypatch):
    """With what Slicer's module has; without a main window the button says so."""
    segmentation = segment(ready, pump)
    ready.ui.editButton.click()
    assert "main window" in ready.ui.placeLabel.text
    opened = []
    editor = types.SimpleNamespace(setSegmentationNode=opened.append, setSourceVolumeNode=opened.append)
    widget = types.SimpleNamespace(self=lambda: types.SimpleNamespace(editor=editor))
    module = types.SimpleNamespace(widgetRepresentation=lambda: widget)
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    monkeypatch.setattr(slicer.modules, "segmenteditor", module, raising=False)
    ready.ui.editButton.click()
    assert opened == ["SegmentEditor", segmentation, volumes["t1c"]]
