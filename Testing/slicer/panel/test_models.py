"""Models: the one in use, candidates with their evidence, decisions, and the model of the next segmentation."""

import json
import time
from pathlib import Path

import fake_commands
import pytest
import qt
import sites
import slicer
from SegMambaSlicerLib.learning import verdicts
from SegMambaSlicerLib.learning.verdicts import Evidence, plainName, rowsOf
from SegMambaSlicerLib.panel import models as section

CHAMPION, OLD, NEW = "quick-2-aaaaaaaaaaaa", "quick-1-bbbbbbbbbbbb", "quick-2-tuned-cccccccccccc"
COUNTS = {"sent": 1, "train": 1, "validation": 0, "refused": 0, "waiting": 0, "replaced": 0, "new": 0, "rows": []}


def answer(site, champion=CHAMPION, **changes):
    models = {
        "champion": champion,
        "folder": str(site / "models" / "models" / champion) if champion else None,
        "id": "quick-2" if champion else None,
        "parents": ["quick-1"],
        "previous": OLD if champion else None,
        "states": {OLD: "retired", CHAMPION: "champion", NEW: "candidate"} if champion else {},
        "history": [
            {"what": "start", "model": OLD, "time": 1700000000, "reason": "the first model"},
            {"what": "adopt", "model": CHAMPION, "time": 1700100000, "reason": "better for <b>meningioma</b>"},
            {"what": "add", "model": NEW, "time": 1700200000, "reason": ""},
        ],
        **changes,
    }
    return {"schema": 1, "corrections": COUNTS, "models": models, "runs": []}


def register(site, champion):
    """What the panel itself reads of the registry."""
    (site / "models").mkdir(exist_ok=True)
    (site / "models" / "registry.json").write_text(json.dumps({"schema": 1, "champion": champion}))


def judge(site, verdict, name=NEW, pictures=(), **changes) -> Path:
    folder = site / "models" / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    report = sites.gateReport(verdict, **changes)
    (folder / "gate.json").write_text(json.dumps(report))
    for case in pictures:
        sites.writePicture(folder / f"gate-{case}.png")
    return folder


def cells(table):
    items = [[table.item(row, column) for column in range(table.columnCount)] for row in range(table.rowCount)]
    return [[item.text() for item in row if item is not None] for row in items]


def show(commands, site, *arguments, **changes):
    """Opens the section anew, and gives the engine's answer."""
    ui = commands.panel.ui
    ui.modelsSection.setProperty("collapsed", True)
    ui.modelsSection.setProperty("collapsed", False)
    commands.reply("status", answer(site, *arguments, **changes))
    return ui


def test_the_model_in_use_is_named_with_what_it_was_made_from(commands, site):
    ui = show(commands, site)
    day = time.strftime("%Y-%m-%d", time.localtime(1700100000))
    assert ui.inUseLabel.text == f"In use since {day}: quick-2.\nIt was fine-tuned from quick-1."
    assert ui.inUseLabel.toolTip == CHAMPION
    assert ui.backButton.text == "Go back to quick-1"
    assert ui.historyText.toPlainText().splitlines()[-1].endswith(f"first model  {plainName(OLD)}")
    assert ui.historyText.toPlainText().splitlines()[0].endswith(f"candidate  {plainName(NEW)}")
    assert "better for <b>meningioma</b>" in ui.historyText.toPlainText()
    ui = show(commands, site, None)
    assert "No model of this site is in use yet" in ui.inUseLabel.text
    for button in (ui.backButton, ui.promoteButton, ui.refuseButton, ui.adoptButton):
        assert not button.isEnabled() and button.toolTip


