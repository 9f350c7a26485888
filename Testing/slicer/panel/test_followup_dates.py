"""The dates of the section "Follow-up": where they come from, DICOM and files included, and which can be compared."""

import sys
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
import two_dates
from followup_panel import PATIENCE, compare, tick
from panels import cells
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.followup import dates
from SegMambaSlicerLib.followup.lines import linesOf


@pytest.fixture
def panel(app, module, views):
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    return module.widget.panel


class Database:
    """In the place of Slicer's DICOM database: the files of real series by the UIDs of their images."""

    def __init__(self):
        self.files = {}

    def add(self, volume, folder):
        import pydicom

        found = {str(pydicom.dcmread(path).SOPInstanceUID): str(path) for path in sorted(folder.glob("*.dcm"))}
        self.files |= found
        volume.SetAttribute("DICOM.instanceUIDs", " ".join(found))

    def fileForInstance(self, uid):
        return self.files.get(uid, "")

    def instanceValue(self, uid, tag):
        import pydicom

        found = pydicom.dcmread(self.files[uid], stop_before_pixels=True).get(tuple(int(t, 16) for t in tag.split(",")))
        return "" if found is None else str(found.value)


def test_volumes_from_dicom_have_dates_and_structured_reports(panel, head, pump, tmp_path, monkeypatch):
    import pydicom

    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "engine"))
    from dicom_files import write_series

    ui, database = panel.ui, Database()
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    stored = np.round(np.asarray(head.dataobj) / np.asarray(head.dataobj).max() * 2000).astype(np.int16)
    nodes = two_dates.addTwoDates(head)
    for name, date, node in zip(("first", "later"), ("20260110", "20260301"), nodes):
        affine = head.affine if name == "first" else two_dates.MOVE @ head.affine
        write_series(tmp_path / name, stored, affine, 7, AcquisitionDate=date, StudyDate=date)
        database.add(dates.t1cOf(node), tmp_path / name)
    panel.parameters.setResult("Segmentation", nodes[1])
    pump(lambda: [row[1] for row in cells(ui.followUpDatesTable)] == ["2026-01-10", "2026-03-01"])
    tick(panel, 0)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    compare(panel, pump)
    target = tmp_path / "reports"
    target.mkdir()
    ui.followUpFolder.setCurrentPath(str(target))
    assert ui.followUpSrButton.isEnabled(), ui.followUpSrButton.toolTip
    ui.followUpSrButton.click()
    pump(lambda: "Saved" in ui.followUpStateLabel.text or "Failed" in ui.followUpStateLabel.text, PATIENCE)
    assert "Saved" in ui.followUpStateLabel.text, ui.followUpStateLabel.text
    names = sorted(path.name for path in target.iterdir())
    assert names == ["day-0000-seg.dcm", "day-0000-sr.dcm", "day-0050-seg.dcm", "day-0050-sr.dcm"]
    report = pydicom.dcmread(target / "day-0050-sr.dcm")
    assert report.StudyDate == "20260301" and report.Modality == "SR"


def test_what_cannot_be_compared_is_said(panel, head, pump):
    ui, table = panel.ui, panel.ui.followUpDatesTable
    nodes = [two_dates.addDate(head, two_dates.LATER, name) for name in ("one", "two")]
    panel.parameters.setResult("Segmentation", nodes[1])
    pump(lambda: table.rowCount == 2)
    for row in range(2):
        tick(panel, row)
    pump(lambda: "Enter the date of" in ui.followUpMeasureButton.toolTip)
    table.item(0, 1).setText("yesterday")
    pump(lambda: "is not a date" in ui.followUpStateLabel.text)
    assert not ui.followUpMeasureButton.isEnabled()
    with pytest.raises(InputError, match="is not a date"):
        dates.setDate(nodes[0], "260131")
    dates.setDate(nodes[0], "2026-01-10")
    dates.setDate(nodes[1], "20260110")
    panel.followUp.refresh()
    assert "have the same date" in ui.followUpMeasureButton.toolTip
    dates.setDate(nodes[1], "40")
    panel.followUp.refresh()
    assert "numbers of days for all" in ui.followUpMeasureButton.toolTip
    dates.setDate(nodes[1], "2026-02-10")
    panel.followUp.refresh()
    assert ui.followUpMeasureButton.isEnabled()
    slicer.mrmlScene.RemoveNode(nodes[0])
    pump(lambda: table.rowCount == 1)


