"""Improve the model: what is shown of corrected cases and of a run, and what the buttons ask for."""

import json
import time
from pathlib import Path

import fake_commands
import pytest
import qt
import sites
import slicer
from SegMambaSlicerLib.learning.following import Curve
from SegMambaSlicerLib.panel.curve import HEIGHT, curveText, drawCurve
from sites import COUNTS, answer

NAMES = ["aaaaaaaabbbbbbbbcccc-v1", "ddddddddeeeeeeeeffff-v2"]


def statusOf(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


@pytest.fixture
def commands(commands):
    """With the section open."""
    commands.panel.ui.trainingSection.setProperty("collapsed", False)
    return commands


def show(commands, *runs, **changes):
    """Looks again, and gives the engine's answer."""
    commands.panel.ui.lookButton.click()
    commands.reply("status", answer(*runs, **changes))
    return commands.panel.ui


def test_without_a_training_folder_nothing_is_asked(app, module, monkeypatch):
    asked = fake_commands.Commands(module.widget.panel.session, monkeypatch)
    ui = module.widget.panel.ui
    ui.trainingSection.setProperty("collapsed", False)
    module.widget.panel.watch.refresh()
    assert asked.open == []
    for button in (ui.startButton, ui.stopButton, ui.resumeButton):
        assert not button.isEnabled()
        assert "No training folder is chosen yet" in button.toolTip
    assert ui.improveReasonLabel.text == "No training folder is chosen yet: choose one under Add to training."
    assert ui.casesLabel.isHidden()  # it is said once


def test_the_cases_are_counted_and_refused_ones_give_their_reason(commands, site):
    ui = commands.panel.ui
    assert commands.open[0].arguments == ["status", str(site), "--json"]
    assert ui.casesLabel.text == "Looking..."
    rows = [
        {"name": "a-v1", "status": "refused", "findings": [{"text": "other grid", "mend": "send again"}]},
        {"name": "b-v1", "status": "waiting", "findings": []},
        {"name": "c-v1", "status": "train", "findings": [{"kind": "note", "text": "small specks"}]},
    ]
    commands.reply("status", answer(corrections={**COUNTS, "rows": rows}))
    assert ui.casesLabel.text == (
        "9 corrected cases: 5 for training, 2 for validation, 1 unchanged, set aside, 1 refused."
    )
    assert ui.refusedText.toPlainText() == (
        "a-v1: refused: other grid; send again\n"
        "b-v1: set aside until there are more corrected cases: nothing was corrected in it"
    )
    assert ui.startButton.isEnabled()
    assert not ui.stopButton.isEnabled() and not ui.resumeButton.isEnabled()
    commands.panel.ui.lookButton.click()
    commands.reply("status", answer(corrections={**COUNTS, "train": 0}))
    assert not ui.startButton.isEnabled()
    assert "no corrected case to train on" in ui.startButton.toolTip
    assert "no corrected case to train on" in ui.improveReasonLabel.text


def doubtful(names):
    finding = {"kind": "mirrored", "text": "it looks mirrored", "mend": "look over t2f", "severity": "doubtful"}
    rows = [{"name": name, "status": "doubtful", "findings": [finding]} for name in names]
    zero = dict.fromkeys(("train", "validation", "refused", "waiting"), 0)
    return {**COUNTS, **zero, "sent": len(names), "doubtful": len(names), "rows": rows}


def test_new_cases_are_examined_at_once_and_start_counts_what_can_be_trained_on(commands, site):
    ui = commands.panel.ui
    commands.reply("status", answer(corrections={**doubtful([]), "sent": 1, "new": 1}))
    assert commands.open[-1].arguments == ["intake", str(site / "corrections"), "--json"]
    assert not ui.startButton.isEnabled()
    assert ui.improveReasonLabel.text == "The new cases are being examined..."
    commands.reply("intake", {})
    commands.reply("status", answer(corrections=doubtful(NAMES[:1])))
    assert ui.casesLabel.text.startswith("1 corrected case: 0 for training")
    assert "1 waiting for your decision" in ui.casesLabel.text
    assert not ui.startButton.isEnabled() and "decide on the waiting cases above" in ui.improveReasonLabel.text
    failed = sites.addRun(site, "finetune-0001", state="failed", steps=0, text="no accepted case to train on yet")
    ui = show(commands, {**statusOf(failed), "alive": False}, corrections=doubtful(NAMES[:1]))
    assert not ui.resumeButton.isEnabled()
    assert not commands.open


def test_new_cases_that_cannot_be_examined_are_not_asked_about_for_ever(commands):
    ui = commands.panel.ui
    counts = {**doubtful([]), "sent": 1, "new": 1}
    commands.reply("status", answer(corrections=counts))
    commands.fail("intake", "the disk is full")
    commands.reply("status", answer(corrections=counts))
    assert not commands.open
    assert ui.improveReasonLabel.text == "The new cases could not be examined: the disk is full"
    ui.lookButton.click()
    commands.reply("status", answer(corrections={**counts, "sent": 2, "new": 2}))
    assert commands.open[-1].arguments[0] == "intake"


def test_new_cases_are_examined_where_as_many_were_before_and_where_the_user_asks_again(commands):
    """One that took the place of a withdrawn one; and one whose examination failed, as the drive was gone."""
    ui = commands.panel.ui
    new = {**doubtful([]), "sent": 1, "new": 1}
    commands.reply("status", answer(corrections=new))
    commands.reply("intake", {})
    for counts in (doubtful(NAMES[:1]), doubtful([])):  # and withdrawn elsewhere
        commands.reply("status", answer(corrections=counts))
        ui.lookButton.click()
    commands.reply("status", answer(corrections=new))
    commands.fail("intake", "the drive is gone")
    commands.reply("status", answer(corrections=new))
    assert not commands.open
    ui.lookButton.click()
    commands.reply("status", answer(corrections=new))
    commands.reply("intake", {})


def test_a_doubtful_case_is_shown_accepted_and_withdrawn(commands, site, monkeypatch):
    ui = commands.panel.ui
    assert ui.waitingWidget.isHidden()
    verdicts = site / "corrections" / "verdicts"
    verdicts.mkdir(parents=True)
    sites.writePicture(verdicts / f"{NAMES[0]}.png")
    commands.reply("status", answer(corrections=doubtful(NAMES)))
    assert not ui.waitingWidget.isHidden() and ui.waitingCombo.count == 2
    assert ui.waitingCombo.itemText(0) == "Case 1 of 2 to decide on: aaaaaaaa v1"
    assert ui.waitingTextLabel.text == "Doubtful: it looks mirrored (look over t2f)"
    assert not ui.waitingPicture.pixmap.isNull()
    ui.waitingCombo.setCurrentIndex(1)
    assert ui.waitingPicture.isHidden() and ui.enlargeWaitingButton.isHidden()  # there is none of it
    assert not ui.acceptButton.isEnabled() and "why the case is right" in ui.acceptButton.toolTip
    ui.waitingReasonEdit.setText("seen by two readers")
    ui.acceptButton.click()
    assert commands.open[-1].arguments == [
        *("intake", str(site / "corrections"), f"--accept={NAMES[1]}", "--reason=seen by two readers", "--json")
    ]
    assert not ui.acceptButton.isEnabled() and not ui.withdrawButton.isEnabled()
    commands.reply("intake", {})
    commands.reply("status", answer(corrections={**doubtful(NAMES[:1]), "sent": 2, "train": 1}))
    assert ui.waitingCombo.count == 1 and ui.waitingReasonEdit.text == ""
    assert ui.startButton.isEnabled()
    asked, answers = [], [False, True]
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, **options: asked.append(text) or answers.pop(0)
    )
    ui.withdrawButton.click()
    assert NAMES[0] in asked[0] and not commands.open
    ui.withdrawButton.click()
    assert commands.open[-1].arguments == [*("intake", str(site / "corrections"), f"--withdraw={NAMES[0]}", "--json")]
    commands.fail("intake", "ask who may delete there")
    assert ui.waitingMessageLabel.text == "ask who may delete there"
    commands.reply("status", answer(corrections={**COUNTS, "sent": 1}))
    assert ui.waitingWidget.isHidden()