def test_a_candidate_is_shown_with_its_evidence(commands, site):
    judge(site, "promote", pictures=("case-03", "case-07"))
    ui = show(commands, site)
    assert ui.candidateCombo.currentText == f"{plainName(NEW)} (candidate)"
    assert "better than the model in use" in ui.verdictLabel.text
    assert "Low evidence: 12 anchor cases" in ui.verdictLabel.text
    rows = cells(ui.comparisonTable)
    assert [row[0] for row in rows] == [
        *("Anchor set: anchor, 12 cases", "WT", "TC", "ET", "Own cases: local, 4 cases", "WT", "TC", "ET")
    ]
    before, after = sites.scores(12, 0.85, 0), sites.scores(12, 0.88, 1)
    dice = [[case["dice"]["WT"] for case in model.values()] for model in (before, after)]
    means = [sum(values) / 12 for values in dice]
    assert rows[1][1] == f"{means[0]:.3f}\n\u2192 {means[1]:.3f}"
    assert rows[1][2].splitlines()[0] == f"{means[1] - means[0]:+.3f}"
    name = max(before, key=lambda case: before[case]["dice"]["WT"] - after[case]["dice"]["WT"])
    assert rows[1][4].splitlines()[0] == name
    assert ui.promoteButton.isEnabled()
    assert not ui.gatePicture.pixmap.isNull()
    assert ui.pictureLabel.text.startswith("Case case-03 (1 of 2)")
    assert not ui.previousPictureButton.isEnabled()
    ui.nextPictureButton.click()
    assert ui.pictureLabel.text.startswith("Case case-07 (2 of 2)")
    assert not ui.nextPictureButton.isEnabled()
    ui.previousPictureButton.click()
    assert ui.pictureLabel.text.startswith("Case case-03")


def test_what_to_look_at_first_is_named_and_comes_first(commands, site):
    """Then the site's own case, then the others by name. Looks beyond three are pictures alone."""
    looks = [("local", "patient-9", "Dice ET 0.900 -> 0.700"), ("anchor", "case-07", "2 false spot(s) of WT more")]
    looks += [("anchor", name, "Dice TC 0.8 -> 0.7") for name in ("case-05", "case-06")]
    look_first = [{"part": part, "case": case, "text": text} for part, case, text in looks]
    local = {"dataset": "local", "cases": {"patient-9": "0", "patient-1": "0"}, "comparison": {}}
    drawn = ("case-01", "case-06", "case-07", "patient-1", "patient-9")
    judge(site, "confirm", pictures=drawn, look_first=look_first, local=local)
    ui = show(commands, site)
    line = "Look first at patient-9 (Dice ET 0.900 -> 0.700); case-07 (2 false spot(s) of WT more); "
    assert ui.verdictLabel.text.splitlines()[1] == line + "case-05 (Dice TC 0.8 -> 0.7)."
    labels = [ui.pictureLabel.text]
    while ui.nextPictureButton.isEnabled():
        ui.nextPictureButton.click()
        labels.append(ui.pictureLabel.text)
    names = (
        "Own corrected case patient-9",
        "Case case-07",
        "Case case-06",
        "Own corrected case patient-1",
        "Case case-01",
    )
    assert [label.partition(" (")[0] for label in labels] == list(names)
    ending = "of 5): truth, model in use, candidate"
    assert all(label.endswith(ending) for label in labels)


@pytest.mark.parametrize(
    ("verdict", "changes", "says"),
    [
        ("confirm", {}, "asks a person to decide"),
        ("refuse", {}, "refuses it"),
        ("promote", {"champion": {"id": "quick-9"}}, "quick-9, which is no longer in use"),
        ("", {}, "not judged it yet"),
    ],
)
def test_only_a_good_verdict_about_the_model_in_use_promotes(commands, site, verdict, changes, says):
    folder = judge(site, verdict or "promote")
    if changes:
        report = json.loads((folder / "gate.json").read_text())
        (folder / "gate.json").write_text(json.dumps({**report, **changes}))
    if not verdict:
        (folder / "gate.json").unlink()
    ui = show(commands, site)
    assert not ui.promoteButton.isEnabled()
    assert says in ui.promoteButton.toolTip
    if verdict == "refuse":
        assert ui.criteriaLabel.text.splitlines()[0].startswith("NOT MET: local Dice")
    assert not ui.adoptButton.isEnabled()
    assert "reason" in ui.adoptButton.toolTip
    ui.modelReasonEdit.setText("  ")
    assert not ui.adoptButton.isEnabled()
    ui.modelReasonEdit.setText("it is better for our scanner")
    assert ui.adoptButton.isEnabled() and ui.refuseButton.isEnabled()


