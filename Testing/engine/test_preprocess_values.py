"""Values on the model's grid: those of MONAI where nothing is interpolated; crop, normalization, what is refused."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForeground, NormalizeIntensity, Orientation
from oriented import SHAPE, TILT, make_affine, make_case, make_spec, noise
from segmamba.errors import InputError
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.postprocess import to_label_map
from segmamba.prediction.preprocess import preprocess
from segmamba.prediction.segment import possible_lesion

# --- where nothing needs interpolating


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


# --- crop and normalisation


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


# --- errors


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"modalities": ()}, "modalities"),
        ({"modalities": ("t1c", "t1c")}, "each once"),
        ({"orientation": "XYZ"}, "orientation 'XYZ': expected three axis codes"),
        ({"orientation": "RAL"}, "orientation 'RAL'"),
        ({"orientation": "RA"}, "orientation 'RA'"),
        ({"spacing": (1, 1)}, "spacing .*three numbers of 0.01 to 50"),
        ({"spacing": (1, 1, 0)}, "spacing .*three numbers of 0.01 to 50"),
        ({"spacing": (1, 1, float("nan"))}, "spacing .*three numbers of 0.01 to 50"),
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
