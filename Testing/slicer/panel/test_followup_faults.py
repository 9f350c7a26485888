"""What goes wrong in the section "Follow-up", and what is said twice: no number stays that no longer holds."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import qt
import synth
import two_dates
import vtk
from editor import Editor
from followup_panel import PATIENCE, compare, line, release, settled
from SegMambaSlicerLib.followup import dates
from SegMambaSlicerLib.followup.lines import endsOf, isMoved
from SegMambaSlicerLib.panel import followupreports
from SegMambaSlicerLib.results.segments import labelArray


@pytest.fixture
def measured(app, module, views, head, pump, tmp_path):
    """The panel with one date measured, and a folder to save into."""
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    panel = module.widget.panel
    panel.parameters.setResult("Segmentation", two_dates.addDate(head, two_dates.LATER, "only"))
    panel.ui.followUpFolder.setCurrentPath(str(tmp_path))
    compare(panel, pump)
    return panel


def halve(node):
    start, end = endsOf(node)
    node.SetNthControlPointPositionWorld(1, *(start + (end - start) / 2))
    release(node)


def test_numbers_go_where_measuring_again_fails(measured, pump):
    """The line that was moved is not in them: a table that is saved then would speak of another one."""
    ui, node = measured.ui, line(measured.results.segmentation, "D1")
    assert ui.followUpCsvButton.isEnabled()
    shutil.rmtree(measured.followUp._measuring.folder / "date-0")
    halve(node)
    pump(lambda: "Failed" in ui.followUpStateLabel.text, PATIENCE)
    assert ui.followUpLesionsTable.rowCount == 0 and ui.followUpSummaryLabel.text == ""
    assert not ui.followUpCsvButton.isEnabled() and "Measure first" in ui.followUpCsvButton.toolTip
    ui.followUpTargetsSpin.setValue(1)
    ui.followUpOtherEdit.setText("none")
    ui.followUpOtherEdit.editingFinished.emit()
    assert not measured.followUp._isBusy  # with settings that are no longer those of the panel
    compare(measured, pump)
    assert isMoved(node) and ui.followUpLesionsTable.item(0, 2).text() == "14.1 \u00d7 28.3 (D1 moved)"


def test_a_field_that_is_left_as_it_was_measures_nothing_again(measured, pump):
    """Qt says so whenever the cursor leaves the field; the click that follows would find its button in progress."""
    edit = measured.ui.followUpOtherEdit
    edit.editingFinished.emit()
    assert not measured.followUp._isBusy
    edit.setText("a cyst")
    edit.editingFinished.emit()
    assert measured.followUp._isBusy
    settled(measured, pump)
    edit.editingFinished.emit()
    assert not measured.followUp._isBusy


def test_cancelling_what_is_written_keeps_what_was_measured(measured, monkeypatch):
    """Comparing dates takes minutes; only the files were unwanted."""
    ui, stopped = measured.ui, []
    command = SimpleNamespace(isDone=False, cancel=lambda: stopped.append(1))
    monkeypatch.setattr(measured.followUp._measuring, "_start", lambda *_arguments: command)
    monkeypatch.setattr("SegMambaSlicerLib.followup.measuring._seriesFiles", lambda _volume, folder: folder)
    measured.followUp._reports.onSr()
    assert not ui.followUpCancelButton.isHidden() and not ui.followUpCsvButton.isEnabled()
    ui.followUpCancelButton.click()
    assert stopped and ui.followUpStateLabel.text == "Cancelled." and ui.followUpCancelButton.isHidden()
    assert ui.followUpLesionsTable.rowCount == 1 and ui.followUpCsvButton.isEnabled()


def test_what_is_measured_anew_while_dicom_is_written_says_that_it_was_not(measured, monkeypatch, pump):
    """It would have told of the line as it was."""
    ui, measuring, stopped = measured.ui, measured.followUp._measuring, []
    with monkeypatch.context() as patched:
        command = SimpleNamespace(isDone=False, cancel=lambda: stopped.append(1))
        patched.setattr(measuring, "_start", lambda *_arguments: command)
        patched.setattr("SegMambaSlicerLib.followup.measuring._seriesFiles", lambda _volume, folder: folder)
        measured.followUp._reports.onSr()
    node = line(measured.results.segmentation, "D1")
    halve(node)
    settled(measured, pump)
    assert stopped and "DICOM was not written" in ui.followUpStateLabel.text
    halve(node)
    settled(measured, pump)
    assert "DICOM" not in ui.followUpStateLabel.text and "Measured" in ui.followUpStateLabel.text


def test_a_folder_that_is_gone_is_asked_for_only_when_something_is_saved(measured, monkeypatch, tmp_path):
    """A network drive that does not answer holds up who asks, and the buttons are looked at all the time."""
    ui, asked = measured.ui, []
    gone, there = str(tmp_path / "gone"), followupreports.isThere
    monkeypatch.setattr(followupreports, "isThere", lambda path: asked.append(path) or there(path))
    ui.followUpFolder.setCurrentPath(gone)
    measured.followUp.showState()
    assert asked == []
    ui.followUpCsvButton.click()
    assert asked == [gone]
    assert "Failed: " in ui.followUpStateLabel.text and "gone is not a folder" in ui.followUpStateLabel.text
    ui.followUpFolder.setCurrentPath("")
    assert not ui.followUpCsvButton.isEnabled() and "Choose a folder" in ui.followUpCsvButton.toolTip


@pytest.mark.parametrize("what", ["T1c", "segments", "transform", "origin"])
def test_what_was_moved_has_to_be_measured_again(measured, pump, what):
    """The lines would stay where the head was; a name is no place."""
    ui, segmentation, transform = measured.ui, measured.results.segmentation, synth.addTransform()
    volume = dates.t1cOf(segmentation)
    if what == "transform":
        for node in (volume, segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
        compare(measured, pump)
    volume.SetName("another name")
    assert ui.followUpLesionsTable.rowCount == 1
    if what == "origin":
        volume.SetOrigin(1, 2, 3)
    elif what == "transform":
        transform.SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    else:
        node = volume if what == "T1c" else segmentation
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert ui.followUpStateLabel.text == "The volumes were moved. Measure again."
    assert ui.followUpLesionsTable.rowCount == 0


def test_regions_instead_of_labels_are_no_edit(measured, pump):
    """But for where segments overlap: then something has to give way."""
    ui, segmentation = measured.ui, measured.results.segmentation
    for button in (ui.regionsRadio, ui.labelsRadio):
        button.click()
        assert ui.followUpLesionsTable.rowCount == 1 and "changed" not in ui.followUpStateLabel.text
    volume = dates.t1cOf(segmentation)
    stroke = labelArray(segmentation, volume)[0] > 0
    Editor(segmentation, volume, overwrite="none").paint("ED", stroke)
    assert "segments have changed" in ui.followUpStateLabel.text
    compare(measured, pump)
    ui.regionsRadio.click()
    assert "segments have changed" in ui.followUpStateLabel.text and ui.followUpLesionsTable.rowCount == 0


def test_nothing_of_a_closed_scene_is_listed_or_kept(module, head, scene):
    """What belongs to the next patient is what the next scene brings."""
    panel = module.widget.panel
    ui = panel.ui
    panel.parameters.setResult("Segmentation", two_dates.addDate(head, two_dates.LATER, "only"))
    assert ui.followUpDatesTable.rowCount == 1 and ui.followUpMeasureButton.isEnabled()
    scene.Clear(0)
    assert ui.followUpDatesTable.rowCount == 0 and panel.followUp._results == []
    assert not ui.followUpMeasureButton.isEnabled()
    assert ui.followUpMeasureButton.toolTip == "There is no result yet."
