"""The section "Follow-up" as a clinician uses it, on Slicer's own scene, with the real engine as a child process."""

import csv
import json
import sys

import nibabel
import numpy as np
import pytest
import qt
import slicer
import two_dates
from editor import Editor
from followup_panel import PATIENCE, compare, line, release, settled, tick
from panels import cells
from SegMambaSlicerLib.followup import chart, dates
from SegMambaSlicerLib.followup.lines import endsOf, isMoved, linesOf

D1_FIRST, D1_LATER = 28 * np.sqrt(2), 20 * np.sqrt(2)


@pytest.fixture
def panel(app, module, views):
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    return module.widget.panel


@pytest.fixture
def both(panel, head, pump):
    """The panel with the later date as its result, and both dates known."""
    first, later = two_dates.addTwoDates(head)
    for node, date in ((first, "2026-01-10"), (later, "2026-03-01")):
        dates.setDate(node, date)
    panel.parameters.setResult("Segmentation", later)
    table = panel.ui.followUpDatesTable
    pump(lambda: table.rowCount == 2)
    return first, later


def test_two_dates_from_the_table_to_reports_and_back(panel, both, pump, views, tmp_path):
    ui, (first, later) = panel.ui, both
    assert [row[1] for row in cells(ui.followUpDatesTable)] == ["2026-01-10", "2026-03-01"]
    assert ui.followUpMeasureButton.text == "Measure"
    assert "Measure first" in ui.followUpPdfButton.toolTip
    tick(panel, 0)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    compare(panel, pump)

    # lesions, sums, and what they mean
    rows = cells(ui.followUpLesionsTable)
    assert [row[:3] for row in rows] == [
        ["0", "1", "39.6 \u00d7 39.6"],
        ["0", "2", "22.6 \u00d7 22.6"],
        ["50", "1", "28.3 \u00d7 28.3"],
    ]
    assert [row[5] for row in rows] == ["target", "target", "target 1"]
    summary = ui.followUpSummaryLabel.text
    assert "sum of products 2080" in summary and "compatible with PR" in summary and "-61.5% from baseline" in summary

    # the lines lie in the scene, on the lesions
    assert len(linesOf(first)) == 4 and len(linesOf(later)) == 2
    d1 = line(later, "D1")
    assert np.linalg.norm(np.diff(endsOf(d1), axis=0)) == pytest.approx(D1_LATER, abs=1e-3)
    assert not isMoved(d1)

    # a click goes to the lesion; side by side the other date follows to the same place of the head
    views("Yellow").SetOrientation("Sagittal")
    other = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeYellow")
    other.SetLinkedControl(True)
    other.SetBackgroundVolumeID(dates.t1cOf(first).GetID())
    first.GetDisplayNode().SetVisibility(False)
    ui.followUpSideButton.click()
    assert first.GetDisplayNode().GetVisibility()
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement() == 29
    composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeYellow")
    assert composite.GetBackgroundVolumeID() == dates.t1cOf(later).GetID()
    assert list(later.GetDisplayNode().GetViewNodeIDs()) == [views("Yellow").GetID()]
    assert list(d1.GetDisplayNode().GetViewNodeIDs()) == [views("Yellow").GetID()]
    ui.followUpLesionsTable.cellClicked.emit(2, 0)
    centres = [slicer.util.arrayFromVTKMatrix(views(n).GetSliceToRAS())[:3, 3] for n in ("Red", "Yellow")]
    assert centres[1] == pytest.approx(endsOf(d1).mean(0), abs=1e-3)
    transform = np.array(panel.followUp._answer["dates"][1]["registration"]["transform"])
    assert centres[0] == pytest.approx(transform[:3, :3] @ centres[1] + transform[:3, 3], abs=1e-3)
    truth = np.array(nibabel.affines.apply_affine(np.linalg.inv(two_dates.MOVE), centres[1]))
    assert centres[0] == pytest.approx(truth, abs=2)  # half a voxel
    ui.followUpSideButton.click()
    assert not later.GetDisplayNode().GetViewNodeIDs()

    # and then all is as it was
    assert (views("Yellow").GetOrientation(), other.GetLinkedControl()) == ("Sagittal", 1)
    assert other.GetBackgroundVolumeID() == dates.t1cOf(first).GetID()
    assert not first.GetDisplayNode().GetVisibility() and later.GetDisplayNode().GetVisibility()

    # the chart
    ui.followUpChartButton.click()
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    table = chart.GetNthPlotSeriesNode(0).GetTableNode()
    assert [float(table.GetCellText(r, 1)) for r in range(2)] == pytest.approx([20.80, 8.00])
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode").GetViewArrangement() == (
        slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
    )

    # a line that is dragged wins and is marked; undo puts it back
    before = endsOf(d1)
    d1.SetNthControlPointPositionWorld(1, *(before[0] + (before[1] - before[0]) / 2))
    release(d1)
    pump(lambda: "moved" in ui.followUpLesionsTable.item(2, 2).text(), PATIENCE)
    settled(panel, pump)
    assert ui.followUpLesionsTable.item(2, 2).text() == "14.1 \u00d7 28.3 (D1 moved)"
    assert d1.GetName() == "Lesion 1 D1, moved" and "D1 drawn by hand" in ui.followUpSummaryLabel.text
    ui.followUpFolder.setCurrentPath(str(tmp_path))
    ui.followUpCsvButton.click()
    ui.followUpPdfButton.click()
    rows = list(csv.DictReader((tmp_path / "follow-up.csv").open()))
    assert rows[2]["product_mm2"] == "400.0" and "D1 drawn by hand" in rows[2]["remark"]
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    ui.followUpHtmlButton.click()
    assert "D1 drawn by hand" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not from DICOM" in ui.followUpSrButton.toolTip or "Not loaded from DICOM" in ui.followUpSrButton.toolTip
    ui.followUpUndoButton.click()
    pump(lambda: "moved" not in ui.followUpLesionsTable.item(2, 2).text(), PATIENCE)
    assert endsOf(d1) == pytest.approx(before, abs=1e-3) and d1.GetName() == "Lesion 1 D1"
    assert not ui.followUpUndoButton.isEnabled()
    ui.followUpCsvButton.click()
    assert (tmp_path / "follow-up-2.csv").is_file()  # nothing is overwritten

    # edited segments are measured again, and the editor's undo too
    editor = Editor(later, dates.t1cOf(later))
    stroke = np.zeros(slicer.util.arrayFromVolume(dates.t1cOf(later)).shape, bool)
    stroke[2:4, 2:4, 2:4] = True
    editor.paint("ET", stroke)
    assert "have changed" in ui.followUpStateLabel.text and not ui.followUpPdfButton.isEnabled()
    assert len(linesOf(later)) == 2