def test_decisions_are_the_engines(commands, site):
    judge(site, "promote")
    ui = show(commands, site)
    models = str(site / "models")
    ui.modelReasonEdit.setText("our scanner")
    for button, arguments, done in (
        (ui.promoteButton, ["promote", NEW], f"{plainName(NEW)} is in use now."),
        (ui.adoptButton, ["adopt", NEW, "--reason=our scanner"], f"{plainName(NEW)} is in use now."),
        (ui.refuseButton, ["refuse", NEW, "--reason=our scanner"], f"{plainName(NEW)} is refused."),
        (ui.backButton, ["rollback"], f"Back to {plainName(OLD)}."),
    ):
        ui.modelReasonEdit.setText("our scanner")
        button.click()
        assert commands.open[-1].arguments == ["models", models, *arguments, "--json"]
        assert not button.isEnabled()
        assert "being changed" in button.toolTip
        commands.reply("models", {"name": OLD, "in_use": OLD})
        commands.reply("status", answer(site))
        assert ui.modelsMessageLabel.text == done
        assert ui.modelReasonEdit.text == ""
    ui.promoteButton.click()
    commands.fail("models", "gate.json is about another model in use; run the gate again")
    commands.reply("status", answer(site))
    assert "run the gate again" in ui.modelsMessageLabel.text


def test_what_the_gate_found_worse_is_adopted_only_by_who_says_so_twice(commands, site, monkeypatch):
    judge(site, "refuse")
    ui = show(commands, site)
    ui.modelReasonEdit.setText("our scanner")
    asked, answers = [], [False, True]

    def confirm(text, **options):
        asked.append(text)
        return answers.pop(0)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    before = len(commands.open)
    ui.adoptButton.click()
    assert asked[0].startswith(f"The gate found {plainName(NEW)} worse than the model in use.")
    assert len(commands.open) == before and ui.modelReasonEdit.text == "our scanner"
    ui.adoptButton.click()
    words = ["adopt", NEW, "--reason=our scanner", "--against-the-gate", "--json"]
    assert commands.open[-1].arguments == ["models", str(site / "models"), *words]


def test_a_verdict_about_an_earlier_model_names_it(commands, site, monkeypatch):
    folder = judge(site, "refuse")
    report = json.loads((folder / "gate.json").read_text())
    (folder / "gate.json").write_text(json.dumps({**report, "champion": {"id": "quick-9"}}))
    ui = show(commands, site)
    lines = ui.verdictLabel.text.splitlines()
    assert lines[0] == "The gate: worse than quick-9. A criterion is not met."
    assert lines[1] == "It was compared with quick-9, which is no longer in use."
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **options: asked.append(text))
    ui.modelReasonEdit.setText("our scanner")
    ui.adoptButton.click()
    assert "worse than quick-9." in asked[0]


def test_a_report_that_could_not_be_read_is_read_again_before_adopting(commands, site, monkeypatch):
    folder = judge(site, "refuse")
    whole = (folder / "gate.json").read_text()
    (folder / "gate.json").write_text(whole[:40])
    ui = show(commands, site)
    assert ui.verdictLabel.text == ui.promoteButton.toolTip == "The gate's report cannot be read."
    (folder / "gate.json").write_text(whole)
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **options: asked.append(text))
    ui.modelReasonEdit.setText("our scanner")
    ui.adoptButton.click()
    assert len(asked) == 1 and "worse than the model in use" in ui.verdictLabel.text


