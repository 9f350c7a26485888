"""The training loop on real parts: it learns, validates whole volumes, keeps what it wrote, refuses what is wrong."""

import json
import math
from dataclasses import replace

import pytest
import torch
from segmamba.cases.case import find_case, load_case, load_label_map
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.datasets.split import make_split
from segmamba.errors import InputError
from segmamba.evaluation.metrics import region_scores
from segmamba.models.package import load_package, save_package
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.prediction.segment import segment
from segmamba.training import loop as training
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.config import AugmentConfig, OptimizerConfig, SourceConfig, ValidationConfig
from segmamba.training.distributed import World
from segmamba.training.journal import Journal
from segmamba.training.loop import train
from segmamba.training.samples import find_case as find_prepared
from segmamba.training.validation import draw_worst
from training_runs import lines_of, narrow_network

pytestmark = pytest.mark.usefixtures("narrow")


def test_one_case_can_be_learnt_by_heart(config, make_dataset, tmp_path):
    """One whose tumour is a sixth of the brain: where it is a hundredth some seeds learn nothing in 150 steps."""
    folder = tmp_path / "cases" / "phantom-4"
    folder.mkdir(parents=True)
    save_phantom(make_phantom(4, spacing=(6, 6, 6), enhancing=True), folder, folder.name)
    settings = {
        "sources": (SourceConfig(dataset=str(make_dataset(folder.parent).folder)),),
        "augment": AugmentConfig(set="none"),
        "optimizer": replace(config.optimizer, learning_rate=1e-2, warmup=5),
        "steps": 40,
        "preprocess": replace(config.preprocess, spacing=(6.0, 6.0, 6.0)),
        "patch": (32, 32, 32),  # the whole brain
        "batch": 1,
    }
    with narrow_network((8, 8, 16, 16)):
        model = load_package(train(replace(config, **settings), tmp_path / "run"))
    case = load_case(find_case(folder))
    truth = load_label_map(folder / "phantom-4-seg.nii.gz", "brats2023", case)
    result = segment(case, model.network, model.manifest.preprocess, model.manifest.inference)
    scores = region_scores(result.label_map, truth, (6, 6, 6))
    assert scores["WT"]["dice"] > 0.7 and scores["TC"]["dice"] > 0.7, scores


@pytest.mark.pictures
def test_held_out_cases_are_validated_whole_and_never_trained_on(config, split_dataset, tmp_path):
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=1)
    settings = ValidationConfig(every=2, release="last")
    model = load_package(train(replace(config, sources=(source,), validation=settings), tmp_path / "run")).manifest
    held_out = list(model.training["held_out"])
    assert len(held_out) == 1 and sorted([*held_out, *model.training["cases"]]) == [f"phantom-{i}" for i in range(3)]
    assert set(model.metrics["cases"]) == set(held_out)
    assert [line["step"] for line in lines_of(tmp_path / "run", "validation")] == [0, 2, 4]
    assert (tmp_path / "run" / "overlays" / f"{held_out[0]}.png").is_file()
    assert (tmp_path / "run" / "progress.png").is_file()


NOTHING = "nothing is held out: no validation, the last weights are released"


def test_a_validation_on_nothing_is_said(config, own_phantoms, tmp_path):
    """A young site has none to validate on; whoever asked for the best weights should know."""
    dataset = own_phantoms()
    make_split(dataset, shares={"train": 0.9, "validation": 0.1, "test": 0.0})
    source = replace(config.sources[0], dataset=str(dataset.folder), validate=True)
    manifest = load_package(train(replace(config, sources=(source,), steps=1), tmp_path / "run")).manifest
    assert not manifest.training["held_out"]
    assert [line["step"] for line in lines_of(tmp_path / "run", "event") if line["text"] == NOTHING] == [0]


def test_the_best_validation_is_what_is_released(config, split_dataset, tmp_path, monkeypatch):
    dices = iter([0.1, 0.6, 0.4])
    real = training.validate

    def scored(*arguments, **more):
        found = real(*arguments, **more)
        value = next(dices)
        return {**found, "mean": {region: {"dice": value, "hd95": 1.0} for region in found["mean"]}}

    monkeypatch.setattr(training, "validate", scored)
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=ValidationConfig(every=2))
    manifest = load_package(train(config, tmp_path / "run")).manifest
    assert manifest.metrics["step"] == 2 and manifest.metrics["mean"]["WT"]["dice"] == 0.6
    assert [line["best"] for line in lines_of(tmp_path / "run", "validation")] == [True, True, False]


