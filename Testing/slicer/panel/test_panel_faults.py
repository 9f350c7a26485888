"""What goes wrong while the panel works: a clear word, and a scene as it was."""

import errno
import importlib
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
import standin_app
import synth
from SegMambaSlicerLib import run as running
from SegMambaSlicerLib.engine.client import EngineError
from SegMambaSlicerLib.errors import InputError


def nodesOf(scene):
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


@pytest.fixture
def opened(choose, module, volumes, pump):
    """opened(behaviour): the panel on four volumes, with a worker of that behaviour; and what the scene holds."""

    def open_(behaviour):
        choose(behaviour)
        module.widget.enter()
        pump(lambda: module.widget.panel.ui.applyButton.isEnabled() and not module.widget.panel.setup.isBusy())
        return module.widget.panel, nodesOf(slicer.mrmlScene)

    return open_


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ("refusing", "The input is wrong; mend it."),
        ("broken-model", "The model is wrong; mend it."),
        ("dying", "There was not enough memory."),
        ("other-grid", "is not on the grid of"),
        ("no-file", "no such file"),
    ],
)
def test_a_run_that_fails_leaves_the_scene_as_it_was(opened, pump, behaviour, text, temporaryFiles):
    panel, before = opened(behaviour)
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    assert text in panel.ui.progressLabel.text
    assert text in panel.ui.logText.toPlainText()
    assert nodesOf(slicer.mrmlScene) == before
    assert panel.ui.applyButton.isEnabled()
    assert temporaryFiles() == []


@pytest.mark.parametrize("behaviour", ["slow", "deaf"])
def test_cancel_leaves_the_scene_as_it_was(opened, pump, behaviour, temporaryFiles):
    panel, before = opened(behaviour)
    panel.ui.applyButton.click()
    pump(lambda: panel.ui.progressBar.value == 500)
    assert panel.ui.progressLabel.text == "Doing inference, about 7 s left"
    panel.ui.cancelButton.click()
    assert not panel.ui.cancelButton.isEnabled()
    pump(lambda: not panel.session.isBusy())
    assert panel.ui.progressLabel.text == "Cancelled."
    assert panel.ui.applyButton.isEnabled()
    assert nodesOf(slicer.mrmlScene) == before
    assert temporaryFiles() == []


def test_a_worker_killed_at_any_moment_is_reported_and_replaced(opened, pump, choose, temporaryFiles):
    panel, before = opened("slow")
    moments = random.Random(5)
    for _ in range(10):
        panel.ui.applyButton.click()
        end = time.monotonic() + moments.uniform(0, 0.4)
        pump(lambda end=end: time.monotonic() > end)
        os.kill(panel.session.engine.pid, 9)
        pump(lambda: not panel.session.isBusy())
        assert "The engine ended unexpectedly (exit code -9). It was ended by" in panel.ui.progressLabel.text
        assert nodesOf(slicer.mrmlScene) == before
        assert temporaryFiles() == []
    choose("well")
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    assert panel.parameters.result("Segmentation") is not None


def test_what_nobody_thought_of_ends_the_run_and_is_said(opened, monkeypatch, temporaryFiles):
    panel, before = opened("well")
    with monkeypatch.context() as changed:
        changed.setattr(running, "exportCase", lambda *a, **more: np.empty(1 << 50))
        panel.ui.applyButton.click()
    assert "Unable to allocate" in panel.ui.progressLabel.text and panel.ui.progressBar.isHidden()
    assert "Traceback" in panel.ui.logText.toPlainText()
    assert panel.ui.applyButton.isEnabled() and panel.ui.modelCombo.isEnabled()
    assert nodesOf(slicer.mrmlScene) == before and temporaryFiles() == []


