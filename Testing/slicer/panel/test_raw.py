"""Raw clinical series: from four volumes on grids of their own, skull on, to segments on the T1c's own grid."""

import sys

import numpy as np
import pytest
import qt
import slicer
import synth
from SegMambaSlicerLib import sample
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.results.masks import geometryOf, matrixOf
from SegMambaSlicerLib.results.segments import labelArray
from SegMambaSlicerLib.volumes.checks import PREPARED
from SegMambaSlicerLib.volumes.scene import ijkToRas

PATIENCE = 580  # seconds; a busy machine is slow


@pytest.fixture
def raw(volumes):
    """The four volumes of `volumes`, but T2 with thick slices and FLAIR shifted."""
    matrix = synth.matrixFor("RAS")
    matrix[:3, 2] *= 2
    array = np.random.default_rng(8).integers(0, 1000, (6, 15, 21)).astype(np.int16)
    slicer.util.updateVolumeFromArray(volumes["t2w"], array)
    volumes["t2w"].SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volumes["t2f"].SetOrigin(3, 2, 1)
    return volumes


@pytest.fixture
def panel(choose, module, raw, pump):
    choose("well")
    module.widget.enter()
    panel = module.widget.panel
    pump(lambda: panel.ui.applyButton.isEnabled() and panel.session.machine)
    return panel


def settle(panel, pump):
    pump(lambda: not panel._checkTimer.isActive())


def test_other_grids_are_no_obstacle_and_the_panel_says_what_will_be_done(panel, pump):
    ui = panel.ui
    assert ui.prepareCombo.currentText == "Automatic"
    assert ui.stateLabel.text == "Ready: Quick model, about 42 s on this computer, registration included."
    lines = ui.prepareLabel.text.splitlines()
    assert lines[0] == "Different grids: T2 and FLAIR will be registered to T1c; the result is on the grid of T1c."
    assert lines[2] == "Thick slices in T2 (up to 5.4 mm): small parts of a tumor may be missed."
    facts = ui.prepareLabel.toolTip.splitlines()
    assert facts[1:3] == [
        "T1c (AX T1 +C): 23 x 17 x 11 voxels of 0.9 x 1.3 x 2.7 mm",
        "T2 (AX T2): 21 x 15 x 6 voxels of 0.9 x 1.3 x 5.4 mm, a grid of its own",
    ]


def test_never_says_what_is_wrong_and_is_kept_with_the_scene(panel, pump):
    ui = panel.ui
    ui.prepareCombo.setCurrentIndex(1)
    assert panel.parameters.get("Prepare") == "never"
    pump(lambda: not ui.applyButton.isEnabled())
    assert "T2 (AX T2) is not on the grid of T1c" in ui.stateLabel.text
    assert "set Prepare to Automatic" in ui.stateLabel.text
    assert ui.prepareLabel.text == ""
    panel.parameters.set("Prepare", "auto")  # as by a scene that is loaded
    pump(lambda: ui.applyButton.isEnabled())
    assert ui.prepareCombo.currentIndex == 0


def test_on_one_grid_the_engine_decides(panel, raw, pump):
    for modality in ("t2w", "t2f"):
        twin = synth.addVolume(f"{modality} again", "oblique-left", seed=20 + len(modality) + ord(modality[-1]))
        panel.parameters.setVolume(modality, twin)
    pump(lambda: panel.ui.prepareLabel.text.startswith("Same grid: the engine checks for the skull"))
    panel.ui.prepareCombo.setCurrentIndex(1)
    pump(lambda: panel.ui.prepareLabel.text.startswith("Nothing will be done"))
    assert panel.ui.applyButton.isEnabled()


def test_each_volume_goes_out_on_its_own_grid_and_the_steps_come_back(panel, raw, pump):
    ui = panel.ui
    ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    segmentation = panel.parameters.result("Segmentation")
    labels, _notes = labelArray(segmentation, raw["t1c"])
    assert labels.shape == synth.SHAPE
    settle(panel, pump)
    assert ui.prepareLabel.text.splitlines() == [  # the fake worker says what it was given
        "Done: T2 registered, 21 x 15 x 6 voxels",
        "Done: FLAIR registered, 23 x 17 x 11 voxels",
    ]
    transform = synth.addTransform()  # the volumes are others now
    raw["t2w"].SetAndObserveTransformNodeID(transform.GetID())
    panel.onPaused()
    assert ui.prepareLabel.text.startswith("Different grids")


def test_what_was_moved_since_it_was_given_away_is_not_shown_as_registered(panel, raw, pump):
    """The engine's transform leads from where the volume was; and it is of the voxels that there were."""
    ui, transform = panel.ui, synth.addTransform()
    ui.applyButton.click()
    raw["t2f"].SetAndObserveTransformNodeID(transform.GetID())
    pump(lambda: not panel.session.isBusy())
    settle(panel, pump)
    assert panel.parameters.result("Segmentation") is not None
    assert ui.compareButton.isHidden() and ui.prepareLabel.text.startswith("Different grids")
    raw["t2f"].SetAndObserveTransformNodeID(None)
    panel.onPaused()
    assert not ui.compareButton.isHidden() and ui.prepareLabel.text.startswith("Done: ")
    slicer.util.updateVolumeFromArray(raw["t2f"], slicer.util.arrayFromVolume(raw["t2f"]) + 1)
    panel.onPaused()
    assert ui.compareButton.isHidden() and ui.prepareLabel.text.startswith("Different grids")


