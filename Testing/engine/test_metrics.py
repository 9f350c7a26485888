"""Metrics of whole masks and regions against hand-made cases, brute force over all surface voxels, and MONAI."""

import itertools

import numpy as np
import pytest
import torch
from masks import SHAPE, SPACING, blobs, box, brute_distances, brute_hd95, brute_percentile, empty
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.evaluation import metrics
from segmamba.evaluation.metrics import dice, hd95, lesion_wise, nsd, paper_scores, region_scores


@pytest.fixture(params=["tree", "transform"])
def search(request, monkeypatch):
    """Both ways to the nearest surface voxel."""
    monkeypatch.setattr(metrics, "TREE_VOXELS", {"tree": 10**9, "transform": 0}[request.param])


# ---- Dice


def test_dice_by_hand():
    prediction = np.array([[1, 1, 0], [0, 1, 0]], bool)
    truth = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert dice(prediction, truth) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(truth, truth) == 1.0
    assert dice(prediction, ~prediction) == 0.0
    assert type(dice(prediction, truth)) is float


def test_dice_of_empty_masks():
    some = box(SHAPE, (1, 2), (1, 2), (1, 2))
    assert dice(empty(), empty()) == 1.0
    assert dice(some, empty()) == 0.0
    assert dice(empty(), some) == 0.0


# ---- HD95


def test_hd95_of_two_voxels_uses_the_spacing_of_each_axis(search):
    for axis, size in enumerate(SPACING):
        one, other = empty(), empty()
        one[1, 1, 1] = True
        there = [1, 1, 1]
        there[axis] += 3
        other[tuple(there)] = True
        assert hd95(one, other, SPACING) == pytest.approx(3 * size)


def test_hd95_is_the_larger_direction_not_the_pooled_one(search):
    truth = box((31, 3, 2), (0, 1), (0, 1), (0, 1))
    prediction = box((31, 3, 2), (0, 21), (0, 1), (0, 1))
    # from the truth: 0; from the prediction: 0, 2, .. 40 mm in 21 steps, of which rank 0.95 * 20 = 19 is 38
    assert hd95(prediction, truth, (2.0, 1.0, 1.0)) == pytest.approx(38.0)
    assert hd95(truth, prediction, (2.0, 1.0, 1.0)) == pytest.approx(38.0)


def test_hd95_interpolates_between_ranks(search):
    truth = box((12, 3, 2), (0, 1), (0, 1), (0, 1))
    prediction = box((12, 3, 2), (0, 11), (0, 1), (0, 1))
    assert hd95(prediction, truth, (1.0, 1.0, 1.0)) == pytest.approx(9.5)  # 0..10, rank 9.5


def test_hd95_measures_surfaces(search):
    # The inside of the cube lies up to 2 voxels from the surface, which must not count.
    cube = box((9, 8, 7), (1, 6), (1, 6), (1, 6))
    hollow = cube.copy()
    hollow[2:5, 2:5, 2:5] = False
    # shell of one voxel: its surface is the cube's surface
    assert hd95(hollow, cube, SPACING) == 0.0


def test_the_border_of_the_array_is_surface(search):
    full = np.ones((5, 4, 3), bool)
    corner = box((5, 4, 3), (0, 1), (0, 1), (0, 1))
    assert hd95(full, corner, SPACING) == pytest.approx(brute_hd95(full, corner, SPACING))


def test_hd95_of_empty_masks():
    some = box(SHAPE, (1, 2), (1, 2), (1, 2))
    assert hd95(empty(), empty(), SPACING) == 0.0
    assert hd95(some, empty(), SPACING) == 374.0
    assert hd95(empty(), some, SPACING) == 374.0


@pytest.mark.parametrize("seed", range(8))
def test_hd95_against_brute_force(seed, search):
    prediction, truth = blobs(seed), blobs(seed + 100)
    assert hd95(prediction, truth, SPACING) == pytest.approx(brute_hd95(prediction, truth, SPACING), rel=1e-12)


def test_hd95_does_not_depend_on_the_storage_of_the_arrays(search):
    prediction, truth = blobs(1), blobs(2)
    expected = hd95(prediction, truth, SPACING)
    assert hd95(np.asfortranarray(prediction), truth[::-1][::-1], SPACING) == expected
    turned = hd95(prediction.transpose(2, 0, 1), truth.transpose(2, 0, 1), [SPACING[axis] for axis in (2, 0, 1)])
    assert turned == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_hd95_against_monai(seed):
    # MONAI has the same surface and percentile but computes in float32: 24 bits, so some 1e-7 of the value;
    # 1e-5 leaves room for its sums.
    shape = (23, 17, 19)
    prediction, truth = blobs(seed, shape), blobs(seed + 50, shape)
    theirs = compute_hausdorff_distance(
        torch.from_numpy(prediction)[None, None],
        torch.from_numpy(truth)[None, None],
        include_background=True,
        percentile=95,
        spacing=SPACING,
    ).item()
    assert hd95(prediction, truth, SPACING) == pytest.approx(theirs, rel=1e-5)


