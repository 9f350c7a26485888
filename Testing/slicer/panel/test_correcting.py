"""The section "Add to training" as a clinician uses it: the worker is a fake, the engine that writes cases is real."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import qt
import slicer
import standin_app
import synth
from editor import Editor
from panels import cells
from SegMambaSlicerLib.results.segments import createSegmentation

PATIENT, NUMBER, BORN = "Zyxgrimm", "PID-4711-0815", "19610504"
DICOM = {"0010,0020": NUMBER, "0008,0060": "MR", "0008,103e": f"{PATIENT} T1 {BORN}", "0020,000d": "1.2.840.113619.2.5"}
UID = "1.2.840.113619.2.5.1762583153"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "training folder"
    folder.mkdir()
    return folder


@pytest.fixture
def ready(panel, module, volumes, pump, site):
    """The panel with a result and a site folder."""
    module.widget.enter()
    pump(lambda: panel.ui.applyButton.isEnabled() and panel.session.machine)
    panel.ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    panel.ui.sitePath.setCurrentPath(str(site))
    return panel


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked; the answer to each is asked.answer."""

    class Questions(list):
        answer = True

    questions = Questions()

    def confirm(text, windowTitle=None, **_others):
        questions.append(text)
        return questions.answer

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    return questions


@pytest.fixture
def press(pump):
    """press(panel, button): clicks and waits for what it sets off."""

    def press_(panel, name):
        button = getattr(panel.ui, name)
        assert button.isEnabled(), button.toolTip
        button.click()
        pump(lambda: not panel.corrections._isBusy, 60)

    return press_


def segmentation(panel):
    return panel.parameters.result("Segmentation")


def paint(panel, segmentId="ET"):
    mask = np.zeros(synth.SHAPE, bool)
    mask[2:4, 3:6, 4:9] = True
    Editor(segmentation(panel), panel.parameters.volume("t1c")).paint(segmentId, mask)


def sendings(site):
    folder = site / "corrections" / "incoming"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def test_without_a_result_or_a_folder_it_says_what_is_missing(panel, module, pump, site):
    ui = panel.ui
    assert not ui.caseCheckButton.isEnabled() and not ui.caseSendButton.isEnabled()
    assert ui.caseSendButton.toolTip == ui.caseReasonLabel.text == "There is no result yet."
    assert not ui.subjectDicomButton.isEnabled()
    volume = synth.addVolume("T1c")
    panel.parameters.setResult("Segmentation", createSegmentation(synth.labelMap(), volume))
    assert "folder" in ui.caseReasonLabel.text
    ui.sitePath.setCurrentPath(str(site))
    assert ui.caseCheckButton.isEnabled()
    assert ui.caseReasonLabel.text == ui.caseSendButton.toolTip == "Check the case first."
    ui.caseCheckButton.click()  # not made from volumes that are known
    assert "not in the scene, or unknown" in ui.caseStateLabel.text
    assert qt.QSettings().value("SegMamba/Site") == str(site)


def test_a_volume_that_is_loaded_again_is_another_one_until_all_are_segmented_again(ready, press, volumes, pump):
    array = slicer.util.arrayFromVolume(volumes["t2w"]).copy()
    slicer.mrmlScene.RemoveNode(volumes["t2w"])
    again = synth.addVolume("AX T2", "oblique-left", array)
    pump(lambda: ready.parameters.volume("t2w") is again and ready.ui.applyButton.isEnabled())
    ready.ui.caseCheckButton.click()
    assert "T2: not in the scene, or unknown" in ready.ui.caseStateLabel.text
    assert "segment the volumes again" in ready.ui.caseStateLabel.text
    ready.ui.applyButton.click()
    pump(lambda: not ready.session.isBusy())
    press(ready, "caseCheckButton")
    assert ready.ui.caseStateLabel.text == "Checked. Nothing has been sent yet."


