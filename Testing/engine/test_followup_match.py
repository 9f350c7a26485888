"""Which lesion of a later date is which: split, merged, gone and new ones; and other borders of one lesion."""

import numpy as np
import pytest
from followup_lesions import MM, boxes
from segmamba.followup.lesions import measure_mask
from segmamba.followup.match import match
from segmamba.followup.spread import spread


def corners(measured):
    """First voxel of each lesion -> its number."""
    numbers = [lesion.number for lesion in measured.lesions]
    return {tuple(np.argwhere(measured.labelled == number)[0].tolist()): number for number in numbers}


def test_split_merged_gone_and_new():
    first = boxes(((5, 5, 3), (20, 8, 4)), ((5, 30, 3), (12, 12, 4)), ((21, 30, 3), (9, 9, 4)), ((45, 5, 3), (6, 6, 3)))
    large, left, right, small = (corners(first)[x, y, 3] for x, y in ((5, 5), (5, 30), (21, 30), (45, 5)))
    shift = np.eye(4)
    shift[:3, 3] = (30, -20, 7)  # the later date lies elsewhere in its scanner
    later = boxes(
        ((5, 5, 3), (7, 8, 4)),
        ((18, 5, 3), (7, 8, 4)),
        ((5, 30, 3), (25, 12, 4)),
        ((45, 45, 5), (11, 11, 3)),
    )
    moved = measure_mask(later.labelled > 0, np.linalg.inv(shift), "ET")
    found = match(first, moved, shift)
    corner = corners(moved)
    both = corner[(5, 30, 3)]
    assert set(found.parts[large]) == {corner[(5, 5, 3)], corner[(18, 5, 3)]}
    assert found.parts[left] == (both,) and found.parts[right] == () and found.merged == {right: both}
    assert found.parts[small] == () and small not in found.merged
    assert found.new == (corner[(45, 45, 5)],)
    assert found.lesions([left, right]) == [both]


def test_a_lesion_4_mm_away_is_the_same_and_one_6_mm_away_is_new():
    first = boxes(((10, 10, 3), (8, 8, 4)))
    near, far = boxes(((21, 10, 3), (8, 8, 4))), boxes(((23, 10, 3), (8, 8, 4)))
    assert match(first, near, MM).parts == {1: (1,)}
    assert match(first, far, MM).new == (1,)


@pytest.mark.parametrize(("width", "merged"), [(24, {2: 1}), (23, {})])
def test_a_lesion_has_merged_where_another_lies_on_a_quarter_of_it(width, merged):
    """Of its 12 columns 3 are a quarter; the later date's slices are twice as thick, and lie elsewhere."""
    first = boxes(((5, 5, 2), (13, 20, 4)), ((26, 5, 2), (12, 12, 4)))
    there = np.array([[1.0, 0, 0, 30], [0, 1, 0, -20], [0, 0, 2, 7.5], [0, 0, 0, 1]])
    mask = np.zeros((60, 60, 6), bool)
    mask[5 : 5 + width, 5:25, 1:3] = True
    shift = np.eye(4)
    shift[:3, 3] = (-30, 20, -7)
    found = match(first, measure_mask(mask, there, "ET"), shift)
    assert found.parts == {1: (1,), 2: ()} and found.merged == merged


def test_other_borders_of_a_box():
    """12 x 12 in 4 slices, diagonals of 11 sqrt(2); a voxel less in the slices leaves 10 x 10."""
    measured = boxes(((10, 10, 3), (12, 12, 4)))
    probability = np.where(measured.labelled > 0, 0.6, 0.0).astype(np.float32)
    probability[12:20, 12:20, 3:7] = 0.9
    probability[22, 10:22, 3:7] = 0.4
    probability[50, 50, 3] = 0.4  # meets no lesion
    found = spread(measured, [1], probability, MM)
    assert found["one voxel less"] == pytest.approx((2 * 9**2, 0.4))
    assert found["one voxel more"][1] == pytest.approx(4 * (144 + 48) / 1000)
    assert found["P >= 0.7"] == pytest.approx((2 * 7**2, 0.256))
    assert found["P >= 0.3"][1] == pytest.approx(4 * 12 * 13 / 1000)