# ---- NSD


def test_nsd_by_hand(search):
    # Rods of 10 and 7 voxels, 2 mm apart along the rod, the first 7 shared; every voxel is surface. The rod's 3 others
    # lie 2, 4 and 6 mm from the truth.
    prediction = box((12, 3, 2), (1, 11), (1, 2), (0, 1))
    truth = box((12, 3, 2), (1, 8), (1, 2), (0, 1))
    for tolerance, near in ((0, 14), (1.0, 14), (2.0, 15), (3.9, 15), (4.0, 16), (6.0, 17)):
        assert nsd(prediction, truth, (2.0, 1.0, 1.0), tolerance) == pytest.approx(near / 17)
        assert nsd(truth, prediction, (2.0, 1.0, 1.0), tolerance) == pytest.approx(near / 17)
    assert type(nsd(prediction, truth, SPACING)) is float


def test_nsd_counts_voxels_of_both_surfaces_not_the_mean_of_two_shares(search):
    prediction = box((12, 3, 2), (0, 9), (0, 1), (0, 1))
    truth = box((12, 3, 2), (0, 1), (0, 1), (0, 1))
    # within 1 mm: 2 of 9 and 1 of 1; the mean of the shares would be 0.61
    assert nsd(prediction, truth, (1.0, 1.0, 1.0)) == pytest.approx(3 / 10)


def test_nsd_of_empty_masks():
    some = box(SHAPE, (1, 4), (1, 4), (1, 4))
    assert nsd(empty(), empty(), SPACING) == 1.0
    assert nsd(some, empty(), SPACING, 1000.0) == 0.0
    assert nsd(empty(), some, SPACING, 1000.0) == 0.0


def test_a_border_off_by_one_voxel_is_forgiven_also_with_spacing_from_float32(search):
    truth = box((12, 9, 8), (2, 7), (2, 7), (2, 6))
    for size in (1.0, 1.0000001):
        assert nsd(np.roll(truth, 1, 0), truth, (size,) * 3) == 1.0
        assert nsd(np.roll(truth, 1, 0), truth, (size,) * 3, 0.99) < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_nsd_against_brute_force(seed, search):
    prediction, truth = blobs(seed), blobs(seed + 100)
    both = list(itertools.chain(*brute_distances(prediction, truth, SPACING)))
    for tolerance in (0.0, 1.0, 2.0):
        near = sum(distance <= tolerance for distance in both)
        assert nsd(prediction, truth, SPACING, tolerance) == pytest.approx(near / len(both), rel=1e-12)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.6])
def test_nsd_against_monai(tolerance):
    shape = (23, 17, 19)
    masks = [blobs(7, shape), blobs(57, shape), np.roll(blobs(7, shape), 1, 2), box(shape, (3, 20), (2, 11), (4, 16))]
    for prediction, truth in itertools.combinations(masks, 2):
        theirs = compute_surface_dice(
            torch.from_numpy(prediction)[None, None],
            torch.from_numpy(truth)[None, None],
            class_thresholds=[tolerance],
            include_background=True,
            spacing=SPACING,
        ).item()
        assert nsd(prediction, truth, SPACING, tolerance) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_tolerances_that_are_none_are_refused(tolerance):
    with pytest.raises(InputError, match="tolerance"):
        nsd(empty(), empty(), SPACING, tolerance)
    with pytest.raises(InputError, match="tolerance"):
        region_scores(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8), SPACING, tolerance=tolerance)


# ---- Regions


def test_region_scores_by_hand():
    truth = np.zeros(SHAPE, np.uint8)
    truth[2, 3, 1:9] = [2, 2, 1, 1, 3, 3, 2, 2]
    prediction = np.zeros(SHAPE, np.uint8)
    prediction[2, 3, 1:9] = [2, 2, 2, 1, 3, 0, 0, 0]
    scores = region_scores(prediction, truth, (1.0, 1.0, 2.0))
    assert list(scores) == ["WT", "TC", "ET"]
    assert scores["WT"]["dice"] == pytest.approx(2 * 5 / (5 + 8))
    assert scores["TC"]["dice"] == pytest.approx(2 * 2 / (2 + 4))
    assert scores["ET"]["dice"] == pytest.approx(2 * 1 / (1 + 2))
    # WT, truth to prediction: 0 0 0 0 0 2 4 6 mm, rank 0.95 * 7 = 6.65
    assert scores["WT"]["hd95"] == pytest.approx(4 + 0.65 * 2)
    # TC, truth to prediction: 2 0 0 2, rank 2.85
    assert scores["TC"]["hd95"] == pytest.approx(2.0)
    # ET, truth to prediction: 0 2, rank 0.95
    assert scores["ET"]["hd95"] == pytest.approx(0.95 * 2)
    # within 1 mm only what is shared: 5 of 8 and 5, 2 of 4 and 2, 1 of 2 and 1
    assert [scores[region]["nsd"] for region in scores] == pytest.approx([10 / 13, 4 / 6, 2 / 3])
    wide = region_scores(prediction, truth, (1.0, 1.0, 2.0), tolerance=2.0)
    assert [wide[region]["nsd"] for region in wide] == pytest.approx([11 / 13, 1.0, 1.0])


