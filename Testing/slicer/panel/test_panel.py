"""The panel as a clinician uses it, with a worker that answers at once."""

import gc
import time
import weakref

import numpy as np
import pytest
import qt
import slicer
import synth
from panels import cells, segment
from SegMambaSlicerLib.results.segments import representation


def test_opening_the_module_in_an_empty_scene_says_what_is_needed(panel, module, pump):
    module.widget.enter()
    pump(lambda: "Load the four MRI volumes" in panel.ui.stateLabel.text)
    assert not panel.ui.applyButton.isEnabled()
    assert panel.ui.applyButton.toolTip == panel.ui.stateLabel.text


def test_nothing_is_started_or_written_before_the_module_is_opened(panel, temporaryFiles):
    assert not panel.session.engine.isRunning()
    assert not panel.setup.isBusy()
    assert temporaryFiles() == []


def test_the_volumes_are_found_by_themselves(ready, volumes):
    for modality, node in volumes.items():
        assert getattr(ready.ui, f"{modality}Selector").currentNode() is node
        hint = getattr(ready.ui, f"{modality}Hint")
        assert hint.toolTip.startswith(f"{hint.text} confidence: the name says ")
    assert ready.parameters.volumes() == volumes


def test_what_the_user_chose_is_left_alone(ready, volumes, pump):
    other = synth.addVolume("AX T2 repeated", "oblique-left", seed=9)
    ready.ui.t2wSelector.setCurrentNode(other)
    synth.addVolume("AX T1 third", "oblique-left", seed=10)
    pump(lambda: not ready._checkTimer.isActive())
    assert ready.parameters.volume("t2w") is other
    assert ready.ui.t2wSelector.currentNode() is other
    ready.ui.t2fSelector.setCurrentNode(None)
    pump(lambda: not ready._checkTimer.isActive())
    assert ready.parameters.volume("t2f") is None
    ready.ui.guessButton.click()
    assert ready.parameters.volume("t2f") is volumes["t2f"]
    assert ready.parameters.volume("t2w") is other  # which somebody chose


def test_what_is_empty_is_filled_after_the_first_choice_by_hand(panel, module, volumes, pump):
    """And goes with that choice: the volumes of its patient rather than those of another one."""
    others = {
        modality: synth.addVolume(f"Second {node.GetName()}", "RAS", seed=20 + place)
        for place, (modality, node) in enumerate(volumes.items())
    }
    panel.ui.t2wSelector.setCurrentNode(others["t2w"])
    module.widget.enter()
    pump(lambda: panel.inputs.problems is not None and not panel._checkTimer.isActive())
    assert panel.parameters.volumes() == others
    assert panel.ui.t2wHint.text == ""  # nothing was guessed of it


def test_a_volume_that_is_removed_leaves_its_place_empty(ready, volumes, pump):
    slicer.mrmlScene.RemoveNode(volumes["t2w"])
    assert ready.parameters.volume("t2w") is None
    assert ready.ui.t2wSelector.currentNode() is None
    pump(lambda: "Without T2: on" in ready.ui.warningsLabel.text)  # which the model does without
    again = synth.addVolume("AX T2", "oblique-left", seed=9)
    pump(lambda: ready.parameters.volume("t2w") is again)  # nobody has chosen otherwise
    others = {name: node for name, node in volumes.items() if name != "t2w"}
    assert {**ready.parameters.volumes(), "t2w": None} == {**others, "t2w": None}


def test_a_scene_that_is_added_leaves_the_choice_as_it_is(ready, volumes, pump, tmp_path):
    other = slicer.vtkMRMLScene()
    other.AddNewNodeByClass("vtkMRMLTextNode", "not of this module")
    other.SetURL(str(tmp_path / "other.mrml"))
    other.Commit()
    slicer.mrmlScene.SetURL(str(tmp_path / "other.mrml"))
    slicer.mrmlScene.Import()
    assert slicer.mrmlScene.GetFirstNodeByName("not of this module") is not None
    assert ready.parameters.volumes() == volumes
    for modality, node in volumes.items():
        assert getattr(ready.ui, f"{modality}Selector").currentNode() is node


def test_times_and_choices_come_from_the_worker(ready):
    ui = ready.ui
    assert [ui.qualityCombo.itemText(i) for i in range(3)] == [
        "Fast (about 12 s)",
        "Standard (about 24 s)",
        "Best (about 1 min 35 s)",
    ]
    assert ui.modelCombo.currentText == "Quick model"
    assert ui.deviceCombo.count == 2


