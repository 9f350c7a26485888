"""The whole loop with the real engine: segment, correct, add, train, judge, take the new model, segment, go back.

Nobody touches a file: everything goes through the panel. Only the old cases of the site are fewer than usual, and
smaller: the gate segments each of them several times.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
from editor import Editor
from SegMambaSlicerLib.learning.verdicts import plainName
from SegMambaSlicerLib.results.segments import labelArray

PATIENCE = 900  # seconds; a busy machine is slow
STEPS = 4
QUICK = Path(__file__).resolve().parents[3] / "Resources" / "models" / "quick"


@pytest.fixture
def site(tmp_path):
    """A site with an old case to replay and two to judge by, of its own; corrections, models and runs come later."""
    pytest.importorskip("nilearn", reason="needs nilearn for the cases")
    from segmamba.datasets.collect import init_dataset
    from segmamba.datasets.phantom import make_phantom, save_phantom

    folder = tmp_path / "the site"
    for name, seeds in (("replay", (11,)), ("anchor", (600_001, 600_002))):
        for seed in seeds:
            case = tmp_path / f"{name} cases" / f"phantom-{seed:04d}"
            case.mkdir(parents=True)
            save_phantom(aroundTumor(make_phantom(seed, spacing=(4, 4, 4))), case, case.name)
        init_dataset(case.parent, output=folder / name, convention="brats2023")
    return folder


def aroundTumor(phantom):
    """The phantom without the brain that is more than 20 mm from the tumor's box: the engine crops what is 0."""
    inside = np.zeros(phantom.label_map.shape, bool)
    places = np.argwhere(phantom.label_map)
    inside[tuple(slice(max(0, a - 5), b + 6) for a, b in zip(places.min(0), places.max(0)))] = True
    return replace(phantom, images={name: image * inside for name, image in phantom.images.items()})


@pytest.fixture
def panel(app, site):
    """The panel as a clinician of that site has it."""
    import standin_app

    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    qt.QSettings().setValue("SegMamba/Site", str(site))
    loaded = standin_app.loadModule()
    yield loaded.widget.panel
    loaded.widget.cleanup()
    loaded.frame.close()
    loaded.frame.deleteLater()


def test_from_a_correction_to_a_new_model_and_back(panel, pump, site, sampleTruth, monkeypatch):
    ui = panel.ui
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *args, **options: True)  # the consent

    def segment():
        pump(lambda: ui.applyButton.isEnabled(), PATIENCE)
        ui.applyButton.click()
        pump(lambda: not panel.session.isBusy(), PATIENCE)
        segmentation = panel.parameters.result("Segmentation")
        assert segmentation is not None, ui.progressLabel.text
        return segmentation

    def settled():
        return not panel.watch.isLooking and panel.watch.doing == ""

    panel.enter()
    pump(lambda: panel.session.machine and ui.sampleButton.isEnabled(), PATIENCE)
    ui.sampleButton.click()
    pump(lambda: not panel.session.isBusy(), PATIENCE)
    first = segment()
    firstLabels = labelArray(first)[0]

    # the clinician corrects: every segment becomes what it truly is
    volume = panel.parameters.volume("t1c")
    truth = sampleTruth(volume)
    editor = Editor(first, volume)
    for value, name in ((1, "NCR"), (2, "ED"), (3, "ET")):
        editor.paint(name, truth == value)
    assert (labelArray(first)[0][truth > 0] == truth[truth > 0]).all()

    # it is checked and added
    pump(lambda: ui.caseCheckButton.isEnabled(), PATIENCE)
    ui.subjectEdit.setText("patient 7")
    ui.caseCheckButton.click()
    pump(lambda: ui.caseSendButton.isEnabled(), PATIENCE)
    ui.caseSendButton.click()
    pump(lambda: "Added as version 1" in ui.caseStateLabel.text, PATIENCE)
    (sent,) = (site / "corrections" / "incoming").iterdir()
    record = json.loads((sent / "case.json").read_text(encoding="utf-8"))
    assert record["changes"]["ED"]["added"] > 0
    assert record["model"]["id"] == json.loads((QUICK / "model.json").read_text(encoding="utf-8"))["id"]

    # a model is trained from it and held against the one in use
    ui.trainingSection.setProperty("collapsed", False)
    ui.modelsSection.setProperty("collapsed", False)
    pump(lambda: settled() and ui.startButton.isEnabled(), PATIENCE)
    ui.stepsBox.setValue(STEPS)
    ui.startButton.click()
    pump(lambda: panel.watch.run and panel.watch.run["state"] in ("done", "failed", "lost"), PATIENCE)
    assert panel.watch.run["state"] == "done", panel.watch.run["text"]
    pump(lambda: settled() and ui.candidateCombo.count == 1, PATIENCE)
    candidate = panel.models.candidate
    assert ui.comparisonTable.rowCount > 3
    assert ui.verdictLabel.text
    gate = site / "models" / "models" / candidate / "gate.json"
    assert len(json.loads(gate.read_text(encoding="utf-8"))["anchor"]["cases"]) == 2

    # it is taken: by the gate's word, or against it with a reason
    before = ui.inUseLabel.text.splitlines()[0]
    if ui.promoteButton.isEnabled():
        ui.promoteButton.click()
    else:
        ui.modelReasonEdit.setText("a trial of four steps")
        ui.adoptButton.click()
    pump(lambda: settled() and ui.inUseLabel.toolTip == candidate, PATIENCE)

    # the next segmentation is made with it
    assert ui.modelCombo.itemText(0) == f"In use here: {plainName(candidate)}"
    ui.modelCombo.setCurrentIndex(0)
    second = segment()
    assert Path(panel.running.model()).name == candidate
    secondLabels = labelArray(second)[0]
    assert not np.array_equal(secondLabels, firstLabels)

    # and one click goes back
    ui.backButton.click()
    pump(lambda: settled() and ui.inUseLabel.text.splitlines()[0] == before, PATIENCE)
    third = segment()
    assert np.array_equal(labelArray(third)[0], firstLabels)
