"""Training samples: a function of seed and index, never stale, soft labels that add up."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from segmamba.augment import training_transform
from segmamba.config import SourceConfig
from segmamba.dataset import PatchDataset, find_training_cases, prepare
from segmamba.errors import InputError
from segmamba.preprocess import PreprocessSpec

SPEC = PreprocessSpec(modalities=("t1n", "t1c", "t2w", "t2f"), spacing=(5.0, 4.0, 4.0))
PATCH = (32, 32, 48)


@pytest.fixture
def dataset(phantom_cases, tmp_path):
    cases = [prepare(phantom_cases / f"phantom-{i}", "brats2023", SPEC, tmp_path) for i in range(3)]

    def make(start=0, seed=5, foreground=0.75):
        return PatchDataset(
            [cases[:1], cases[1:]],
            [0.5, 0.5],
            training_transform(PATCH, 4, foreground),
            seed,
            length=30,
            start=start,
        )

    return make


def test_a_sample_depends_on_seed_and_index_alone(dataset):
    forwards = dataset()
    seventh = forwards[7]
    for index in (3, 1):  # whatever was drawn before
        forwards[index]
    for again in (forwards[7], dataset()[7], dataset(start=5)[2]):
        assert all(torch.equal(seventh[name], again[name]) for name in seventh)
    assert not torch.equal(seventh["image"], dataset(seed=6)[7]["image"])


def test_random_state_of_the_process_is_left_alone(dataset):
    np.random.seed(3)  # noqa: NPY002 (the global state is what is tested)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    dataset()[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_patches_have_their_size_and_labels_are_shares(dataset):
    for i in range(12):
        sample = dataset()[i]
        assert sample["image"].shape == (4, *PATCH) and sample["label"].shape == (4, *PATCH)
        assert type(sample["image"]) is torch.Tensor and torch.isfinite(sample["image"]).all()
        torch.testing.assert_close(sample["label"].sum(0), torch.ones(PATCH), atol=1e-5, rtol=0)
        assert sample["label"][1:].min() >= 0


def test_foreground_decides_how_often_a_patch_holds_tumour(dataset):
    always = [float(dataset(foreground=1.0)[i]["label"][1:].sum()) for i in range(8)]
    assert min(always) > 0


def test_the_background_stays_zero(dataset):
    """Gamma and shifts would move it; the network was promised zeros outside the brain."""
    for i in range(6):
        sample = dataset()[i]
        outside = (sample["image"] == 0).all(0)
        assert outside.any()
        assert sample["label"][0][outside].mean() > 0.95


def test_a_corrected_label_is_never_served_stale(phantom_cases, tmp_path):
    folder = tmp_path / "cases" / "phantom-0"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    before = prepare(folder, "brats2023", SPEC, tmp_path / "cache")
    assert prepare(folder, "brats2023", SPEC, tmp_path / "cache") == before
    path = folder / "phantom-0-seg.nii.gz"
    image = nib.load(path)
    corrected = np.where(np.asarray(image.dataobj) == 2, 1, np.asarray(image.dataobj)).astype(np.uint8)
    nib.save(nib.Nifti1Image(corrected, image.affine), path)
    after = prepare(folder, "brats2023", SPEC, tmp_path / "cache")
    assert after.cached != before.cached
    assert after.load()["label"][2].max() == 0 < before.load()["label"][2].max()


def test_another_spacing_is_another_entry(phantom_cases, tmp_path):
    coarse = PreprocessSpec(modalities=SPEC.modalities, spacing=(6.0, 6.0, 6.0))
    entries = {prepare(phantom_cases / "phantom-0", "brats2023", spec, tmp_path).cached for spec in (SPEC, coarse)}
    assert len(entries) == 2


def test_folds_part_the_cases(phantom_cases):
    held_out = []
    for fold in range(3):
        source = SourceConfig(folder=str(phantom_cases), convention="brats2023", folds=3, fold=fold)
        training, validation = find_training_cases(source)
        assert len(training) == 2 and len(validation) == 1 and not set(training) & set(validation)
        held_out += validation
    assert len(set(held_out)) == 3


def test_a_case_without_label_is_named(phantom_cases, tmp_path):
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "phantom-0")
    (tmp_path / "phantom-0" / "phantom-0-seg.nii.gz").unlink()
    with pytest.raises(InputError, match=r"phantom-0 has no label map"):
        prepare(tmp_path / "phantom-0", "brats2023", SPEC, tmp_path / "cache")


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no case folders"):
        find_training_cases(SourceConfig(folder=str(tmp_path), convention="brats2023"))
