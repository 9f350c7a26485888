"""Label maps from probabilities, volumes, and small components, against hand-made masks and scikit-image."""

import nibabel as nib
import numpy as np
import pytest
import torch
from segmamba.errors import InputError
from segmamba.models.specs import PostprocessSpec
from segmamba.prediction.postprocess import describe_removed, postprocess, remove_small, to_label_map, volumes_ml
from skimage.measure import label as label_components

NCR, ED, ET = 1, 2, 3
# 0.5 x 2 x 3 mm, oblique and left-handed: 3 mm3 a voxel
ROTATION = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
AFFINE = np.eye(4)
AFFINE[:3, :3] = ROTATION @ np.diag([-0.5, 2, 3])
VOXEL = 3.0


@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor])
def test_the_largest_probability_wins(wrap):
    label_map = np.random.default_rng(0).integers(0, 4, (5, 3, 7))
    probabilities = np.full((4, 5, 3, 7), 0.2, np.float32)
    np.put_along_axis(probabilities, label_map[None], 0.4, 0)
    result = to_label_map(wrap(probabilities))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, label_map)


def test_ties_go_to_the_lower_label():
    assert to_label_map(np.full((4, 1, 1, 1), 0.25)).item() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_probabilities_give_no_label_map(value):
    probabilities = np.full((4, 2, 3, 4), 0.25)
    probabilities[2, 1, 1, 1] = value
    with pytest.raises(InputError, match=r"1 of 96 probabilities are NaN or infinite.*fp32"):
        to_label_map(probabilities)


def test_volumes():
    label_map = np.zeros((10, 20, 30), np.uint8)
    label_map[0, 0, :7] = NCR
    label_map[1, :, 0] = ED
    label_map[5, :15, :10] = ET
    expected = {"WT": 177 * 0.003, "TC": 157 * 0.003, "ET": 150 * 0.003, "NCR": 7 * 0.003, "ED": 20 * 0.003}
    assert volumes_ml(label_map, AFFINE) == pytest.approx(expected)


def test_volumes_of_no_tumour():
    assert set(volumes_ml(np.zeros((2, 3, 4), np.uint8), AFFINE).values()) == {0.0}


def scene():
    """Two separate lesions and specks, each far from the rest."""
    label_map = np.zeros((20, 15, 12), np.uint8)
    label_map[1:6, 1:6, 1:6] = ED  # 125 voxels, with a core of 27 and an enhancing pair in it
    label_map[2:5, 2:5, 2:5] = NCR
    label_map[3, 3, 2:4] = ET
    label_map[10:13, 10, 5] = ED  # 3 voxels
    label_map[15, 1, 1] = ET  # a lone voxel
    return label_map


def test_nothing_is_removed_unless_asked():
    label_map = scene()
    result, report = remove_small(label_map, AFFINE, {})
    np.testing.assert_array_equal(result, label_map)
    assert report == {}


def test_small_whole_tumours_become_background():
    result, report = remove_small(scene(), AFFINE, {"WT": 4 * VOXEL})
    expected = scene()
    expected[10:, :, :] = 0
    np.testing.assert_array_equal(result, expected)
    assert report == {"WT": {"components": 2, "voxels": 4}}


def test_a_component_of_just_the_limit_stays():
    result, report = remove_small(scene(), AFFINE, {"WT": 3 * VOXEL})
    assert report == {"WT": {"components": 1, "voxels": 1}}
    assert np.count_nonzero(result[10:13]) == 3


def test_a_small_core_becomes_oedema_with_all_that_is_in_it():
    result, report = remove_small(scene(), AFFINE, {"TC": 30 * VOXEL})
    expected = scene()
    expected[expected > 0] = ED
    np.testing.assert_array_equal(result, expected)
    assert report == {"TC": {"components": 2, "voxels": 28}}