def test_a_reason_holds_for_the_case_it_was_typed_for(commands):
    """Another comes forward where that case is gone, as when somebody else has decided on it."""
    ui = commands.panel.ui
    commands.reply("status", answer(corrections=doubtful(NAMES)))
    ui.waitingReasonEdit.setText("seen by two readers")
    ui = show(commands, corrections=doubtful(NAMES))
    assert ui.waitingReasonEdit.text == "seen by two readers" and ui.acceptButton.isEnabled()
    ui = show(commands, corrections=doubtful(NAMES[1:]))
    assert ui.waitingReasonEdit.text == "" and not ui.acceptButton.isEnabled()


@pytest.mark.parametrize("left", [NAMES[1:], []])
def test_what_went_wrong_with_a_case_is_said_when_it_is_no_longer_there(commands, monkeypatch, left):
    """A case of which another program holds a file is withdrawn, and its images have to be deleted by hand."""
    ui, text = commands.panel.ui, f"{NAMES[0]} is withdrawn, but its files are not all deleted: remove them"
    commands.reply("status", answer(corrections=doubtful(NAMES)))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **options: True)
    ui.withdrawButton.click()
    commands.fail("intake", text)
    commands.reply("status", answer(corrections=doubtful(left) if left else {**COUNTS, "sent": 1}))
    assert ui.waitingMessageLabel.text == text and not ui.waitingMessageLabel.isHidden()
    assert ui.waitingWidget.isHidden() == (not left)