def test_closing_the_scene_ends_the_run(opened, pump, temporaryFiles):
    panel, _before = opened("slow")
    panel.ui.applyButton.click()
    pump(lambda: panel.ui.progressBar.value == 500)
    slicer.mrmlScene.Clear(0)
    pump(lambda: not panel.session.isBusy())
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert temporaryFiles() == []
    pump(lambda: "Load the four MRI volumes" in panel.ui.stateLabel.text)


def test_what_became_of_a_run_is_not_said_in_the_next_scene(opened, pump):
    """Neither that it was cancelled by closing the scene, nor what stood there before."""
    panel, _before = opened("slow")
    for isUnderWay in (True, False):
        panel.ui.applyButton.click()
        pump(lambda: panel.ui.progressBar.value == 500)
        if not isUnderWay:
            panel.ui.cancelButton.click()
            pump(lambda: not panel.session.isBusy())
            assert panel.ui.progressLabel.text == "Cancelled."
        slicer.mrmlScene.Clear(0)
        pump(lambda: not panel.session.isBusy())
        assert panel.ui.progressLabel.text == "" and panel.ui.progressLabel.isHidden()
        for seed, name in enumerate(("T1", "T1 Gd", "T2", "FLAIR")):
            synth.addVolume(name, "oblique-left", seed=seed)
        pump(lambda: panel.ui.applyButton.isEnabled())


def test_the_engine_is_said_to_start_and_not_the_volumes_to_be_written_for_long(opened):
    panel, _before = opened("mute")
    panel.ui.applyButton.click()
    assert panel.ui.progressLabel.text == "Starting the engine..."


@pytest.mark.parametrize("behaviour", ["refusing", "dying"])
def test_the_log_has_an_error_once(opened, pump, behaviour):
    panel, _before = opened(behaviour)
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    lines = panel.ui.logText.toPlainText().splitlines()
    message = panel.ui.progressLabel.text.splitlines()[0]
    assert sum(message in line for line in lines) == 1
    assert not any("debug" in line for line in lines)
    assert sum("Traceback" in line for line in lines) == 1  # the detail, for a report


def test_a_python_that_is_not_there_stands_in_the_way_from_the_start(module, volumes, pump, python):
    qt.QSettings().setValue("SegMamba/Python", "/nowhere/python")
    ui = module.widget.panel.ui
    module.widget.enter()
    pump(lambda: "/nowhere/python is not a Python program" in ui.stateLabel.text)
    assert not ui.applyButton.isEnabled() and not ui.setupSection.collapsed
    assert ui.stateLabel.text.endswith("See Setup.")
    assert not module.widget.panel.session.engine.isRunning()
    ui.pythonPath.setCurrentPath(str(python("well")))
    pump(lambda: ui.applyButton.isEnabled() and module.widget.panel.session.machine)


def test_a_volume_that_is_gone_when_the_result_comes(opened, pump, volumes):
    panel, _before = opened("well")
    panel.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(volumes["t1c"])
    pump(lambda: not panel.session.isBusy())
    assert "no longer in the scene" in panel.ui.progressLabel.text
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_a_volume_that_was_moved_meanwhile(opened, pump, volumes):
    panel, before = opened("well")
    panel.ui.applyButton.click()
    volumes["t1c"].SetOrigin(1, 2, 3)
    pump(lambda: not panel.session.isBusy())
    assert "is not on the grid of" in panel.ui.progressLabel.text
    assert nodesOf(slicer.mrmlScene) == before


@pytest.fixture
def sameLibraryAfterwards():
    """Reloading makes all classes anew; the other tests go on with those that they have imported."""
    library = {name: module for name, module in sys.modules.items() if name.startswith("SegMambaSlicerLib")}
    yield
    for name in [name for name in sys.modules if name.startswith("SegMambaSlicerLib")]:
        del sys.modules[name]
    sys.modules.update(library)
    importlib.reload(sys.modules["SegMambaSlicer"])


