"""Training samples: a function of seed and index, never stale, soft labels that add up."""

import os
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from segmamba.cases.case import load_case, load_label_map
from segmamba.datasets.collect import init_dataset
from segmamba.datasets.manifest import read_dataset
from segmamba.errors import InputError
from segmamba.files.atomic import aside
from segmamba.images.digest import hash_image
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.preprocess import preprocess
from segmamba.training.augment import build_augmentation
from segmamba.training.samples import PatchDataset, StepSampler, drop_all, drop_others, prepare

SPEC = PreprocessSpec(modalities=("t1n", "t1c", "t2w", "t2f"), spacing=(5.0, 4.0, 4.0))
PATCH = (32, 32, 48)


@pytest.fixture(scope="module")
def cases(phantom_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [prepare(phantom_dataset, entry, SPEC, cache) for entry in phantom_dataset.cases]


@pytest.fixture
def samples(cases):
    def make(seed=5, foreground=0.75, augmentation="segmamba", patch=PATCH, groups=None, shares=(0.5, 0.5)):
        groups = groups or [cases[:1], cases[1:]]
        return Made(PatchDataset(groups, shares, patch, build_augmentation(augmentation), foreground, seed))

    return make


class Made:
    """Each sample as a batch of one makes it."""

    def __init__(self, samples):
        self.samples = samples

    def __getitem__(self, index):
        batch = self.samples.augmentation.make_batch([self.samples[index]])
        return {name: values[0] for name, values in batch.items()}


@pytest.mark.parametrize("augmentation", ["paper", "released", "segmamba"])
def test_a_sample_depends_on_seed_and_index_alone(samples, augmentation):
    forwards = samples(augmentation=augmentation)
    wanted = [forwards[i] for i in range(12)]
    again = samples(augmentation=augmentation)
    for index in (7, 3, 11, 3):  # whatever was drawn before
        for name in ("image", "label"):
            assert torch.equal(again[index][name], wanted[index][name]), (index, name)
        assert again[index]["case"] == wanted[index]["case"]
    assert not torch.equal(wanted[7]["image"], samples(seed=6, augmentation=augmentation)[7]["image"])


def test_random_state_of_the_process_is_left_alone(samples):
    np.random.seed(3)  # noqa: NPY002 (the global state is what is tested)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    for i in range(8):
        samples(augmentation="paper")[i]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("augmentation", ["none", "paper", "released", "segmamba"])
def test_patches_have_their_size_and_labels_are_shares(samples, augmentation):
    for i in range(12):
        sample = samples(augmentation=augmentation)[i]
        assert sample["image"].shape == (4, *PATCH) and sample["label"].shape == (4, *PATCH)
        assert type(sample["image"]) is torch.Tensor and torch.isfinite(sample["image"]).all()
        torch.testing.assert_close(sample["label"].sum(0), torch.ones(PATCH), atol=1e-3, rtol=0)
        assert sample["label"].min() >= -1e-3


def test_without_augmentation_a_patch_is_a_piece_of_the_case(samples, cases):
    """Read straight from the files: the patch is somewhere in what preprocessing gives, image and label alike."""
    whole = {}
    for entry in cases:
        case = load_case(entry.sources, entry.id, SPEC.modalities)
        label_map = load_label_map(entry.label, entry.renumbering, case)
        prepared = preprocess(case, SPEC)
        whole[entry.id] = prepared.tensor.half().float(), torch.as_tensor(prepared.to_crop(label_map).float())
    patch = (8, 10, 12)
    for i in range(6):
        sample = samples(augmentation="none", patch=patch, foreground=1.0)[i]
        image, _ = whole[sample["case"]]
        windows = image[0].unfold(0, 8, 1).unfold(1, 10, 1).unfold(2, 12, 1)
        hits = torch.nonzero((windows == sample["image"][0]).all(-1).all(-1).all(-1))
        assert len(hits) == 1, f"sample {i} is found {len(hits)} times"
        d, h, w = hits[0].tolist()
        assert torch.equal(image[:, d : d + 8, h : h + 10, w : w + 12], sample["image"])


def test_a_patch_larger_than_the_case_is_filled_with_background(samples, cases):
    with safe_open(cases[0].cached, framework="pt") as stored:
        grid = stored.get_slice("image").get_shape()[1:]
    patch = tuple(side + 9 for side in grid)
    sample = samples(augmentation="none", patch=patch, groups=[cases[:1]], shares=[1.0], foreground=0)[0]
    assert sample["label"][0, 0].min() == 1 and sample["image"][:, 0].abs().max() == 0
    filled = (sample["image"] != 0).any(0)
    with safe_open(cases[0].cached, framework="pt") as stored:
        assert filled.sum() == (stored.get_tensor("image") != 0).any(0).sum()


def test_foreground_decides_how_often_a_patch_holds_tumour(samples):
    """With a patch of one voxel and no augmentation the share of labelled patches is the setting itself."""
    for foreground, low, high in ((1.0, 0.95, 1.0), (0.5, 0.38, 0.68)):  # 0.5, and what chance hits besides
        data = samples(foreground=foreground, augmentation="none", patch=(1, 1, 1))
        share = np.mean([float(data[i]["label"][1:].sum()) > 0.5 for i in range(150)])
        assert low <= share <= high, (foreground, share)


def test_shares_decide_which_source_a_sample_comes_from(samples):
    data = samples(shares=[0.8, 0.2], augmentation="none", patch=(1, 1, 1))
    first = np.mean([data[i]["case"] == "phantom-0" for i in range(300)])
    assert 0.72 < first < 0.88


def test_every_process_gets_its_part_of_each_batch_and_no_more():
    whole = list(StepSampler(3, 6, 4, 0, 1))
    parts = [list(StepSampler(3, 6, 4, rank, 2)) for rank in range(2)]
    assert whole == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]
    assert [a + b for a, b in zip(*parts)] == whole