def test_from_the_check_to_a_second_version(ready, press, asked, site, volumes, temporaryFiles, monkeypatch, pump):
    ui, tags = ready.ui, lambda uid, tag: DICOM.get(tag, "") if uid == UID else ""
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(instanceValue=tags), raising=False)
    for volume in volumes.values():
        volume.SetName(f"{PATIENT} {BORN} {volume.GetName()}")
        volume.SetAttribute("DICOM.instanceUIDs", UID)
        volume.SetAttribute("Patient", f"{PATIENT}^Anna")
    segmentation(ready).SetName(f"{PATIENT} tumor")
    ui.applyButton.click()  # the volumes are from DICOM now
    pump(lambda: not ready.session.isBusy())
    ui.subjectDicomButton.click()
    assert ui.subjectEdit.text == NUMBER
    ui.roleCombo.setCurrentIndex(2)
    before = segmentation(ready)
    paint(ready)
    press(ready, "caseCheckButton")
    rows = {row[0]: row[1:] for row in cells(ui.changesTable)}
    assert [name[-4:-1].strip("(") for name in rows] == ["NCR", "ED", "ET"]
    voxel = abs(np.linalg.det(synth.matrixFor("oblique-left")[:3, :3])) / 1000
    mlBefore, mlNow, added, removed = rows["Enhancing tumor (ET)"]
    assert int(added) > 0 and int(removed) == 0
    assert float(mlNow) - float(mlBefore) == pytest.approx(int(added) * voxel, abs=0.011)
    assert "WT" in ui.diceLabel.text and "ET 0." in ui.diceLabel.text
    assert "Doubtful: " in ui.findingsLabel.text  # the volumes are noise
    assert sendings(site) == [] and asked == []

    press(ready, "caseSendButton")
    assert len(asked) == 1 and str(site) in asked[0] and "skull-stripped" in asked[0]
    assert ui.caseStateLabel.text.startswith("Added as version 1")
    assert "To add this case again" in ui.caseSendButton.toolTip
    assert temporaryFiles() == []

    press(ready, "caseCheckButton")
    assert "Note: this case was sent before; adding it creates version 2" in ui.findingsLabel.text
    asked.answer = False
    ui.caseSendButton.click()
    assert len(asked) == 2 and "sent already as version 1" in asked[1] and "as version 2?" in asked[1]
    assert len(sendings(site)) == 1
    asked.answer = True
    press(ready, "caseSendButton")
    assert ui.caseStateLabel.text.startswith("Added as version 2")
    first, second = sendings(site)
    assert first[:-1] == second[:-1]
    record = json.loads((site / "corrections" / "incoming" / second / "case.json").read_text())
    assert record["role"] == ui.roleCombo.itemData(2) == "neuroradiologist"
    assert record["model"]["id"] == "fake-1"
    assert segmentation(ready) is before

    # nothing of the patient in the folder; the number in neither scene nor settings nor log
    for path in site.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("latin-1")
        for secret in (PATIENT, NUMBER, BORN, UID, "Anna", DICOM["0020,000d"]):
            assert secret.lower() not in (str(path.relative_to(site)) + text).lower(), (path, secret)
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    scene = slicer.mrmlScene.GetSceneXMLString()
    slicer.mrmlScene.SetSaveToXMLString(0)
    settings = "".join(f"{key}={qt.QSettings().value(key)}" for key in qt.QSettings().allKeys())
    assert PATIENT in scene and str(site) in settings
    for text in (scene, settings, ready.ui.logText.toPlainText()):
        assert NUMBER not in text
    assert str(site) not in scene


def test_raw_series_are_prepared_for_the_folder_and_the_panel_says_how(choose, module, scene, pump, asked, site):
    pytest.importorskip("nilearn", reason="the phantom is made of the template inside nilearn")
    choose("well")
    volumes, panel, ui = synth.addSeries(), module.widget.panel, module.widget.panel.ui
    module.widget.enter()
    pump(lambda: ui.applyButton.isEnabled() and panel.session.machine)
    ui.applyButton.click()
    pump(lambda: not panel.session.isBusy())
    ui.sitePath.setCurrentPath(str(site))
    mask = np.zeros((31, 90, 85), bool)
    mask[14:17, 40:50, 20:30] = True
    Editor(segmentation(panel), volumes["t1c"]).paint("ET", mask)
    ui.caseCheckButton.click()
    assert ui.caseStateLabel.text.startswith("Checking the case... The volumes are prepared as for the model")
    pump(lambda: not panel.corrections._isBusy, 500)
    assert ui.caseStateLabel.text == "Checked. Nothing has been sent yet."
    assert "Note: prepared: FLAIR registered: 10." in ui.findingsLabel.text
    ui.caseSendButton.click()
    pump(lambda: not panel.corrections._isBusy, 500)
    assert ui.caseStateLabel.text.startswith("Added as version 1")

    (name,) = sendings(site)
    place = site / "corrections" / "incoming" / name
    record = json.loads((place / "case.json").read_text())
    registered = record["preparation"][-1]
    assert registered["modality"] == "t2f"
    np.testing.assert_allclose(np.array(registered["transform"])[:3, 3], (-7, 5, -6), atol=1.5)
    sent = {modality: nibabel.load(place / f"{modality}.nii.gz") for modality in (*volumes, "seg")}
    for image in sent.values():
        assert image.shape == (85, 90, 31)
    for modality in ("t1n", "t1c", "t2w"):  # where they were, and as they were
        given = slicer.util.arrayFromVolume(volumes[modality]).transpose(2, 1, 0)
        brain = np.asarray(sent["t1c"].dataobj) != 0
        np.testing.assert_array_equal(np.asarray(sent[modality].dataobj)[brain], given[brain])
    np.testing.assert_array_equal(np.asarray(sent["seg"].dataobj)[mask.transpose(2, 1, 0)], 3)


