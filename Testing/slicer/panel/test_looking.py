"""The button "Look closer": what the engine says of the volumes is shown while they are the same, and never later."""

import sys

import numpy as np
import pytest
import qt
import slicer
import synth
from SegMambaSlicerLib.engine.client import EngineError

PATIENCE = 300  # seconds; a busy machine is slow
ANSWER = {
    "volumes": [
        {"modality": "t1c", "title": "T1c", "text": "no skull; 3 < 4", "notes": ["an odd thing"]},
        {"modality": "t2w", "title": "T2", "text": "skull on", "notes": []},
    ],
    "left_right": "Left is left.",
    "will": ["T2 is registered to T1c."],
    "warnings": ["T2 and FLAIR?"],
}


class Command:
    """In the place of the engine's: what it was asked, and a way to answer."""

    isDone = False

    def __init__(self, arguments, onDone, onError):
        self.arguments, self.onDone, self.onError = arguments, onDone, onError
        self.isCancelled = False

    def cancel(self):
        self.isCancelled = self.isDone = True

    def answer(self, answer=ANSWER):
        self.isDone = True
        self.onDone(answer)


@pytest.fixture
def panel(ready):
    """Opened on four volumes."""
    return ready


@pytest.fixture
def asked(panel, monkeypatch):
    """The commands that were started."""
    commands = []

    def start(*arguments):
        commands.append(Command(*arguments))
        return commands[-1]

    monkeypatch.setattr(panel.looking, "_start", start)
    return commands


def shown(panel):
    return panel.ui.inspectLabel.text


def test_the_volumes_go_out_and_what_is_said_of_them_is_shown(panel, asked, volumes, temporaryFiles):
    before, ui = temporaryFiles(), panel.ui
    assert ui.inspectButton.isEnabled() and not shown(panel)
    ui.inspectButton.click()
    (command,) = asked
    assert command.arguments[:2] == ["look", "--json"]
    assert command.arguments[2::2] == ["--t1n", "--t1c", "--t2w", "--t2f"]
    assert len(temporaryFiles()) == len(before) + 1
    assert not ui.inspectButton.isEnabled() and ui.inspectButton.toolTip == "In progress."
    ui.inspectButton.click()
    panel.looking.onLook()
    assert len(asked) == 1
    command.answer()
    assert shown(panel).split("<br>")[:5] == [
        "<b>T1c</b> (AX T1 +C): no skull; 3 &lt; 4",
        "<b>T2</b> (AX T2): skull on",
        "T1c: an odd thing",
        "Left is left.",
        "T2 is registered to T1c.",
    ]
    assert "T2 and FLAIR?" in shown(panel) and ui.inspectButton.isEnabled()
    assert temporaryFiles() == before


def test_a_warning_that_stands_above_is_not_said_again(panel, asked):
    panel.inputs.notes = ["T2 and FLAIR?"]
    panel.ui.inspectButton.click()
    asked[0].answer()
    assert "skull on" in shown(panel) and "FLAIR?" not in shown(panel)


def test_what_was_seen_goes_when_the_volumes_are_others(panel, asked, volumes):
    for change in (
        lambda: volumes["t2w"].SetOrigin(5, 5, 5),
        lambda: slicer.util.updateVolumeFromArray(volumes["t2f"], np.arange(4301, dtype=np.int16).reshape(synth.SHAPE)),
        lambda: panel.parameters.setVolume("t1n", synth.addVolume("other", "oblique-left", seed=9)),
    ):
        panel.onPaused()
        assert panel.ui.inspectButton.isEnabled()
        panel.ui.inspectButton.click()
        asked[-1].answer()
        assert "skull on" in shown(panel)
        change()
        panel.showState()
        assert shown(panel) == "The volumes have changed. Look again."


def test_volumes_changed_meanwhile(panel, asked, volumes, temporaryFiles):
    before = temporaryFiles()
    panel.ui.inspectButton.click()
    volumes["t2w"].SetOrigin(5, 5, 5)
    asked[0].answer()  # before anybody has looked at the volumes again
    assert shown(panel) == "The volumes have changed. Look again."
    panel.ui.inspectButton.click()
    volumes["t2w"].SetOrigin(6, 6, 6)
    panel.onPaused()
    assert asked[1].isCancelled and temporaryFiles() == before
    panel.ui.inspectButton.click()
    asked[1].onDone(ANSWER)  # too late: it is the third that counts
    assert shown(panel) == "Checking the volumes..."
    asked[2].answer()
    assert "skull on" in shown(panel)