def test_one_date_has_a_table_and_lines_too(panel, head, pump, views, tmp_path):
    """Without a date: none is needed. The moved line is there after saving and loading, and still wins."""
    ui = panel.ui
    segmentation = two_dates.addDate(head, two_dates.FIRST, "only")
    panel.parameters.setResult("Segmentation", segmentation)
    pump(lambda: ui.followUpDatesTable.rowCount == 1)
    compare(panel, pump)
    assert [row[2] for row in cells(ui.followUpLesionsTable)] == ["39.6 \u00d7 39.6", "22.6 \u00d7 22.6"]
    assert "tick another date" in ui.followUpChartButton.toolTip
    ui.followUpLesionsTable.cellClicked.emit(1, 0)
    centre = slicer.util.arrayFromVTKMatrix(views("Red").GetSliceToRAS())[:3, 3]
    assert centre == pytest.approx(endsOf(line(segmentation, "D1", "2")).mean(0), abs=1e-3)
    moved = line(segmentation, "D1", "2")
    start, end = endsOf(moved)
    moved.SetNthControlPointPositionWorld(1, *(start + (end - start) * 12 / np.linalg.norm(end - start)))
    release(moved)
    pump(lambda: "moved" in ui.followUpLesionsTable.item(1, 2).text(), PATIENCE)
    bundle = str(tmp_path / "patient.mrb")
    assert slicer.mrmlScene.WriteToMRB(bundle)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.ReadFromMRB(bundle, False)
    pump(lambda: ui.followUpDatesTable.rowCount == 1)
    compare(panel, pump)
    assert ui.followUpLesionsTable.item(1, 2).text() == "12.0 \u00d7 22.6 (D1 moved)"
    assert ui.followUpLesionsTable.item(1, 5).text() == ""  # 12 mm are enough