def test_the_number_of_one_patient_is_not_kept_for_the_next(ready):
    ready.ui.subjectEdit.setText(NUMBER)
    slicer.mrmlScene.Clear(0)
    assert ready.ui.subjectEdit.text == ""


def test_a_case_is_checked_for_the_patient_that_it_is_sent_for(ready, press, asked, site):
    """Intake has accepted a first version with a number; whose the second one is shows before it is sent."""
    ui, place = ready.ui, site / "corrections"
    ui.subjectEdit.setText(NUMBER)
    press(ready, "caseCheckButton")
    press(ready, "caseSendButton")
    intake = [sys.executable, "-m", "segmamba", "intake", str(place), "--reason=noise", "--json"]
    subprocess.run([*intake, f"--accept={sendings(site)[0]}"], check=True, capture_output=True)
    paint(ready)
    press(ready, "caseCheckButton")
    assert ui.caseSendButton.isEnabled(), ui.caseReasonLabel.text
    ui.subjectEdit.setText(f" {NUMBER} ")  # which is the same one
    assert ui.caseSendButton.isEnabled()
    for number in ("PID-4711", ""):
        ui.subjectEdit.setText(number)
        assert not ui.caseSendButton.isEnabled() and ui.findingsLabel.text == ""
        assert ui.caseReasonLabel.text == "The patient ID has changed. Check the case again."
        press(ready, "caseCheckButton")
        assert "Wrong: an earlier version of this case is another patient's" in ui.findingsLabel.text
        assert not ui.caseSendButton.isEnabled()
    ui.subjectEdit.setText(NUMBER)
    press(ready, "caseCheckButton")
    ui.roleCombo.setCurrentIndex(3)  # what is found does not depend on it
    press(ready, "caseSendButton")
    name = sendings(site)[1]
    assert json.loads((place / "incoming" / name / "case.json").read_text())["role"] == "neurosurgeon"
    subprocess.run([*intake, f"--accept={name}"], check=True, capture_output=True)
    examined = json.loads((place / "verdicts" / f"{name}.json").read_text())["examined"]
    assert "other subject" not in {finding["kind"] for finding in examined["findings"]}


def test_without_consent_nothing_is_sent_and_it_is_asked_again(ready, press, asked, site, temporaryFiles):
    asked.answer = False
    press(ready, "caseCheckButton")
    assert "accepted as it was" in ready.ui.findingsLabel.text
    for count in (1, 2):
        ready.ui.caseSendButton.click()
        assert len(asked) == count
        assert ready.ui.caseStateLabel.text == "Nothing was sent."
    assert list(site.iterdir()) == []
    assert len(temporaryFiles()) == 1  # what was checked can still be sent
    paint(ready)  # but no longer as it is now
    assert "Check the case again" in ready.ui.caseReasonLabel.text
    assert not ready.ui.caseSendButton.isEnabled()
    assert temporaryFiles() == []
    paint(ready, "ED")
    assert float(segmentation(ready).GetAttribute("SegMamba.EditorSeconds")) > 0


def test_an_empty_label_is_confirmed(ready, press, asked, site):
    ui, everything = ready.ui, np.ones(synth.SHAPE, bool)
    Editor(segmentation(ready), ready.parameters.volume("t1c")).erase("NCR", everything)
    press(ready, "caseCheckButton")
    boxes = (ui.absentNCRBox, ui.absentEDBox, ui.absentETBox)
    assert [not box.isHidden() for box in boxes] == [True, False, False]
    assert not ui.caseSendButton.isEnabled()
    assert "NCR has no voxel" in ui.caseSendButton.toolTip
    ui.absentNCRBox.click()
    press(ready, "caseSendButton")
    record = json.loads((site / "corrections" / "incoming" / sendings(site)[0] / "case.json").read_text())
    assert record["confirmed_empty"] == ["NCR"]


def start(panel, pump, what="check"):
    """Begins to check, or checks and begins to send; returns the engine's process number."""
    panel.ui.caseCheckButton.click()
    if what == "send":
        pump(lambda: not panel.corrections._isBusy, 60)
        panel.ui.caseSendButton.click()
    assert panel.corrections._isBusy
    assert not panel.ui.caseSendButton.isEnabled() and not panel.ui.caseCheckButton.isEnabled()
    return panel.corrections._correction._command._process.pid


