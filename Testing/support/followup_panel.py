"""What tests do with the section "Follow-up" again and again."""

import qt
import slicer
from SegMambaSlicerLib.followup.lines import linesOf

PATIENCE = 500  # seconds; a busy machine is slow


def tick(panel, row):
    panel.ui.followUpDatesTable.item(row, 0).setCheckState(qt.Qt.Checked)


def compare(panel, pump):
    pump(lambda: panel.ui.followUpMeasureButton.isEnabled())
    panel.ui.followUpMeasureButton.click()
    settled(panel, pump)


def settled(panel, pump):
    ui = panel.ui
    pump(lambda: ui.followUpLesionsTable.rowCount or "Failed" in ui.followUpStateLabel.text, PATIENCE)
    pump(lambda: not panel.followUp._isBusy, PATIENCE)
    assert "Failed" not in ui.followUpStateLabel.text


def release(node):
    """What Slicer's markups widget does when a person lets go of a point."""
    node.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)


def line(segmentation, which, lesion="1"):
    found = [n for n in linesOf(segmentation) if n.GetName().startswith(f"Lesion {lesion} {which}")]
    return found[0]