def test_withdrawn_is_the_case_that_was_asked_about(commands, site, monkeypatch):
    """An answer of the engine may come while the question stands, and another case into the first one's place."""
    ui, left = commands.panel.ui, [NAMES[1:], NAMES[::-1]]
    commands.reply("status", answer(corrections=doubtful(NAMES)))

    def confirm(text, **options):
        assert NAMES[0] in text
        show(commands, corrections=doubtful(left.pop(0)))
        return True

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    ui.withdrawButton.click()
    assert not commands.open
    assert ui.waitingMessageLabel.text == f"Nothing was deleted: {NAMES[0]} is no longer among the cases to decide on."
    show(commands, corrections=doubtful(NAMES))
    ui.waitingCombo.setCurrentIndex(0)
    assert ui.waitingMessageLabel.isHidden()
    ui.withdrawButton.click()
    assert commands.open[-1].arguments[2] == f"--withdraw={NAMES[0]}"


def test_the_picture_of_a_case_is_not_read_while_nobody_knows_whether_the_drive_answers(commands, site, monkeypatch):
    """A drive that is gone holds up who reads from it; what is shown stays, and is read again once it answers."""
    ui, read, pixmap = commands.panel.ui, [], qt.QPixmap
    verdicts = site / "corrections" / "verdicts"
    verdicts.mkdir(parents=True)
    for name in NAMES:
        sites.writePicture(verdicts / f"{name}.png")
    monkeypatch.setattr(qt, "QPixmap", lambda *path: read.extend(path) or pixmap(*path))
    commands.reply("status", answer(corrections=doubtful(NAMES)))
    assert read == [str(verdicts / f"{NAMES[0]}.png")]
    ui.lookButton.click()
    commands.panel.watch.onChange[0]()
    commands.fail("status", "the site cannot be read; connect it")
    assert len(read) == 1 and not ui.waitingPicture.isHidden()
    ui.waitingCombo.setCurrentIndex(1)
    assert len(read) == 1 and ui.waitingPicture.isHidden()
    ui.lookButton.click()
    commands.reply("status", answer(corrections=doubtful(NAMES)))
    assert read[1:] == [str(verdicts / f"{NAMES[1]}.png")] and not ui.waitingPicture.isHidden()


