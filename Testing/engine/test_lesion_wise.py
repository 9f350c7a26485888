"""Metrics lesion by lesion, as BraTS 2023 counts: which voxels are one lesion, what a lesion is compared with."""

import numpy as np
import pytest
from masks import blobs, box, brute_hd95, empty
from segmamba.evaluation.metrics import dice, lesion_wise

ROOM = (44, 21, 17)
UNIT = (1.0, 1.0, 1.0)
LEFT = box(ROOM, (2, 6), (4, 8), (4, 8))  # 64 voxels
RIGHT = box(ROOM, (30, 35), (4, 8), (4, 8))  # 80 voxels


def scores(prediction, truth, **options):
    result = lesion_wise(prediction, truth, UNIT, **options)
    assert type(result["dice"]) is float and type(result["hd95"]) is float
    return result["dice"], result["hd95"], result["lesions"], result["false_positives"]


def test_nothing_anywhere_is_perfect():
    assert scores(empty(ROOM), empty(ROOM)) == (1.0, 0.0, 0, 0)


def test_perfect_answer():
    assert scores(LEFT | RIGHT, LEFT | RIGHT) == (1.0, 0.0, 2, 0)


def test_missed_lesion():
    assert scores(empty(ROOM), LEFT) == (0.0, 374.0, 1, 0)
    assert scores(LEFT, LEFT | RIGHT) == (0.5, 187.0, 2, 0)


def test_false_positive_alone_and_beside_a_lesion():
    stray = box(ROOM, (20, 21), (15, 16), (12, 13))  # one voxel: there is no size below which it is forgiven
    assert scores(stray, empty(ROOM)) == (0.0, 374.0, 0, 1)
    assert scores(LEFT | stray, LEFT) == (0.5, 187.0, 1, 1)
    two = stray | box(ROOM, (20, 21), (15, 16), (14, 15))
    dice_, hd, n, strays = scores(LEFT | two, LEFT)
    assert (n, strays) == (1, 2)
    assert dice_ == pytest.approx(1 / 3)
    assert hd == pytest.approx(2 * 374 / 3)


def test_large_lesion_does_not_hide_a_small_one():
    small = box(ROOM, (30, 34), (4, 8), (4, 8))  # 64
    large = box(ROOM, (2, 20), (2, 18), (2, 14))  # 3456
    assert dice(large, large | small) > 0.99
    assert scores(large, large | small)[0] == 0.5


@pytest.mark.parametrize(("length", "scored"), [(12, 0), (13, 1)])
def test_lesions_up_to_50_mm3_are_not_scored(length, scored):
    # 4 mm3 a voxel: 12 voxels are 48 mm3, 13 are 52
    lesion = box(ROOM, (2, 2 + length), (4, 5), (4, 5))
    spacing = (1.0, 2.0, 2.0)
    missed = lesion_wise(empty(ROOM), lesion, spacing)
    found = lesion_wise(lesion, lesion, spacing)
    assert (missed["lesions"], found["lesions"]) == (scored, scored)
    assert (missed["dice"], missed["hd95"]) == ((0.0, 374.0) if scored else (1.0, 0.0))
    assert (found["dice"], found["hd95"], found["false_positives"]) == (1.0, 0.0, 0)


def test_exactly_50_mm3_is_small_also_with_spacing_from_float32():
    lesion = box(ROOM, (2, 7), (4, 9), (4, 6))  # 50 voxels
    for size in (1.0, 1.0000001):
        assert lesion_wise(empty(ROOM), lesion, (size, 1.0, 1.0))["lesions"] == 0
    assert lesion_wise(empty(ROOM), lesion, UNIT, smallest=49)["lesions"] == 1


def test_component_on_a_small_lesion_is_no_false_positive_but_one_away_from_it_is():
    small = box(ROOM, (30, 32), (4, 6), (4, 6))  # 8 voxels
    answer = box(ROOM, (31, 35), (4, 8), (4, 8))
    assert scores(LEFT | answer, LEFT | small) == (1.0, 0.0, 1, 0)
    away = box(ROOM, (20, 22), (12, 14), (12, 14))
    assert scores(away, small) == (0.0, 374.0, 0, 1)
    assert scores(answer, small) == (1.0, 0.0, 0, 0)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_that_dilation_joins_are_one(gap, lesions):
    # Each grows by 3 voxels: with 6 free voxels between them the grown ones touch, with 7 a layer is free.
    left = box(ROOM, (2, 6), (4, 8), (4, 8))
    right = box(ROOM, (6 + gap, 10 + gap), (4, 8), (4, 8))
    dice_, hd, n, strays = scores(left, left | right)
    assert (n, strays) == (lesions, 0)
    if lesions == 2:
        assert (dice_, hd) == (0.5, 187.0)
    else:
        assert dice_ == pytest.approx(2 * 64 / (64 + 128))
        assert hd == pytest.approx(brute_hd95(left, left | right, UNIT))