def test_reloading_the_module_while_it_runs(opened, pump, module, sameLibraryAfterwards):
    panel, _before = opened("slow")
    panel.ui.applyButton.click()
    pump(lambda: panel.ui.progressBar.value == 500)
    pid = panel.session.engine.pid
    module.widget.onReload()
    assert not panel.session.engine.isRunning()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again = standin_app.loadModule()
    assert type(again.widget) is not type(module.widget)
    assert again.widget.panel.parameters.volume("t1c") is not None  # the state is the scene's
    again.widget.cleanup()


def test_after_a_reload_in_view_the_panel_knows_the_machine(opened, module, pump):
    """Slicer makes the new widget in the frame of the old one, and enters nothing."""
    opened("well")
    module.frame.show()
    module.widget.cleanup()
    again = type(module.widget)(module.frame)
    again.setup()
    pump(lambda: again.panel.session.machine and again.panel.ui.applyButton.isEnabled())
    assert again.panel.ui.stateLabel.text == "Ready: Quick model, about 12 s on this computer."
    again.cleanup()


def test_ending_the_widget_twice_does_no_harm(opened, module):
    opened("well")
    module.widget.cleanup()
    module.widget.cleanup()


def test_the_widgets_of_a_panel_that_has_ended_change_nothing(opened, module, volumes):
    """After a reload they are still there, hidden, on the same scene and parameter node as the new ones."""
    panel, _before = opened("well")
    parameters = panel.parameters
    module.widget.cleanup()
    panel.ui.t1nSelector.setCurrentNode(None)
    panel.ui.qualityCombo.setCurrentIndex(2)
    assert parameters.volume("t1n") is volumes["t1n"]
    assert parameters.mirrorings == 0


def test_what_one_python_has_is_not_shown_for_another_one(panel, pump, tmp_path):
    """The first one answers when the path of the other is there, and before that is tried."""
    setup, ui = panel.setup, panel.ui
    setup.onCheck()
    setup._probe._process._process.wait()
    ui.pythonPath.setCurrentPath(str(tmp_path / "none"))
    setup.poll()
    assert setup.plan is None and not ui.setupLabel.text.endswith("are installed.")
    pump(lambda: "is not a Python program" in ui.setupLabel.text)


def test_a_widget_that_has_ended_starts_nothing_when_slicer_enters_it(site, module, monkeypatch):
    """After a reload Slicer may still tell the old one that the module is opened."""
    panel = module.widget.panel
    module.widget.cleanup()
    monkeypatch.setattr(panel.session, "command", lambda *arguments: pytest.fail(str(arguments)))
    module.widget.enter()
    assert not panel._checkTimer.isActive() and not panel.session.engine.isRunning()


# --- volumes that will not do


def segment(logic, volumes, **options):
    return logic.segment(volumes, **options)


@pytest.mark.parametrize("kind", ["missing", "twice", "grid", "sheared", "vectors", "constant"])
def test_volumes_that_do_not_do_are_refused_before_anything_starts(module, volumes, choose, kind):
    choose("well")
    given = dict(volumes)
    if kind == "missing":
        given["t2w"] = given["t1c"] = None  # one alone the model does without
    elif kind == "twice":
        given["t2w"] = given["t2f"]
    elif kind == "grid":
        given["t2w"] = synth.addVolume("T2", "RAS", seed=11)
    elif kind == "sheared":
        given["t2w"].SetIJKToRASDirections(1, 0.2, 0, 0, 1, 0, 0, 0, 1)
    elif kind == "vectors":
        given["t2w"] = slicer.util.addVolumeFromArray(np.ones((4, 5, 6, 3)), nodeClassName="vtkMRMLVectorVolumeNode")
    else:
        slicer.util.updateVolumeFromArray(given["t2w"], np.zeros(synth.SHAPE, np.int16))
    before = nodesOf(slicer.mrmlScene)
    with pytest.raises(InputError) as raised:
        segment(module.logic, given, prepare="never" if kind == "grid" else "auto")
    assert len(str(raised.value)) > 20
    assert nodesOf(slicer.mrmlScene) == before
    assert not module.logic.session.engine.isRunning()


