"""The configurations of the paper's CT data sets, from raw folders to a label map, on synthetic volumes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.models.package import load_package
from segmamba.training.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "Training" / "configs"
NARROW = ["features=[8, 8, 16, 16]", "full_features=8", "bottleneck=16", "depths=[1, 1, 1, 1]"]
# of the label and of what is around it, in Hounsfield units: a bronchus in the lung, a tumour in the wall of a gut
KINDS = {"aiib2023": ("airway", -980.0, -820.0), "crc500": ("cancer", 90.0, 20.0)}


@pytest.fixture
def make_cases(tmp_path):
    """Ten CT volumes with a tube that runs along their third axis, no two where the other is."""

    def make(inside, around):
        rng = np.random.default_rng(3)
        for number in range(10):
            folder = tmp_path / "data" / f"case-{number}"
            folder.mkdir(parents=True)
            x, y, _ = np.meshgrid(*(np.arange(side) for side in (36, 40, 33)), indexing="ij")
            label = ((x - 12 - number) ** 2 + (y - 20) ** 2 < 30).astype(np.uint8)
            image = np.where(label, inside, around) + rng.normal(0, 10, label.shape)
            affine = np.diag([-1.0, -1.0, 1.0, 1.0])
            nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / f"case-{number}_ct.nii.gz")
            nib.save(nib.Nifti1Image(label, affine), folder / f"case-{number}_seg.nii.gz")
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("name", KINDS)
def test_from_folders_to_a_label_map(name, make_cases, tmp_path, capsys):
    label, inside, around = KINDS[name]
    data, folder = make_cases(inside, around), tmp_path / "set"
    made = ["--modality", "ct", "--label", f"{label}=1", "--region", f"{label}={label}"]
    assert main(["dataset", "init", str(data), *made, "--output", str(folder), "--jobs", "1"]) == 0
    assert main(["dataset", "split", str(folder), "--shares", "70/10/20"]) == 0
    dataset = read_dataset(folder)
    assert dataset.modalities == ("ct",) and dataset.labels == {label: 1} and dataset.regions == {label: (label,)}
    config = CONFIGS / f"{name}.toml"
    assert load_config(config).preprocess.modalities == ("ct",)
    settings = [
        f"sources.0.dataset={folder}",
        f"cache={tmp_path / 'cache'}",
        "patch=[32, 32, 32]",
        "batch=1",
        "steps=40",
    ]
    settings += ["optimizer.name=adamw", "optimizer.learning_rate=1e-2", "optimizer.warmup=5", "optimizer.ema=0.9"]
    settings += ["precision=fp32", "inference.window=[32, 32, 32]", "augment.set=none"]
    settings += [f"network.{setting}" for setting in NARROW] + ["network.preset=released", "validation.at_start=false"]
    given = [part for setting in settings for part in ("--set", setting)]
    run = tmp_path / "run"
    assert main(["train", str(config), *given, "--run-folder", str(run), "--device", "cpu"]) == 0

    manifest = load_package(run / "model").manifest
    assert (manifest.network.in_channels, manifest.network.out_channels) == (1, 2)
    assert manifest.preprocess.modalities == ("ct",) and manifest.label_map == {label: 1}
    assert manifest.regions == {label: (label,)}
    (held_out,) = manifest.metrics["cases"]
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in losses if line["kind"] == "step"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])  # brightness tells the tube from what is around it

    capsys.readouterr()
    out = tmp_path / "out"
    case = ["predict", str(data / held_out), "-o", str(out), "--model", str(run / "model"), "--prepare", "never"]
    assert main([*case, "--device", "cpu"]) == 0
    found = np.asarray(nib.load(out / f"{held_out}-seg.nii.gz").dataobj)
    truth = np.asarray(nib.load(data / held_out / f"{held_out}_seg.nii.gz").dataobj)
    assert found.shape == truth.shape and set(np.unique(found)) == {0, 1}
    overlap = 2 * np.sum(found * truth) / np.sum(found + truth)
    assert overlap > 0.7, overlap  # of a case that was not trained on, with the tube where none of the others has it
    assert manifest.metrics["mean"][label]["dice"] == pytest.approx(overlap, abs=0.02)
    summary = json.loads((out / f"{held_out}-summary.json").read_text())
    assert summary["volumes_ml"][label] == pytest.approx(found.sum() / 1000, abs=0.01)  # voxels of 1 mm
