"""Bias-field correction: a field that was multiplied on is found, zeros stay, what has none is left nearly as it is."""

import numpy as np
import pytest
import torch
from segmamba.cases.case import Case
from segmamba.datasets.phantom import make_phantom
from segmamba.errors import InputError
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.preprocess import preprocess
from segmamba.preparation.bias import correct_bias

SPACING = (3, 3, 3)
SHAPE = (44, 52, 48)


@pytest.fixture(scope="module")
def brain():
    """Two tissues in blobs of a few voxels, noise, and 0 outside an ellipsoid."""
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    tissue = np.where(np.sin(9 * places[0]) * np.sin(8 * places[1] + 1) * np.sin(7 * places[2]) > 0, 900, 600)
    image = tissue + rng.normal(0, 15, SHAPE)
    return np.where((places**2).sum(0) < 0.9, image, 0).astype(np.float32)


def field(strength):
    """Brighter above and to one side."""
    z, _, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.exp(strength * (z + 0.6 * x * x)).astype(np.float32)


def unevenness(image, truth):
    """Deviation of the logarithm of their ratio over the head: 0 where they differ by a factor."""
    head = truth > 0
    return float(np.std(np.log(image[head] / truth[head])))


def test_most_of_a_field_is_taken_away(brain):
    corrected = correct_bias(brain * field(0.3), SPACING)
    assert corrected.dtype == np.float32 and corrected.shape == brain.shape
    assert unevenness(brain * field(0.3), brain) > 0.12
    assert unevenness(corrected, brain) < 0.06
    assert np.array_equal(corrected == 0, brain == 0)


def test_voxels_of_different_sides(brain):
    coarse = (brain * field(0.3))[:, ::2]
    assert unevenness(correct_bias(coarse, (3, 6, 3)), brain[:, ::2]) < 0.06


def test_without_a_field_little_changes(brain):
    assert unevenness(correct_bias(brain, SPACING), brain) < 0.05


def test_the_unit_does_not_matter(brain):
    one, thousand = (correct_bias(brain * field(0.3) * unit, SPACING) for unit in (1, 1000))
    assert np.allclose(thousand, 1000 * one, rtol=1e-3)


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.full(SHAPE, 7.0), -np.ones(SHAPE)], ids=["0", "7", "-1"])
def test_what_has_no_field_comes_back(image):
    assert np.array_equal(correct_bias(image, SPACING), image)


def test_a_few_negative_values_do_not_stop_it(brain):
    """A spline overshoots beside edges: what it leaves below 0 stays, and the rest is corrected as without it."""
    image = brain * field(0.3)
    air = np.argwhere(image == 0)[::5000]
    spoilt = image.copy()
    spoilt[tuple(air.T)] = -0.01
    corrected = correct_bias(spoilt, SPACING)
    head = image > 0
    assert np.array_equal(corrected[head], correct_bias(image, SPACING)[head])
    assert np.array_equal(corrected[~head], spoilt[~head])


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((3, 52, 48), (5, 3, 3)), ((44, 52, 3), (3, 3, 5)), ((12, 44, 44), (1, 3, 3)), ((2, 40, 40), (5, 3, 3))],
)
def test_a_slab_is_corrected(brain, shape, spacing):
    place = tuple(slice((side - wanted) // 2, (side + wanted) // 2) for side, wanted in zip(brain.shape, shape))
    image, truth = (brain * field(0.3))[place], brain[place]
    corrected = correct_bias(image, spacing)
    assert np.array_equal(corrected == 0, truth == 0)
    assert unevenness(corrected, truth) < unevenness(image, truth)


def test_a_single_slice_comes_back(brain):
    assert np.array_equal(correct_bias(brain[:1], SPACING), brain[:1])


def test_the_manifest_decides_and_the_case_stays_as_it_is():
    phantom = make_phantom(3, spacing=(4, 4, 4))
    images = {"t1n": phantom.images["t1n"], "t2f": phantom.images["t2f"]}
    case = Case("case", {m: image.copy() for m, image in images.items()}, phantom.affine, {}, ())
    spec = {"modalities": ("t1n", "t2f"), "orientation": "LPS", "spacing": (4, 4, 4), "crop": "none"}  # as it lies
    plain, corrected = (preprocess(case, PreprocessSpec(**spec, bias_correction=how)).tensor for how in ("none", "n4"))
    by_hand = Case("case", {m: correct_bias(image, (4, 4, 4)) for m, image in images.items()}, phantom.affine, {}, ())
    assert torch.equal(corrected, preprocess(by_hand, PreprocessSpec(**spec)).tensor)
    assert (plain - corrected).abs().max() > 0.1
    assert torch.equal(corrected == 0, plain == 0)
    assert all(np.array_equal(case.images[m], images[m]) for m in images)


def test_a_correction_that_is_none():
    with pytest.raises(InputError, match="bias_correction 'N3': expected one of none, n4"):
        PreprocessSpec(modalities=("t1n",), bias_correction="N3")
