"""The way to the model's grid and back, held against world coordinates, MONAI's transforms and real cases."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from oriented import SHAPE, TILT, interior, make_affine, make_case, make_spec, noise, ramp, wave, world
from segmamba.cases.case import find_case, find_label, load_case, load_label_map
from segmamba.cases.labels import to_regions
from segmamba.errors import InputError
from segmamba.evaluation.metrics import dice
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.postprocess import to_label_map
from segmamba.prediction.preprocess import preprocess, preprocess_label

ORIENTATIONS = [
    "".join(codes)
    for order in permutations(("LR", "PA", "IS"))
    for codes in product(*order)
]  # fmt: skip


# --- geometry


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_lands_where_it_was(codes):
    """The tensor of an oblique, anisotropic image holds what the world holds at each voxel, and back."""
    affine = make_affine(codes, (0.9, 1.3, 2.2), TILT)
    image = ramp(SHAPE, affine)
    prepared = preprocess(make_case(image, affine), make_spec(spacing=(1.6, 1.1, 0.7), normalisation="zscore_box"))

    expected = (ramp(prepared.tensor.shape[1:], prepared.affine) - image.mean()) / image.std()
    np.testing.assert_allclose(interior(prepared.tensor[0].numpy(), 3), interior(expected, 3), atol=2e-5)
    # the axes are those asked for, up to the tilt
    assert "".join(nib.aff2axcodes(prepared.affine)) == "SPL"
    np.testing.assert_allclose(nib.affines.voxel_sizes(prepared.affine), (1.6, 1.1, 0.7))

    back = prepared.undo_scalar(torch.from_numpy(ramp(prepared.tensor.shape[1:], prepared.affine)))
    assert back.shape == SHAPE
    np.testing.assert_allclose(interior(back, 1), interior(image, 1), atol=2e-5)


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "LPS", "AIR"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.5, 1.5, 1.5), (2, 2, 2), (0.8, 3, 1)])
def test_a_smooth_image_stays_in_place(orientation, spacing):
    affine = make_affine("PIR", (1.0, 0.5, 2.5), TILT)
    shape = (41, 66, 23)
    image = wave(shape, affine)
    spec = make_spec(orientation=orientation, spacing=spacing, normalisation="zscore_box")
    prepared = preprocess(make_case(image, affine), spec)
    expected = (wave(prepared.tensor.shape[1:], prepared.affine) - image.mean()) / image.std()
    np.testing.assert_allclose(interior(prepared.tensor[0].numpy(), 3), interior(expected, 3), atol=0.03)
    back = prepared.undo_scalar(torch.from_numpy(wave(prepared.tensor.shape[1:], prepared.affine)))
    np.testing.assert_allclose(interior(back, 3), interior(image, 3), atol=0.03)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.5, 1.5, 1.5), (2, 2, 2), (0.7, 5, 1.01)])
def test_the_grid_of_the_model_covers_the_image(spacing):
    affine = make_affine("LAS", (0.9, 1.3, 2.2))
    prepared = preprocess(make_case(noise(), affine), make_spec(orientation="RAS", spacing=spacing))
    size = np.array(prepared.tensor.shape[1:])
    own = np.array(SHAPE) * (0.9, 1.3, 2.2)
    assert (size * spacing >= own - 1e-2).all()
    assert ((size - 1) * spacing < own).all()
    centre = prepared.affine[:3, :3] @ ((size - 1) / 2) + prepared.affine[:3, 3]
    np.testing.assert_allclose(centre, affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + affine[:3, 3], atol=1e-9)


@pytest.mark.parametrize("count", [48, 47])
def test_coarsening_does_not_alias(count):
    """Stripes finer than the new grid must fade; the parity of the size decides where the coarse voxels fall,
    and linear interpolation alone keeps the stripes whole on one of the two."""
    image = np.zeros((count, 20, 22), np.float32)
    image[::2] = 1
    spec = make_spec(orientation="RAS", spacing=(2, 1, 1), normalisation="zscore_box")
    tensor = preprocess(make_case(image, make_affine()), spec).tensor
    assert interior(tensor[0], 2).abs().max() < 0.6


def test_thick_slices_are_filled_in():
    affine = make_affine("RAS", (1, 1, 5.5))
    image = ramp((20, 22, 7), affine)
    prepared = preprocess(make_case(image, affine), make_spec(orientation="RAS"))
    assert prepared.tensor.shape == (1, 20, 22, 39)
    back = prepared.undo_scalar(torch.from_numpy(ramp((20, 22, 39), prepared.affine)))
    np.testing.assert_allclose(back, image, atol=1e-5)


# --- undo


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.5, 1.5, 1.5), (0.7, 2, 1)])
def test_outside_the_crop_is_background(spacing):
    image = np.zeros((20, 24, 22), np.float32)
    image[4:15, 5:20, 6:16] = noise((11, 15, 10))
    prepared = preprocess(make_case(image, make_affine("LPS")), make_spec(crop="foreground", spacing=spacing))
    probabilities = torch.rand(4, *prepared.tensor.shape[1:], generator=torch.Generator().manual_seed(1)).softmax(0)
    back = prepared.undo(probabilities)
    assert back.shape == (4, 20, 24, 22)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back.sum(0), 1, atol=1e-5)
    outside = image == 0
    assert (back[0][outside] == 1).all()
    assert (back[1:, outside] == 0).all()
    assert (prepared.undo_scalar(probabilities[0])[outside] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_undo_takes_any_float_and_needs_no_grad(dtype):
    prepared = preprocess(make_case(noise(), make_affine()), make_spec(spacing=(2, 2, 2)))
    probabilities = torch.full((2, *prepared.tensor.shape[1:]), 0.5, dtype=dtype, requires_grad=True)
    np.testing.assert_allclose(prepared.undo(probabilities), 0.5, atol=1e-6)


def test_undo_refuses_another_grid():
    prepared = preprocess(make_case(noise(), make_affine()), make_spec())
    with pytest.raises(ValueError, match=r"\(11, 19, 13\) is not that of the prepared tensor, \(11, 19, 14\)"):
        prepared.undo(torch.zeros(4, 11, 19, 13))
    with pytest.raises(ValueError, match="is not that of the prepared tensor"):
        prepared.undo_scalar(torch.zeros(14, 19, 11))


# --- labels


def balls(shape, affine):
    """Nested balls, 3 in 1 in 2, round a place in the middle of the image."""
    centre = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    distance = np.linalg.norm(world(shape, affine) - centre[:, None, None, None], axis=0)
    label_map = np.zeros(shape, np.uint8)
    for radius, label in ((14, 2), (10, 1), (6, 3)):
        label_map[distance < radius] = label
    return label_map


def test_labels_are_cropped_exactly_at_equal_spacing():
    affine = make_affine("RAS", tilt=TILT)
    image, label_map = noise(border=2), np.random.default_rng(5).integers(0, 4, SHAPE).astype(np.uint8)
    case, spec = make_case(image, affine), make_spec(crop="foreground")
    shares = preprocess_label(label_map, case, preprocess(case, spec))
    assert set(shares.unique().tolist()) == {0, 1}
    result = shares.argmax(0).numpy()
    np.testing.assert_array_equal(result, label_map[2:-2, 2:-2, 2:-2].transpose(2, 1, 0)[:, ::-1, ::-1])


@pytest.mark.parametrize("own", [(1, 1, 1), (0.9, 1.3, 3), (0.5, 0.5, 5)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.5, 1.5, 1.5), (2, 2, 2)])
def test_labels_lie_where_the_world_has_them(own, spacing):
    affine = make_affine("PIR", own, TILT)
    shape = tuple(round(40 / s) + i for i, s in enumerate(own))
    case, spec = make_case(noise(shape), affine), make_spec(spacing=spacing)
    prepared = preprocess(case, spec)
    label_map = balls(shape, affine)
    shares = preprocess_label(label_map, case, prepared)
    result = shares.argmax(0).numpy()
    assert result.shape == prepared.tensor.shape[1:]
    # the same balls about the same place, drawn on the model's grid
    centre = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    distance = np.linalg.norm(world(result.shape, prepared.affine) - centre[:, None, None, None], axis=0)
    for labels, radius in (((1, 2, 3), 14), ((1, 3), 10), ((3,), 6)):
        assert dice(np.isin(result, labels), distance < radius) > 0.8
    assert shares.shape == (4, *result.shape)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    volume = np.bincount(label_map.ravel()) * np.prod(own)
    np.testing.assert_allclose(shares.sum((1, 2, 3)).numpy()[1:] * np.prod(spacing), volume[1:], rtol=0.03)
    back = to_label_map(prepared.undo(shares))
    for name, mask in to_regions(label_map).items():
        assert dice(to_regions(back)[name], mask) > 0.93, name


def test_a_label_map_of_another_shape_is_refused():
    case = make_case(noise(), make_affine())
    spec = make_spec()
    with pytest.raises(InputError, match=r"case test: label map of shape \(14, 19, 12\) on images of shape"):
        preprocess_label(np.zeros((14, 19, 12), np.uint8), case, preprocess(case, spec))


# --- real cases


@pytest.fixture(scope="module")
def real(brats):
    """T1c and label map of one real case."""
    folder = brats / "BraTS2021_00006"
    case = load_case({"t1c": find_case(folder)["t1c"]}, modalities=("t1c",))
    return case, load_label_map(find_label(folder), None, case)


@pytest.mark.parametrize(
    ("spacing", "least"),
    [
        (1.0, {"WT": 1, "TC": 1, "ET": 1}),
        (1.5, {"WT": 0.97, "TC": 0.97, "ET": 0.93}),
        (2.0, {"WT": 0.95, "TC": 0.95, "ET": 0.9}),
    ],
)
def test_a_real_label_map_there_and_back(real, spacing, least):
    case, label_map = real
    spec = PreprocessSpec(("t1c",), spacing=(spacing,) * 3)
    prepared = preprocess(case, spec)
    shares = preprocess_label(label_map, case, prepared)
    back = to_label_map(prepared.undo(torch.nn.functional.one_hot(shares.argmax(0), 4).movedim(-1, 0)))
    soft = to_label_map(prepared.undo(shares))
    for name, mask in to_regions(label_map).items():
        assert dice(to_regions(back)[name], mask) >= least[name]
        assert dice(to_regions(soft)[name], mask) >= dice(to_regions(back)[name], mask)
