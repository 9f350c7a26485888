"""Images given in each other's place: the exchange is made here, and has to be named; nothing else is to be said."""

import json
from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage
from segmamba.cases.case import find_case, read_images, save_image
from segmamba.cases.swaps import judge, swap_warnings
from segmamba.datasets.phantom import make_phantom
from segmamba.models.package import load_package
from segmamba.prediction.predict import PredictOptions, predict_case
from segmamba.shared.swaps import MODALITIES, gains, sample_together

PAIRS = list(combinations(MODALITIES, 2))
TITLES = {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(4, spacing=(3.0, 3.5, 4.0), enhancing=True)


def exchanged(images, pair):
    one, other = pair
    return {**images, one: images[other], other: images[one]}


def warnings_of(images, affine):
    return swap_warnings(images, dict.fromkeys(images, affine))


def names_in(sentence):
    words = sentence.replace(".", " ").split()
    return {modality for modality, title in TITLES.items() if title in words}


@pytest.mark.parametrize("pair", PAIRS)
def test_each_exchange_is_named(phantom, pair):
    assert warnings_of(phantom.images, phantom.affine) == []
    (warning,) = warnings_of(exchanged(phantom.images, pair), phantom.affine)
    assert names_in(warning) == set(pair)


def test_undoing_an_exchange_wins_what_it_lost(phantom):
    """So that 0 lies in the middle between right and wrong."""
    affines = dict.fromkeys(MODALITIES, phantom.affine)
    right = gains(sample_together(phantom.images, affines).values)
    for pair in PAIRS:
        wrong = gains(sample_together(exchanged(phantom.images, pair), affines).values)
        assert wrong[pair] == pytest.approx(-right[pair], abs=1e-9)


@pytest.mark.parametrize(
    ("absent", "pairs"),
    [
        (("t1n",), [("t1c", "t2f"), ("t2w", "t2f")]),
        (("t1c",), [("t1n", "t2f"), ("t2w", "t2f")]),
        (("t2w",), [("t1n", "t1c")]),
        (("t2f",), [("t1n", "t1c"), ("t1c", "t2w")]),
        (("t2w", "t2f"), [("t1n", "t1c")]),
        (("t1n", "t1c"), []),
        (("t1n", "t2f"), []),
    ],
)
def test_fewer_images_can_be_judged(phantom, absent, pairs):
    images = {m: image for m, image in phantom.images.items() if m not in absent}
    assert warnings_of(images, phantom.affine) == []
    for pair in pairs:
        assert len(warnings_of(exchanged(images, pair), phantom.affine)) == 1, pair


def test_images_on_other_grids_are_compared_where_they_show_the_same(phantom):
    """T2 with every second slice, stored from the other side; FLAIR shifted by whole voxels."""
    images, affines = dict(phantom.images), {m: phantom.affine.copy() for m in MODALITIES}
    images["t2w"] = images["t2w"][::-1, :, ::2]
    affines["t2w"][:3, 3] += affines["t2w"][:3, 0] * (phantom.images["t2w"].shape[0] - 1)
    affines["t2w"][:3, 0] *= -1
    affines["t2w"][:3, 2] *= 2
    images["t2f"] = images["t2f"][2:, 1:]
    affines["t2f"][:3, 3] += affines["t2f"] @ [2, 1, 0, 0] @ np.eye(4)[:, :3]
    assert swap_warnings(images, affines) == []
    (warning,) = swap_warnings(exchanged(images, ("t2w", "t2f")), exchanged(affines, ("t2w", "t2f")))
    assert names_in(warning) == {"t2w", "t2f"}


def test_a_scalp_of_misleading_contrast_is_not_looked_at(phantom):
    """Around the brain fat that is as bright on T1 as enhancement on T1c, and looks like fluid on T2's stead."""
    brain = np.pad(phantom.images["t1c"] > 0, 14)
    far = np.indices(brain.shape) * np.array([3.0, 3.5, 4.0])[:, None, None, None]
    middle = far[:, brain].mean(1)[:, None, None, None]
    ball = np.linalg.norm(far - middle, axis=0)
    radius = ball[brain].max()
    rng = np.random.default_rng(1)
    heads = {}
    for modality, image in phantom.images.items():
        image, level = np.pad(image, 14), float(np.median(image[image > 0]))
        scalp = {"t1n": 4.0, "t1c": 1.0, "t2w": 0.2, "t2f": 4.0}[modality]
        wild = level * scalp * rng.uniform(0.5, 1.5, image.shape)
        heads[modality] = np.where(brain, image, np.where((ball > radius + 3) & (ball < radius + 12), wild, 0))
    affines = dict.fromkeys(MODALITIES, phantom.affine)
    assert sample_together(heads, affines).is_head
    assert not sample_together(phantom.images, affines).is_head
    assert swap_warnings(heads, affines) == []
    for pair in (("t1n", "t1c"), ("t2w", "t2f"), ("t1c", "t2f")):
        assert len(swap_warnings(exchanged(heads, pair), affines)) == 1, pair


def test_fat_that_stripping_left_is_not_taken_for_contrast_agent(phantom):
    """As on the T1 of three of 24 cases of BraTS-Africa: a rim as bright as that won against what enhances."""
    brain = np.logical_or.reduce([image > 0 for image in phantom.images.values()])
    rim = brain & ~ndimage.binary_erosion(brain, iterations=1)  # 3 to 4 mm
    bright = np.percentile(phantom.images["t1n"][brain], 99.9) * 2
    images = {**phantom.images, "t1n": np.where(rim, bright, phantom.images["t1n"])}
    assert warnings_of(images, phantom.affine) == []
    (warning,) = warnings_of(exchanged(images, ("t1n", "t1c")), phantom.affine)
    assert names_in(warning) == {"t1n", "t1c"}


def test_more_is_asked_of_a_head():
    found = {("t1n", "t1c"): 0.5, ("t2w", "t2f"): -0.4}
    assert judge(found, is_head=True) == []
    assert names_in(judge(found, is_head=False)[0]) == {"t2w", "t2f"}


def test_too_little_to_say(phantom):
    affine = phantom.affine
    assert warnings_of({}, affine) == []
    assert warnings_of({"t1c": phantom.images["t1c"]}, affine) == []
    assert warnings_of({"ct": phantom.images["t1c"], "pet": phantom.images["t1n"]}, affine) == []
    assert warnings_of({m: np.zeros((9, 8, 7)) for m in MODALITIES}, affine) == []
    few = {m: np.zeros_like(image) for m, image in phantom.images.items()}
    for modality, image in phantom.images.items():
        few[modality][30:37, 30:37, 20:27] = image[30:37, 30:37, 20:27]
    assert 0 < np.count_nonzero(few["t1c"]) < 500
    assert warnings_of(exchanged(few, ("t2w", "t2f")), affine) == []


def test_a_case_is_judged_as_the_network_sees_it(phantom, tiny_model, tmp_path):
    notes = {}
    for name, images in (("right", phantom.images), ("wrong", exchanged(phantom.images, ("t2w", "t2f")))):
        (folder := tmp_path / name).mkdir()
        for modality, image in images.items():
            save_image(image, phantom.affine, folder / f"{modality}.nii.gz", np.float32)
        predict_case(load_package(tiny_model), find_case(folder), folder, name, PredictOptions())
        notes[name] = json.loads((folder / f"{name}-summary.json").read_text())["notes"]
    warning = "Fluid is dark in T2 and brighter in FLAIR. Are T2 and FLAIR swapped?"
    assert warning in notes["wrong"] and warning not in notes["right"]


def test_real_cases(brats):
    """Those where the right order wins by least; the whole is measured in Testing/benchmarks/swap_guard.py."""
    for name in ("BraTS2021_00006", "BraTS2021_01478"):
        images = read_images(find_case(brats / name))
        arrays = {m: image.array[::2, ::2, ::2] for m, image in images.items()}
        affine = images["t1c"].affine @ np.diag([2, 2, 2, 1])
        assert warnings_of(arrays, affine) == []
        for pair in PAIRS:
            assert len(warnings_of(exchanged(arrays, pair), affine)) == 1, (name, pair)
