"""Patches without their case: read strictly, brought onto the model's grid, counted only where they are valid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from safetensors import safe_open
from segmamba.errors import InputError
from segmamba.models.specs import PreprocessSpec
from segmamba.training.augment import build_augmentation
from segmamba.training.config import SourceConfig
from segmamba.training.loop import train
from segmamba.training.optimize import HeadLoss
from segmamba.training.patches import arrange, prepare_patches, read_patches
from segmamba.training.samples import PatchDataset
from training_runs import MODALITIES, narrow_network, small_config

SPEC = PreprocessSpec(modalities=MODALITIES, orientation="SPL", spacing=(2.0, 2.0, 2.0))
NESTED = (2, 1, 3)


def write_patches(path, count=3, side=16, spacing=(2.0, 2.0, 2.0), **changes):
    """Bright cubes of label 3 in patches whose last three planes along X are not valid."""
    image = np.zeros((count, 4, side, side, side), np.int8)
    label = np.zeros((count, side, side, side), np.uint8)
    valid = np.ones((count, side, side, side), bool)
    image[:, :, 2:6, 4:9, 5:10] = 40
    image[:, 1, 2:6, 4:9, 5:10] = 80
    label[:, 2:6, 4:9, 5:10] = 3
    valid[:, -3:] = False
    arrays = {
        "ids": [f"patch-{n}" for n in range(count)],
        "image": image,
        "label": label,
        "valid": valid,
        "spacing_mm": np.asarray(spacing, np.float32),
        "axes": "LPS",
        "modalities": list(MODALITIES),
        "step": np.float32(0.05),
    }
    arrays.update(changes)
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def alone(number):
    return np.full((1, 1, 1), number)


def test_a_patch_on_the_grid_of_the_model_is_only_turned(tmp_path):
    """LPS to SPL: the axes in reverse, none flipped; z-scores are the integers times step."""
    file = read_patches(write_patches(tmp_path / "patches.npz"), labels=3)
    case = prepare_patches(file, alone(1), SPEC, 3, tmp_path / "cache")
    with safe_open(case.cached, framework="np") as stored:
        image, label, valid = (stored.get_tensor(name) for name in ("image", "label", "valid"))
        places = stored.get_tensor("places3")
    assert image.shape == (4, 16, 16, 16) and label.dtype == np.uint8
    assert image[0, 7, 6, 3] == pytest.approx(2.0, abs=1e-3) and image[1, 7, 6, 3] == pytest.approx(4.0, abs=2e-3)
    assert set(np.argwhere(label[0] == 3).min(0)) == {5, 4, 2} and (label[0] == 3).sum() == 4 * 5 * 5
    assert valid[0, :, :, -3:].sum() == 0 and valid[0, :, :, :-3].all()
    assert len(places) == 100 and places.max(0).tolist() == [9, 8, 5]


def test_modalities_go_by_name_and_handedness_by_axes(tmp_path):
    turned = read_patches(write_patches(tmp_path / "a.npz", axes="RPS", modalities=["t1c", "t1n", "t2w", "t2f"]), 3)
    case = prepare_patches(turned, alone(0), SPEC, 3, tmp_path / "cache")
    with safe_open(case.cached, framework="np") as stored:
        image, label = stored.get_tensor("image"), stored.get_tensor("label")
    assert image[0, 7, 6, 15 - 3] == pytest.approx(4.0, abs=2e-3)  # t1n is the second channel of the file
    assert np.argwhere(label[0] == 3).min(0).tolist() == [5, 4, 16 - 6]


def test_another_spacing_keeps_the_volume_and_the_known_part(tmp_path):
    file = read_patches(write_patches(tmp_path / "a.npz", spacing=(1.0, 2.0, 2.0)), 3)
    case = prepare_patches(file, alone(0), SPEC, 3, tmp_path / "cache")
    with safe_open(case.cached, framework="np") as stored:
        label, valid = stored.get_tensor("label"), stored.get_tensor("valid")
    assert valid.shape == (1, 16, 16, 8)
    assert (label[0] == 3).sum() == 100 / 2  # voxels twice as large, none of them shared
    assert valid[0, 0, 0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]  # 13 valid voxels of 1 mm: six whole ones of 2 mm


def test_small_patches_lie_side_by_side_each_in_four_blocks(tmp_path):
    """Cubes of 32 mm for training patches of 64 mm: blocks of 96 mm, 27 patches each; 30 of them fill one a turn."""
    file = read_patches(write_patches(tmp_path / "patches.npz", count=30), labels=3)
    blocks = arrange(file, 64.0)
    assert [block.shape for block in blocks] == 4 * [(3, 3, 3)]
    assert all(len(set(block.flat)) == 27 for block in blocks)
    assert not np.array_equal(blocks[0], blocks[1])
    assert all(np.array_equal(a, b) for a, b in zip(blocks, arrange(file, 64.0)))


@pytest.mark.parametrize("count", [28, 64, 100, 127])
def test_no_patch_is_left_out_of_all_blocks(tmp_path, count):
    """What a turn leaves over is laid with patches of the next one, none of them twice in a block."""
    file = read_patches(write_patches(tmp_path / "patches.npz", count=count, side=8), labels=3)
    for training_patch, side in ((40.0, 4), (32.0, 3)):
        blocks = arrange(file, training_patch)
        numbers = [set(block.ravel().tolist()) for block in blocks]
        assert set.union(*numbers) == set(range(count))
        assert all(len(inside) == block.size for inside, block in zip(numbers, blocks))
        assert len(blocks) == (4 * count // side**3 if count >= side**3 else count)


@pytest.mark.parametrize(("count", "training_patch"), [(30, 32.0), (26, 64.0)])
def test_patches_as_large_as_those_of_the_training_or_too_few_stand_alone(tmp_path, count, training_patch):
    file = read_patches(write_patches(tmp_path / "patches.npz", count=count), labels=3)
    assert [block.tolist() for block in arrange(file, training_patch)] == [[[[number]]] for number in range(count)]


def test_a_block_holds_its_patches_in_their_places_and_knows_nothing_at_their_faces(tmp_path):
    label = np.zeros((8, 16, 16, 16), np.uint8)
    label[np.arange(8), 4:8, 4:8, 4:8] = (np.arange(8) % 3 + 1)[:, None, None, None]
    image = np.zeros((8, 4, 16, 16, 16), np.int8) + np.arange(8, dtype=np.int8)[:, None, None, None, None]
    file = read_patches(write_patches(tmp_path / "patches.npz", count=8, label=label, image=image), labels=3)
    block = np.arange(8)[::-1].reshape(2, 2, 2)
    case = prepare_patches(file, block, SPEC, 3, tmp_path / "cache")
    with safe_open(case.cached, framework="np") as stored:
        image, label, valid = (stored.get_tensor(name)[0] for name in ("image", "label", "valid"))
    assert label.shape == (32, 32, 32)
    for (x, y, z), number in np.ndenumerate(block):  # SPL is the file's LPS in reverse
        part = tuple(slice(16 * n, 16 * n + 16) for n in (z, y, x))
        assert image[part] == pytest.approx(0.05 * number, abs=1e-3)
        assert np.argwhere(label[part] == number % 3 + 1).min(0).tolist() == [4, 4, 4]
        assert valid[part].sum() == 14 * 14 * 12 and not valid[part][0].any() and valid[part][1:15, 1:15, 1:13].all()


@pytest.mark.parametrize("augmentation", ["none", "segmamba"])
def test_samples_know_no_label_where_a_patch_is_not_valid(tmp_path, augmentation):
    file = read_patches(write_patches(tmp_path / "a.npz"), 3)
    cases = [prepare_patches(file, alone(n), SPEC, 3, tmp_path / "cache") for n in range(3)]
    samples = PatchDataset([cases], [1.0], (32, 32, 32), build_augmentation(augmentation), 0.75, 4)
    for index in range(10):
        shares = samples.augmentation.make_batch([samples[index]])["label"][0]
        total = shares.sum(0)
        assert torch.all(((total - 1).abs() < 1e-3) | (total == 0))
        known = float((total > 0.5).float().mean())
        assert 0 < known < 0.25  # 13 x 16 x 16 of 32 x 32 x 32 voxels, more or less as it is zoomed
        if augmentation == "none":
            assert int((total > 0.5).sum()) == 13 * 16 * 16


@pytest.mark.parametrize("nested", [(), NESTED])
@pytest.mark.parametrize("name", ["ce", "dice_ce"])
def test_what_is_unknown_moves_nothing(nested, name):
    """The loss of a patch is that of its known part alone, and has no gradient elsewhere."""
    draw = torch.Generator().manual_seed(5)
    channels = 3 if nested else 4
    logits = torch.randn((2, channels, 4, 5, 6), generator=draw).requires_grad_()
    shares = torch.rand((2, 4, 4, 5, 6), generator=draw)
    shares = shares / shares.sum(1, keepdim=True)
    partly = shares.clone()
    partly[..., 4:] = 0
    loss_of = HeadLoss(name, nested)
    loss = loss_of(logits, partly)
    torch.testing.assert_close(loss, loss_of(logits[..., :4], shares[..., :4]))
    loss.backward()
    assert torch.all(logits.grad[..., 4:] == 0) and torch.all(logits.grad[..., :4].abs().sum(1) > 0)
    if name == "ce":
        assert float(loss_of(logits.detach(), torch.zeros_like(shares))) == 0


def test_the_loss_of_labels_is_monai_s_where_all_is_known():
    draw = torch.Generator().manual_seed(6)
    logits = torch.randn((2, 4, 4, 5, 6), generator=draw)
    shares = torch.softmax(torch.randn((2, 4, 4, 5, 6), generator=draw), 1)
    expected = DiceCELoss(softmax=True, include_background=False)(logits, shares)
    torch.testing.assert_close(HeadLoss("dice_ce")(logits, shares), expected)


def test_a_training_on_a_data_set_and_patches(phantom_dataset, tmp_path):
    path = write_patches(tmp_path / "crops.npz")
    sources = (SourceConfig(dataset=str(phantom_dataset.folder)), SourceConfig(patches=str(path), share=2.0))
    config = small_config(phantom_dataset.folder, tmp_path / "cache", sources=sources, steps=2)
    with narrow_network():
        model = train(config, tmp_path / "run")
    record = (model / "model.json").read_text()
    assert '"patch-2"' in record and str(tmp_path) not in record and '"crops.npz"' in record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": None}, r"^file of patches \S+ has no axes"),
        ({"axes": "LPP"}, "three letters such as LPS"),
        ({"label": np.full((3, 16, 16, 16), 4, np.uint8)}, "whole numbers from 0 to 3"),
        ({"valid": np.ones((3, 16, 16, 15), bool)}, "must be those of image"),
        ({"modalities": ["t1n", "t1c"]}, "4 channels, but the modalities t1n, t1c"),
        ({"spacing_mm": np.array([1.0, -1.0, 1.0])}, "spacing_mm"),
        ({"ids": ["a", "a", "b"]}, "different ids"),
        ({"step": np.float32("nan")}, "not finite"),
        ({"step": np.full(16, 0.05, np.float32)}, r"step of shape \(16,\); expected one number"),
        ({"spacing_mm": np.array(["2 mm", "2 mm", "2 mm"])}, "spacing_mm of <U4; expected numbers"),
        ({"image": np.full((3, 4, 16, 16, 16), "1")}, "image of <U1; expected numbers"),
        ({"ids": np.array(["a", "b", None], object)}, "cannot be read"),
    ],
)
def test_a_file_of_patches_that_is_wrong_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_patches(write_patches(tmp_path / "a.npz", **changes), 3)


def test_no_file_of_patches(tmp_path):
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_patches(tmp_path / "b.npz", 3)
    with pytest.raises(InputError, match="does not exist"):
        read_patches(tmp_path / "c.npz", 3)
    file = replace(read_patches(write_patches(tmp_path / "a.npz"), 3), modalities=("t1n", "t1c", "t2w", "pd"))
    with pytest.raises(InputError, match="has no t2f"):
        prepare_patches(file, alone(0), SPEC, 3, tmp_path)


def test_sources_say_what_they_are():
    with pytest.raises(InputError, match="needs one of dataset, patches and packed"):
        SourceConfig()
    with pytest.raises(InputError, match="never validated on"):
        SourceConfig(patches="a.npz", validate=True)
    with pytest.raises(InputError, match="data set beside its patches"):
        small_config("d", "c", sources=(SourceConfig(patches="a.npz"),))


def test_patches_of_a_patient_that_is_validated_on_are_refused(phantom_dataset, tmp_path):
    case = phantom_dataset.cases[0]
    path = write_patches(tmp_path / "a.npz", ids=["other", f"{case.id}_1", "more"])
    sources = (SourceConfig(dataset=str(phantom_dataset.folder), held_out=True), SourceConfig(patches=str(path)))
    config = small_config(phantom_dataset.folder, tmp_path / "cache", sources=sources)
    with narrow_network(), pytest.raises(InputError, match=f"named as case {case.id}"):
        train(config, tmp_path / "run")
