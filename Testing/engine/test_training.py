"""The training loop on small phantoms: it learns, resumes exactly, and releases what it validated."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from segmamba import training
from segmamba.case import find_case, load_case, load_label_map
from segmamba.checkpoint import load_checkpoint
from segmamba.config import NetworkChoice, SourceConfig, TrainingConfig, load_config
from segmamba.errors import InputError
from segmamba.inference import InferenceSpec
from segmamba.metrics import region_scores
from segmamba.network import preset_config
from segmamba.package import load_package
from segmamba.preprocess import PreprocessSpec
from segmamba.segment import segment

MODALITIES = ("t1n", "t1c", "t2w", "t2f")


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The real network, narrower than any preset, so that a step takes a tenth of a second."""
    small = preset_config("quick", features=(8, 8, 8, 8), full_features=8, bottleneck=8)
    monkeypatch.setattr(NetworkChoice, "resolve", lambda self: small)


@pytest.fixture
def config(phantom_cases, tmp_path):
    return TrainingConfig(
        name="small",
        sources=(SourceConfig(folder=str(phantom_cases), convention="brats2023"),),
        preprocess=PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0)),
        inference=InferenceSpec(window=(64, 64, 64)),
        patch=(32, 32, 32),
        steps=4,
        warmup=2,
        learning_rate=3e-3,
        checkpoint_every=2,
        validate_every=2,
        ema=0.9,
        precision="fp32",
        cache=str(tmp_path / "cache"),
    )


def test_one_case_can_be_learnt_by_heart(config, phantom_cases, tmp_path):
    source = replace(config.sources[0], folds=1)  # one fold: every case is held out ...
    with pytest.raises(InputError, match="no case to train on"):
        training.train(replace(config, sources=(source,)), tmp_path / "none")
    only = tmp_path / "only"
    only.mkdir()
    (only / "phantom-1").symlink_to(phantom_cases / "phantom-1")
    config = replace(config, sources=(replace(source, folder=str(only), folds=0),), steps=120, batch=1, warmup=10)
    model = load_package(training.train(config, tmp_path / "run"))
    case = load_case(find_case(only / "phantom-1"))
    truth = load_label_map(only / "phantom-1" / "phantom-1-seg.nii.gz", "brats2023", case)
    result = segment(case, model.network, model.manifest.preprocess, model.manifest.inference)
    scores = region_scores(result.label_map, truth, (4, 4, 4))
    assert scores["WT"]["dice"] > 0.8, scores
    assert scores["TC"]["dice"] > 0.6, scores


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(config, tmp_path, monkeypatch):
    training.train(config, tmp_path / "whole")
    step = training._step

    def interrupted(*arguments):
        if arguments[5] == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt")["step"] == 2
    monkeypatch.setattr(training, "_step", step)
    training.train(config, tmp_path / "broken", resume=True)
    whole, resumed = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert whole["step"] == resumed["step"] == 4
    for name in ("network", "averaged"):
        for key, tensor in whole[name].items():
            torch.testing.assert_close(resumed[name][key], tensor, rtol=0, atol=1e-6)


def test_held_out_cases_are_validated_whole_and_never_trained_on(config, tmp_path):
    config = replace(config, sources=(replace(config.sources[0], folds=3, fold=1),))
    model = load_package(training.train(config, tmp_path / "run")).manifest
    assert list(model.training["held_out"]) == ["phantom-1"]
    assert sorted(model.training["cases"]) == ["phantom-0", "phantom-2"]
    assert set(model.metrics["cases"]) == {"phantom-1"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4]


def test_the_package_holds_the_averaged_weights_and_no_path_of_this_machine(config, tmp_path):
    folder = training.train(config, tmp_path / "run")
    averaged = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["averaged"]
    for name, tensor in load_package(folder).network.state_dict().items():
        torch.testing.assert_close(tensor, averaged[f"module.{name}"].half().float(), rtol=0, atol=0)
    assert str(tmp_path) not in (folder / "model.json").read_text()


def test_a_loss_that_is_not_finite_changes_nothing_and_stops_the_run_in_the_end(config, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()

        def forward(self, logits, label):
            return logits.sum() * float("nan")

    monkeypatch.setattr(training, "DiceCELoss", Broken)
    torch.manual_seed(config.seed)
    fresh = training._prepare_network(config, tmp_path, False, "cpu")[1].state_dict()
    training.train(config, tmp_path / "run")
    for name, tensor in load_checkpoint(tmp_path / "run" / "checkpoint.pt")["network"].items():
        torch.testing.assert_close(tensor, fresh[name], rtol=0, atol=0)
    with pytest.raises(InputError, match="10 steps in a row"):
        training.train(replace(config, steps=20), tmp_path / "long")


def test_the_learning_rate_warms_up_and_falls_to_zero(config):
    config = replace(config, steps=100, warmup=10)
    rates = [training.learning_rate(step, config) for step in range(1, 101)]
    assert rates[0] == pytest.approx(3e-4) and max(rates) == rates[9] == rates[10] == pytest.approx(3e-3)
    assert all(a > b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 1e-4


def test_scan_parameters_norms_and_biases_do_not_decay():
    network = torch.nn.Sequential(torch.nn.LayerNorm(4), training.SegMamba(preset_config("quick")))
    decayed, free = training.parameter_groups(network, 0.1)
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    names = {id(p): name for name, p in network.named_parameters()}
    free_names = {names[id(p)] for p in free["params"]}
    assert all(
        name.endswith("bias") or "norm" in name or name[:2] == "0." or ".A" in name or ".D" in name
        for name in free_names
    )
    assert sum(".A_" in name or name.endswith("_log") for name in free_names) == 12  # 4 layers, 3 directions
    assert len(names) == len(decayed["params"]) + len(free["params"])


def test_a_model_of_another_kind_cannot_be_continued(config, tiny_model, tmp_path):
    with pytest.raises(InputError, match="another network or preprocessing"):
        training.train(replace(config, initial_model=str(tiny_model)), tmp_path / "run")


def test_training_from_a_configuration_file(phantom_cases, tmp_path):
    (tmp_path / "a.toml").write_text(
        f"""
        name = "a"
        steps = 1
        warmup = 1
        precision = "fp32"
        batch = 1
        patch = [32, 32, 32]
        cache = "cache"
        [network]
        preset = "quick"
        [preprocess]
        modalities = ["t1n", "t1c", "t2w", "t2f"]
        spacing = [4, 4, 4]
        [[sources]]
        folder = {json.dumps(str(phantom_cases))}
        convention = "brats2023"
        """
    )
    training.train(load_config(tmp_path / "a.toml", ["learning_rate=1e-4"]), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["learning_rate"] == 1e-4 and record["config"]["preprocess"]["spacing"] == [
        4,
        4,
        4,
    ]
    assert (tmp_path / "cache").is_dir()