def test_evidence_is_not_read_while_nobody_knows_whether_the_drive_answers(commands, site, monkeypatch):
    """Slicer would stand still meanwhile; what is shown stays, and what was not read is not said to be missing."""
    judge(site, "promote", pictures=["c1"])
    judge(site, "refuse", OLD)
    ui, read = show(commands, site), []
    monkeypatch.setattr(section, "readReport", lambda folder: read.append(folder) or verdicts.readReport(folder))
    shown = ui.verdictLabel.text
    assert "better than the model in use" in shown
    for end in (commands.fail, commands.reply):
        ui.modelsSection.setProperty("collapsed", True)
        ui.modelsSection.setProperty("collapsed", False)
        assert read == [] and ui.verdictLabel.text == shown and not ui.gatePicture.isHidden()
        if end == commands.fail:
            end("status", "the site cannot be read; connect it")
            assert read == [] and ui.verdictLabel.text == shown
    ui.candidateCombo.setCurrentIndex(1)
    assert not any(read) and ui.verdictLabel.text == "The gate's report cannot be read."
    commands.reply("status", answer(site))
    assert read[-1].name == OLD and "worse than the model in use" in ui.verdictLabel.text


def test_a_new_candidate_is_shown_and_a_choice_is_kept(commands, site):
    ui = show(commands, site)
    ui.candidateCombo.setCurrentIndex(1)
    assert ui.candidateCombo.currentText == f"{plainName(OLD)} (was in use)"
    ui = show(commands, site)
    assert ui.candidateCombo.currentText == f"{plainName(OLD)} (was in use)"
    states = {OLD: "retired", CHAMPION: "champion", NEW: "refused", "third-1": "candidate"}
    ui = show(commands, site, states=states)
    assert ui.candidateCombo.currentText == "third-1 (candidate)"
    assert [ui.candidateCombo.itemData(i) for i in range(ui.candidateCombo.count)] == ["third-1", NEW, OLD]


def test_a_reason_holds_for_the_model_it_was_typed_for(commands, site):
    ui = show(commands, site)
    ui.modelReasonEdit.setText("our scanner")
    assert show(commands, site).modelReasonEdit.text == "our scanner"
    ui = show(commands, site, states={NEW: "refused", CHAMPION: "champion", "third-1": "candidate"})
    assert ui.modelReasonEdit.text == "" and not ui.adoptButton.isEnabled()
    ui.modelReasonEdit.setText("our scanner")
    ui.candidateCombo.setCurrentIndex(1)
    assert ui.modelReasonEdit.text == "" and not ui.refuseButton.isEnabled()


def test_broken_evidence_breaks_nothing(commands, site):
    folder = judge(site, "promote", pictures=["case-01"])
    (folder / "gate-case-01.png").write_bytes(b"no picture")
    ui = show(commands, site)
    assert "cannot be shown" in ui.pictureLabel.text
    for text in ("{", "[]", "{}", '{"verdict": 3, "checks": "x", "anchor": {"comparison": {"dice": {"WT": {}}}}}'):
        (folder / "gate.json").write_text(text)
        ui = show(commands, site)
        assert not ui.promoteButton.isEnabled()
    report = {"anchor": {"comparison": {"dice": {"WT": {"a": "x", "ci95": None, "worst": [3]}}}}, "low_evidence": 3}
    report |= {"look_first": [3, {"case": None}], "local": {"cases": 3}}
    assert rowsOf(report)[1] == ("WT", "?\n\u2192 ?", "?", "\u2013", "\u2013")
    assert Evidence(report).verdictText.startswith("Not compared with")


# --- the next segmentation


