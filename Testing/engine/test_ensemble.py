"""Several packages as one model: probabilities are averaged, whatever the head, and unlike models are refused."""

import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.models.ensemble import load_ensemble
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import InferenceSpec
from segmamba.networks.segmamba import SegMamba
from segmamba.prediction.windows import predict


@pytest.fixture(scope="module")
def make_models(tiny_model, tmp_path_factory):
    """Packages like `tiny`, each with weights of its own and sharp answers; with nested regions or labels."""

    def make(nested, count=3, **changes):
        manifest = load_package(tiny_model).manifest
        network = replace(manifest.network, out_channels=len(nested) or 4)
        inference = InferenceSpec(window=(32, 48, 48), nested=nested, bf16=False)
        folders = []
        for seed in range(count):
            torch.manual_seed(seed)
            module = SegMamba(network)
            with torch.no_grad():
                module.out.conv.conv.weight *= 20
            folder = tmp_path_factory.mktemp("member") / "model"
            own = replace(manifest, network=network, inference=inference, **changes)
            save_package(folder, module, own, "# tiny\n")
            folders.append(folder)
        return folders

    return make


@pytest.mark.parametrize("nested", [(), (2, 1, 3)], ids=["labels", "regions"])
def test_probabilities_are_the_mean_of_the_models_own(make_models, nested):
    """With mirrorings, in several windows, of networks that disagree."""
    folders = make_models(nested)
    image = torch.randn(4, 48, 48, 64, generator=torch.Generator().manual_seed(4))
    model = load_ensemble(folders)
    got = predict(model.network, image, model.manifest.inference, mirrorings=1).probabilities
    own = [
        predict(one.network, image, one.manifest.inference, mirrorings=1).probabilities
        for one in map(load_package, folders)
    ]
    assert (own[0] - own[1]).abs().max() > 0.3
    torch.testing.assert_close(got, torch.stack(own).mean(0), atol=2e-6, rtol=0)


def test_a_certain_answer_stays_finite(make_models):
    model = load_ensemble(make_models((), count=2))
    for network in model.network.networks:
        with torch.no_grad():
            network.out.conv.conv.weight.zero_()
            network.out.conv.conv.bias.copy_(torch.tensor([500.0, 0.0, 0.0, -500.0]))
    logits = model.network(torch.zeros(1, 4, 32, 32, 32))
    assert torch.isfinite(logits).all() and (logits.softmax(1)[:, 0] > 0.999999).all()


def test_one_model_is_itself(tiny_model):
    assert isinstance(load_ensemble([tiny_model]).network, SegMamba)


def test_models_that_do_not_go_together_are_refused(make_models):
    labels, regions = make_models((), 1), make_models((2, 1, 3), 1)
    with pytest.raises(InputError, match="differ in inference"):
        load_ensemble([*labels, *regions])
    with pytest.raises(InputError, match="has the weights of one before it"):
        load_ensemble([*labels, *labels])


def test_it_is_known_by_the_network_of_each_model(make_models):
    """Imported again as another network, the weights of one stay the same; alike, the hash is that of the weights."""
    folders = make_models((), 2)
    before = load_ensemble(folders).manifest.weights_sha256
    hashes = "".join(load_package(folder).manifest.weights_sha256 for folder in folders)
    assert before == hashlib.sha256(hashes.encode()).hexdigest()
    values = json.loads((folders[1] / "model.json").read_text())
    values["network"]["mamba_residual"] = not values["network"]["mamba_residual"]
    (folders[1] / "model.json").write_text(json.dumps(values))
    assert load_ensemble(folders).manifest.weights_sha256 != before


def test_from_the_command_line(make_models, phantom_cases, tmp_path, capsys):
    folders = make_models((), 2)
    case = phantom_cases / "phantom-0"
    given = [part for folder in folders for part in ("--model", str(folder))]
    shared = ["--device", "cpu", "--prepare", "never", "--probabilities", "--json"]
    assert main(["predict", str(case), "-o", str(tmp_path / "mean"), *given, *shared]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["model"] == "tiny, mean of 2"
    single = []
    for number, folder in enumerate(folders):
        assert main(["predict", str(case), "-o", str(tmp_path / str(number)), "--model", str(folder), *shared]) == 0
        single.append(nib.load(tmp_path / str(number) / "phantom-0-probabilities.nii.gz").get_fdata())
    mean = nib.load(tmp_path / "mean" / "phantom-0-probabilities.nii.gz").get_fdata()
    np.testing.assert_allclose(mean, np.mean(single, axis=0), atol=1e-5)
    sums = {
        json.loads((tmp_path / n / "phantom-0-summary.json").read_text())["settings"]["weights_sha256"] for n in "01"
    }
    assert summary["settings"]["weights_sha256"] not in sums