def test_the_study_date_is_found_in_the_hierarchy(scene, head):
    segmentation = two_dates.addDate(head, two_dates.LATER, "one")
    volume = dates.t1cOf(segmentation)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "MR")
    hierarchy.SetItemAttribute(study, "DICOM.StudyDate", "20260302")
    hierarchy.CreateItem(study, volume)
    assert dates.dateOf(segmentation, volume) == "2026-03-02"
    dates.setDate(segmentation, "2026-03-03")
    assert [result.date for result in dates.findResults()] == ["2026-03-03"]
    dates.setDate(segmentation, "")
    assert dates.dateOf(segmentation, volume) == "2026-03-02"


def test_other_patients_are_not_compared():
    results = [dates.DatedResult(None, None, f"2026-01-0{n}", patient) for n, patient in ((1, "A"), (2, "B"))]
    with pytest.raises(InputError, match="different patients"):
        dates.inOrder(results)
    assert dates.daysOf(dates.inOrder([*results[:1], dates.DatedResult(None, None, "2025-12-31", "")])) == [0, 1]


def test_results_that_were_replaced_are_no_dates(scene, head):
    from SegMambaSlicerLib.results.segments import createSegmentation

    first = two_dates.addDate(head, two_dates.LATER, "one")
    volume = dates.t1cOf(first)
    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    second = createSegmentation(labels, volume, first)
    two_dates.history.keepOrigin(second, {"t1c": volume}, {"model": "quick"})
    assert [result.segmentation for result in dates.findResults()] == [second]


def test_from_the_files_of_two_dates_through_segmentation_to_the_report(panel, module, pump, tmp_path):
    """One synthetic patient, whose tumor is smaller at the later date: loaded, segmented by the model that ships,
    compared; the report's change is that of the true label maps, roughly."""
    from segmamba.datasets.phantom import make_phantom, save_phantom

    ui, truth, results = panel.ui, [], []
    for date, shrunk in (("2026-01-10", 0.0), ("2026-04-04", 4.0)):
        phantom = make_phantom(20_401, spacing=(2, 2, 2), enhancing=True, shrunk_mm=shrunk)
        truth.append(float((phantom.label_map == 3).sum()) * 0.008)
        files = save_phantom(phantom, tmp_path / date, "case")
        logic = slicer.modules.volumes.logic()
        volumes = {m: logic.AddArchetypeVolume(str(files[m]), f"{date} {m}", 4) for m in ("t1n", "t1c", "t2w", "t2f")}
        result = module.logic.segment(volumes, prepare="never")
        dates.setDate(result.segmentation, date)
        results.append(result.segmentation)
    panel.parameters.setResult("Segmentation", results[1])
    pump(lambda: ui.followUpDatesTable.rowCount == 2)
    tick(panel, 0)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    compare(panel, pump)
    answer = panel.followUp._answer
    assert [date["day"] for date in answer["dates"]] == [0, 84]
    assert all(date["made_by"] == {"model": results[0].GetAttribute("SegMamba.Model")} for date in answer["dates"])
    found = [date["volume_ml"] for date in answer["dates"]]
    assert found[1] / found[0] == pytest.approx(truth[1] / truth[0], abs=0.2)
    lesions = sum(len(date["lesions"]) for date in answer["dates"])
    assert ui.followUpLesionsTable.rowCount == lesions and linesOf(results[1])
    ui.followUpFolder.setCurrentPath(str(tmp_path))
    ui.followUpPdfButton.click()
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