def test_start_asks_for_what_is_chosen_and_the_run_is_followed_in_its_files(commands, site, pump):
    ui = show(commands)
    ui.wayCombo.setCurrentIndex(1)
    ui.stepsBox.setValue(200)
    ui.startButton.click()
    assert commands.open[-1].arguments == [
        *("improve", str(site), "--way=retrain", "--steps=200", "--detach", "--json")
    ]
    assert not ui.startButton.isEnabled()
    assert ui.improveReasonLabel.text == "The training is being started..."
    run = sites.addRun(site, "retrain-0001", steps=200, updated=time.time() - 5)
    commands.reply("improve", {"run": "retrain-0001", "folder": str(run)})
    commands.reply("status", answer(statusOf(run)))
    assert "retrain-0001 is training, step 0 of 200" in ui.improveLabel.text
    assert not ui.startButton.isEnabled()
    assert "in progress" in ui.startButton.toolTip
    asked = len(commands.all)
    sites.addToLog(run, *sites.course(40))
    sites.addRun(site, "retrain-0001", step=40, steps=200, seconds_left=7300, text="Training on 5 cases.")
    pump(lambda: "step 40 of 200, about 2 h 2 min of training left" in ui.improveLabel.text)
    assert (ui.improveBar.value, ui.improveBar.maximum) == (40, 200)
    assert ui.curveTextLabel.text.startswith("Loss 0.418 at step 40. Dice of the validation cases at step 40: WT 0.767")
    assert not ui.curveLabel.pixmap.isNull()
    assert len(commands.all) == asked  # no process was needed for that
    sites.addRun(site, "retrain-0001", state="done", step=200, steps=200, text="A candidate is ready.")
    pump(lambda: len(commands.all) > asked)
    commands.reply("status", answer({**statusOf(run), "alive": False}))
    assert "retrain-0001 is done." in ui.improveLabel.text
    assert ui.startButton.isEnabled()


def test_a_run_is_found_again_by_its_status_when_the_panel_opens(commands, site):
    run = sites.addRun(site, "finetune-0003", step=30)
    sites.addToLog(run, *sites.course(30))
    older = {**statusOf(run), "run": "finetune-0002", "state": "done", "alive": False}
    ui = show(commands, older, statusOf(run))
    assert "finetune-0003 is training" in ui.improveLabel.text
    assert "Loss" in ui.curveTextLabel.text
    assert (ui.stepsBox.value, ui.wayCombo.currentIndex) == (100, 0)  # its own, not those of the next one
    assert ui.stopButton.isEnabled()
    ui.stopButton.click()
    assert commands.open[-1].arguments == ["improve", str(site), "--stop=finetune-0003", "--json"]
    assert ui.improveReasonLabel.text == "Asking the training to stop..."
    commands.reply("improve", {"run": "finetune-0003"})
    commands.reply("status", answer(older, statusOf(run)))
    assert "saves its state" in ui.improveReasonLabel.text and not ui.stopButton.isEnabled()
    sites.addRun(site, "finetune-0003", step=31, state="stopped")
    show(commands, {**statusOf(run), "alive": False}, older)
    assert ui.stepsBox.value == 0 and ui.resumeButton.isEnabled()


@pytest.mark.parametrize("state", ["stopped", "failed", "lost"])
def test_what_was_broken_off_can_be_resumed(commands, site, state):
    run = sites.addRun(site, "finetune-0001", state=state, step=30, text="because")
    ui = show(commands, {**statusOf(run), "alive": False})
    lines = {
        "stopped": ["finetune-0001 was stopped, step 30 of 100.", "It can be resumed."],
        "failed": ["finetune-0001 failed, step 30 of 100.", "because"],
        "lost": ["finetune-0001 ended unexpectedly, step 30 of 100.", "It can be resumed."],
    }
    assert ui.improveLabel.text.splitlines() == lines[state]
    assert ui.startButton.isEnabled() and not ui.stopButton.isEnabled()
    ui.resumeButton.click()
    assert commands.open[-1].arguments == ["improve", str(site), "--run=finetune-0001", "--detach", "--json"]
    commands.fail("improve", "the disk is full; make room")
    commands.reply("status", answer({**statusOf(run), "alive": False}))
    assert ui.improveReasonLabel.text == "the disk is full; make room"
    assert ui.resumeButton.isEnabled()


def test_a_run_without_a_word_is_asked_after(commands, site, pump, monkeypatch):
    run = sites.addRun(site, "finetune-0001", updated=time.time() - 100)
    ui = show(commands, statusOf(run))
    pump(lambda: any(not command.isDone for command in commands.all))
    lost = {**statusOf(run), "state": "lost", "alive": False, "text": "was ended from outside; resume it"}
    commands.reply("status", answer(lost))
    assert "It can be resumed." in ui.improveLabel.text
    assert ui.resumeButton.isEnabled()