def test_region_without_voxels_is_scored_by_the_convention():
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:4, 2:5, 3:6] = 2
    prediction = truth.copy()
    prediction[2, 3, 4] = 1
    scores = region_scores(prediction, truth, SPACING)
    assert scores["WT"] == {"dice": 1.0, "hd95": 0.0, "nsd": 1.0}
    assert scores["TC"] == {"dice": 0.0, "hd95": 374.0, "nsd": 0.0}
    assert scores["ET"] == {"dice": 1.0, "hd95": 0.0, "nsd": 1.0}


def test_regions_of_another_scheme():
    scheme = LabelScheme(labels={"airway": 1}, regions={"airway": ("airway",)})
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:4, 2:5, 3:6] = 1
    assert region_scores(truth, truth, SPACING, scheme) == {"airway": {"dice": 1.0, "hd95": 0.0, "nsd": 1.0}}
    with pytest.raises(InputError, match="2"):
        region_scores(truth * 2, truth, SPACING, scheme)


# ---- The scoring of the paper's authors


@pytest.mark.parametrize("seed", range(3))
def test_paper_scores_pool_the_distances(seed):
    prediction, truth = blobs(seed), blobs(seed + 100)
    scores = paper_scores(prediction * np.uint8(3), truth * np.uint8(3), SPACING)
    pooled = brute_percentile(list(itertools.chain(*brute_distances(prediction, truth, SPACING))))
    assert scores["ET"] == {"dice": dice(prediction, truth), "hd95": pytest.approx(pooled, rel=1e-12)}


def test_paper_scores_differ_from_the_challenges():
    truth = box((31, 3, 2), (0, 1), (0, 1), (0, 1)) * np.uint8(3)
    prediction = box((31, 3, 2), (0, 21), (0, 1), (0, 1)) * np.uint8(3)
    # pooled: 0, 0, 2, 4, .. 40 mm, 22 in all; rank 0.95 * 21 = 19.95
    assert paper_scores(prediction, truth, (2.0, 1.0, 1.0))["WT"]["hd95"] == pytest.approx(36 + 0.95 * 2)


def test_paper_scores_of_empty_regions():
    some, nothing = box(SHAPE, (1, 4), (1, 4), (1, 4)) * np.uint8(2), np.zeros(SHAPE, np.uint8)
    worst = {"dice": 0.0, "hd95": 50.0}
    assert paper_scores(some, some, SPACING) == {"WT": {"dice": 1.0, "hd95": 0.0}, "TC": worst, "ET": worst}
    for prediction, truth in ((some, nothing), (nothing, some), (nothing, nothing)):
        assert paper_scores(prediction, truth, SPACING) == {"WT": worst, "TC": worst, "ET": worst}
    with pytest.raises(InputError, match="shape"):
        paper_scores(nothing, nothing[:-1], SPACING)


def test_region_scores_refuse_a_label_of_another_convention():
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = 4
    with pytest.raises(InputError, match="4"):
        region_scores(labels, np.zeros(SHAPE, np.uint8), SPACING)


# ---- What is refused


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0), 1.0])
def test_wrong_spacing_is_refused(spacing):
    for score in (hd95, lesion_wise):
        with pytest.raises(InputError, match="spacing"):
            score(empty(), empty(), spacing)


@pytest.mark.parametrize("score", [dice, lambda a, b: hd95(a, b, SPACING), lambda a, b: lesion_wise(a, b, SPACING)])
def test_wrong_masks_are_refused(score):
    with pytest.raises(InputError, match="shape"):
        score(empty((11, 7, 9)), empty((11, 9, 7)))
    with pytest.raises(InputError, match="uint8"):
        score(empty().astype(np.uint8), empty())


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="dilation"):
        lesion_wise(empty(), empty(), SPACING, dilation=-1)
    with pytest.raises(InputError, match="axes"):
        lesion_wise(empty((4, 5)), empty((4, 5)), (1.0, 1.0))
