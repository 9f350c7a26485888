"""What the loop has brought and what to correct next: the curve of a site over its runs, and the order of results."""

import fake_commands
import pytest
import qt
import slicer
import synth
from SegMambaSlicerLib.learning.course import coursePoints, courseText, judgedRuns, refusedPoints
from SegMambaSlicerLib.learning.nextcase import casesToCorrect, nextCaseText
from SegMambaSlicerLib.panel.curve import drawCourse
from SegMambaSlicerLib.results import history, succession
from SegMambaSlicerLib.results.segments import createSegmentation

DAY = 1700000000  # 2023-11-14
RUNS = [  # as `segmamba status` says them, the newest first
    {"run": "finetune-0003", "state": "training", "started": DAY + 2 * 86400, "verdict": None, "own": None},
    {
        "run": "finetune-0002",
        "state": "done",
        "started": DAY + 86400,
        "verdict": "refuse",
        "own": {"cases": 3, "dice": {"WT": [0.85, 0.6], "TC": [0.7, 0.5]}},
    },
    {
        "run": "finetune-0001",
        "state": "done",
        "started": DAY,
        "verdict": "promote",
        "own": {"cases": 2, "dice": {"WT": [0.75, 0.85], "TC": [0.5, 0.7]}},
    },
]


def test_each_run_has_its_line_and_its_point():
    judged = judgedRuns(RUNS)
    assert courseText(judged).splitlines() == [
        "2023-11-15  finetune-0002: WT 0.850 \u2192 0.600, TC 0.700 \u2192 0.500 on 3 own cases; worse",
        "2023-11-14  finetune-0001: WT 0.750 \u2192 0.850, TC 0.500 \u2192 0.700 on 2 own cases; better",
    ]
    assert coursePoints(judged) == {"WT": [(0, 0.75), (1, 0.85)], "TC": [(0, 0.5), (1, 0.7)]}
    assert refusedPoints(judged) == {"WT": [(2, 0.6)], "TC": [(2, 0.5)]}


@pytest.mark.parametrize("own", [None, 3, {}, {"dice": []}, {"dice": {"WT": [1]}}, {"dice": {"WT": ["x", None]}}])
def test_what_cannot_be_read_is_left_out(own):
    assert judgedRuns([{"run": "r", "own": own}]) == [] and courseText([]) == ""


def test_the_curve_is_shown_with_the_models(app, module, tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    qt.QSettings().setValue("SegMamba/Site", str(folder))
    commands = fake_commands.Commands(module.widget.panel.session, monkeypatch)
    ui = module.widget.panel.ui
    models = {"champion": None, "states": {}, "history": []}
    counts = dict.fromkeys(("sent", "train", "validation", "refused", "waiting", "replaced", "new"), 0)
    found = {"schema": 1, "corrections": {**counts, "rows": []}, "models": models, "runs": []}
    ui.modelsSection.setProperty("collapsed", False)
    commands.reply("status", found)
    assert ui.courseText.toPlainText() == "" and not ui.courseText.isVisibleTo(ui.modelsSection)
    done = [run for run in RUNS if run["state"] == "done"]
    ui.modelsSection.setProperty("collapsed", True)
    ui.modelsSection.setProperty("collapsed", False)
    commands.reply("status", {**found, "runs": done})
    assert ui.courseText.toPlainText() == courseText(judgedRuns(RUNS))
    assert not ui.courseLabel.pixmap.isNull() and ui.courseLabel.isVisibleTo(ui.modelsSection)


def test_a_curve_goes_through_its_points(app):
    """Dice 0.5 to 1.0 over two runs, on a scale from 0.4: the field lies between the pixels 16 and 100."""
    image = drawCourse({"WT": [(0, 0.5), (2, 1.0)]}, 400).toImage()
    blue = qt.QColor("#0072b2").rgb()
    assert image.pixel(46, round(16 + 84 * (1 - 0.1 / 0.6))) == blue and image.pixel(389, 16) == blue
    assert image.pixel(46, 50) != blue


def test_what_was_refused_is_a_hollow_point_beside_the_curve(app):
    """Dice 0.5 of the second run on the same scale, at the right end; the line ends at the first run."""
    image = drawCourse({"WT": [(0, 0.5), (1, 1.0)]}, 400, {"WT": [(2, 0.5)]}).toImage()
    y = round(16 + 84 * (1 - 0.1 / 0.6))

    def isInk(x, y):
        return qt.QColor(image.pixel(x, y)).blue() - qt.QColor(image.pixel(x, y)).red() > 60  # smoothed

    assert isInk(218, 16)
    assert not isInk(390, y) and any(isInk(390 - reach, y) for reach in (2, 3, 4))
    assert not any(isInk(304, row) for row in range(10, 101))


@pytest.fixture
def results(app):
    """Three results, unsure of a tenth, a half and a third of the tumor."""
    volumes, made = {name: synth.addVolume(name) for name in ("t1n", "t1c", "t2w", "t2f")}, {}
    for name, share in (("Anna", 0.1), ("Bert", 0.5), ("Cleo", 0.333)):
        node = createSegmentation(synth.labelMap(), volumes["t1c"])
        node.SetName(name)
        history.keepOrigin(node, volumes, {"model": "quick", "unsure": share})
        made[name] = node
    return made


def test_the_least_sure_result_comes_first(results):
    assert [node.GetName() for node, _share in casesToCorrect()] == ["Bert", "Cleo", "Anna"]
    assert nextCaseText().endswith("Bert (50%), Cleo (33%), Anna (10%).")
    results["Bert"].SetAttribute("SegMamba.Sent", "case-v1")  # it was added
    assert nextCaseText().endswith("Cleo (33%), Anna (10%).")
    succession.retire(results["Cleo"], results["Anna"])  # one is left: nothing to choose
    assert nextCaseText() == ""
    assert [node for node, _share in casesToCorrect()] == [results["Anna"]]
    succession.restorePrevious(results["Anna"])
    assert [node for node, _share in casesToCorrect()] == [results["Cleo"]]


def test_what_cannot_be_added_is_not_offered(results):
    """A result of three volumes, or one of whose volumes is gone."""
    other = synth.addVolume("T2 of Cleo")
    results["Cleo"].SetNodeReferenceID(history.VOLUME_ROLE + "t2w", other.GetID())
    results["Bert"].RemoveNodeReferenceIDs(history.VOLUME_ROLE + "t1n")
    assert [node.GetName() for node, _share in casesToCorrect()] == ["Cleo", "Anna"]
    slicer.mrmlScene.RemoveNode(other)
    assert [node.GetName() for node, _share in casesToCorrect()] == ["Anna"]


def test_it_is_said_where_cases_are_added(results, module, pump):
    """Also after one of them was removed, and no longer once the scene is closed."""
    panel = module.widget.panel
    label = panel.ui.nextCaseLabel
    panel.parameters.setResult("Segmentation", results["Anna"])
    pump(lambda: label.text == nextCaseText() != "")
    slicer.mrmlScene.RemoveNode(results["Bert"])
    pump(lambda: label.text.endswith("Cleo (33%), Anna (10%)."))
    slicer.mrmlScene.Clear(0)
    assert label.text == ""