def test_never_is_said_to_do_nothing(panel, asked, pump):
    panel.ui.prepareCombo.setCurrentIndex(1)
    panel.onPaused()
    panel.ui.inspectButton.click()
    asked[0].answer()
    assert "Nothing will be done: Prepare is set to Never." in shown(panel)
    assert "registered" not in shown(panel)


def test_the_scene_is_closed_in_the_middle(panel, asked, temporaryFiles):
    before = temporaryFiles()
    panel.ui.inspectButton.click()
    slicer.mrmlScene.Clear(0)
    assert asked[0].isCancelled and temporaryFiles() == before and not shown(panel)
    asked[0].onDone(ANSWER)
    assert not shown(panel) and not panel.ui.inspectButton.isEnabled()


def test_the_panel_ends_in_the_middle(panel, asked, module, temporaryFiles):
    before = temporaryFiles()
    panel.ui.inspectButton.click()
    module.widget.cleanup()
    assert asked[0].isCancelled and temporaryFiles() == before


def test_without_volumes_there_is_a_reason(panel, asked, volumes):
    for modality in ("t1c", "t2w"):
        slicer.mrmlScene.RemoveNode(volumes[modality])
    panel.onPaused()
    assert not panel.ui.inspectButton.isEnabled()
    assert "missing" in panel.ui.inspectButton.toolTip
    panel.looking.onLook()
    assert asked == []


def test_errors_are_plain(panel, asked, monkeypatch, temporaryFiles):
    before = temporaryFiles()
    panel.ui.inspectButton.click()
    asked[0].onError(EngineError("input", "T2: the image is dark <everywhere>"))
    assert "The volumes could not be looked at: T2: the image is dark &lt;everywhere&gt;" in shown(panel)
    panel.ui.inspectButton.click()
    asked[1].answer({"something": "else"})
    assert "may be of different versions." in shown(panel)

    def fail(*arguments):
        raise EngineError("start", "The engine did not start: no Python")

    monkeypatch.setattr(panel.looking, "_start", fail)
    panel.ui.inspectButton.click()
    assert "no Python" in shown(panel)
    monkeypatch.setattr("SegMambaSlicerLib.panel.looking.exportCase", lambda *a, **more: np.empty(1 << 50))
    panel.ui.inspectButton.click()
    assert "Unable to allocate" in shown(panel)
    assert panel.ui.inspectButton.isEnabled() and temporaryFiles() == before


def test_with_the_real_engine(app, module, pump, temporaryFiles):
    """A phantom, T2 and FLAIR exchanged, T1 on a grid of its own."""
    phantoms = pytest.importorskip("segmamba.datasets.phantom", reason="needs the engine (pip install -e Training)")
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    phantom = phantoms.make_phantom(4, spacing=(4.0, 4.5, 5.0), enhancing=True)
    images = {**phantom.images, "t2w": phantom.images["t2f"], "t2f": phantom.images["t2w"]}
    matrix = phantom.affine.copy()
    for modality, image in images.items():
        own = matrix.copy()
        if modality == "t1n":
            image, own[:3, 2] = image[:, :, ::2], own[:3, 2] * 2
        name = {"t1n": "AX T1", "t1c": "AX T1 +C", "t2w": "AX T2", "t2f": "AX FLAIR"}[modality]
        slicer.util.addVolumeFromArray(np.ascontiguousarray(image.transpose(2, 1, 0)), ijkToRAS=own, name=name)
    panel = module.widget.panel
    module.widget.enter()
    pump(lambda: panel.ui.inspectButton.isEnabled() and panel.session.machine, PATIENCE)
    before = temporaryFiles()
    panel.ui.inspectButton.click()
    pump(lambda: panel.ui.inspectButton.isEnabled(), PATIENCE)
    lines = shown(panel).split("<br>")
    assert lines[0].startswith("<b>T1</b> (AX T1): no skull; a grid of its own, not that of T1c; thick ")
    assert lines[1].startswith("<b>T1c</b> (AX T1 +C): no skull; the result lies on its grid; ")
    assert any(line.startswith("T1 is registered to T1c: ") for line in lines)
    assert "Are T2 and FLAIR swapped?" in panel.ui.warningsLabel.text  # said there already, and not once more
    assert not any("swapped" in line for line in lines)
    assert temporaryFiles() == before
