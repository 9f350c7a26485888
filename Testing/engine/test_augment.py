"""Augmentation: warps against geometry, formulas against MONAI's, chances as stated, batches like their samples."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.transforms import (
    AdjustContrast,
    GaussianSmooth,
    Rand3DElastic,
    RandBiasField,
    RandSimulateLowResolution,
    ScaleIntensityFixedMean,
)
from scipy import ndimage
from segmamba.training.augment import Augmentation, Change, build_augmentation
from segmamba.training.intensity import (
    Alteration,
    add_noise,
    adjust_gamma,
    alter,
    blur,
    coarsen,
    scale,
    scale_about_mean,
    shade,
    shift,
)
from segmamba.training.run_folder import changed_settings
from segmamba.training.warp import Elastic, Warp, draw_elastic

PATCH = (12, 16, 20)
SETS = ("paper", "released", "segmamba")


def smooth_noise(shape, seed=0):
    return torch.as_tensor(
        ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2), dtype=torch.float
    )


def middle(volume, size):
    starts = [(side - wanted) // 2 for side, wanted in zip(volume.shape[1:], size)]
    return volume[(slice(None), *(slice(a, a + n) for a, n in zip(starts, size)))]


def sample_of(image, label=None, change=None, start=(0, 0, 0), patch=PATCH, **more):
    """As PatchDataset gives it; label: 0 to 3."""
    label = torch.zeros((1, *image.shape[1:]), dtype=torch.uint8) if label is None else label
    change = change or Change()
    return {
        "image": image,
        "label": label,
        "labels": 4,
        "patch": patch,
        "start": start,
        "change": change,
        "case": "a",
        **more,
    }


def drawn_samples(augmentation, images, first=0):
    return [
        sample_of(image, change=augmentation.draw(len(image), np.random.default_rng(first + number)))
        for number, image in enumerate(images)
    ]


# --- warps


def sample_by_hand(volume, warp, patch):
    """The patch, voxel by voxel: turn about W, then H, then D, divide by the zoom, look up linearly."""
    a, b, c = warp.rotation
    about_d = [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
    about_h = [[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]]
    about_w = [[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]]
    matrix = np.array(about_d) @ about_h @ about_w @ np.diag([1 / z for z in warp.zoom])
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in patch), indexing="ij"))
    places = np.einsum("ij,jdhw->idhw", matrix, offsets)
    centre = (np.array(volume.shape) - 1) / 2
    return ndimage.map_coordinates(volume, places + centre[:, None, None, None], order=1)


@pytest.mark.parametrize(
    "warp",
    [Warp(zoom=(1.3, 0.8, 1.0)), Warp(rotation=(0.5, 0.0, 0.0)), Warp(rotation=(0.3, -0.4, 0.2), zoom=(0.7, 0.7, 0.7))],
    ids=["zoom", "one angle", "all"],
)
def test_a_warp_is_the_rotation_and_zoom_it_says(warp):
    volume = smooth_noise((1, 40, 44, 48))
    found = warp.apply(volume, PATCH)[0].numpy()
    np.testing.assert_allclose(found, sample_by_hand(volume[0].numpy(), warp, PATCH), atol=1e-4)


def test_the_reach_is_enough_and_not_much_more():
    warp = Warp(rotation=(0.4, -0.5, 0.3), zoom=(0.75, 0.75, 0.75))
    reach = warp.reach(PATCH)
    sides = [2 * math.ceil(n / 2) for n in (90, 90, 90)]
    volume = smooth_noise((2, *sides), 1)
    reach = tuple(side + side % 2 for side in reach)  # even in an even volume: the same centre
    torch.testing.assert_close(warp.apply(middle(volume, reach), PATCH), warp.apply(volume, PATCH), atol=1e-5, rtol=0)
    corner = math.hypot(*PATCH) / 0.75
    assert all(side <= corner + 4 for side in reach)
    assert Warp().reach(PATCH) == tuple(side + 2 for side in PATCH)


def test_a_box_that_is_cut_off_shows_the_same_patch():
    """What lies outside the box is 0, as what lies outside the volume is."""
    warp = Warp(rotation=(0.4, -0.5, 0.3), zoom=(1.2, 1.2, 1.2), elastic=Elastic(1, 7.0, 300.0))
    volume = torch.zeros((2, 50, 54, 58))
    volume[:, :, 20:, :40] = smooth_noise((2, 50, 34, 40), 1)
    cut = volume[:, :, 20:, :40]
    found = warp.apply(cut, PATCH, shift=(0.0, (54 - 34) / 2 - 20, (58 - 40) / 2))
    torch.testing.assert_close(found, warp.apply(volume, PATCH), atol=1e-5, rtol=0)


def test_an_elastic_warp_moves_voxels_by_a_few_and_is_drawn_by_its_seed():
    shape = (48, 48, 48)
    ramps = torch.stack([t.float() for t in torch.meshgrid(*map(torch.arange, shape), indexing="ij")])
    size = (20, 20, 20)
    rng = np.random.default_rng(0)
    elastics = [draw_elastic(rng) for _ in range(12)]
    moved = [Warp(elastic=elastic).apply(ramps, size) - middle(ramps, size) for elastic in elastics]
    deviation = float(torch.stack(moved).std())
    assert 0.7 < deviation < 4
    assert max(float(m.abs().max()) for m in moved) < 12
    torch.testing.assert_close(Warp(elastic=elastics[3]).apply(ramps, size) - middle(ramps, size), moved[3])
    assert not torch.equal(moved[3], moved[4])


def test_an_elastic_warp_moves_voxels_as_monai_does():
    """As far in the middle, as far at a face, and neighbours alike."""
    size, sigma, magnitude = (40, 44, 36), 6.5, 300.0
    ours = torch.stack([Elastic(seed, sigma, magnitude).movement(size, "cpu") for seed in range(24)])
    deform = Rand3DElastic((sigma, sigma), (magnitude, magnitude), prob=1, spatial_size=size)
    ramps = torch.stack([t.float() for t in torch.meshgrid(*map(torch.arange, size), indexing="ij")])
    theirs = []
    for seed in range(24):
        deform.set_random_state(seed=seed)
        deform.randomize(size)
        offsets = torch.as_tensor(deform.rand_offset, dtype=torch.float)
        smooth = [ndimage.gaussian_filter(offset, sigma, mode="constant", truncate=3) for offset in offsets.numpy()]
        theirs.append(torch.as_tensor(np.stack(smooth)) * magnitude)
    theirs = torch.stack(theirs)
    assert theirs.shape == ours.shape == (24, *ramps.shape)

    def inside(x):
        return x[:, :, 14:26, 14:30, 12:24]

    def likeness(x, step):
        x = inside(x)
        return float((x[..., step:] * x[..., :-step]).mean() / (x**2).mean())

    assert float(inside(ours).std() / inside(theirs).std()) == pytest.approx(1, abs=0.1)
    assert float(ours[:, :, 0].std() / theirs[:, :, 0].std()) == pytest.approx(1, abs=0.15)
    for step in (2, 6):
        assert likeness(ours, step) == pytest.approx(likeness(theirs, step), abs=0.05)


@pytest.mark.parametrize(
    ("name", "warped"), [("none", 0.0), ("released", 1 - 0.8**2), ("paper", 1 - 0.8**3), ("segmamba", 1 - 0.7**2)]
)
def test_warps_come_as_often_as_the_recipe_says(name, warped):
    rng = np.random.default_rng(0)
    drawn = [build_augmentation(name).draw_warp(rng) for _ in range(3000)]
    assert np.mean([warp is not None for warp in drawn]) == pytest.approx(warped, abs=0.03)
    angles = [abs(angle) for warp in drawn if warp for angle in warp.rotation]
    zooms = [zoom for warp in drawn if warp for zoom in warp.zoom]
    if drawn[0] or warped:
        assert math.radians(28) < max(angles) <= math.radians(30)
        assert 0.7 <= min(zooms) < 0.75 and 1.35 < max(zooms) <= 1.4


# --- batches


def test_a_batch_is_its_samples_side_by_side():
    """Whatever else is in a batch, and in whatever order: a sample depends on its draw alone."""
    augmentation = build_augmentation("segmamba", modality_dropout=0.3)
    samples = drawn_samples(augmentation, [smooth_noise((4, *PATCH), seed) + 0.1 for seed in range(8)])
    alone = [augmentation.make_batch([sample]) for sample in samples]
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 2, 7]):
        batch = augmentation.make_batch([samples[n] for n in order])
        for name in ("image", "label"):
            expected = torch.cat([alone[n][name] for n in order])
            torch.testing.assert_close(batch[name], expected, atol=1e-6, rtol=1e-5)
        assert batch["case"] == ["a"] * len(order)


def test_half_and_bytes_arrive_as_single_precision():
    image = smooth_noise((4, *PATCH)).half()
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, *PATCH), dtype=np.uint8))
    batch = Augmentation().make_batch([sample_of(image, label)])
    assert batch["image"].dtype == batch["label"].dtype == torch.float32
    assert torch.equal(batch["image"][0], image.float())
    assert torch.equal(batch["label"][0].argmax(0), label[0].long()) and batch["label"].sum() == math.prod(PATCH)


def test_shares_and_a_volume_of_which_a_part_is_known():
    shares = torch.softmax(torch.randn((4, *PATCH), generator=torch.Generator().manual_seed(1)), 0).half()
    valid = torch.ones((1, *PATCH), dtype=torch.uint8)
    valid[:, 6:] = 0
    batch = Augmentation().make_batch([sample_of(torch.ones((4, *PATCH)), shares, valid=valid)])
    torch.testing.assert_close(batch["label"][0, :, :6], shares[:, :6].float(), atol=2e-3, rtol=0)
    assert not batch["label"][0, :, 6:].any()


def test_what_a_patch_shows_outside_the_volume_is_background():
    image, label = torch.ones((4, 8, 9, 10)), torch.full((1, 8, 9, 10), 3, dtype=torch.uint8)
    batch = Augmentation().make_batch([sample_of(image, label, start=(-2, 0, -7))])
    assert batch["image"][0, :, 2:10, :9, 7:17].min() == 1 and batch["image"].sum() == image.sum()
    assert batch["label"][0, 3].sum() == 720 and batch["label"][0, 0].sum() == math.prod(PATCH) - 720


def test_image_and_label_are_warped_together():
    label = torch.zeros((1, 40, 40, 40), dtype=torch.uint8)
    label[:, 10:25, 12:30, 15:28] = 1
    warp = Warp(rotation=(0.3, 0.2, -0.4), zoom=(1.2, 1.2, 1.2), elastic=Elastic(5, 7.0, 300.0))
    sample = sample_of(7.0 * label, label, Change(warp), start=(14, 12, 10))
    batch = Augmentation().make_batch([sample])
    torch.testing.assert_close(batch["image"][0, 0], 7 * batch["label"][0, 1])
    assert 0.01 < batch["label"][0, 1].mean() < 0.99


def test_mirrors_turn_image_and_label_alike():
    augmentation = Augmentation(mirror=0.5)
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (1, *PATCH), dtype=np.uint8))
    image = label.float() + 5
    seen = set()
    for seed in range(40):
        change = augmentation.draw(1, np.random.default_rng(seed))
        batch = augmentation.make_batch([sample_of(image, label, change)])
        assert torch.equal(batch["image"][0, 0] - 5, batch["label"][0, 1])
        seen |= {
            axes for axes in ((), (1,), (2, 3), (1, 2, 3)) if torch.equal(batch["image"][0], image.flip(axes).float())
        }
    assert len(seen) == 4


def test_what_is_given_is_not_written_into():
    for name in SETS:
        augmentation = build_augmentation(name, modality_dropout=0.9)
        samples = drawn_samples(augmentation, [smooth_noise((4, *PATCH))] * 10)
        before = [sample["image"].clone() for sample in samples]
        augmentation.make_batch(samples)
        assert all(torch.equal(sample["image"], image) for sample, image in zip(samples, before))


def test_what_was_drawn_can_go_to_another_process():
    augmentation = build_augmentation("paper", modality_dropout=0.5)
    samples = drawn_samples(augmentation, [smooth_noise((4, *PATCH))] * 6)
    same, others = pickle.loads(pickle.dumps((augmentation, samples)))
    assert torch.equal(augmentation.make_batch(samples)["image"], same.make_batch(others)["image"])


@pytest.mark.parametrize("name", SETS)
def test_the_background_stays_zero_and_the_head_does_not(name):
    image = torch.zeros((4, *PATCH))
    image[:, 2:9, 3:12, 4:15] = smooth_noise((4, 7, 9, 11)) + 0.5
    head = (image != 0).any(0)
    augmentation = Augmentation(intensity=build_augmentation(name).intensity)
    found = augmentation.make_batch(drawn_samples(augmentation, [image] * 20))["image"]
    assert found[:, :, ~head].abs().max() == 0
    assert sum(not torch.allclose(one, image) for one in found) >= 8


def test_modality_dropout_leaves_one_channel_at_least():
    rng = np.random.default_rng(1)
    augmentation = build_augmentation("none", modality_dropout=0.5)
    missing = [augmentation.draw(4, rng).missing for _ in range(3000)]
    assert np.mean([not channels for channels in missing]) == pytest.approx(0.5, abs=0.03)
    shares = [np.mean([len(channels) == n for channels in missing]) for n in (1, 2, 3, 4)]
    assert shares[0] > shares[1] > shares[2] > 0 == shares[3]
    assert build_augmentation("none", modality_dropout=0.9).draw(1, rng).missing == ()
    batch = augmentation.make_batch([sample_of(torch.ones((4, *PATCH)), change=Change(missing=(0, 2)))])
    assert batch["image"].amax((0, 2, 3, 4)).tolist() == [0, 1, 0, 1]


# --- intensities


def test_chances_are_those_of_the_sample_and_of_each_channel():
    rng = np.random.default_rng(3)
    alteration = Alteration(lambda rng, n: rng.random((n, 1)), shift, 0.5, 0.25)
    drawn = [alteration.draw_for(4, rng) for _ in range(4000)]
    assert np.mean([len(channels) / 4 for channels, _ in drawn]) == pytest.approx(0.125, abs=0.01)
    touched = np.mean([bool(channels) for channels, _ in drawn])
    assert touched == pytest.approx(0.5 * (1 - 0.75**4), abs=0.03)
    assert all(len(values) == len(channels) for channels, values in drawn if channels)


def test_only_the_drawn_channels_are_changed():
    image = torch.zeros((2, 3, 2, 2, 2))
    drawn = [[((0, 2), np.array([[1.0], [2.0]]))], [((1,), np.array([[3.0]]))]]
    alter(image, [Alteration(np.zeros, shift)], drawn)
    assert image.mean((2, 3, 4)).tolist() == [[1, 0, 2], [0, 3, 0]]
    alter(image, [Alteration(np.zeros, shift)], [[((), np.empty((0, 0)))]] * 2)
    assert image.sum() == 8 * 6


def test_each_change_is_monai_s():
    x = smooth_noise((2, *PATCH)) * 3 + 0.4
    values = np.array([[0.8], [1.3]])
    for inverted in (False, True):
        found = adjust_gamma(x.clone(), values, inverted)
        for one, channel, gamma in zip(found, x, (0.8, 1.3)):
            theirs = AdjustContrast(gamma, invert_image=inverted, retain_stats=True)(channel[None])[0]
            torch.testing.assert_close(one, torch.as_tensor(theirs), atol=1e-5, rtol=1e-5)
    found = scale_about_mean(x.clone(), values - 1)
    for one, channel, factor in zip(found, x, (-0.2, 0.3)):
        theirs = ScaleIntensityFixedMean(factor=factor, preserve_range=True)(channel[None])[0]
        torch.testing.assert_close(one, torch.as_tensor(theirs), atol=1e-5, rtol=1e-5)
    sigmas = np.array([[0.5, 0.8, 1.0], [0.9, 0.6, 0.7]])
    for one, channel, sigma in zip(blur(x.clone(), sigmas), x, sigmas):
        theirs = GaussianSmooth(sigma=sigma.tolist())(channel[None])[0]
        torch.testing.assert_close(one, torch.as_tensor(theirs), atol=2e-4, rtol=1e-3)
    shares = np.array([[0.5], [0.83]])
    for one, channel, (share,) in zip(coarsen(x.clone(), shares), x, shares):
        theirs = RandSimulateLowResolution(prob=1, zoom_range=(share, share))(channel[None])[0]
        torch.testing.assert_close(one, torch.as_tensor(theirs), atol=1e-5, rtol=1e-5)
    coefficients = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 10))
    for one, channel, given in zip(shade(x.clone(), coefficients), x, coefficients):
        field = RandBiasField()._generate_random_field(PATCH, 2, given.tolist())
        torch.testing.assert_close(one, channel + torch.as_tensor(field).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scale(x, values - 1), x * torch.tensor(values).float().view(2, 1, 1, 1))
    torch.testing.assert_close(shift(x, values), x + torch.tensor(values).float().view(2, 1, 1, 1))


def test_noise_has_the_deviation_that_was_drawn_and_depends_on_its_seed():
    x = torch.ones((3, 24, 24, 24))
    found = add_noise(x.clone(), np.array([[0.1, 5], [0.02, 6], [0.1, 5]])) - 1
    assert found.std((1, 2, 3)).tolist() == pytest.approx([0.1, 0.02, 0.1], rel=0.03)
    assert torch.equal(found[0], found[2]) and abs(float((found[0] * found[1]).mean())) < 1e-4


def test_the_sets_draw_what_they_say():
    """Means over many draws: chance of a channel, smallest and largest value."""
    expected = {
        "blur": (0.1, 0.5, 1.0),
        "scale": (0.15, -0.25, 0.25),
        "scale_about_mean": (0.15, -0.25, 0.25),
        "coarsen": (0.125, 0.5, 1.0),
        "shift": (0.15, -0.3, 0.3),
    }
    rng = np.random.default_rng(2)
    found = build_augmentation("segmamba").intensity
    for alteration in found:
        name = getattr(alteration.apply, "__name__", "")
        if name not in expected:
            continue
        chance, low, high = expected[name]
        drawn = [alteration.draw_for(4, rng) for _ in range(4000)]
        assert np.mean([len(channels) / 4 for channels, _ in drawn]) == pytest.approx(chance, abs=0.015), name
        values = np.concatenate([values.ravel() for channels, values in drawn if channels])
        near = 0.02 * (high - low)
        assert low <= values.min() < low + near and high - near < values.max() <= high, name
    assert [getattr(a.apply, "__name__", "gamma") for a in build_augmentation("paper").intensity] == [
        "shift",
        "gamma",
        "adjust_gamma",
    ]
    assert len(found) == 10 and len(build_augmentation("released").intensity) == 7


def test_shading_of_a_coil_is_alike_in_every_modality_and_comes_by_half():
    of_one, of_all = build_augmentation("segmamba").intensity[-2:]
    rng = np.random.default_rng(1)
    drawn = [of_all.draw_for(4, rng) for _ in range(200)]
    shaded = [values for channels, values in drawn if channels]
    assert 70 < len(shaded) < 130
    assert all(len(values) == 4 and (values == values[0]).all() for values in shaded)
    several = [values for channels, values in (of_one.draw_for(4, rng) for _ in range(200)) if len(channels) > 1]
    assert several and all((a != b).any() for values in several for a, b in pairwise(values))
    fields = shade(torch.zeros((len(shaded), *PATCH)), np.stack([values[0] for values in shaded]))
    assert 0.2 < float(fields.std((1, 2, 3)).mean()) < 0.6


@pytest.mark.parametrize("name", SETS)
def test_without_mirrors_all_else_is_drawn_as_with_them(name):
    found = []
    for mirror in (True, False):
        rng = np.random.default_rng(3)
        changes = [build_augmentation(name, mirror=mirror).draw(4, rng) for _ in range(40)]
        found.append(([change.warp is None for change in changes], rng.bit_generator.state))
        assert any(change.mirrored for change in changes) == mirror
    assert found[0] == found[1]


def test_mirrors_that_a_record_says_nothing_of_were_there():
    """Records of earlier versions have no such setting."""
    said, unsaid = ({"config": {"augment": values}} for values in ({"set": "paper", "mirror": True}, {"set": "paper"}))
    assert not changed_settings(unsaid, said)
    never = {"config": {"augment": {"set": "paper", "mirror": False}}}
    assert changed_settings(unsaid, never) == {"augment.mirror": None}
