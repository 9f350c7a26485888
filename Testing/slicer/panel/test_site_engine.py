"""Training and models in the panel with the engine's own commands, here and through an imitation of ssh."""

import importlib.util
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import qt
import sites
from SegMambaSlicerLib.learning.verdicts import plainName

if importlib.util.find_spec("torch") is None:  # not imported here: it does not go with Slicer's libraries
    pytest.skip("needs the engine's packages", allow_module_level=True)

MAKE_REGISTRY = """
import sys
from segmamba.learning.registry import change
from segmamba.models.package import find_model
print(change.start(sys.argv[1], find_model("quick")), change.add(sys.argv[1], find_model(sys.argv[2])))
"""

SEND_MIRRORED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from correction_runs import edited, send
from segmamba.cases.case import find_label
from segmamba.datasets.phantom import make_phantom, save_phantom
case = Path(sys.argv[3])
case.mkdir()
save_phantom(make_phantom(0, spacing=(4, 4, 4), enhancing=True), case, "p0")
print(send(Path(sys.argv[2]) / "corrections", case, subject="A",
           labels=edited(find_label(case), case / "mirrored.nii.gz", lambda voxels: voxels[::-1])).name)
"""


@pytest.fixture
def site(site):
    """And this Python, which has the engine's packages."""
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    return site


@pytest.mark.parametrize("where", ["here", "server"])
def test_the_engine_tells_of_a_site_here_and_through_ssh(site, module, pump, ssh, where):
    """A run whose process is gone, as the real `segmamba status` finds it, and a stop that it refuses."""
    run = sites.addRun(site, "finetune-0001", step=20, host=socket.gethostname())
    sites.addToLog(run, *sites.course(20))
    server = {"SegMamba/Server/host": "gpu1", "SegMamba/Server/python": shlex.quote(sys.executable)}
    for setting, value in {"SegMamba/Improve": where, **server}.items():
        qt.QSettings().setValue(setting, value)
    panel = module.widget.panel
    ui = panel.ui
    ui.trainingSection.setProperty("collapsed", False)
    pump(lambda: ui.resumeButton.isEnabled() and not panel.watch.isLooking, 300)
    assert "finetune-0001 ended unexpectedly, step 20 of 100." in ui.improveLabel.text
    assert "Loss 0.543 at step 20" in ui.curveTextLabel.text
    assert ui.casesLabel.text.startswith("0 corrected cases")
    assert "No model of this site is in use yet" in ui.inUseLabel.text
    panel.training.onStop()
    pump(lambda: panel.watch.doing == "" and not panel.watch.isLooking, 300)
    assert "finetune-0001 is not at work" in ui.improveReasonLabel.text
    assert ("gpu1: " in ui.improveReasonLabel.text) == (where == "server")


def test_a_run_that_another_computer_left_can_be_resumed_here(site, module, pump):
    """It was killed there, or asked to stop and switched off: once it is silent for long, the site is free again."""
    run = sites.addRun(site, "finetune-0001", step=20, host="elsewhere")
    panel, ui = module.widget.panel, module.widget.panel.ui

    def settled():
        return panel.watch.doing == "" and not panel.watch.isLooking and panel.watch.run

    ui.trainingSection.setProperty("collapsed", False)
    pump(settled, 300)
    assert "in progress" in ui.startButton.toolTip and not ui.resumeButton.isEnabled()
    ui.stopButton.click()
    pump(settled, 300)
    assert (run / "stop").exists() and "saves its state" in ui.improveReasonLabel.text
    sites.addRun(site, "finetune-0001", step=20, host="elsewhere", updated=time.time() - 660)
    pump(settled, 300)
    ui.lookButton.click()
    pump(settled, 300)
    assert ui.resumeButton.isEnabled() and "It can be resumed." in ui.improveLabel.text
    assert "in progress" not in ui.startButton.toolTip and "saves its state" not in ui.improveReasonLabel.text


def test_a_model_is_adopted_and_taken_back_by_the_engine_itself(site, module, pump):
    """The shipped model and a second one made of it: one click each way."""
    second = site.parent / "second"
    shutil.copytree(Path(__file__).parents[3] / "Resources" / "models" / "quick", second)
    manifest = json.loads((second / "model.json").read_text())
    (second / "model.json").write_text(json.dumps({**manifest, "id": "second", "parent": manifest["id"]}))
    made = subprocess.run(
        [sys.executable, "-c", MAKE_REGISTRY, site / "models", second], capture_output=True, text=True, check=True
    )
    first, other = made.stdout.split()
    panel, ui = module.widget.panel, module.widget.panel.ui

    def settled():
        return not panel.watch.isLooking and panel.watch.doing == ""

    ui.modelsSection.setProperty("collapsed", False)
    pump(settled, 300)
    assert ui.inUseLabel.toolTip == first
    assert ui.candidateCombo.currentText == f"{plainName(other)} (candidate)"
    assert "not judged it yet" in ui.promoteButton.toolTip
    ui.modelReasonEdit.setText("it is ours")
    ui.adoptButton.click()
    pump(settled, 300)
    assert ui.modelsMessageLabel.text == f"{plainName(other)} is in use now."
    assert ui.inUseLabel.toolTip == other
    assert f"It was fine-tuned from {plainName(first)}" in ui.inUseLabel.text
    assert panel.watch.site.championFolder() == site / "models" / "models" / other
    assert ui.backButton.text == f"Go back to {plainName(first)}"
    ui.backButton.click()
    pump(settled, 300)
    assert ui.inUseLabel.toolTip == first
    assert not ui.backButton.isEnabled()
    assert "it is ours" in ui.historyText.toPlainText()


def test_a_doubtful_case_waits_for_its_person_and_is_then_trained_on(site, module, pump, tmp_path):
    """Examined by the engine itself as soon as the section is open; its picture is there to decide by."""
    tests = Path(__file__).parents[2] / "engine"
    made = subprocess.run(
        [sys.executable, "-c", SEND_MIRRORED, tests, site, tmp_path / "case"],
        capture_output=True,
        text=True,
        check=True,
    )
    name = made.stdout.split()[-1]
    panel, ui = module.widget.panel, module.widget.panel.ui
    ui.trainingSection.setProperty("collapsed", False)
    pump(lambda: not ui.waitingWidget.isHidden() and panel.watch.doing == "" and not panel.watch.isLooking, 300)
    assert ui.waitingCombo.itemData(0) == name and "left and right are exchanged" in ui.waitingTextLabel.text
    assert not ui.waitingPicture.pixmap.isNull()
    assert not ui.startButton.isEnabled()
    ui.waitingReasonEdit.setText("two tumors, seen by two readers")
    ui.acceptButton.click()
    pump(lambda: panel.watch.doing == "" and not panel.watch.isLooking and ui.waitingWidget.isHidden(), 300)
    assert ui.casesLabel.text.startswith("1 corrected case: 1 for training")
    assert ui.startButton.isEnabled()
    verdict = json.loads((site / "corrections" / "verdicts" / f"{name}.json").read_text())
    assert verdict["reason"] == "two tumors, seen by two readers"