def test_what_the_physician_says_goes_to_the_engine(panel, both, pump):
    ui = panel.ui
    tick(panel, 0)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    ui.followUpSteroidsCombo.setCurrentIndex(ui.followUpSteroidsCombo.findData("more"))
    ui.followUpWeeksSpin.setValue(4)
    compare(panel, pump)
    answer = panel.followUp._answer
    assert answer["clinician"] == [{"day": 50, "steroids": "more", "clinical_status": "", "non_target_lesions": ""}]
    assert answer["settings"]["confirm_weeks"] == 4
    assert not {"first T1c", "first tumor", "later T1c"} & {text for text in json.dumps(answer).split('"')}
    ui.followUpTargetsSpin.setValue(1)
    assert "setting has changed" in ui.followUpStateLabel.text and ui.followUpLesionsTable.rowCount == 0
    panel.onSceneStartClose()
    assert ui.followUpSteroidsCombo.currentIndex == 0


def test_a_mixed_tumor_has_targets_of_both_kinds(panel, head, pump):
    """Enhancing 8 x 8 becomes 6 x 6 (-49 %), 10 x 10 of edema 7 x 7 (-56 %): SD with PR is PR."""
    ui, edema = panel.ui, 2
    nodes = two_dates.addTwoDates(
        head,
        (*two_dates.FIRST[:1], ((2, -4, 0), (10, 10, 4), edema)),
        (*two_dates.LATER[:1], ((2, -4, 0), (7, 7, 4), edema)),
    )
    for node, date in zip(nodes, ("0", "60")):
        dates.setDate(node, date)
    panel.parameters.setResult("Segmentation", nodes[1])
    pump(lambda: ui.followUpDatesTable.rowCount == 2)
    tick(panel, 0)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    ui.followUpRegionCombo.setCurrentIndex(ui.followUpRegionCombo.findData("mixed"))
    assert ui.followUpTargetsSpin.value == 2
    compare(panel, pump)
    rows = cells(ui.followUpLesionsTable)
    assert [row[:2] + row[5:] for row in rows] == [
        ["0", "1", "ET; target"],
        ["0", "2", "non-enhancing; target"],
        ["60", "1", "ET; target 1"],
        ["60", "2", "non-enhancing; target 2"],
    ]
    summary = ui.followUpSummaryLabel.text
    for text in ("ET: ", "sum of products 1568", "sum of products 2592", "ET SD, non-enhancing PR: together PR"):
        assert text in summary, text
    assert "-49.0% from baseline" in summary and "-55.6% from baseline" in summary
    ui.followUpChartButton.click()
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 4
    table = chart.GetNthPlotSeriesNode(0).GetTableNode()
    assert [table.GetColumnName(n) for n in (1, 3)] == [f"Sum of products, cm2, {n}" for n in ("ET", "non-enhancing")]
    assert [float(table.GetCellText(r, 3)) for r in range(2)] == pytest.approx([25.92, 11.52])
    moved = line(nodes[1], "D1", "2")
    start, end = endsOf(moved)
    moved.SetNthControlPointPositionWorld(1, *(start + (end - start) / 2))
    release(moved)
    pump(lambda: "moved" in ui.followUpLesionsTable.item(3, 2).text(), PATIENCE)
    settled(panel, pump)
    assert panel.followUp._byHand()["lines"][0]["region"] == "non-enhancing"
    ui.followUpRegionCombo.setCurrentIndex(0)
    assert ui.followUpTargetsSpin.value == 3 and "setting has changed" in ui.followUpStateLabel.text


def test_a_number_of_targets_that_was_typed_stays(panel):
    ui = panel.ui
    for region, targets in (("mixed", 2), ("WT", 3), ("TC", 3)):
        ui.followUpRegionCombo.setCurrentIndex(ui.followUpRegionCombo.findData(region))
        assert ui.followUpTargetsSpin.value == targets
    ui.followUpTargetsSpin.setValue(1)
    for region in ("WT", "mixed", "ET"):
        ui.followUpRegionCombo.setCurrentIndex(ui.followUpRegionCombo.findData(region))
        assert ui.followUpTargetsSpin.value == 1


