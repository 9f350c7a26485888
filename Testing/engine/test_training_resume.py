"""A training that is stopped, resumed or diverges: what its run folder holds, and where it goes on."""

import math
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from segmamba.datasets.split import make_split, validation_cases
from segmamba.errors import InputError, Stopped
from segmamba.models.package import load_package
from segmamba.networks.baselines import BaselineConfig
from segmamba.networks.choice import NetworkChoice
from segmamba.training import loop, validation
from segmamba.training.checkpoint import load_checkpoint
from segmamba.training.distributed import World
from segmamba.training.loop import Training, train
from segmamba.training.stepper import Stepper
from segmamba.training.stop_signals import StopRequests
from training_runs import lines_of, narrow_network, small_config, without_curves

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def finished(phantom_dataset, training_cache, tmp_path_factory):
    """A run of four steps with a checkpoint after each, which nobody changes: (its configuration, its folder)."""
    config = small_config(phantom_dataset.folder, training_cache, checkpoint_minutes=1e-9)
    run = tmp_path_factory.mktemp("finished") / "run"
    with narrow_network(), without_curves():
        train(config, run)
    return config, run


def test_a_run_folder_is_never_overwritten(finished, tmp_path):
    config, run = finished
    with pytest.raises(InputError, match=r"holds a training already.*--resume auto"):
        train(config, run)
    with pytest.raises(InputError, match="has no checkpoint"):
        train(config, tmp_path / "other", resume="must")


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_finished_model_whose_checkpoints_are_gone_is_not_overwritten(config, tmp_path, resume):
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/model/model.json").write_text("{}")
    with pytest.raises(InputError, match=r"run holds a finished model and no checkpoint; name another folder"):
        train(config, tmp_path / "run", resume=resume)
    assert (tmp_path / "run/model/model.json").read_text() == "{}"


def test_a_stop_file_ends_a_run_and_the_next_start_takes_it_away(config, tmp_path, monkeypatch):
    monkeypatch.setattr("segmamba.training.stop_signals._LOOK", 0.0)  # not once a second: four steps may take less
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(config, run, on_step=lambda step, loss: (run / "stop").touch())
    step = load_checkpoint(run)[0]["step"]
    assert step == 1
    train(config, run, resume="auto")
    assert load_checkpoint(run)[0]["step"] == 4 and not (run / "stop").exists()


def test_a_finished_run_resumed_gives_its_model_again(finished, tmp_path):
    config, run = finished
    first = load_package(run / "model").manifest.weights_sha256
    again = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(again / "model")
    assert load_package(train(config, again, resume="auto")).manifest.weights_sha256 == first


@pytest.fixture
def drawing(monkeypatch, config):
    """A configuration of a network with dropout, which draws in every step."""

    def resolve(self, in_channels, out_channels, patch):
        return BaselineConfig(name="transbts", in_channels=4, out_channels=out_channels, patch=patch, width=8)

    monkeypatch.setattr(NetworkChoice, "resolve", resolve)
    return replace(config, network=NetworkChoice(name="transbts"), batch=1)


def test_dropout_goes_on_where_a_run_was_stopped(drawing, tmp_path, monkeypatch):
    monkeypatch.setattr("segmamba.training.stop_signals._LOOK", 0.0)
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(drawing, whole)
    with pytest.raises(Stopped):
        train(drawing, run, on_step=lambda step, loss: step == 2 and (run / "stop").touch())
    train(drawing, run, resume="auto")
    for name, tensor in load_checkpoint(run)[0]["network"].items():
        torch.testing.assert_close(tensor, load_checkpoint(whole)[0]["network"][name], rtol=0, atol=1e-6)


