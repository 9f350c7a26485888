"""Networks of Table 1 in packages: given back as they were, trained, used, and refused by name."""

import json
import math
from dataclasses import replace
from unittest import mock

import pytest
import torch
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.models.package import Manifest, load_package, read_manifest, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.baselines import BASELINES, BaselineConfig, build_baseline
from segmamba.networks.choice import NetworkChoice
from segmamba.settings import build as from_plain
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.loop import train
from small_baselines import ROUGH, image, small
from training_runs import small_config


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", BASELINES)
def test_a_package_gives_the_network_back(name, dtype, tmp_path):
    network = small(name).eval()
    manifest = Manifest(
        id=name,
        network=network.config,
        preprocess=PreprocessSpec(modalities=("t1c", "t2f")),
        inference=InferenceSpec(),
        label_map={"core": 1, "rest": 2},
        regions={"all": ("core", "rest")},
        weights_dtype=dtype,
    )
    save_package(tmp_path, network, manifest, "# card\n")
    again = load_package(tmp_path).network
    assert again.config == network.config
    assert all(t.is_floating_point() for t in network.state_dict().values())  # float16 holds no index above 2048
    x = image(network.config.patch)
    with torch.no_grad():
        expected, found = network(x), again(x)
    if dtype == "float32":
        assert torch.equal(found, expected)
    elif name != ROUGH:
        assert (found - expected).square().mean().sqrt() < 5e-3 * expected.std()


@pytest.fixture(scope="module")
def trained(phantom_dataset, tmp_path_factory):
    """A narrow UNETR after two steps: (its run folder, its package)."""
    root = tmp_path_factory.mktemp("baseline")
    config = small_config(phantom_dataset.folder, root / "cache", steps=2, network=NetworkChoice(name="unetr"))
    real = NetworkChoice.resolve
    with mock.patch.object(NetworkChoice, "resolve", lambda *inputs: replace(real(*inputs), width=1)):
        return root / "run", train(config, root / "run")


def test_a_trained_baseline_is_packaged_as_it_was(trained):
    run, package = trained
    model = load_package(package)
    assert model.manifest.network == BaselineConfig(name="unetr", patch=(32, 32, 32), width=1)
    assert model.manifest.inference.window == (32, 32, 32) and model.manifest.inference.pad_to_window
    averaged = load_checkpoint(run)[0]["averaged"]
    network = build_baseline(model.manifest.network).eval()
    network.load_state_dict({name.removeprefix("module."): t for name, t in averaged.items() if name != "n_averaged"})
    x = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(model.network(x), network(x))


def test_predict_takes_a_baseline(trained, phantom_cases, tmp_path, capsys):
    case = phantom_cases / "phantom-1"
    assert main(["predict", str(case), "--model", str(trained[1]), "--output", str(tmp_path), "--device", "cpu"]) == 0
    summary = json.loads((tmp_path / "phantom-1-summary.json").read_text())
    assert summary["model"] == "small" and summary["passes"] > 1
    assert (tmp_path / "phantom-1-seg.nii.gz").is_file()


def test_weights_of_another_baseline_are_refused_by_name(trained, tmp_path):
    manifest = read_manifest(trained[1])
    other = build_baseline(replace(manifest.network, width=2))
    with pytest.raises(InputError, match="describes another network"):
        save_package(tmp_path, other, manifest, "")
    save_package(tmp_path, other, replace(manifest, network=other.config), "")
    values = json.loads((tmp_path / "model.json").read_text())
    values["network"]["width"] = 1
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"tensors do not fit the 'unetr' network .* of another shape network\."):
        load_package(tmp_path)
    values["network"]["name"] = "unet"
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="unknown baseline 'unet'"):
        load_package(tmp_path)


def test_a_configuration_survives_plain_values():
    config = BaselineConfig(name="unetr", in_channels=3, out_channels=5, patch=(32, 64, 96))
    plain = {"name": "unetr", "in_channels": 3, "out_channels": 5, "patch": [32, 64, 96]}
    assert from_plain(BaselineConfig, plain, "test") == config
    assert math.prod(config.patch) == 32 * 64 * 96