def test_training_ends_early_when_nothing_gets_better(config, split_dataset, tmp_path, monkeypatch):
    constant = {"mean": {"WT": {"dice": 0.5, "hd95": 1.0}}, "cases": {}}
    monkeypatch.setattr(training, "validate", lambda *_, **__: constant)
    monkeypatch.setattr(training, "draw_worst", lambda *_: None)
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=ValidationConfig(every=1, patience=2), steps=20)
    train(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")[0]["step"] == 2


def test_the_package_holds_the_averaged_weights_and_no_path_of_this_machine(config, tmp_path):
    folder = train(replace(config, weights_dtype="float16"), tmp_path / "run")
    averaged = load_checkpoint(tmp_path / "run")[0]["averaged"]
    for name, tensor in load_package(folder).network.state_dict().items():
        torch.testing.assert_close(tensor, averaged[f"module.{name}"].half().float(), rtol=0, atol=0)
    assert str(tmp_path) not in (folder / "model.json").read_text()
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["versions"]["torch"] == torch.__version__ and record["hardware"]["device"] == "cpu"
    assert record["config"]["optimizer"]["learning_rate"] == 3e-3 and len(record["cases"]) == 3


def test_a_case_of_a_name_with_a_slash_is_drawn(phantom_dataset, tiny_model, tmp_path):
    """As older lists of cases named them."""
    package = load_package(tiny_model)
    scores = {"WT": {"dice": 0.5, "hd95": 1.0}}
    manifest = replace(package.manifest, metrics={"mean": scores, "cases": {"P1/pre": scores}})
    save_package(tmp_path / "model", package.network, manifest, "")
    entry = replace(phantom_dataset.cases[0], id="P1/pre")
    case = find_prepared(phantom_dataset, entry, manifest.preprocess, tmp_path)
    draw_worst(tmp_path / "model", [case], tmp_path / "overlays", "cpu")
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["P1_pre.png"]


def test_accumulation_changes_nothing(config, tmp_path):
    config = replace(config, optimizer=replace(config.optimizer, name="sgd"))  # AdamW makes steps of rounding errors
    whole = load_package(train(config, tmp_path / "a")).network.state_dict()
    parts = load_package(train(replace(config, accumulation=2), tmp_path / "b")).network.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-5)


def test_checkpointed_activations_change_nothing(config, tmp_path):
    config = replace(config, steps=2)
    whole = load_package(train(config, tmp_path / "a")).network.state_dict()
    again = load_package(train(replace(config, checkpoint_activations=True), tmp_path / "b")).network.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)


def test_a_short_run_has_a_line_a_step_and_tells_every_step(config, tmp_path):
    told: list[int] = []
    train(config, tmp_path / "run", on_step=lambda step, loss: told.append(step) or math.isfinite(loss) or 1 / 0)
    lines = lines_of(tmp_path / "run", "step")
    assert [line["step"] for line in lines] == told == [1, 2, 3, 4]
    assert all(line["seconds_per_step"] > 0 and 0 <= line["stall"] <= 1 for line in lines)


@pytest.mark.parametrize(("steps", "every"), [(4, 1), (250, 6), (1000, 25), (100_000, 25)])
def test_a_long_run_has_a_line_every_25_steps(tmp_path, steps, every):
    assert Journal(tmp_path, World(), steps).every == every


def test_batches_that_cannot_be_shared_are_refused(config, tmp_path):
    with pytest.raises(InputError, match="batch 2 cannot be shared by 1 processes with 4 micro-batches"):
        train(replace(config, accumulation=4), tmp_path / "run")


def test_settings_that_make_no_sense_are_refused(config):
    for wrong, text in (
        ({"loss": "mse"}, "loss 'mse'"),
        ({"batch": 0}, "batch 0"),
        ({"foreground": 1.5}, "foreground 1.5"),
        ({"sources": ()}, "at least one"),
        ({"steps": 0}, "steps 0"),
    ):
        with pytest.raises(InputError, match=text):
            replace(config, **wrong)
    for wrong, text in (({"learning_rate": 0.0}, "learning_rate"), ({"ema": 1.0}, "ema"), ({"name": "lion"}, "lion")):
        with pytest.raises(InputError, match=text):
            OptimizerConfig(**wrong)
    with pytest.raises(InputError, match="three multiples of 16"):
        PreprocessSpec(modalities=("a",)) and InferenceSpec(window=(30, 32, 32))