def test_a_full_disk_is_said(module, volumes, choose, monkeypatch, temporaryFiles):
    choose("well")

    def full(node, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("SegMambaSlicerLib.volumes.scene._write", full)
    with pytest.raises(InputError, match="Check free space"):
        segment(module.logic, volumes)
    assert temporaryFiles() == []
    assert not module.logic.session.isBusy()


def test_a_folder_that_cannot_be_written_is_said(module, volumes, choose, monkeypatch, tmp_path):
    choose("well")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "file"))
    with pytest.raises((InputError, EngineError)) as raised:
        segment(module.logic, volumes)
    assert str(tmp_path / "file") in str(raised.value)
    assert not module.logic.session.isBusy()


def test_folders_with_spaces_and_other_letters(module, volumes, choose, monkeypatch, tmp_path):
    choose("well")  # the program's own name has both
    folder = tmp_path / "M\u00fcller \u533b\u9662 'a'"
    folder.mkdir()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(folder))
    result = segment(module.logic, volumes)
    assert result.segmentation.GetSegmentation().GetNumberOfSegments() == 3
    assert list(folder.iterdir()) == []


# --- from Python


def test_from_python_it_blocks_or_not(module, volumes, choose, pump):
    choose("well")
    seen, done = [], []
    result = module.logic.segment(volumes, mirrorings=1, mode="regions", onProgress=seen.append)
    assert isinstance(result, running.Result)
    assert result.answer["mirrorings"] == 1
    assert [event["stage"] for event in seen] == ["load", "inference"]
    run = module.logic.segment(volumes, previous=result.segmentation, wait=False, onDone=done.append)
    assert not run.isDone
    with pytest.raises(InputError, match="in progress"):
        module.logic.segment(volumes)
    pump(lambda: done)
    assert done[0].segmentation is not result.segmentation
    assert result.segmentation.GetHideFromEditors()


def isAlive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_logic_that_is_forgotten_leaves_no_worker(module, volumes, choose, pump):
    """As in a loop over cases with one each; what was begun without waiting goes on to its end."""
    choose("well")
    logic = module.file.SegMambaSlicerLogic()
    logic.segment(volumes)
    pid = logic.session.engine.pid
    assert isAlive(pid)
    del logic
    assert not isAlive(pid)
    done = []
    run = module.file.SegMambaSlicerLogic().segment(volumes, wait=False, onDone=done.append)
    pid = run._engine.pid
    pump(lambda: done and not isAlive(pid))


def test_from_python_failures_are_raised(module, volumes, choose):
    choose("dying")
    with pytest.raises(EngineError) as raised:
        module.logic.segment(volumes)
    assert raised.value.kind == "died"
    assert not module.logic.session.isBusy()


def test_temporary_folders_are_private(module, volumes, choose, monkeypatch):
    choose("slow")
    run = module.logic.segment(volumes, wait=False)
    (folder,) = Path(slicer.app.temporaryPath).iterdir()
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0
    run.cancel()
    module.logic.session.stop()


def test_another_patients_volume_fills_no_empty_place(ready, volumes, pump):
    """Nor does it pass without a word where somebody chooses it."""
    others = {
        modality: synth.addVolume(f"Second {node.GetName()}", "oblique-left", seed=20 + place)
        for place, (modality, node) in enumerate(volumes.items())
    }
    slicer.mrmlScene.RemoveNode(volumes["t2w"])
    pump(lambda: "Without T2: on" in ready.ui.warningsLabel.text)
    assert ready.parameters.volume("t2w") is None
    ready.ui.t2wSelector.setCurrentNode(others["t2w"])
    pump(lambda: "different examinations. Check T2." in ready.ui.warningsLabel.text)
    assert ready.ui.applyButton.isEnabled()