def test_the_result_of_a_call_has_the_steps(choose, module, raw):
    choose("well")
    result = module.logic.segment(raw)
    assert [step["modality"] for step in result.steps] == ["t2w", "t2f"]
    assert result.segmentation.GetAttribute(PREPARED) == "register"
    with pytest.raises(InputError, match="is not on the grid of"):
        module.logic.segment(raw, prepare="never")
    with pytest.raises(InputError, match="prepare is 'always'; expected 'auto' or 'never'"):
        module.logic.segment(raw, prepare="always")


def test_registered_volumes_can_be_laid_over_the_t1c(panel, raw, pump):
    ui = panel.ui
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    settle(panel, pump)
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert not ui.compareButton.isHidden()
    assert ui.compareButton.text == "Show T2 as registered over T1c"
    for modality, text in (("t2w", "Show FLAIR as registered over T1c"), ("t2f", "Show T1c alone")):
        ui.compareButton.click()
        shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
        assert composite.GetBackgroundVolumeID() == raw["t1c"].GetID()
        assert shown.GetImageData() is raw[modality].GetImageData()
        expected = ijkToRas(raw[modality])
        expected[:3, 3] += 1, 2, 3  # what the fake worker says
        np.testing.assert_allclose(ijkToRas(shown), expected, atol=1e-9)
        settle(panel, pump)
        assert panel.parameters.volumes() == raw  # the copy is taken for none of them
        assert ui.compareButton.text == text
    ui.compareButton.click()
    assert composite.GetForegroundVolumeID() is None
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    ui.compareButton.click()
    raw["t2w"].SetOrigin(9, 9, 9)  # moved: the transform is no longer its own
    panel.onPaused()
    assert composite.GetForegroundVolumeID() is None
    assert ui.compareButton.isHidden()


def test_what_is_laid_over_the_t1c_leaves_the_uncertainty_map_alone(panel, raw, pump):
    """And the button of the map tells whether that is what lies over the slices."""
    ui = panel.ui
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    settle(panel, pump)
    map_ = panel.parameters.result("Uncertainty").GetID()
    ui.uncertaintyButton.click()
    ui.compareButton.click()
    assert composite.GetForegroundVolumeID() not in (map_, None) and not ui.uncertaintyButton.isChecked()
    ui.uncertaintyButton.click()
    assert composite.GetForegroundVolumeID() == map_ and ui.uncertaintyButton.isChecked()
    panel.inputs.endComparing()
    assert composite.GetForegroundVolumeID() == map_ and composite.GetForegroundOpacity() > 0


def test_a_scene_that_is_added_ends_comparing(panel, raw, pump, tmp_path):
    """Its copy of a volume is in no list of nodes: nobody else could take it away."""
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    settle(panel, pump)
    panel.ui.compareButton.click()
    copy = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    other = slicer.vtkMRMLScene()
    other.AddNewNodeByClass("vtkMRMLTextNode", "not of this module")
    other.SetURL(str(tmp_path / "other.mrml"))
    other.Commit()
    slicer.mrmlScene.SetURL(str(tmp_path / "other.mrml"))
    slicer.mrmlScene.Import()
    assert not slicer.mrmlScene.IsNodePresent(copy) and composite.GetForegroundVolumeID() is None


# --- with the real worker


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_from_the_raw_sample_to_segments_on_the_t1c(app, module, pump, sampleTruth):
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    panel, ui = module.widget.panel, module.widget.panel.ui
    module.widget.enter()
    pump(lambda: panel.session.machine and ui.sampleMenuButton.isEnabled(), PATIENCE)
    _prepared, raw = ui.sampleMenuButton.menu().actions()
    raw.trigger()
    pump(lambda: not panel.session.isBusy(), PATIENCE)
    pump(lambda: ui.applyButton.isEnabled(), PATIENCE)
    volumes = panel.parameters.volumes()
    assert {node.GetName() for node in volumes.values()} == {f"{sample.RAW_NAME}-{m}" for m in volumes}
    truth = sampleTruth(volumes["t1c"])
    assert ui.prepareLabel.text.startswith("Different grids: T1, T2 and FLAIR will be registered to T1c")
    ui.applyButton.click()
    pump(lambda: not panel.session.isBusy(), PATIENCE)
    segmentation = panel.parameters.result("Segmentation")
    assert segmentation is not None, ui.progressLabel.text

    labels, _notes = labelArray(segmentation)  # on the segmentation's own geometry
    assert labels.shape == slicer.util.arrayFromVolume(volumes["t1c"]).shape == truth.shape
    np.testing.assert_allclose(matrixOf(geometryOf(segmentation)), ijkToRas(volumes["t1c"]), atol=1e-6)
    assert dice(labels > 0, truth > 0) > 0.8
    assert dice(np.isin(labels, (1, 3)), np.isin(truth, (1, 3))) > 0.75

    settle(panel, pump)
    lines = ui.prepareLabel.text.splitlines()
    assert all(line.startswith("Done: ") for line in lines)
    for text in ("brain of T1c found", "T1 registered", "T2 registered", "FLAIR registered"):
        assert any(text in line for line in lines), text
        assert text in ui.logText.toPlainText()
