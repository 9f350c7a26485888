"""Lines that a person has drawn: what is drawn counts, and what is odd about two lines of a lesion is said."""

import numpy as np
import pytest
from followup_lesions import MM, boxes, drawn
from segmamba.followup.by_hand import ByHand, Line, with_lines
from segmamba.followup.dates import Timepoint
from segmamba.followup.follow import Settings, follow
from segmamba.followup.match import fingerprint
from segmamba.images.image_io import Image
from segmamba.preparation.register import Registration

PLACE = ((10, 10, 3), (12, 12, 4))
D1 = [[10.0, 15, 4], [21, 15, 4]]
THICK = np.diag([1.0, 1, 5, 1])


def notes(d1, d2, affine=MM):
    lines = [Line(which, np.array(ends, float)) for which, ends in (("D1", d1), ("D2", d2)) if ends]
    measured = boxes(PLACE, affine=affine)
    return with_lines(measured, lines).lesions[0].notes


@pytest.mark.parametrize(
    ("d2", "expected"),
    [
        ([[15, 10, 4], [15, 20, 4]], ()),
        ([[15, 10, 4.4], [15, 20, 4]], ()),  # less than half a slice
        ([[15, 15.4, 4], [15, 21, 4]], ()),  # less than half a voxel away from D1
        ([[15, 10, 4], [15.3, 20, 4]], ()),  # 1.7 degrees
        ([[15, 10, 5], [15, 20, 5]], ("D1 and D2 are 1.0 slices apart",)),
        ([[15, 10, 4], [15, 20, 4.6]], ("D2 runs through slices",)),
        ([[14, 10, 4], [16, 20, 4]], ("D2 is 11.3 degrees off a right angle to D1",)),
        ([[14, 10, 4], [14.35, 20, 4]], ("D2 is 2.005 degrees off a right angle to D1",)),
        ([[15, 16, 4], [15, 21, 4]], ("D2 does not cross D1",)),
        ([[11, 16, 4], [20, 16, 4]], ("D2 is 90.0 degrees off a right angle to D1", "D2 does not cross D1")),
        ([[15, 9, 4], [15, 21, 4]], ("D2 is longer than D1",)),
        (
            [[23, 10, 6], [23, 21.5, 6]],
            ("D1 and D2 are 2.0 slices apart", "D2 does not cross D1", "D2 is longer than D1"),
        ),
    ],
)
def test_what_is_odd_about_two_lines_is_said(d2, expected):
    assert notes(D1, d2) == expected


def test_slices_are_those_of_the_images():
    """5 mm apart: 2 mm are less than half of one, 3 mm more."""
    first = [[10, 15, 20], [21, 15, 20]]
    assert notes(first, [[15, 10, 22], [15, 20, 22]], THICK) == ()
    assert notes(first, [[15, 10, 23], [15, 20, 23]], THICK) == ("D1 and D2 are 0.6 slices apart",)
    assert notes([[10, 15, 18.5], [21, 15, 21.5]], [[15, 10, 20], [15, 20, 20]], THICK) == ("D1 runs through slices",)


def test_a_line_that_was_moved_counts_with_the_measured_one_and_what_is_odd_is_a_warning():
    """D1 along an edge, D2 the diagonal of the box, as measured; the lesion is no target, for there is one larger."""
    places = [PLACE, ((30, 10, 3), (20, 20, 4))]
    image, found = Image(np.zeros((60, 60, 12), np.float32), MM), Registration(np.eye(4), 1, 1, 1, 1, 9, 10, 0)
    timepoints = [Timepoint(day, drawn(image.array.shape, *places), MM, image) for day in (0, 60)]
    known = {(fingerprint(image), fingerprint(image)): (found, "")}
    hand = ByHand({60: [Line("D1", np.array(D1) - (0, 0, 1))]})
    result = follow(timepoints, Settings(targets=1), by_hand=hand, known=known)
    lesion = result.dates[1].measured.lesions[1]
    assert lesion.product == pytest.approx(11 * 11 * np.sqrt(2))
    told = [text for text in result.warnings if text.startswith("day 60, lesion 2: ")]
    assert told == [
        "day 60, lesion 2: D2 is 45.0 degrees off a right angle to D1",
        "day 60, lesion 2: D2 is longer than D1",
        "day 60, lesion 2: D1 drawn by hand",
    ]
