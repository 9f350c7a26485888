"""Improve the model on a server: the line to run by hand, a run there, and what ssh says."""

import pytest
import qt
import sites
import slicer
from sites import answer


@pytest.fixture
def commands(commands):
    """With the section open."""
    commands.panel.ui.trainingSection.setProperty("collapsed", False)
    return commands


def test_a_server_shows_the_line_to_run_by_hand(commands, site):
    ui = commands.panel.ui
    commands.reply("status", answer())
    assert ui.serverFields.isHidden()
    ui.whereCombo.setCurrentIndex(1)
    assert not ui.serverFields.isHidden()
    assert "Enter the name of the server" in ui.startButton.toolTip
    assert not ui.copyCommandButton.isEnabled()
    ui.hostEdit.setText("-oProxyCommand=x")
    commands.panel.watch.refresh()
    assert "does not begin with a hyphen" in ui.improveReasonLabel.text
    assert all(command.program is None for command in commands.all)
    ui.hostEdit.setText("anna@gpu1")
    ui.serverFolderEdit.setText("/mnt/clinic")
    ui.wayCombo.setCurrentIndex(1)
    commands.panel.watch.refresh()
    assert ui.byHandEdit.text == "python3 -m segmamba improve /mnt/clinic --way=retrain"
    ui.copyCommandButton.click()
    assert slicer.app.clipboard().text() == ui.byHandEdit.text
    status = commands.open[-1]
    assert status.program[0] == "ssh" and status.program[-1] == "anna@gpu1"
    assert status.arguments == ["python3 -m segmamba status /mnt/clinic --json"]


def test_a_run_on_a_server_is_followed_through_its_engine(commands, site, monkeypatch):
    ui = commands.panel.ui
    commands.reply("status", answer())
    for setting, value in (("host", "gpu1"), ("folder", "/mnt/clinic")):
        qt.QSettings().setValue(f"SegMamba/Server/{setting}", value)
    ui.whereCombo.setCurrentIndex(1)
    commands.reply("status", answer())  # of this computer: the models
    run = {"run": "finetune-0001", "state": "training", "step": 20, "steps": 100, "updated": 5, "alive": None}
    commands.reply("status", answer(run))
    assert commands.open[-1].arguments == ["python3 -m segmamba status /mnt/clinic --run=finetune-0001 --json"]
    commands.reply("status", answer(run, log=sites.course(20)))
    assert "finetune-0001 is training, step 20 of 100" in ui.improveLabel.text
    assert "Loss 0.543 at step 20" in ui.curveTextLabel.text
    assert commands.open == []
    commands.panel.watch._nextLook = 0
    commands.panel.watch.tick()
    assert commands.open[-1].arguments == ["python3 -m segmamba status /mnt/clinic --run=finetune-0001 --json"]
    commands.reply("status", answer({**run, "step": 30}, log=sites.course(30)))
    assert "step 30 of 100" in ui.improveLabel.text
    ui.stopButton.click()
    assert commands.open[-1].arguments == ["python3 -m segmamba improve /mnt/clinic --stop=finetune-0001 --json"]
    commands.reply("improve", {"run": "finetune-0001"})
    commands.reply("status", answer())
    commands.reply("status", answer({**run, "state": "done", "candidate": "tuned-1"}))
    assert "tuned-1 is not in" in ui.improveLabel.text


@pytest.mark.parametrize(
    ("host", "python", "says"),
    [
        ("locked", "python3", "locked: anna@locked: Permission denied"),
        ("nowhere", "python3", "nowhere: ssh: Could not resolve hostname"),
        ("gpu1", "/no/such/python", "gpu1: "),
    ],
)
def test_what_ssh_says_is_shown_with_the_name_of_the_server(site, module, pump, ssh, host, python, says):
    panel = module.widget.panel
    for setting, value in (("host", host), ("python", python)):
        qt.QSettings().setValue(f"SegMamba/Server/{setting}", value)
    qt.QSettings().setValue("SegMamba/Improve", "server")
    panel.watch.refresh()
    pump(lambda: panel.watch.workProblem != "")
    assert says in panel.ui.improveReasonLabel.text
    assert not panel.ui.startButton.isEnabled()
    panel.session.stop()