@pytest.fixture
def ready(choose, module, volumes, site, pump, monkeypatch):
    """The panel on four volumes with a fake worker, and what model the worker was asked for."""
    choose("well")
    panel = module.widget.panel
    asked = fake_commands.Commands(panel.session, monkeypatch)
    models, segment = [], panel.logic.segment
    monkeypatch.setattr(
        panel.logic, "segment", lambda *args, **keys: (models.append(keys["model"]), segment(*args, **keys))[1]
    )
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled() and panel.session.machine)
    panel.asked, panel.models_ = asked, models
    return panel


def titles(combo):
    return [combo.itemText(index) for index in range(combo.count)]


def segmentOnce(panel, pump):
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    return panel.models_[-1] if panel.models_ else None


def test_the_next_segmentation_uses_what_is_in_use_at_that_moment(ready, site, pump):
    combo = ready.ui.modelCombo
    assert titles(combo) == ["In use here: not known yet", "Quick model"]
    register(site, CHAMPION)
    ready.asked.reply("status", answer(site))
    assert titles(combo) == [f"In use here: {plainName(CHAMPION)}", "Quick model"]
    assert combo.currentIndex == 0
    assert segmentOnce(ready, pump) == str(site / "models" / "models" / CHAMPION)
    assert ready.ui.qualityCombo.itemText(0) == "Fast (about 12 s)"
    register(site, NEW)  # somebody else has promoted it: the panel has not heard of that yet
    assert segmentOnce(ready, pump) == str(site / "models" / "models" / NEW)
    ready.watch.refresh()
    ready.asked.reply("status", answer(site, NEW))
    assert titles(combo)[0] == f"In use here: {plainName(NEW)}"
    combo.setCurrentIndex(1)
    assert segmentOnce(ready, pump) == "quick"
    assert ready.parameters.get("Model") == "quick"


def test_a_damaged_model_in_use_gives_way_to_the_one_that_the_engine_says(ready, site, pump):
    register(site, CHAMPION)
    ready.asked.reply("status", answer(site, folder=str(site / "models" / "models" / OLD)))
    assert segmentOnce(ready, pump) == str(site / "models" / "models" / OLD)


def test_a_site_out_of_reach_is_not_replaced_by_another_model(ready, site, pump):
    ready.asked.fail("status", "the site cannot be read")
    site.rmdir()
    ready.ui.applyButton.click()
    assert "cannot be reached" in ready.ui.progressLabel.text
    assert ready.models_ == []
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    ready.ui.modelCombo.setCurrentIndex(1)
    assert segmentOnce(ready, pump) == "quick"


def test_a_site_that_does_not_answer_is_not_read_whenever_the_volumes_change(ready, site, pump, monkeypatch):
    """Slicer would stand still for as long as the network drive takes to say that it is gone."""
    read = []
    monkeypatch.setattr(type(ready.watch.site), "championFolder", lambda self: read.append(self))
    ready.asked.fail("status", "no answer")
    for missing in (ready.ui.t2wSelector, ready.ui.t1nSelector):
        missing.setCurrentNode(None)
        pump(lambda: not ready._checkTimer.isActive())
        ready.watch.refresh()  # as where the module is opened: nothing is known of the drive yet
    assert read == [] and ready.running.isWaitingForSite
    ready.asked.reply("status", answer(site))  # it is back
    pump(lambda: read)
    assert not ready.running.isWaitingForSite


def test_a_site_without_a_model_leaves_the_choice_to_the_shipped_ones(ready, site):
    ready.asked.reply("status", answer(site, None))
    assert titles(ready.ui.modelCombo) == ["Quick model"]


def test_a_scene_saved_with_the_sites_model_opens_where_there_is_no_site(ready, site, pump):
    register(site, CHAMPION)
    ready.asked.reply("status", answer(site))
    ready.parameters.set("Model", "site")
    qt.QSettings().setValue("SegMamba/Site", "")
    ready.watch.refresh()
    assert titles(ready.ui.modelCombo) == ["Quick model"]
    assert segmentOnce(ready, pump) == "quick"