def test_a_share_that_is_gone_is_said_and_found_again(commands, site, pump):
    run = sites.addRun(site, "finetune-0001", step=5)
    ui = show(commands, statusOf(run))
    ui.lookButton.click()
    commands.fail("status", "the site cannot be read; connect it")
    assert "cannot be read; connect it" in ui.improveReasonLabel.text
    assert not ui.stopButton.isEnabled() or ui.improveReasonLabel.text
    ui.lookButton.click()
    commands.reply("status", {"schema": 2})
    assert "unknown format" in ui.improveReasonLabel.text
    ui = show(commands, statusOf(run))
    assert ui.improveReasonLabel.text == ""
    assert ui.stopButton.isEnabled()


def test_an_engine_that_never_answers_is_given_up(commands, site, monkeypatch):
    from SegMambaSlicerLib.learning import watch

    panel = commands.panel
    assert panel.watch.isLooking
    end = time.monotonic() + watch.ANSWER_SECONDS + 1
    monkeypatch.setattr(watch.time, "monotonic", lambda: end)
    panel.watch.tick()
    assert commands.all[-1].isCancelled
    assert "No answer in 60 s." in panel.ui.improveReasonLabel.text
    assert panel.ui.lookButton.isEnabled()


def test_another_folder_forgets_what_was_known(commands, site, tmp_path, pump):
    ui = show(commands, statusOf(sites.addRun(site, "finetune-0001")))
    other = tmp_path / "other"
    other.mkdir()
    qt.QSettings().setValue("SegMamba/Site", str(other))
    ui.lookButton.click()
    assert ui.casesLabel.text == "Looking..."
    assert not ui.improveLabel.text or ui.improveLabel.isHidden()
    assert commands.open[-1].arguments == ["status", str(other), "--json"]


def test_strange_answers_break_nothing(commands, site):
    runs = [{"run": None, "state": 3}, "no dict", {"run": "x y", "state": "training", "step": "many", "steps": None}]
    for corrections in ({}, {"rows": [None, {"status": "refused", "findings": "x"}]}, None):
        for models in ({}, {"states": [], "history": 3, "champion": 4}, None):
            commands.panel.ui.lookButton.click()
            commands.reply("status", {"schema": 1, "corrections": corrections, "models": models, "runs": runs})


def test_closing_the_scene_and_releasing_the_panel_leave_the_run_alone(commands, site, module, pump):
    run = sites.addRun(site, "finetune-0001", step=5)
    ui = show(commands, statusOf(run))
    slicer.mrmlScene.Clear(0)
    assert "finetune-0001 is training" in ui.improveLabel.text
    module.widget.panel.release()
    assert not module.widget.panel.watch._timer.isActive()
    assert not (run / "stop").exists()


# --- the picture


def test_the_curve_is_drawn_where_its_values_are(app):
    """Dark for the loss, blue for WT; a falling loss is lower on the right than on the left."""
    curve = Curve.of(sites.course(100))
    image = drawCurve(curve, 420, 100).toImage()
    assert (image.width(), image.height()) == (420, HEIGHT)

    def rows(column, wanted):
        return [y for y in range(HEIGHT) if image.pixelColor(column, y).name() == wanted]

    assert min(rows(90, "#303030")) < min(rows(400, "#303030"))  # the loss falls
    blue = [[y for x in (c, c + 1, c + 2) for y in rows(x, "#0072b2") if y > HEIGHT // 2] for c in (130, 400)]
    assert min(blue[0]) > min(blue[1])  # Dice rises
    assert curveText(curve).endswith("WT 0.833, TC 0.733, ET 0.633.")


def test_a_curve_of_nothing_or_of_one_point_can_be_drawn(app):
    for curve in (Curve(), Curve([(0, 0.0)], {"WT": []}), Curve([(5, 3.2)], {"WT": [(5, 0.0)], "other": [(5, 1.0)]})):
        assert not drawCurve(curve, 10).isNull()
    assert curveText(Curve()) == ""
