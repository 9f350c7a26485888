"""The whole way, nothing replaced but the application around it: sample case, click, real worker and model, edit, save.

Screenshots are written where SEGMAMBA_SCREENSHOTS names a folder, for people to look at.
"""

import os
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import qt
import slicer
from editor import Editor
from SegMambaSlicerLib.results import history
from SegMambaSlicerLib.results.masks import segmentArray
from SegMambaSlicerLib.results.segments import labelArray, switchRepresentation
from SegMambaSlicerLib.volumes.checks import REQUIRED as MODALITIES
from SegMambaSlicerLib.volumes.scene import toVolumeGrid

PATIENCE = 500  # seconds; a busy machine is slow


@pytest.fixture
def picture(module):
    """picture(name): what the panel looks like, if anybody wants to see it."""
    folder = os.environ.get("SEGMAMBA_SCREENSHOTS")
    module.frame.resize(480, 860)
    module.frame.show()

    def take(name):
        if folder:
            slicer.app.processEvents()
            Path(folder).mkdir(parents=True, exist_ok=True)
            module.frame.grab().save(str(Path(folder) / f"{name}.png"))

    return take


@pytest.fixture
def real(app, module):
    """The panel with this Python, which has the engine's packages, and the quick model."""
    pytest.importorskip("nilearn", reason="needs nilearn for the sample case")
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    return module.widget.panel


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_from_the_sample_case_to_a_saved_correction(real, module, pump, picture, sampleTruth, tmp_path):
    ui = real.ui
    module.widget.enter()
    pump(lambda: real.session.machine and ui.sampleButton.isEnabled(), PATIENCE)
    picture("panel-empty")

    ui.sampleButton.click()
    pump(lambda: not real.session.isBusy(), PATIENCE)
    pump(lambda: ui.applyButton.isEnabled())
    picture("panel-ready")
    volume = real.parameters.volume("t1c")
    truth = sampleTruth(volume)

    ui.applyButton.click()
    pump(lambda: ui.progressBar.value > 0 or not real.session.isBusy(), PATIENCE)
    picture("panel-running")
    pump(lambda: not real.session.isBusy(), PATIENCE)
    segmentation = real.parameters.result("Segmentation")
    assert segmentation is not None, ui.progressLabel.text
    pump(lambda: ui.volumesTable.rowCount == 5)
    picture("panel-result")
    labels, _notes = labelArray(segmentation)
    assert dice(labels > 0, truth > 0) > 0.7
    assert dice(np.isin(labels, (1, 3)), np.isin(truth, (1, 3))) > 0.5

    # the clinician corrects: a brush stroke of enhancing tumor into the edema
    ijk = np.argwhere(labels == 2)[0]
    stroke = np.zeros(labels.shape, bool)
    stroke[tuple(slice(max(0, x - 1), x + 2) for x in ijk)] = True
    Editor(segmentation, volume).paint("ET", stroke)
    edited = segmentArray(segmentation, "ET")
    assert edited[stroke].all()
    pump(lambda: ui.volumesTable.item(2, 3).text() != "0.00")
    ui.nextPlaceButton.click()
    pump(lambda: ui.placeLabel.text.startswith("Check 1 of "))

    # saved, closed, loaded
    bundle = str(tmp_path / "patient.mrb")
    assert slicer.mrmlScene.WriteToMRB(bundle)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    slicer.mrmlScene.ReadFromMRB(bundle, False)
    pump(lambda: ui.volumesTable.rowCount == 5)
    again = real.parameters.result("Segmentation")
    assert np.array_equal(segmentArray(again, "ET"), edited)
    assert np.array_equal(history.originalLabels(again), labels)
    assert switchRepresentation(again, "regions") == []
    assert (segmentArray(again, "WT") == ((labels > 0) | stroke)).all()

    # and once more, with the worker that is still there, and without T2
    ui.t2wSelector.setCurrentNode(None)
    pump(lambda: "Without T2: on 14 unseen cases" in ui.warningsLabel.text)
    assert ui.applyButton.isEnabled()
    ui.applyButton.click()
    pump(lambda: not real.session.isBusy(), PATIENCE)
    newer = real.parameters.result("Segmentation")
    assert newer is not again, ui.progressLabel.text
    assert "t2w is missing" in ui.logText.toPlainText()
    assert dice(labelArray(newer)[0] > 0, truth > 0) > 0.6
    ui.t1nSelector.setCurrentNode(None)
    ui.t1cSelector.setCurrentNode(None)
    pump(lambda: not ui.applyButton.isEnabled() and "T1c" in ui.stateLabel.text)
    ui.undoButton.click()
    assert real.parameters.result("Segmentation") is again


def test_a_real_case(real, module, pump, brats, picture):
    """One case of BraTS 2021, from its files to segments on its own grid."""
    case = sorted(path for path in brats.iterdir() if path.is_dir())[0]
    for modality in MODALITIES:
        slicer.modules.volumes.logic().AddArchetypeVolume(str(case / f"{modality}.nii.gz"), modality, 4)
    module.widget.enter()
    pump(lambda: real.ui.applyButton.isEnabled(), 60)
    real.ui.applyButton.click()
    pump(lambda: not real.session.isBusy(), PATIENCE)
    segmentation = real.parameters.result("Segmentation")
    assert segmentation is not None, real.ui.progressLabel.text
    picture("panel-real-case")
    truth = nibabel.load(case / "seg.nii.gz")
    array = np.asarray(truth.dataobj).astype(np.uint8)
    whole = toVolumeGrid(array.transpose(2, 1, 0), truth.affine, real.parameters.volume("t1c")) > 0
    assert dice(labelArray(segmentation)[0] > 0, whole) > 0.6