def test_a_small_enhancing_part_becomes_necrosis():
    result, report = remove_small(scene(), AFFINE, {"ET": 10 * VOXEL})
    expected = scene()
    expected[expected == ET] = NCR
    np.testing.assert_array_equal(result, expected)
    assert report == {"ET": {"components": 2, "voxels": 3}}


def test_regions_are_cleaned_from_outside_in():
    result, report = remove_small(scene(), AFFINE, {"ET": 10 * VOXEL, "TC": 10 * VOXEL, "WT": 10 * VOXEL})
    expected = scene()
    expected[10:] = 0
    expected[expected == ET] = NCR
    np.testing.assert_array_equal(result, expected)
    assert list(report) == ["WT", "TC", "ET"]
    assert report["TC"] == {"components": 0, "voxels": 0}  # the lone voxel went with WT
    assert report["ET"] == {"components": 1, "voxels": 2}


def test_corners_connect():
    label_map = np.zeros((4, 5, 6), np.uint8)
    label_map[0, 0, 0] = label_map[1, 1, 1] = label_map[2, 2, 2] = ED
    assert remove_small(label_map, AFFINE, {"WT": 3 * VOXEL})[1]["WT"]["components"] == 0


def test_components_as_scikit_image_finds_them():
    rng = np.random.default_rng(2)
    label_map = (rng.random((17, 23, 11)) < 0.08).astype(np.uint8) * ED
    components = label_components(label_map > 0, connectivity=3)
    sizes = np.bincount(components.ravel())
    sizes[0] = 99
    result, report = remove_small(label_map, AFFINE, {"WT": 4 * VOXEL})
    np.testing.assert_array_equal(result > 0, (label_map > 0) & (sizes[components] >= 4))
    assert report["WT"] == {"components": int((sizes < 4).sum()), "voxels": int(sizes[sizes < 4].sum())}


def test_the_input_stays_as_it_was():
    label_map = scene()
    remove_small(label_map, AFFINE, {"WT": 1e9})
    np.testing.assert_array_equal(label_map, scene())


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"NCR": 1}, "unknown region NCR; known are WT, TC, ET"),
        ({"ET": -1}, "ET of -1"),
        ({"TC": np.nan}, "TC of nan"),
    ],
)
def test_limits_are_checked(limits, text):
    with pytest.raises(InputError, match=text):
        remove_small(scene(), AFFINE, limits)


def test_a_region_below_its_total_becomes_what_is_around_it():
    """Two spots of ET, 3 and 2 voxels of 3 mm3, in a core of 40: 15 mm3 in all are below 16 and not below 15."""
    label_map = np.zeros((10, 10, 10), np.uint8)
    label_map[1:9, 1:9, 1:9] = ED
    label_map[2:6, 2:7, 2:4] = NCR
    label_map[3, 3, 2:4], label_map[3, 4, 2] = ET, ET
    label_map[5, 5, 2:4] = ET
    kept, report = postprocess(label_map, AFFINE, PostprocessSpec(min_total_mm3={"ET": 15}))
    np.testing.assert_array_equal(kept, label_map)
    assert report == {"ET": {"components": 0, "voxels": 0}}
    result, report = postprocess(label_map, AFFINE, PostprocessSpec(min_total_mm3={"ET": 16}))
    np.testing.assert_array_equal(result, np.where(label_map == ET, NCR, label_map))
    assert report == {"ET": {"components": 2, "voxels": 5}}
    assert describe_removed(report, AFFINE) == "Too small, left out: 2 spots of ET (0.015 mL)"


def test_components_fall_away_before_the_total_is_taken():
    """Of 3 + 2 voxels of ET the 2 are a spot too small; what stays, 9 mm3, is below the total then."""
    label_map = np.zeros((8, 8, 8), np.uint8)
    label_map[1:7, 1:7, 1:7] = NCR
    label_map[2, 2, 2:5] = ET
    label_map[5, 5, 2:4] = ET
    spec = PostprocessSpec(min_component_mm3={"ET": 7}, min_total_mm3={"ET": 12})
    result, report = postprocess(label_map, AFFINE, spec)
    assert not (result == ET).any()
    assert report["ET"] == {"components": 2, "voxels": 5}


