"""The way to the model's grid and back, held against world coordinates, MONAI's transforms and real cases."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForeground, NormalizeIntensity, Orientation
from segmamba.cases.case import Case, find_case, find_label, load_case, load_label_map
from segmamba.cases.labels import to_regions
from segmamba.errors import InputError
from segmamba.evaluation.metrics import dice
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.postprocess import to_label_map
from segmamba.prediction.preprocess import preprocess, preprocess_label
from segmamba.prediction.segment import possible_lesion

ORIENTATIONS = [
    "".join(codes)
    for order in permutations(("LR", "PA", "IS"))
    for codes in product(*order)
]  # fmt: skip
SHAPE = (14, 19, 11)
UPRIGHT = np.eye(3)
TILT = nib.eulerangles.euler2mat(0.15, -0.1, 0.2)


def make_affine(codes="RAS", spacing=(1, 1, 1), tilt=UPRIGHT, offset=(-31.0, 12.0, 5.5)):
    """Voxel indices to RAS mm for axes along `codes`, `spacing` mm an axis, then turned by `tilt`."""
    affine = np.eye(4)
    for column, (code, step) in enumerate(zip(codes, spacing)):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[:3, column] = tilt[:, row] * step * (1 if code in "RAS" else -1)
    affine[:3, 3] = offset
    return affine


def world(shape, affine):
    """(3, *shape): RAS mm of every voxel centre."""
    indices = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ indices + affine[:3, 3:]).reshape(3, *shape)


def wave(shape, affine):
    """A smooth function of the place in the world, with another period along each direction."""
    x, y, z = world(shape, affine)
    return (np.sin(x / 11) + 0.7 * np.cos(y / 13 + 0.4) + 0.5 * np.sin(z / 9 - 1) + 0.02 * x - 0.03 * y).astype(
        np.float32
    )


def ramp(shape, affine):
    """A linear function of the place in the world, which linear interpolation must keep exactly."""
    x, y, z = world(shape, affine)
    return (3 + 0.02 * x - 0.03 * y + 0.05 * z).astype(np.float32)


def make_case(images, affine):
    images = images if isinstance(images, dict) else {"t1c": images}
    return Case("test", images, affine, {}, ())


def make_spec(**changes):
    return PreprocessSpec(**{"modalities": ("t1c",), "crop": "none", **changes})


def noise(shape=SHAPE, seed=0, border=0):
    """Random positive voxels, with `border` zero voxels on each side."""
    image = np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)
    if border:
        inner = (slice(border, -border),) * 3
        image = np.pad(image[inner], border)
    return image


def interior(array, rim):
    return array[..., rim:-rim, rim:-rim, rim:-rim]


# ---------------------------------------------------------------- geometry


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


# ---------------------------------------------------------------- where nothing needs interpolating


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "IRA", "PIR"])
@pytest.mark.parametrize("normalisation", ["zscore_nonzero", "zscore_box"])
def test_equal_spacing_is_exactly_what_monai_gives(codes, normalisation):
    affine = make_affine(codes, tilt=TILT)
    images = {"t1n": noise(seed=1, border=3), "t2f": noise(seed=2, border=2)}
    images["t2f"][:5] = 0
    spec = PreprocessSpec(("t2f", "t1n"), normalisation=normalisation)
    prepared = preprocess(make_case(images, affine), spec)

    stack = MetaTensor(torch.from_numpy(np.stack([images["t2f"], images["t1n"]])), affine=torch.from_numpy(affine))
    oracle = Compose(
        [
            Orientation("SPL", labels=None),
            CropForeground(select_fn=lambda x: x != 0, channel_indices=None),
            NormalizeIntensity(nonzero=normalisation == "zscore_nonzero", channel_wise=True),
        ]
    )(stack)
    torch.testing.assert_close(prepared.tensor, oracle.as_tensor(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(prepared.affine, oracle.affine.numpy(), atol=1e-9)


@pytest.mark.parametrize("normalisation", ["zscore_nonzero", "zscore_box"])
def test_normalisation_is_monais_bit_for_bit(normalisation):
    image = noise(border=3)
    prepared = preprocess(make_case(image, make_affine("SPL")), make_spec(normalisation=normalisation))
    crop = prepared.to_crop(image)[None]
    expected = NormalizeIntensity(nonzero=normalisation == "zscore_nonzero", channel_wise=True)(crop)
    assert torch.equal(prepared.tensor, expected.as_tensor())


def test_a_hair_of_spacing_is_not_interpolated():
    image = noise()
    affine = make_affine("SPL", (1.0004, 0.9996, 1))
    prepared = preprocess(make_case(image, affine), make_spec(normalisation="zscore_box"))
    np.testing.assert_allclose(prepared.tensor[0], (image - image.mean()) / image.std(), atol=1e-5)
    np.testing.assert_allclose(prepared.affine, affine, atol=1e-12)


def test_the_crop_is_exact():
    image = noise(border=2)
    prepared = preprocess(make_case(image, make_affine("LAI", tilt=TILT)), make_spec(crop="foreground"))
    expected = image[2:-2, 2:-2, 2:-2].transpose(2, 1, 0)[::-1, ::-1, :]
    np.testing.assert_array_equal(prepared.to_crop(image), expected)


@pytest.mark.parametrize("codes", ["RAS", "SPL", "PIL"])
def test_undo_is_exact_at_equal_spacing(codes):
    prepared = preprocess(make_case(noise(border=2), make_affine(codes)), make_spec(crop="foreground"))
    values = torch.rand(3, *prepared.tensor.shape[1:], generator=torch.Generator().manual_seed(0))
    back = prepared.undo(values)
    oriented = nib.orientations.apply_orientation(
        back[1],
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt("SPL")),
    )
    np.testing.assert_array_equal(oriented[2:-2, 2:-2, 2:-2], values[1])


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 2), (0.7, 1.3, 1), (6, 0.6, 1)], ids=str)
@pytest.mark.parametrize("nested", [(), (2, 1, 3)], ids=["argmax", "nested"])
@pytest.mark.parametrize("seed", range(3))
def test_labels_restored_in_the_box_of_the_lesion_are_those_of_the_whole(spacing, nested, seed):
    """On thin and on thick slices, for a lesion inside, one at the rim of the crop, and none."""
    affine = make_affine("PIR", spacing)
    prepared = preprocess(make_case(noise((23, 29, 31), border=2), affine), make_spec(crop="foreground"))
    generator = torch.Generator().manual_seed(seed)
    shape = prepared.tensor.shape[1:]
    logits = 2 * torch.randn(4, *shape, generator=generator)
    logits[0] += 20
    if seed < 2:
        box = tuple(slice(0, n // 3) if seed else slice(n // 3, 2 * n // 3) for n in shape)
        logits[(0, *box)] -= 20
    shares = logits.softmax(0)
    whole = prepared.undo(shares)
    expected = to_label_map(whole, nested)
    found = prepared.undo_labels(shares, possible_lesion(shares, nested), lambda p: to_label_map(p, nested))
    assert found.dtype == np.uint8
    assert bool(expected.any()) == (seed < 2)
    # sums of two products may round otherwise in a smaller box, which decides where two labels are equally likely
    sums = [whole[list(nested[depth:])].sum(0) for depth in range(len(nested))]
    best = np.sort(whole, axis=0)
    close = np.any([np.abs(total - 0.5) < 1e-5 for total in sums], axis=0) if nested else best[-1] - best[-2] < 1e-5
    assert close.mean() < 1e-3
    np.testing.assert_array_equal(found[~close], expected[~close])


def test_probabilities_that_are_no_numbers_are_refused_wherever_they_are():
    prepared = preprocess(make_case(noise(border=2), make_affine()), make_spec(crop="foreground"))
    shares = torch.zeros(4, *prepared.tensor.shape[1:])
    shares[0] = 1
    shares[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        prepared.undo_labels(shares, possible_lesion(shares, ()), to_label_map)


# ---------------------------------------------------------------- crop and normalisation


def test_channels_follow_the_spec_by_name():
    images = {"t1n": noise(seed=1), "t1c": noise(seed=2), "t2w": noise(seed=3)}
    tensor = preprocess(make_case(images, make_affine("SPL")), make_spec(modalities=("t2w", "t1n"))).tensor
    for channel, name in zip(tensor, ("t2w", "t1n")):
        np.testing.assert_allclose(channel, (images[name] - images[name].mean()) / images[name].std(), atol=1e-5)


def test_one_channel_of_another_kind():
    image = noise() - 1024
    prepared = preprocess(make_case({"ct": image}, make_affine()), make_spec(modalities=("ct",)))
    assert prepared.tensor.shape == (1, 11, 19, 14)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 2, 2)])
def test_background_stays_zero(spacing):
    image = np.zeros((20, 24, 22), np.float32)
    image[4:15, 5:20, 6:16] = noise((11, 15, 10))
    image[8:12, 9:14, 9:13] = 0  # a hole
    prepared = preprocess(make_case(image, make_affine("SPL")), make_spec(crop="foreground", spacing=spacing))
    if spacing == (1, 1, 1):
        assert prepared.tensor.shape == (1, 11, 15, 10)
        inside = prepared.tensor[0].numpy()[image[4:15, 5:20, 6:16] != 0]
        assert inside.mean() == pytest.approx(0, abs=1e-5)
        assert inside.std() == pytest.approx(1, abs=1e-5)
        assert (prepared.tensor[0].numpy()[4:8, 4:9, 3:7] == 0).all()
    else:
        assert prepared.tensor.shape == (1, 6, 8, 5)


def test_zscore_box_counts_the_zeros():
    image = noise(border=2)
    image[5:8, 6:9, 4:6] = 0
    box = image[2:-2, 2:-2, 2:-2]
    tensor = preprocess(
        make_case(image, make_affine("SPL")), make_spec(crop="foreground", normalisation="zscore_box")
    ).tensor
    np.testing.assert_allclose(tensor[0], (box - box.mean()) / box.std(), atol=1e-5)


def test_foreground_is_that_of_all_channels_and_of_either_sign():
    images = {"a": np.zeros(SHAPE, np.float32), "b": np.zeros(SHAPE, np.float32)}
    images["a"][3, 4, 5], images["a"][4, 4, 5] = -1, -2
    images["b"][9, 15, 2], images["b"][8, 15, 2] = 5, 6
    prepared = preprocess(make_case(images, make_affine("SPL")), make_spec(modalities=("a", "b"), crop="foreground"))
    assert prepared.tensor.shape == (2, 7, 12, 4)


def test_the_margin_is_in_mm_and_ends_at_the_image():
    image = np.zeros((30, 24, 26), np.float32)
    image[10:13, 1:4, 12:14] = noise((3, 3, 2))
    affine = make_affine("SPL", (0.5, 2, 3))
    spec = make_spec(crop="foreground", margin_mm=3, spacing=(0.5, 2, 3))
    prepared = preprocess(make_case(image, affine), spec)
    assert [(axis.start, axis.stop) for axis in prepared.axes] == [(4, 19), (0, 6), (11, 15)]


def test_the_case_stays_as_it_was():
    image = noise()
    image[3:5] = 0
    before = image.copy()
    preprocess(make_case(image, make_affine("SPL")), make_spec())  # stored just as the model wants it
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 3, 3), (0.4, 0.4, 0.4)])
def test_a_single_foreground_voxel(spacing):
    image = np.zeros(SHAPE, np.float32)
    image[3, 4, 5] = 7
    prepared = preprocess(make_case(image, make_affine()), make_spec(crop="foreground", spacing=spacing))
    assert torch.isfinite(prepared.tensor).all()
    back = prepared.undo_scalar(torch.ones(prepared.tensor.shape[1:]))
    assert back[3, 4, 5] == pytest.approx(1)
    assert np.count_nonzero(back) == 1


# ---------------------------------------------------------------- undo


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


# ---------------------------------------------------------------- labels


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


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"modalities": ()}, "modalities"),
        ({"modalities": ("t1c", "t1c")}, "each once"),
        ({"orientation": "XYZ"}, "orientation 'XYZ': expected three axis codes"),
        ({"orientation": "RAL"}, "orientation 'RAL'"),
        ({"orientation": "RA"}, "orientation 'RA'"),
        ({"spacing": (1, 1)}, "spacing .*three positive numbers"),
        ({"spacing": (1, 1, 0)}, "spacing .*three positive numbers"),
        ({"spacing": (1, 1, float("nan"))}, "spacing .*three positive numbers"),
        ({"normalisation": "minmax"}, "normalisation 'minmax': expected one of zscore_nonzero, zscore_box"),
        ({"crop": "brain"}, "crop 'brain': expected one of foreground, none"),
        ({"margin_mm": -1}, "margin_mm -1"),
    ],
)
def test_a_spec_is_checked(changes, text):
    with pytest.raises(InputError, match=text):
        make_spec(**changes)


def test_a_spec_reads_from_lists():
    assert make_spec(modalities=["a"], spacing=[1, 2, 3]) == make_spec(modalities=("a",), spacing=(1.0, 2.0, 3.0))


def test_a_missing_modality_is_named():
    with pytest.raises(InputError, match="case test: the model needs t2w; the case has t1c"):
        preprocess(make_case(noise(), make_affine()), make_spec(modalities=("t1c", "t2w")))


def test_an_empty_case_is_refused():
    with pytest.raises(InputError, match="case test: every voxel of every modality is 0"):
        preprocess(make_case(np.zeros(SHAPE, np.float32), make_affine()), make_spec(crop="foreground"))


# ---------------------------------------------------------------- real cases


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
