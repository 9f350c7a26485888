"""Augmentation: warps against plain geometry, the box that is just large enough, chances as stated, zeros that stay."""

import math

import numpy as np
import pytest
import torch
from monai.transforms import RandShiftIntensity
from scipy import ndimage
from segmamba.training.augment import Augmentation, Warp, build_augmentation
from segmamba.training.intensity import EachChannel, Shading

PATCH = (12, 16, 20)


def smooth_noise(shape, seed=0):
    return torch.as_tensor(
        ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2), dtype=torch.float
    )


def middle(volume, size):
    starts = [(side - wanted) // 2 for side, wanted in zip(volume.shape[1:], size)]
    return volume[(slice(None), *(slice(a, a + n) for a, n in zip(starts, size)))]


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


def test_an_elastic_warp_moves_voxels_by_a_few_and_is_drawn_by_its_seed():
    shape = (48, 48, 48)
    ramps = torch.stack([t.float() for t in torch.meshgrid(*map(torch.arange, shape), indexing="ij")])
    size = (20, 20, 20)
    moved = [Warp(elastic=seed).apply(ramps, size) - middle(ramps, size) for seed in range(12)]
    deviation = float(torch.stack(moved).std())
    assert 0.7 < deviation < 4
    assert max(float(m.abs().max()) for m in moved) < 12
    torch.testing.assert_close(Warp(elastic=3).apply(ramps, size) - middle(ramps, size), moved[3], rtol=0, atol=0)
    assert not torch.equal(moved[3], moved[4])


def test_image_and_label_are_warped_together():
    label = torch.zeros((1, 40, 40, 40))
    label[:, 10:25, 12:30, 15:28] = 1
    warped = Warp(rotation=(0.3, 0.2, -0.4), zoom=(1.2, 1.2, 1.2), elastic=5).apply(
        torch.cat([7 * label, label]), PATCH
    )
    torch.testing.assert_close(warped[0], 7 * warped[1])
    assert 0.01 < warped[1].mean() < 0.99


def test_mirrors_turn_image_and_label_alike():
    image = smooth_noise((2, *PATCH)) + 5
    seen = set()
    for seed in range(40):
        one, other = Augmentation(mirror=0.5).apply(image, image[:1], np.random.default_rng(seed))
        assert torch.equal(one[:1], other)
        seen |= {axes for axes in ((), (1,), (2, 3), (1, 2, 3)) if torch.equal(one, image.flip(axes))}
    assert len(seen) == 4


def test_each_channel_draws_for_itself():
    transform = EachChannel(RandShiftIntensity(offsets=(1.0, 1.0), prob=1), each=0.25, prob=0.5).set_random_state(
        seed=3
    )
    image = torch.zeros((4, 2, 2, 2))
    hits = torch.stack([transform(image)[:, 0, 0, 0] for _ in range(2000)])
    assert 0.10 < hits.mean() < 0.15  # 0.5 x 0.25
    touched = hits.any(1).float().mean()
    assert touched == pytest.approx(0.5 * (1 - 0.75**4), abs=0.04)
    assert torch.equal(image, torch.zeros_like(image))


def test_shading_adds_a_quadratic_whatever_the_image():
    image = smooth_noise((1, *PATCH))
    added = Shading().set_random_state(seed=5)(image) - image
    assert torch.allclose(added, Shading().set_random_state(seed=5)(0 * image), atol=1e-5)
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in PATCH), indexing="ij")
    powers = [d**i * h**j * w**k for i in range(3) for j in range(3 - i) for k in range(3 - i - j)]
    terms = np.stack(powers).reshape(10, -1).T
    _, unexplained, _, _ = np.linalg.lstsq(terms, added.numpy().ravel(), rcond=None)
    assert unexplained[0] / added.numel() < 1e-8
    typical = np.mean([float(Shading().set_random_state(seed=s)(0 * image).std()) for s in range(50)])
    assert 0.2 < typical < 0.6


def test_what_is_given_is_not_written_into():
    image, label = smooth_noise((4, *PATCH)), torch.rand((3, *PATCH))
    before = image.clone(), label.clone()
    for name in ("paper", "released", "segmamba"):
        augmentation = build_augmentation(name, modality_dropout=0.9)
        for seed in range(10):
            augmentation.apply(image, label, np.random.default_rng(seed))
    assert torch.equal(image, before[0]) and torch.equal(label, before[1])


@pytest.mark.parametrize("name", ["paper", "released", "segmamba"])
def test_the_background_stays_zero_and_the_head_does_not(name):
    image = torch.zeros((4, *PATCH))
    image[:, 2:9, 3:12, 4:15] = smooth_noise((4, 7, 9, 11)) + 0.5
    head = (image != 0).any(0)
    changed = 0
    for seed in range(20):
        augmentation = build_augmentation(name)
        found, _ = Augmentation(intensity=augmentation.intensity).apply(image, image[:1], np.random.default_rng(seed))
        assert found[:, ~head].abs().max() == 0
        changed += not torch.allclose(found, image)
    assert changed >= 8


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


def test_modality_dropout_leaves_one_channel_at_least():
    image = torch.ones((4, 2, 2, 2))
    rng = np.random.default_rng(1)
    augmentation = build_augmentation("none", modality_dropout=0.5)
    left = [int(augmentation.apply(image, image[:1], rng)[0][:, 0, 0, 0].sum()) for _ in range(3000)]
    assert np.mean([count == 4 for count in left]) == pytest.approx(0.5, abs=0.03)
    shares = [np.mean([count == n for count in left]) for n in (3, 2, 1, 0)]
    assert shares[0] > shares[1] > shares[2] > 0 == shares[3]
    only = build_augmentation("none", modality_dropout=0.9).apply(image[:1], image[:1], rng)[0]
    assert only.min() == 1


def test_a_coil_shades_every_modality_alike_and_not_every_sample():
    shading, image = Shading(prob=0.5).set_random_state(seed=1), torch.zeros(4, 8, 8, 8)
    added = [shading(image) for _ in range(40)]
    shaded = [field for field in added if field.abs().max() > 0]
    assert 10 < len(shaded) < 30
    assert all(torch.equal(field[0], channel) for field in shaded for channel in field)