def oedema_scene():
    """Three components of WT: 64 voxels with a core of 8, 27 and 100 voxels of oedema alone."""
    label_map = np.zeros((20, 20, 20), np.uint8)
    label_map[1:5, 1:5, 1:5] = ED
    label_map[2:4, 2:4, 2:4] = NCR
    label_map[8:11, 8:11, 8:11] = ED
    label_map[13:18, 13:18, 13:17] = ED
    return label_map


@pytest.mark.parametrize(("limit", "gone"), [(27 * VOXEL, 0), (28 * VOXEL, 27), (1e9, 27)])
def test_oedema_without_a_core_is_left_out_below_its_limit_and_the_largest_never(limit, gone):
    label_map = oedema_scene()
    result, report = postprocess(label_map, AFFINE, PostprocessSpec(min_without_inner_mm3={"WT": limit}))
    expected = label_map.copy()
    if gone:
        expected[8:11, 8:11, 8:11] = 0
    np.testing.assert_array_equal(result, expected)
    assert report == {"WT": {"components": int(gone > 0), "voxels": gone}}


def test_a_speck_of_core_saves_no_oedema():
    """The specks fall away first; what fell away is reported with what falls away after it."""
    label_map = oedema_scene()
    label_map[9, 9, 9] = NCR
    spec = PostprocessSpec(min_component_mm3={"TC": 2 * VOXEL}, min_without_inner_mm3={"WT": 1000 * VOXEL})
    result, report = postprocess(label_map, AFFINE, spec)
    assert not result[8:11, 8:11, 8:11].any() and (result[2:4, 2:4, 2:4] == NCR).all()
    assert report == {"TC": {"components": 1, "voxels": 1}, "WT": {"components": 1, "voxels": 27}}


def test_a_region_with_nothing_inside_it_has_no_such_limit():
    with pytest.raises(InputError, match="region ET has no region inside it"):
        postprocess(scene(), AFFINE, PostprocessSpec(min_without_inner_mm3={"ET": 5}))


def test_nothing_is_said_where_nothing_fell_away():
    spec = PostprocessSpec(min_component_mm3={"WT": 1}, min_total_mm3={"TC": 1})
    result, report = postprocess(scene(), AFFINE, spec)
    np.testing.assert_array_equal(result, scene())
    assert describe_removed(report, AFFINE) is None


@pytest.mark.parametrize("limits", [{"WTT": 3}, {"ET": -1}, {"TC": float("nan")}])
def test_a_total_that_is_no_size_of_a_region(limits):
    with pytest.raises(InputError, match=r"unknown region|expected a number"):
        postprocess(scene(), AFFINE, PostprocessSpec(min_total_mm3=limits))


@pytest.mark.parametrize("seed", range(4))
def test_the_room_around_a_lesion_changes_nothing(seed):
    """Components are looked for in the box of what there is; seed 3: there is nothing."""
    labels = np.random.default_rng(seed).choice(4, (9, 11, 13), p=[0.9, 0.04, 0.03, 0.03]).astype(np.uint8)
    labels *= seed != 3
    limits = PostprocessSpec(min_component_mm3={"WT": 4, "TC": 3, "ET": 2}, min_total_mm3={"ET": 10})
    result, report = postprocess(labels, np.eye(4), limits)
    around = ((5, 3), (0, 7), (2, 0))
    wide, wide_report = postprocess(np.pad(labels, around), np.eye(4), limits)
    np.testing.assert_array_equal(wide, np.pad(result, around))
    assert wide_report == report and set(report) == {"WT", "TC", "ET"}
    assert bool(report["WT"]["components"]) == (seed != 3)