def test_a_click_makes_segments_and_a_table(ready, volumes, pump, temporaryFiles):
    before = {modality: slicer.util.arrayFromVolume(node).copy() for modality, node in volumes.items()}
    segmentation = segment(ready, pump)
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["NCR", "ED", "ET"]
    rows = cells(ready.ui.volumesTable)
    assert [row[0] for row in rows][:1] == ["Whole tumor (WT)"]
    voxel = abs(np.linalg.det(synth.matrixFor("oblique-left")[:3, :3]))
    whole = np.prod([2 * (n // 3) - n // 3 for n in synth.SHAPE]) * voxel / 1000
    assert float(rows[0][1]) == pytest.approx(whole, abs=0.006)
    assert "fake-1" in ready.ui.resultLabel.text
    assert (
        ready.ui.resultWarningsLabel.text == "Warning: It was only a test."
        and not ready.ui.resultWarningsLabel.isHidden()
    )
    assert ready.ui.progressLabel.text.startswith("Done in")
    for modality, node in volumes.items():
        assert np.array_equal(slicer.util.arrayFromVolume(node), before[modality])
        assert node.GetStorageNode() is None
    assert temporaryFiles() == []


def test_a_second_click_while_it_runs_does_nothing(ready, pump, volumes):
    ready.ui.applyButton.click()
    assert not ready.ui.applyButton.isEnabled()
    assert ready.ui.cancelButton.isEnabled()
    first = ready.session.run
    ready.onApply()
    assert ready.session.run is first
    pump(lambda: not ready.session.isBusy())
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1


def test_the_state_is_one_line(ready, volumes, pump):
    """With what and how long, or what is missing; nothing while the progress speaks."""
    ui = ready.ui
    assert ui.stateLabel.text == "Ready: Quick model, about 12 s on this computer."
    ui.qualityCombo.setCurrentIndex(1)
    pump(lambda: ui.stateLabel.text == "Ready: Quick model, about 24 s on this computer.")
    ui.applyButton.click()
    assert ui.stateLabel.isHidden() and ui.applyButton.toolTip == "In progress."
    pump(lambda: not ready.session.isBusy())
    assert not ui.stateLabel.isHidden()
    ui.t1nSelector.setCurrentNode(volumes["t1c"])
    pump(lambda: "are the same image" in ui.stateLabel.text)
    assert not ui.applyButton.isEnabled()


def test_the_times_are_those_of_what_computes(ready, pump):
    """Automatic takes the graphics card, which the worker lists before the processor."""
    cpu = ready.session.machine["devices"][0]
    card = {"name": "cuda:0", "title": "A card", "expected_seconds": {"0": 3, "1": 4, "3": 6, "7": 9}}
    ready.session._heardMachine({**ready.session.machine, "devices": [card, cpu], "models": []})
    assert ready.ui.stateLabel.text == "Ready: Default, about 3 s on the graphics card."
    ready.ui.deviceCombo.setCurrentIndex(2)
    pump(lambda: "about 12 s on this computer" in ready.ui.stateLabel.text)
    apple = {**card, "name": "mps"}  # is not taken by itself
    ready.ui.deviceCombo.setCurrentIndex(0)
    ready.session._heardMachine({**ready.session.machine, "devices": [apple, cpu]})
    assert ready.ui.stateLabel.text == "Ready: Default, about 12 s on this computer."


def test_volumes_whose_names_say_nothing_are_shown_to_choose_from(panel, module, volumes, pump):
    """Noise says nothing either: they are named and pictured, and the button says what to do."""
    for place, node in enumerate(volumes.values()):
        node.SetName(f"Series {3 + place}")
    module.widget.enter()
    pump(lambda: panel.setup.plan is not None and panel.inputs.problems is not None)
    pump(lambda: "Series 6" in panel.ui.stateLabel.text)
    assert panel.ui.stateLabel.text == (
        "Choose T1, T1c, T2 and FLAIR above. They could be among Series 3, Series 4, Series 5, Series 6; the names do "
        "not tell."
    )
    picture = panel.ui.thumbnailsLabel
    assert not picture.isHidden() and picture.toolTip.splitlines()[0] == "Series 3"
    seen = panel.ui.thumbnailsLabel.pixmap.toImage()
    shades = {seen.pixelColor(x, 32).lightness() for x in range(64)}
    assert len(shades) > 10  # a slice, and no grey box
    for modality, node in volumes.items():
        getattr(panel.ui, f"{modality}Selector").setCurrentNode(node)
    pump(lambda: panel.ui.applyButton.isEnabled())
    assert picture.isHidden()


def test_only_what_could_be_the_missing_volume_is_offered(ready, volumes, pump):
    """Neither the map of a result, however it is called, nor a second T1c, nor what was computed from images."""
    segment(ready, pump)
    ready.parameters.result("Uncertainty").SetName("Map")
    for place, name in enumerate(("AX T1 +C again", "ADC", "T1 SUB")):
        synth.addVolume(name, "oblique-left", seed=30 + place)
    for modality in ("t1n", "t2f"):  # without both the model cannot be used
        slicer.mrmlScene.RemoveNode(volumes[modality])
    pump(lambda: ready.ui.stateLabel.text == "T1 is missing. Choose a volume.\nFLAIR is missing. Choose a volume.")
    assert ready.ui.thumbnailsLabel.isHidden()
    synth.addVolume("Series 7", "oblique-left", seed=40)
    several = "Choose T1 and FLAIR above. They could be among Series 7; the names do not tell."
    pump(lambda: ready.ui.stateLabel.text == several)
    assert ready.ui.thumbnailsLabel.toolTip == "Series 7"
    for place, name in enumerate(("Series 8", "Series 9")):
        last = synth.addVolume(name, "oblique-left", seed=41 + place)
    ready.ui.t2fSelector.setCurrentNode(last)
    pump(lambda: "Series 8" in ready.ui.thumbnailsLabel.toolTip)
    assert "Series 7" in ready.ui.thumbnailsLabel.toolTip


def test_a_transform_is_noticed_when_it_comes_and_when_it_goes(ready, volumes, pump):
    assert "registration included" not in ready.ui.stateLabel.text
    transform = synth.addTransform()
    volumes["t2w"].SetAndObserveTransformNodeID(transform.GetID())
    pump(lambda: "Different grids: T2 will be registered" in ready.ui.prepareLabel.text)
    assert "registration included" in ready.ui.stateLabel.text
    volumes["t2w"].SetAndObserveTransformNodeID(None)
    pump(lambda: "Different grids" not in ready.ui.prepareLabel.text)


def test_a_volume_that_is_centered_or_renamed_is_noticed(ready, volumes, pump):
    """Its own geometry is edited in the module Volumes, which is no transform, and its name in the module Data."""
    before = volumes["t2w"].GetOrigin()
    volumes["t2w"].SetOrigin(0, 0, 0)
    pump(lambda: "Different grids: T2 will be registered" in ready.ui.prepareLabel.text)
    volumes["t2w"].SetOrigin(before)
    pump(lambda: "Different grids" not in ready.ui.prepareLabel.text)
    volumes["t2w"].SetName("Renamed")
    pump(lambda: "T2 (Renamed)" in ready.ui.prepareLabel.toolTip)


def test_volumes_that_are_loaded_from_another_module_are_looked_at_on_return(panel, module, pump):
    module.widget.enter()
    pump(lambda: "Load the four MRI volumes" in panel.ui.stateLabel.text)
    module.widget.exit()
    for seed, name in enumerate(("T1", "T1 Gd", "T2", "FLAIR")):
        synth.addVolume(name, seed=seed)
    looked = []
    panel._checkTimer.timeout.connect(lambda: looked.append(True))
    pump(lambda: looked)
    assert set(panel.parameters.volumes().values()) == {None}
    assert "Load the four MRI volumes" in panel.ui.stateLabel.text
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled())
    assert None not in panel.parameters.volumes().values()


@pytest.mark.parametrize("isInView", [True, False])
def test_nothing_of_a_scene_that_was_closed_is_kept_in_memory(panel, module, pump, isInView):
    module.widget.enter()
    for seed, name in enumerate(("T1", "T1 Gd", "T2", "FLAIR", "Series 7")):
        synth.addVolume(name, seed=seed)
    pump(lambda: panel.ui.applyButton.isEnabled() and panel.session.machine)
    panel.ui.t2wSelector.setCurrentNode(None)
    pump(lambda: panel.ui.applyButton.isEnabled())
    segment(panel, pump)
    pump(lambda: panel.followUp._results)
    kept = [weakref.ref(node) for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")]
    assert len(kept) > 6
    if not isInView:
        module.widget.exit()
    slicer.mrmlScene.Clear(0)

    def left():
        gc.collect()
        return [node().GetName() for node in kept if node() is not None]

    end = time.monotonic() + 30  # what is on its way is let go of when it has arrived; a busy machine takes longer
    pump(lambda: not left() or time.monotonic() > end)
    assert left() == []


def test_the_keys_are_shown_and_stay(ready, pump):
    """A text that is set anew takes a button's key away, unless the text is left alone."""
    segment(ready, pump)
    keys = {"applyButton": "Ctrl+Return", "cancelButton": "Ctrl+Shift+X", "nextPlaceButton": "Ctrl+Shift+J"}
    keys |= {"labelsRadio": "Ctrl+Shift+L", "regionsRadio": "Ctrl+Shift+R", "backgroundButton": "Ctrl+Shift+B"}
    ready.ui.backgroundButton.click()  # has another text now
    for name, key in keys.items():
        button = getattr(ready.ui, name)
        assert button.shortcut.toString() == key, name
        assert f"({key})" in button.toolTip, name


def test_the_uncertainty_map_is_not_taken_for_a_modality(ready, pump, volumes):
    segment(ready, pump)
    ready.ui.guessButton.click()
    assert ready.parameters.volumes() == volumes


def test_the_same_volume_twice_is_refused_with_a_reason(ready, volumes, pump):
    ready.ui.t1nSelector.setCurrentNode(volumes["t1c"])
    pump(lambda: not ready.ui.applyButton.isEnabled())
    assert ready.ui.stateLabel.text
    assert ready.ui.applyButton.toolTip == ready.ui.stateLabel.text


def test_the_state_is_saved_with_the_scene(ready, pump, volumes, tmp_path, module):
    ready.ui.qualityCombo.setCurrentIndex(2)
    ready.ui.regionsRadio.click()
    segmentation = segment(ready, pump)
    assert representation(segmentation) == "regions"
    names = {modality: node.GetName() for modality, node in volumes.items()}
    bundle = str(tmp_path / "case.mrb")
    assert slicer.mrmlScene.WriteToMRB(bundle)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert ready.ui.volumesTable.rowCount == 0
    assert ready.parameters.volume("t1c") is None
    slicer.mrmlScene.ReadFromMRB(bundle, False)
    pump(lambda: ready.parameters.volume("t1c") is not None and ready.ui.applyButton.isEnabled())
    assert {modality: node.GetName() for modality, node in ready.parameters.volumes().items()} == names
    assert ready.parameters.mirrorings == 7
    assert ready.ui.qualityCombo.currentIndex == 2
    assert ready.ui.regionsRadio.isChecked()
    assert ready.ui.volumesTable.rowCount == 5
    assert ready.ui.t1cSelector.currentNode().GetName() == names["t1c"]


def test_the_report_tells_of_the_machine_and_not_of_the_patient(ready, pump, volumes):
    volumes["t1c"].SetName("M\u00fcller Hans T1c")
    paths = "/data/M\u00fcller Hans/t1.nii or C:\\Users\\hans\\t1.nii"
    ready.log("error", f"could not read {paths}; M\u00fcller Hans T1c is odd")
    ready.ui.copyReportButton.click()
    text = slicer.app.clipboard().text()
    assert "Engine: 9.9" in text
    assert "Slicer: 5.12" in text
    assert "could not read" in text
    for secret in ("M\u00fcller", "Hans", "hans", "t1.nii"):
        assert secret not in text


def test_the_report_does_not_tell_of_patients_who_are_gone(ready, volumes):
    """The log still names them when their volumes were removed, renamed, or closed with their scene."""
    names = {"t1n": "Erika Mustermann", "t2w": "Max Mustermann", "t1c": "Hans M\u00fcller"}
    for modality, name in names.items():
        volumes[modality].SetName(f"{name} {modality}")
        ready.log("error", f"{name} {modality} is odd")
    volumes["t2w"].SetName("T2")
    slicer.mrmlScene.RemoveNode(volumes["t1n"])
    slicer.mrmlScene.Clear(0)
    text = ready.report()
    assert text.count("<name> is odd") == 3
    assert "Mustermann" not in text and "Hans" not in text
    assert "Erika Mustermann" in ready.ui.logText.toPlainText()


def test_controls_have_names_for_screen_readers(panel):
    kinds = (
        "QComboBox",
        "QPlainTextEdit",
        "QTableWidget",
        "QLineEdit",
        "QSpinBox",
        "QProgressBar",
        "qMRMLNodeComboBox",
    )
    for widget in panel.ui.applyButton.window().findChildren(qt.QWidget):
        if widget.className() in (*kinds, "ctkPathLineEdit") and widget.name[:3] not in ("", "qt_"):
            assert widget.accessibleName, widget.name


def test_the_tab_key_goes_from_the_top_to_the_bottom(panel, module):
    module.frame.resize(400, 900)
    module.frame.show()
    slicer.app.processEvents()
    names = ("t1nSelector", "t1cSelector", "t2wSelector", "t2fSelector", "guessButton", "sampleButton", "applyButton")
    names += ("resultSection", "labelsRadio", "regionsRadio", "volumesTable", "editButton", "optionsSection")
    names += ("modelCombo", "qualityCombo", "deviceCombo", "prepareCombo", "inspectButton", "setupSection")
    widget, order = panel.ui.t1nLabel, []
    while True:
        widget = widget.nextInFocusChain()
        if widget is panel.ui.t1nLabel:
            break
        order.append(widget.name)
    assert [name for name in order if name in names] == list(names)


def test_a_message_is_shown_as_it_is(ready):
    """A name such as <b>T1</b> is no mark-up."""
    for name in ("warningsLabel", "stateLabel", "progressLabel", "placeLabel", "testLabel", "resultLabel"):
        assert getattr(ready.ui, name).textFormat == qt.Qt.PlainText