@pytest.mark.parametrize("what", ["check", "send"])
def test_an_engine_that_is_killed(ready, pump, asked, site, temporaryFiles, what):
    os.kill(start(ready, pump, what), 9)
    pump(lambda: not ready.corrections._isBusy)
    assert ready.ui.caseStateLabel.text.startswith("Failed: ")
    assert sendings(site) == []
    assert temporaryFiles() == []
    assert ready.ui.caseCheckButton.isEnabled()


def test_cancel_leaves_nothing(ready, pump, site, temporaryFiles):
    pid = start(ready, pump)
    assert not ready.ui.caseCancelButton.isHidden()
    # also what the engine lays aside, of which nobody else would take care when it is killed
    pump(lambda: list(Path(slicer.app.temporaryPath).glob("*/segmamba-check-*")))
    ready.ui.caseCancelButton.click()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert ready.ui.caseStateLabel.text == "Cancelled."
    assert list(site.iterdir()) == []
    assert temporaryFiles() == []


def test_a_folder_that_cannot_be_written_to(ready, press, asked, site, temporaryFiles):
    (site / "corrections").write_text("a file")
    ready.ui.caseCheckButton.click()
    assert "is a file; a folder was expected" in ready.ui.caseStateLabel.text
    ready.ui.sitePath.setCurrentPath(str(site / "nowhere"))
    ready.ui.caseCheckButton.click()
    assert "is not a folder that can be reached" in ready.ui.caseStateLabel.text
    assert temporaryFiles() == []


@pytest.mark.parametrize("how", ["close", "delete"])
def test_the_scene_goes_while_a_case_is_checked(ready, pump, site, temporaryFiles, how):
    pid = start(ready, pump)
    if how == "close":
        slicer.mrmlScene.Clear(0)
    else:
        slicer.mrmlScene.RemoveNode(segmentation(ready))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert ready.ui.caseReasonLabel.text == "There is no result yet."
    assert not ready.ui.caseCheckButton.isEnabled()
    assert temporaryFiles() == []


def test_what_was_sent_arrives_though_the_scene_is_closed(ready, pump, asked, site, temporaryFiles):
    start(ready, pump, "send")
    slicer.mrmlScene.Clear(0)
    assert ready.ui.caseReasonLabel.text == "There is no result yet."
    pump(lambda: temporaryFiles() == [], 60)
    assert len(sendings(site)) == 1
    assert "Added as version 1" in ready.ui.logText.toPlainText()


def test_a_volume_that_is_deleted_after_the_check(ready, press, pump, asked, site, volumes):
    press(ready, "caseCheckButton")
    slicer.mrmlScene.RemoveNode(volumes["t2f"])
    press(ready, "caseSendButton")  # what was checked is what is sent
    assert len(sendings(site)) == 1
    ready.ui.caseCheckButton.click()
    assert "FLAIR: not in the scene" in ready.ui.caseStateLabel.text


def test_ending_the_widget_ends_the_engine_and_removes_the_files(ready, pump, module, temporaryFiles, site):
    pid = start(ready, pump)
    module.widget.cleanup()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert temporaryFiles() == []
    assert list(site.iterdir()) == []


def test_folder_and_role_are_remembered_on_this_computer(ready, site):
    ready.ui.roleCombo.setCurrentIndex(3)
    again = standin_app.loadModule()
    ui = again.widget.panel.ui
    assert ui.sitePath.currentPath == str(site)
    assert ui.roleCombo.currentIndex == 3
    assert ui.subjectEdit.text == ""
    again.widget.cleanup()


def test_everything_is_named_explained_and_reached_by_keyboard(panel):
    section = panel.ui.correctionsSection
    widgets = [widget for widget in section.findChildren(qt.QWidget) if widget.name[:3] not in ("", "qt_")]
    names = {widget.name for widget in widgets}
    assert {"sitePath", "subjectEdit", "roleCombo", "caseCheckButton", "changesTable", "caseSendButton"} <= names
    for widget in widgets:
        kind = widget.className()
        if kind == "QLabel":
            assert widget.textFormat == qt.Qt.PlainText or widget.text, widget.name
        if kind in ("QLabel", "QWidget"):
            continue
        assert widget.toolTip or kind == "QProgressBar", widget.name
        assert widget.accessibleName or getattr(widget, "text", ""), widget.name
        if kind in ("QPushButton", "QCheckBox", "QComboBox", "QLineEdit", "QTableWidget", "QPlainTextEdit"):
            assert widget.focusPolicy & qt.Qt.TabFocus, widget.name