def test_nothing_of_one_result_stays_with_another(panel, both, pump):
    """What was said of the patient, and lines over the images of somebody else."""
    ui, (first, later) = panel.ui, both
    compare(panel, pump)  # the later one alone
    mine = linesOf(later)
    assert mine and all(node.GetDisplayVisibility() for node in mine)
    ui.followUpEndEdit.setText("2026-02-01")
    ui.followUpOtherEdit.setText("stable")
    panel.parameters.setResult("Segmentation", first)
    pump(lambda: panel.results.segmentation is first)
    assert ui.followUpEndEdit.text == ui.followUpOtherEdit.text == ""
    assert not any(node.GetDisplayVisibility() for node in mine)
    assert not later.GetDisplayNode().GetVisibility() and first.GetDisplayNode().GetVisibility()
    pump(lambda: ui.followUpMeasureButton.text == "Measure")
    tick(panel, 1)
    pump(lambda: ui.followUpMeasureButton.text == "Compare")
    compare(panel, pump)
    assert [node for node in linesOf(later) if node.GetDisplayVisibility()] == []
    ui.followUpSideButton.click()  # each in a view of its own
    assert all(node.GetDisplayVisibility() for node in (*linesOf(first), *linesOf(later)))
    ui.followUpSideButton.click()
    assert [node for node in linesOf(later) if node.GetDisplayVisibility()] == []
    assert all(node.GetDisplayVisibility() for node in linesOf(first))
    panel.parameters.setResult("Segmentation", later)
    pump(lambda: panel.results.segmentation is later)
    assert all(node.GetDisplayVisibility() for node in linesOf(later))


def test_a_moved_line_waits_for_its_region(panel, head, pump):
    """The lesion of ET is one of TC too, which is measured for itself, with neither a warning nor the moved line."""
    ui = panel.ui
    segmentation = two_dates.addDate(head, two_dates.LATER, "only")
    panel.parameters.setResult("Segmentation", segmentation)
    pump(lambda: ui.followUpDatesTable.rowCount == 1)
    compare(panel, pump)
    moved = line(segmentation, "D1")
    start, end = endsOf(moved)
    moved.SetNthControlPointPositionWorld(1, *(start + (end - start) / 2))
    release(moved)
    pump(lambda: "moved" in ui.followUpLesionsTable.item(0, 2).text(), PATIENCE)
    settled(panel, pump)
    ends = endsOf(moved)
    ui.followUpRegionCombo.setCurrentIndex(ui.followUpRegionCombo.findData("TC"))
    compare(panel, pump)
    assert ui.followUpLesionsTable.item(0, 2).text() == "28.3 \u00d7 28.3"
    assert "by hand" not in json.dumps(panel.followUp._answer["warnings"])
    assert not moved.GetDisplayVisibility() and endsOf(moved) == pytest.approx(ends)
    assert sorted(n.GetName() for n in linesOf(segmentation)) == ["Lesion 1 D1", "Lesion 1 D1, moved", "Lesion 1 D2"]
    ui.followUpRegionCombo.setCurrentIndex(ui.followUpRegionCombo.findData("ET"))
    compare(panel, pump)
    assert ui.followUpLesionsTable.item(0, 2).text() == "14.1 \u00d7 28.3 (D1 moved)"
    assert moved.GetDisplayVisibility() and line(segmentation, "D1") is moved


def test_the_chart_keeps_no_region_that_is_not_measured_now(scene):
    def answer(*regions):
        burdens = [{"region": region, "sum_of_products_mm2": 100.0, "volume_ml": 1.0} for region in regions]
        return {"dates": [{"day": day, "burdens": burdens} for day in (0, 50)]}

    for regions in (("ET", "non-enhancing"), ("ET",)):
        made = chart.updateChart(answer(*regions))
        series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
        assert len(series) == made.GetNumberOfPlotSeriesNodes() == 2 * len(regions)