def test_a_corrected_label_is_never_served_stale(phantom_cases, make_dataset, tmp_path):
    folder = tmp_path / "cases" / "phantom-0"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    dataset = make_dataset(folder.parent)
    before = prepare(dataset, dataset.cases[0], SPEC, tmp_path / "cache")
    assert prepare(dataset, dataset.cases[0], SPEC, tmp_path / "cache") == before
    path = folder / "phantom-0-seg.nii.gz"
    image = nib.load(path)
    corrected = np.where(np.asarray(image.dataobj) == 2, 1, np.asarray(image.dataobj)).astype(np.uint8)
    nib.save(nib.Nifti1Image(corrected, image.affine), path)
    with pytest.raises(InputError, match=r"phantom-0-seg.nii.gz is not the file .* --update"):
        prepare(dataset, dataset.cases[0], SPEC, tmp_path / "cache")
    dataset = make_dataset(folder.parent)
    after = prepare(dataset, dataset.cases[0], SPEC, tmp_path / "cache")
    assert after.cached != before.cached
    labels = []
    for entry in (before, after):
        with safe_open(entry.cached, framework="pt") as stored:
            labels.append(stored.get_tensor("label")[2].max())
    assert labels[0] > 0 and labels[1] == 0


def test_only_a_file_of_another_size_or_time_is_read_again(phantom_cases, tmp_path, monkeypatch):
    """A data set of a thousand cases is 50 GB, which every start would read."""
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "cases" / "phantom-0")
    dataset = init_dataset(tmp_path / "cases", convention="brats2023", output=tmp_path / "set").dataset
    (entry,) = dataset.cases
    prepare(dataset, entry, SPEC, tmp_path / "cache")
    hashed = []
    monkeypatch.setattr("segmamba.images.digest.hash_image", lambda path: hashed.append(path.name) or hash_image(path))
    prepare(dataset, entry, SPEC, tmp_path / "cache")
    assert hashed == []
    path = dataset.path(entry.label)
    os.utime(path, ns=(0, entry.label.modified + 1))  # as of a copy
    prepare(dataset, entry, SPEC, tmp_path / "cache")
    assert hashed == [path.name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not the file that the data set was made of"):
        prepare(dataset, entry, SPEC, tmp_path / "cache")


def test_another_spacing_or_meaning_of_a_value_is_another_entry(phantom_dataset, tmp_path):
    entry = phantom_dataset.cases[0]
    coarse = replace(SPEC, spacing=(6.0, 6.0, 6.0))
    swapped = replace(phantom_dataset, label_values={"1": "ED", "2": "NCR", "3": "ET"})
    found = {
        prepare(dataset, entry, spec, tmp_path).cached
        for dataset, spec in ((phantom_dataset, SPEC), (phantom_dataset, coarse), (swapped, SPEC))
    }
    assert len(found) == 3


def test_without_resampling_the_label_is_stored_whole(phantom_dataset, tmp_path):
    entry = phantom_dataset.cases[0]
    spec = replace(SPEC, spacing=(4.0, 4.0, 4.0))
    with safe_open(prepare(phantom_dataset, entry, spec, tmp_path).cached, framework="pt") as stored:
        label = stored.get_tensor("label")
        assert label.dtype == torch.uint8 and len(label) == 1
        for value in (1, 2, 3):
            places = stored.get_tensor(f"places{value}").long()
            assert len(places) and (label[0][tuple(places.T)] == value).all()
    assert len(label.unique()) == 4


def test_a_case_without_label_or_modality_is_named(phantom_dataset, tmp_path):
    entry = phantom_dataset.cases[0]
    with pytest.raises(InputError, match=r"phantom-0 .*has no label map"):
        prepare(phantom_dataset, replace(entry, label=None), SPEC, tmp_path)
    with pytest.raises(InputError, match=r"phantom-0 .*has no ct; it has t1n, t1c, t2w, t2f"):
        prepare(phantom_dataset, entry, replace(SPEC, modalities=("ct",)), tmp_path)


def test_a_file_that_is_gone_is_named(phantom_cases, make_dataset, tmp_path):
    shutil.copytree(phantom_cases / "phantom-1", tmp_path / "cases" / "phantom-1")
    make_dataset(tmp_path / "cases")
    (tmp_path / "cases" / "phantom-1" / "phantom-1-t1c.nii.gz").unlink()
    dataset = read_dataset(tmp_path / "cases")
    with pytest.raises(InputError, match=r"phantom-1-t1c.nii.gz cannot be read"):
        prepare(dataset, dataset.cases[0], SPEC, tmp_path / "cache")


def test_of_cases_that_are_in_no_data_set_nothing_stays_prepared(cases, phantom_dataset, tmp_path):
    cache = shutil.copytree(cases[0].cached.parent, tmp_path / "cache")
    (cache / "notes.txt").write_text("not ours")
    aside(cache / "x").write_bytes(b"half a case")  # of a writer that was killed a moment ago
    first, *others = phantom_dataset.cases
    unlabelled = replace(phantom_dataset, cases=(replace(first, label=None), *others))
    drop_others(cache, [phantom_dataset, unlabelled], SPEC)
    assert {path.name for path in cache.iterdir()} == {"notes.txt", *(case.cached.name for case in cases)}
    drop_others(cache, [unlabelled], SPEC)  # the first one's label was taken back
    assert {path.name for path in cache.iterdir()} == {"notes.txt", *(case.cached.name for case in cases[1:])}
    one = {"t1c": others[0].images["t1c"]}
    drop_others(cache, [replace(phantom_dataset, modalities=("t1c",), cases=(replace(others[0], images=one),))], SPEC)
    assert {path.name for path in cache.iterdir()} == {"notes.txt"}
    shutil.copytree(cases[0].cached.parent, cache, dirs_exist_ok=True)
    drop_all(cache)
    assert {path.name for path in cache.iterdir()} == {"notes.txt"}


def test_a_prepared_case_that_cannot_be_deleted_is_named_and_the_others_go(tmp_path, caplog):
    held, other = (tmp_path / f"{name}.safetensors" for name in "ab")
    held.mkdir()  # stands for a file that another program holds open
    other.write_bytes(b"")
    drop_all(tmp_path)
    assert not other.exists() and f"{held}, a prepared case, cannot be deleted" in caplog.text