def test_every_step_and_every_process_draws_its_own_dropout(drawing, tmp_path):
    stepper = Training(drawing, tmp_path / "run", World(), "never", []).stepper
    image, label = torch.ones(1, 4, 32, 32, 32), torch.ones(1, 4, 32, 32, 32)

    def loss(step, rank):
        stepper.world = World(rank)
        return stepper.step(image, label, rate=0.0, number=step)[0]

    losses = [loss(*place) for place in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert losses[3] == losses[0] and len(set(losses)) == 3


def test_a_run_of_another_network_is_not_resumed(finished, tmp_path):
    config, run = finished
    other = replace(config, optimizer=replace(config.optimizer, name="sgd"))
    with pytest.raises(InputError, match="another network or optimizer"):
        train(other, shutil.copytree(run, tmp_path / "run"), resume="auto")


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(finished, tmp_path):
    config, run = finished[0], shutil.copytree(finished[1], tmp_path / "run")
    whole = load_checkpoint(run)[0]
    data = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(data[: len(data) // 2])
    state, note = load_checkpoint(run)
    assert state["step"] < 4 and "last.pt cannot be read" in note and "went back to previous.pt" in note
    train(config, run, resume="auto")
    assert any("went back to previous.pt" in line["text"] for line in lines_of(run, "event"))
    for name, tensor in load_checkpoint(run)[0]["averaged"].items():
        torch.testing.assert_close(tensor, whole["averaged"][name], rtol=0, atol=1e-6)
    for name in ("last.pt", "previous.pt"):
        (run / name).write_bytes(b"\x89PNG" + bytes(90))
    with pytest.raises(
        InputError, match=r"last.pt cannot be read.*previous.pt cannot be read.*another folder"
    ) as found:
        load_checkpoint(run)
    assert "weights_only" not in str(found.value)


def test_what_is_changed_for_a_resume_is_what_is_used(finished, tmp_path):
    config, run = finished
    other = replace(config, optimizer=replace(config.optimizer, weight_decay=0.5))
    again = Training(other, shutil.copytree(run, tmp_path / "run"), World(), "auto", [])
    assert [group["weight_decay"] for group in again.stepper.optimizer.param_groups] == [0.5, 0.0]
    assert again.stepper.optimizer.state and again.record["resumed"][0]["was"] == {"optimizer.weight_decay": 1e-4}


@pytest.fixture
def fast_validation(monkeypatch):
    """Validations that cost nothing, and find a Dice of 0.5 in each held-out case."""

    def scored(network, cases, *_, **__):
        scores = {"WT": {"dice": 0.5, "hd95": 1.0}}
        return {"mean": scores, "cases": {case.id: scores for case in cases}}

    monkeypatch.setattr(loop, "validate", scored)


def test_a_validation_that_a_stop_came_before_is_made_at_the_next_start(
    config, split_dataset, tmp_path, fast_validation
):
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=replace(config.validation, every=2))
    run, caught = tmp_path / "run", []
    asked = StopRequests(caught, run)
    first = Training(
        config, run, World(), "never", asked, lambda step, loss: step == 2 and caught.append(signal.SIGTERM)
    )
    with pytest.raises(Stopped):
        first.train()
    assert not lines_of(run, "validation")
    train(config, run, resume="auto")
    assert [line["step"] for line in lines_of(run, "validation")] == [2, 4]


def test_a_stop_that_comes_while_a_validation_s_checkpoint_is_written_is_obeyed_before_it(
    config, split_dataset, tmp_path, fast_validation, monkeypatch
):
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    config = replace(config, sources=(source,), validation=replace(config.validation, every=2))
    run, caught, save = tmp_path / "run", [], loop.save_checkpoint

    def asked_meanwhile(run, step, **values):
        save(run, step=step, **values)
        if step == 2:
            caught.append(signal.SIGTERM)

    monkeypatch.setattr(loop, "save_checkpoint", asked_meanwhile)
    with pytest.raises(Stopped):
        train(config, run, stop=StopRequests(caught, run))
    assert load_checkpoint(run)[0]["step"] == 2 and not lines_of(run, "validation")
    with pytest.raises(Stopped):  # the one that it owes is not begun either
        train(config, run, resume="auto", stop=StopRequests([signal.SIGTERM], run))
    assert not lines_of(run, "validation")


def test_a_stop_in_a_validation_is_obeyed_before_its_next_case(config, own_phantoms, tmp_path, monkeypatch):
    """A validation of many cases takes many minutes; who presses Stop waits for one case."""
    dataset = own_phantoms()
    make_split(dataset, folds=2, seed=1)
    fold = max((0, 1), key=lambda number: len(validation_cases(dataset, number)))
    source = replace(config.sources[0], dataset=str(dataset.folder), validate=True, fold=fold)
    config = replace(config, sources=(source,), steps=2, validation=replace(config.validation, every=2))
    run, caught, scored, score = tmp_path / "run", [], [], validation._score

    def asked_meanwhile(prepared, *rest):
        scored.append(prepared)
        caught[:] = [signal.SIGTERM] if len(scored) == 1 else []
        return score(prepared, *rest)

    monkeypatch.setattr(validation, "_score", asked_meanwhile)
    with pytest.raises(Stopped) as stopped:
        train(config, run, stop=StopRequests(caught, run))
    assert (stopped.value.step, stopped.value.signal_number) == (2, signal.SIGTERM) and len(scored) == 1
    assert not lines_of(run, "validation")
    train(config, run, resume="auto")
    (line,) = lines_of(run, "validation")
    assert line["step"] == 2 and len(line["cases"]) == 2 and len(scored) == 3


def test_other_held_out_cases_are_validated_anew(config, split_dataset, tmp_path, fast_validation):
    """The best score of others is no measure for them."""
    run, config = tmp_path / "run", replace(config, steps=1, validation=replace(config.validation, every=1))
    for fold in (0, 1):
        source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=fold)
        model = load_package(train(replace(config, sources=(source,)), run, resume="auto")).manifest
        assert list(model.metrics["cases"]) == [case.id for case in validation_cases(split_dataset, fold)]


def break_gradients(monkeypatch, steps):
    """The gradient of these steps (from 0) is not a number, and takes no time."""
    step, gradient, now = Training._step, Stepper._gradient, [0]

    def counted(self, batch):
        now[0] = self.step
        return step(self, batch)

    def broken(self, image, label, parts):
        if now[0] not in steps:
            return gradient(self, image, label, parts)
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        next(self.network.parameters()).grad.fill_(math.nan)
        return torch.tensor(1.0)

    monkeypatch.setattr(Training, "_step", counted)
    monkeypatch.setattr(Stepper, "_gradient", broken)


def test_a_gradient_that_is_not_finite_changes_nothing(config, tmp_path, monkeypatch):
    break_gradients(monkeypatch, range(4))
    fresh = Training(config, tmp_path / "fresh", World(), "never", []).stepper.network.state_dict()
    train(config, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")[0]
    assert state["skipped"] == 4
    for name, tensor in state["network"].items():
        torch.testing.assert_close(tensor, fresh[name], rtol=0, atol=0)


def test_ten_bad_steps_go_back_once_and_then_end_with_the_cases_names(config, tmp_path, monkeypatch):
    config = replace(config, steps=30, batch=1, checkpoint_minutes=1e9)
    break_gradients(monkeypatch, range(3, 30))
    with pytest.raises(InputError, match=r"diverged twice.*phantom-\d"):
        train(config, tmp_path / "run")
    _, event = lines_of(tmp_path / "run", "event")  # the first says the precision
    assert event["text"].startswith("rolled back from step 13 to 0, with half the learning rate; cases phantom-")
    assert load_checkpoint(tmp_path / "run")[0]["step"] == 0