def test_small_pieces_that_dilation_joins_are_scored_together():
    pieces = box(ROOM, (2, 4), (4, 8), (4, 8)) | box(ROOM, (7, 9), (4, 8), (4, 8))  # 32 + 32 voxels
    assert scores(empty(ROOM), pieces) == (0.0, 374.0, 1, 0)
    assert scores(empty(ROOM), pieces, dilation=0) == (1.0, 0.0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_room_around_the_masks_changes_nothing(seed):
    prediction, truth = blobs(seed, (13, 9, 11)), blobs(seed + 50, (13, 9, 11))
    truth &= np.random.default_rng(seed).random(truth.shape) < 0.02  # lone voxels that growing may join
    options = {"dilation": 1, "smallest": 0}
    wide = [np.pad(mask, 4) for mask in (prediction, truth)]
    assert scores(*wide, **options) == scores(prediction, truth, **options)
    assert scores(empty((13, 9, 11)), truth, **options)[2] > 1


def test_dilation_is_18_connected():
    # Faces and edges, no corners. Grown once, (5, 5, 5) and (8, 8, 8) reach (6, 6, 5), (7, 7, 8) and the
    # like, never neighbours; with corners they would meet at (6, 6, 6) and (7, 7, 7).
    pair = empty(ROOM)
    pair[5, 5, 5] = pair[8, 8, 8] = True
    assert scores(empty(ROOM), pair, dilation=1, smallest=0)[2] == 2
    beside = empty(ROOM)
    beside[5, 5, 5] = beside[8, 7, 5] = True  # grown: (6, 6, 5) and (7, 6, 5), face to face
    assert scores(empty(ROOM), beside, dilation=1, smallest=0)[2] == 1


def test_components_are_26_connected():
    corner = box(ROOM, (20, 21), (10, 11), (10, 11)) | box(ROOM, (21, 22), (11, 12), (11, 12))
    assert scores(corner, empty(ROOM))[3] == 1
    assert scores(empty(ROOM), corner, dilation=0, smallest=0)[2] == 1
    apart = box(ROOM, (20, 21), (10, 11), (10, 11)) | box(ROOM, (22, 23), (11, 12), (11, 12))
    assert scores(apart, empty(ROOM))[3] == 2


@pytest.mark.parametrize(("gap", "met"), [(2, True), (3, False)])
def test_a_component_is_the_lesions_if_it_touches_the_grown_lesion(gap, met):
    # LEFT ends before x = 6 and, grown by 3, before x = 9: a component that starts there is not touched.
    answer = box(ROOM, (6 + gap, 12 + gap), (4, 8), (4, 8))
    dice_, hd, n, strays = scores(answer, LEFT)
    assert dice_ == 0.0
    if met:
        assert (n, strays) == (1, 0)
        assert hd == pytest.approx(brute_hd95(answer, LEFT, UNIT))
    else:
        assert (n, strays, hd) == (1, 1, 374.0)


def test_a_lesion_is_compared_with_all_its_components_whole():
    truth = box(ROOM, (2, 12), (4, 8), (4, 8))  # 160
    answer = box(ROOM, (2, 5), (4, 8), (4, 8)) | box(ROOM, (9, 20), (4, 8), (4, 8))  # 48 + 176, 48 + 48 inside
    dice_, hd, n, strays = scores(answer, truth)
    assert (n, strays) == (1, 0)
    assert dice_ == pytest.approx(2 * 96 / (160 + 224))
    assert hd == pytest.approx(brute_hd95(answer, truth, UNIT))


def test_a_component_over_two_lesions_counts_whole_for_each():
    bridge = box(ROOM, (2, 35), (4, 8), (4, 8))  # 33 * 16
    dice_, hd, n, strays = scores(bridge, LEFT | RIGHT)
    assert (n, strays) == (2, 0)
    assert dice_ == pytest.approx((2 * 64 / (64 + 528) + 2 * 80 / (80 + 528)) / 2)
    assert hd == pytest.approx((brute_hd95(bridge, LEFT, UNIT) + brute_hd95(bridge, RIGHT, UNIT)) / 2)


def test_lesion_distances_are_in_mm():
    spacing = (2.0, 0.5, 1.5)
    answer = box(ROOM, (3, 7), (4, 8), (4, 8))
    result = lesion_wise(answer, LEFT, spacing)
    assert result["hd95"] == pytest.approx(brute_hd95(answer, LEFT, spacing))


def test_lesions_at_the_border_of_the_array():
    corner = box(ROOM, (0, 4), (0, 4), (0, 4))
    far = box(ROOM, (40, 44), (17, 21), (13, 17))
    assert scores(corner | far, corner | far) == (1.0, 0.0, 2, 0)
    assert scores(far, corner) == (0.0, 374.0, 1, 1)
