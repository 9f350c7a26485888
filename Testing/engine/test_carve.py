"""Carving: which voxels are taken over, by what their values are matched, from whom, and that all else stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from segmamba.datasets.split import make_split
from segmamba.errors import InputError
from segmamba.models.specs import PreprocessSpec
from segmamba.training import carve as carve_module
from segmamba.training import samples as samples_module
from segmamba.training.augment import build_augmentation
from segmamba.training.carve import Carving, Graft, carve
from segmamba.training.config import AugmentConfig, SourceConfig, resolved
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment
from segmamba.training.loop import train
from segmamba.training.patches import arrange, prepare_patches, read_patches
from segmamba.training.run_folder import changed_settings
from segmamba.training.samples import PatchDataset, prepare
from test_patches import write_patches
from training_runs import MODALITIES, narrow_network, small_config

SPEC = PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0))
SIDE = 21


def one_hot(label_map):
    return torch.nn.functional.one_hot(torch.as_tensor(label_map).long(), 4).movedim(-1, 0).float()


def chequered():
    """(1, SIDE, SIDE, SIDE) of -1 and 1."""
    return torch.as_tensor((np.indices((SIDE,) * 3).sum(0) % 2) * 2.0 - 1)[None].float()


def cube(low, high, value):
    label_map = np.zeros((SIDE,) * 3, np.uint8)
    label_map[low:high, low:high, low:high] = value
    return label_map


def signed_distance(lesion, spacing):
    """Voxel by voxel: mm to the nearest voxel of the lesion, or minus that to the nearest beside it."""
    points = np.stack(np.indices(lesion.shape), -1) * np.asarray(spacing)
    inside, outside = points[lesion], points[~lesion]
    found = np.empty(lesion.shape)
    for place in np.ndindex(lesion.shape):
        other, sign = (outside, -1) if lesion[place] else (inside, 1)
        found[place] = sign * np.sqrt(((other - points[place]) ** 2).sum(-1).min())
    return found


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
@pytest.mark.parametrize("draw", [-1.0, -0.4, 0.0, 0.3, 1.0])
def test_the_donors_voxels_are_those_within_the_limit_and_no_others(spacing, draw):
    label_map = np.zeros((12, 14, 16), np.uint8)
    label_map[4:9, 5:9, 6:11] = 2
    label_map[5:7, 5:9, 7:9] = 3
    distance = signed_distance(label_map > 0, spacing)
    limit = draw * distance.min() / 2 if draw > 0 else draw * distance.min()
    expected = torch.as_tensor(distance < limit)
    host, donor = torch.full((2, 12, 14, 16), 1.0), torch.full((2, 12, 14, 16), 7.0)
    donor[:, label_map > 0] = 10.0
    host_label = np.zeros((12, 14, 16), np.uint8)
    host_label[:, :, :3] = host_label[6, 6] = 1  # a tumour of its own, of which a part is carved away
    given = host.clone(), one_hot(host_label), donor.clone(), one_hot(label_map)
    image, label = carve(*given, spacing, draw)
    assert torch.equal(label, one_hot(torch.where(expected, torch.as_tensor(label_map), torch.as_tensor(host_label))))
    bright = expected & torch.as_tensor(label_map > 0)  # elsewhere the donor is as the host, once it is matched
    torch.testing.assert_close(image, torch.where(bright, 1 + 3 / 1.5, 1.0).expand(2, -1, -1, -1))
    for before, after in zip((host, one_hot(host_label), donor, one_hot(label_map)), given):
        assert torch.equal(before, after)


def test_from_half_as_deep_to_as_much_again():
    """A cube of 5 voxels is 3 deep: what is taken goes from the 27 deeper than 1.5 to all that is nearer than 3."""
    donor_label, everywhere = one_hot(cube(8, 13, 3)), one_hot(cube(0, SIDE, 1))
    found = {}
    for draw in (1.0, 0.0, -1.0):
        _, label = carve(chequered(), everywhere, chequered(), donor_label, (1.0, 1.0, 1.0), draw)
        found[draw] = [int(n) for n in label.sum((1, 2, 3))]
    sides, edges, corners = 6 * 25 * 2, 12 * 5 * 4, 8 * 4  # along an axis 1 or 2; of corners (1, 1, 1) and (1, 1, 2)
    assert found[1.0] == [0, SIDE**3 - 27, 0, 27]
    assert found[0.0] == [0, SIDE**3 - 125, 0, 125]
    assert found[-1.0] == [sides + edges + corners, SIDE**3 - 125 - sides - edges - corners, 0, 125]


def test_values_are_matched_by_the_healthy_tissue_around():
    """The donor is 10 + 1.2 times the host wherever both are healthy, so 16 in it is 5 of the host."""
    host = chequered()
    donor, lesion = 10 + 1.2 * host, cube(8, 13, 3)
    donor[:, lesion > 0] = 16
    own = cube(0, 0, 0)
    own[5, 6:15, 6:15] = 2  # a tumour of the host in the shell
    host[:, own > 0] = 90
    donor[:, :3], host[:, 18:] = 500, 500  # 6 voxels and more away
    image, _ = carve(host, one_hot(own), donor, one_hot(lesion), (1.0, 1.0, 1.0), 0.0)
    torch.testing.assert_close(image[:, lesion > 0], torch.full((1, 125), 5.0))
    assert torch.equal(image[:, lesion == 0], host[:, lesion == 0])


def test_contrasts_are_stretched_by_half_at_most():
    host = chequered()
    for factor, expected in ((5.0, 1 / 1.5), (0.2, 1.5)):
        donor, lesion = factor * host, cube(8, 13, 1)
        donor[:, lesion > 0] = 4
        image, _ = carve(host, one_hot(cube(0, 0, 0)), donor, one_hot(lesion), (1.0, 1.0, 1.0), 0.0)
        assert float(image[0, 10, 10, 10]) == pytest.approx(4 * expected, rel=0.02)


def test_a_shell_too_small_to_measure_changes_no_value():
    donor, lesion = torch.full((1, SIDE, SIDE, SIDE), 3.0), cube(0, SIDE, 2)  # all that is seen is lesion
    image, label = carve(chequered(), one_hot(cube(0, 0, 0)), donor, one_hot(lesion), (1.0,) * 3, 0.5)
    assert torch.equal(image, donor) and bool((label[2] == 1).all())


def test_nothing_is_carved_outside_either_brain_nor_out_of_no_lesion():
    host, donor, lesion = chequered() + 3, chequered() + 3, cube(6, 15, 1)
    host[:, :9], donor[:, 13:] = 0, 0
    image, label = carve(host, one_hot(cube(0, 0, 0)), donor, one_hot(lesion), (1.0, 1.0, 1.0), 0.0)
    assert label[1].sum() == 4 * 9 * 9 and bool(label[1, 9:13, 6:15, 6:15].all())
    assert torch.equal(image == 0, host == 0)
    same = carve(host, label, donor, one_hot(cube(0, 0, 0)), (1.0, 1.0, 1.0), -1.0)
    assert same[0] is host and same[1] is label


@pytest.fixture(scope="module")
def cases(phantom_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [prepare(phantom_dataset, entry, SPEC, cache) for entry in phantom_dataset.cases]


def test_a_place_is_the_same_part_of_another_brain_or_the_one_across(cases):
    spec = PreprocessSpec(modalities=MODALITIES, orientation="SPL", spacing=(1.0, 2.0, 3.0))
    carving = Carving(0.5, spec, [cases], [1.0], 1)
    assert (carving.spacing, carving.left_right) == ((1.0, 2.0, 3.0), 2)
    assert carving.opposite([9, 10, 39], [10, 20, 40], [20, 20, 30]) == ([19, 10, 29], [19, 10, 0])
    assert Carving(0.5, PreprocessSpec(modalities=MODALITIES, orientation="RAS"), [cases], [1.0], 1).left_right == 0


@pytest.mark.parametrize("mirrored", [None, 0, 2])
def test_the_box_of_the_donor_lies_as_that_of_the_host(mirrored):
    """Voxel by voxel: what is so far from the host's centre is so far from the donor's place, or as far across."""
    graft = Graft(Path("donor"), (20, 21, 22), [10, 11, 12], mirrored, 0.0)
    first, size = [7, 3, 9], [8, 12, 5]
    starts = graft.start(first, size)
    for voxel in ((0, 0, 0), (7, 11, 4), (3, 8, 3)):
        away = [f + v - c for f, v, c in zip(first, voxel, graft.centre)]
        there = [n - 1 - v if axis == mirrored else v for axis, (v, n) in enumerate(zip(voxel, size))]
        found = [s + t - p for s, t, p in zip(starts, there, graft.place)]
        assert found == [-a if axis == mirrored else a for axis, a in enumerate(away)]


def make_samples(groups, chance, augmentation="segmamba"):
    shares = [1.0] * len(groups)
    carving = Carving(chance, SPEC, groups, shares, 3) if chance else None
    return Made(PatchDataset(groups, shares, (24, 24, 24), build_augmentation(augmentation), 1.0, 3, carving))


class Made:
    """Each sample as a batch of one makes it."""

    def __init__(self, samples):
        self.samples, self.carving, self._centre = samples, samples.carving, samples._centre

    def __getitem__(self, index):
        batch = self.samples.augmentation.make_batch([self.samples[index]])
        return {name: values[0] for name, values in batch.items()}


def same(one, other):
    return torch.equal(one["image"], other["image"]) and torch.equal(one["label"], other["label"])


def test_some_samples_are_carved_and_the_others_are_as_without(cases):
    plain, carved, again = (make_samples([cases[:1], cases[1:]], chance) for chance in (0.0, 0.4, 0.4))
    wanted, found = ([data[i] for i in range(20)] for data in (plain, carved))
    assert 0.4 < np.mean([same(*pair) for pair in zip(wanted, found)]) < 0.8
    assert [sample["case"] for sample in wanted] == [sample["case"] for sample in found]
    assert all(same(again[i], found[i]) for i in (11, 2, 7, 2))
    for sample in found:
        total = sample["label"].sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-3, rtol=0)


def test_a_carved_sample_is_the_host_around_a_place_of_the_donors_tumour(cases):
    data = make_samples([cases], 1.0, augmentation="none")
    for i in range(6):
        sample = data[i]
        host = next(case for case in cases if case.id == sample["case"])
        with safe_open(host.cached, framework="pt") as stored:
            whole = torch.nn.functional.pad(stored.get_tensor("image").float(), 6 * [12])
            graft = data.carving.draw(host, stored, i, data._centre)
        with safe_open(graft.donor, framework="pt") as stored:
            assert int(stored.get_tensor("label")[(0, *graft.place)]) > 0
        d, h, w = graft.centre  # of the padded host: the patch begins there
        own = whole[:, d : d + 24, h : h + 24, w : w + 24]
        changed = (sample["image"] != own).any(0)
        assert 0 < changed.sum() < 0.8 * changed.numel()
        assert bool((own[:, changed] != 0).any(0).all())


def test_held_out_cases_and_the_host_itself_are_no_donors(own_phantoms, tmp_path, monkeypatch):
    dataset = own_phantoms()
    make_split(dataset, folds=3, seed=1)
    opened = []
    real = samples_module.safe_open
    for module in (samples_module, carve_module):
        monkeypatch.setattr(module, "safe_open", lambda path, **how: opened.append(path) or real(path, **how))
    sources = (SourceConfig(dataset=str(dataset.folder), validate=True, fold=0),)
    config = small_config(
        dataset.folder,
        tmp_path / "cache",
        sources=sources,
        preprocess=SPEC,
        augment=AugmentConfig(set="none", carve=1.0),
    )
    with narrow_network():
        experiment = load_experiment(config, World())
    (held_out,), (training,) = experiment.held_out, experiment.groups
    for i in range(10):
        opened.clear()
        sample = experiment.samples[i]
        assert {*opened} == {case.cached for case in training}
        assert sample["case"] != held_out.id


def test_crops_are_given_nothing_and_give_nothing(cases, tmp_path):
    file = read_patches(write_patches(tmp_path / "crops.npz"), 3)
    crops = [prepare_patches(file, block, SPEC, 3, tmp_path / "cache") for block in arrange(file, 32.0)]
    plain, carved = (make_samples([crops, cases[:2]], chance, "none") for chance in (0.0, 1.0))
    assert [len(group) for group in carved.carving.donors] == [0, 2]
    for i in range(12):
        assert same(plain[i], carved[i]) == plain[i]["case"].startswith("patch-")
    for few in ([crops], [crops, cases[:1]]):  # a single donor has no other to be given to
        with pytest.raises(InputError, match="fewer than two training cases have a tumour to carve out"):
            make_samples(few, 0.5)


def test_cases_that_do_not_tell_where_the_brain_ends_are_refused(cases):
    """Their background is not 0: tumours would be carved into it."""
    with pytest.raises(InputError, match=r"normalisation 'zscore_box' .* take 'zscore_nonzero'"):
        Carving(0.5, replace(SPEC, normalisation="zscore_box"), [cases], [1.0], 1)


@pytest.mark.parametrize("head", ["labels", "regions"])
def test_a_training_with_carved_samples(phantom_dataset, tmp_path, head):
    augment = AugmentConfig(carve=1.0)
    config = small_config(phantom_dataset.folder, tmp_path / "cache", steps=2, head=head, augment=augment)
    with narrow_network():
        model = train(config, tmp_path / "run")
    assert '"carve": 1.0' in (model / "model.json").read_text()


def test_the_setting_is_a_chance_and_0_is_what_older_records_have(phantom_dataset, tmp_path):
    for chance in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"augment\.carve .* must be 0 to 1"):
            AugmentConfig(carve=chance)
    records = [
        {"config": resolved(small_config(phantom_dataset.folder, tmp_path, augment=AugmentConfig(carve=chance)))}
        for chance in (0.0, 0.3)
    ]
    assert "carve" not in records[0]["config"]["augment"]
    assert changed_settings(records[0], records[1]) == {"augment.carve": None}
