"""Metrics against hand-computed masks, a brute-force oracle, and MONAI where both masks hold something."""

import itertools

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.evaluation import metrics
from segmamba.evaluation.metrics import dice, hd95, lesion_wise, nsd, paper_scores, region_scores

SHAPE = (11, 7, 9)
SPACING = (0.9, 2.5, 1.3)


@pytest.fixture(params=["tree", "transform"])
def search(request, monkeypatch):
    """Both ways to the nearest surface voxel."""
    monkeypatch.setattr(metrics, "TREE_VOXELS", {"tree": 10**9, "transform": 0}[request.param])


def empty(shape=SHAPE):
    return np.zeros(shape, bool)


def box(shape, *sides):
    """A mask of `shape` that is true in start <= index < stop of each axis."""
    mask = empty(shape)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def blobs(seed, shape=SHAPE):
    """A random mask with holes, lone voxels and voxels at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random(tuple(-(-size // 3) for size in shape)) < 0.4
    mask = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(size) for size in shape)]
    return mask ^ (rng.random(shape) < 0.05)


def brute_distances(a, b, spacing):
    """Voxel by voxel: surface by looking at each face neighbour, every distance between all pairs; both ways."""

    def surface(mask):
        points = []
        for index in itertools.product(*map(range, mask.shape)):
            if not mask[index]:
                continue
            for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
                beside = list(index)
                beside[axis] += step
                if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                    points.append([i * size for i, size in zip(index, spacing)])
                    break
        return points

    def directed(start, goal):
        return [min(sum((p - q) ** 2 for p, q in zip(x, y)) ** 0.5 for y in goal) for x in start]

    one, other = surface(a), surface(b)
    return directed(one, other), directed(other, one)


def brute_percentile(distances):
    ordered = sorted(distances)
    rank = 0.95 * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def brute_hd95(a, b, spacing):
    return max(map(brute_percentile, brute_distances(a, b, spacing)))


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


# ---- Lesion by lesion

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
