"""Lines that a person has taken apart: none of them counts as drawn by hand, and none stands in the way."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import synth
from followup_panel import release
from SegMambaSlicerLib.followup.lines import Lines, endsOf, linesOf
from SegMambaSlicerLib.results.segments import createSegmentation

ENDS = [[20.0, 0.0, 0.0], [30.0, 0.0, 0.0]]


@pytest.fixture
def measured(scene):
    """measured(): shows the answer of the engine with one line; .lines, .node, .segmentation, and what was .said."""
    lesion = {"number": 1, "region": "ET", "by_hand": [], "line1_ras_mm": ENDS, "line2_ras_mm": None}
    answer = {"dates": [{"burdens": [{"region": "ET"}], "lesions": [lesion]}]}
    segmentation, said = createSegmentation(synth.labelMap(), synth.addVolume("T1c")), []
    lines = Lines(lambda: said.append("moved"))

    def show():
        lines.show(answer, [SimpleNamespace(segmentation=segmentation)])
        (node,) = linesOf(segmentation)
        return SimpleNamespace(lines=lines, node=node, segmentation=segmentation, said=said)

    yield show
    lines.drop()


def takeEndAway(node):
    node.RemoveNthControlPoint(1)


def unsetEnd(node):
    node.UnsetNthControlPointPosition(1)


@pytest.mark.parametrize("how", [takeEndAway, unsetEnd])
def test_a_line_without_an_end_is_not_measured_to_the_origin(measured, how):
    found = measured()
    how(found.node)
    release(found.node)
    assert found.lines.byHand(found.segmentation, ("ET",)) == [] and found.said == []
    assert not found.lines.canUndo()
    again = measured()
    assert again.node is found.node and np.allclose(endsOf(again.node), ENDS)


def test_what_was_moved_and_then_deleted_is_not_moved_back(measured):
    found = measured()
    found.node.SetNthControlPointPositionWorld(1, 25, 0, 0)
    release(found.node)
    assert found.said == ["moved"] and found.lines.canUndo()
    slicer.mrmlScene.RemoveNode(found.node)
    assert not found.lines.canUndo()
    found.lines.undo()
    assert found.said == ["moved"]
    assert np.allclose(endsOf(measured().node), ENDS)
