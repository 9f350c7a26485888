"""Whether a correction lies where the proposal does: what an editor saved on a shifted grid is found."""

import nibabel as nib
import numpy as np
import pytest
from correction_runs import corrected, edited, send
from segmamba.cases.case import find_label
from segmamba.learning.submissions.changes import best_place
from segmamba.learning.submissions.checks import examine

AFFINE = np.diag([2.0, 1.0, 4.0, 1.0])


def ball(centre, radius=12.0, shape=(50, 100, 26)):
    places = np.moveaxis(np.indices(shape), 0, -1) * np.diag(AFFINE)[:3]
    return (np.linalg.norm(places - centre, axis=-1) <= radius).astype(np.uint8)


@pytest.mark.parametrize("shift", [(16.0, 0.0, 0.0), (-8.0, 6.0, 12.0), (0.0, 0.0, 0.0)])
def test_a_moved_ball_is_found_in_its_place(shift):
    proposal = ball((50.0, 50.0, 48.0))
    here, there, away = best_place(proposal, 3 * ball(np.add((50.0, 50.0, 48.0), shift)), AFFINE)
    assert (there, away) == (pytest.approx(1.0, abs=0.02), pytest.approx(np.linalg.norm(shift), abs=1e-6))
    assert here == there if not any(shift) else here < 0.5


def test_another_place_is_not_looked_for_beyond_reach():
    here, there, away = best_place(ball((20.0, 50.0, 48.0)), ball((80.0, 50.0, 48.0)), AFFINE)
    assert here == 0.0 and there < 0.1 and away <= 40.0


def test_without_anything_labelled_there_is_no_better_place():
    nothing = np.zeros((50, 100, 26), np.uint8)
    for proposal, labels in ((nothing, nothing), (ball((50.0, 50.0, 48.0)), nothing)):
        assert best_place(proposal, labels, AFFINE)[:2] == (0.0, 0.0)


def test_a_label_map_that_fits_the_proposal_elsewhere_is_doubted(phantom_cases, tmp_path):
    case = phantom_cases / "phantom-0"
    voxels = round(16 / nib.load(find_label(case)).header.get_zooms()[0])
    moved = edited(find_label(case), tmp_path / "moved.nii.gz", lambda labels: np.roll(labels, voxels, 0))
    findings = {}
    for name, labels in (("moved", moved), ("sound", corrected(case, tmp_path))):
        folder = send(tmp_path / name, case, labels=labels, subject="A")
        findings[name] = [f for f in examine(folder, tmp_path).findings if "fits the proposal" in f.text]
    assert not findings["sound"]
    (found,) = findings["moved"]
    assert (found.kind, found.severity) == ("elsewhere", "doubtful")
    assert found.text.startswith("the label map fits the proposal better 16 mm away (Dice 1.00, here 0.")
