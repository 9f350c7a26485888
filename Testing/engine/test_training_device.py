"""What a training does on its device: what comes there, how often the CPU waits for it, what is made of it there."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segmamba.models.specs import PostprocessSpec
from segmamba.training import experiment, stepper
from segmamba.training.augment import build_augmentation
from segmamba.training.config import AugmentConfig
from segmamba.training.distributed import World
from segmamba.training.experiment import load_experiment, prepare_ahead
from segmamba.training.loop import Training, train
from segmamba.training.optimize import average_of, update_average
from segmamba.training.samples import find_case
from segmamba.training.validation import validate
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import narrow_network, small_config

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


@pytest.fixture(autouse=True)
def narrow():
    with narrow_network():
        yield


@pytest.fixture
def config(phantom_dataset, tmp_path):
    return small_config(phantom_dataset.folder, tmp_path / "cache")


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to be waited for: a number or a size that depends on what is in a tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        flags = name in ("index", "index_put") and any(x is not None and x.dtype == torch.bool for x in args[1])
        if name in WAITS or flags:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_a_wait_is_counted():
    with Waits() as waits:
        x = torch.ones(3)
        float(x.sum())
        x[x > 0]
        x[0] = 2
    assert waits.found == ["_local_scalar_dense", "index"]


@pytest.mark.parametrize("name", ["paper", "released", "segmamba"])
def test_a_batch_is_made_without_waiting(name, config, tmp_path):
    run = Training(
        replace(config, augment=AugmentConfig(set=name, modality_dropout=0.5)), tmp_path, World(), "never", []
    )
    samples = [run.experiment.samples[n] for n in range(10)]
    assert any(sample["change"].warp for sample in samples)
    with Waits() as waits:
        batch = run.experiment.samples.augmentation.make_batch(samples)
    assert waits.found == [] and batch["image"].shape == (10, 4, 32, 32, 32)


def test_a_step_waits_for_the_device_once(config, tmp_path, monkeypatch):
    """On torch's meta device, where tensors have no values: whatever asks for one fails, but for the one place."""
    read = []

    def no_values(*numbers):
        assert all(number.device.type == "meta" for number in numbers)
        read.append(len(numbers))
        return [1.0] * len(numbers)

    monkeypatch.setattr(stepper, "read_numbers", no_values)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    run = Training(replace(config, accumulation=2), tmp_path / "run", World(device="meta"), "never", [])
    image, label = (torch.zeros((2, 4, 32, 32, 32), device="meta") for _ in range(2))
    for _ in range(3):
        run._step({"image": image, "label": label})
    assert read == [2, 2, 2] and run.stepper.ema.n_averaged == 3


def test_beside_a_gpu_samples_come_as_they_are_stored(config, tmp_path, monkeypatch):
    """Half precision and bytes, a quarter of what the batch is that is made of them there."""
    config = replace(config, workers=0, augment=AugmentConfig(set="none"), preprocess=config.preprocess)
    run = Training(config, tmp_path / "run", World(), "never", [])
    batch, _ = next(run._timed(run._loader()))
    monkeypatch.setattr(run, "world", World(device="meta"))  # any device but the CPU
    stored = next(iter(run._loader()))
    assert [sample["image"].dtype for sample in stored] == [torch.float16] * 2
    assert [sample["label"].dtype for sample in stored] == [torch.uint8] * 2
    size = sum(x.nbytes for sample in stored for x in sample.values() if torch.is_tensor(x))
    assert size <= (batch["image"].nbytes + batch["label"].nbytes) / 3.5
    there, _ = next(run._timed(run._loader()))
    assert there["image"].device.type == "meta" and there["image"].shape == batch["image"].shape
    here = build_augmentation("none").make_batch(stored)
    assert torch.equal(here["image"], batch["image"]) and torch.equal(here["label"], batch["label"])


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_is_torchs_own(decay):
    network = torch.nn.Linear(5, 4)
    ours, theirs = average_of(network, decay), average_of(network, decay)
    for _ in range(4):
        with torch.no_grad():
            network.weight += torch.randn(4, 5)
        update_average(ours, network)
        theirs.update_parameters(network)
    assert ours.n_averaged == theirs.n_averaged == 4
    assert torch.equal(ours.module.weight, theirs.module.weight)
    assert torch.equal(ours.module.weight, network.weight) == (decay == 0)


def events(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["text"] for line in lines if line["kind"] == "event"], lines


def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(config, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda network: broken)
    config = replace(config, steps=1)
    train(replace(config, compile=True), tmp_path / "run")
    texts, lines = events(tmp_path / "run")
    assert texts[-1] == "the network is not compiled: RuntimeError: no compiler here"
    train(config, tmp_path / "plain")
    losses = [
        [line["loss"] for line in found if line["kind"] == "step"] for found in (lines, events(tmp_path / "plain")[1])
    ]
    assert losses[0] == losses[1] and math.isfinite(losses[0][0])


def test_a_network_that_is_to_be_compiled_learns_the_same(config, tmp_path, monkeypatch):
    """With torch's own tracing and without its code generator, which takes a minute; traced or not, the log says so."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = replace(config, steps=1, optimizer=replace(config.optimizer, name="sgd"))
    found = []
    for chosen in (True, False):
        run = tmp_path / str(chosen)
        train(replace(config, compile=chosen), run)
        texts, lines = events(run)
        assert len([text for text in texts if "compiled" in text]) == chosen
        found.append([line["loss"] for line in lines if line["kind"] == "step"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_many_cases_are_prepared_side_by_side_before_processes_join(config, phantom_dataset, monkeypatch, caplog):
    """Each process its part; what is there already is not prepared again."""
    monkeypatch.setattr(experiment, "_CASES_A_PROCESS", 1)
    monkeypatch.setattr(experiment, "cores", lambda: 4)
    spec, cache = config.preprocess, Path(config.cache)
    found = [find_case(phantom_dataset, entry, spec, cache).cached for entry in phantom_dataset.cases]
    with caplog.at_level("INFO"):
        prepare_ahead(config, World(rank=1, size=2))  # one of three cases: not worth a process
        assert not any(path.exists() for path in found)
        prepare_ahead(config, World(rank=0, size=1))
    assert all(path.exists() for path in found) and "preparing 3 cases in 3 processes" in caplog.text
    before = [path.stat().st_mtime_ns for path in found]
    load_experiment(config, World())
    assert [path.stat().st_mtime_ns for path in found] == before


def test_a_validation_in_other_processes_gives_the_same_scores(config, tmp_path):
    run = Training(config, tmp_path / "run", World(), "never", [])
    known = run.experiment
    cases = known.groups[0]
    given = run.stepper.network, cases, config.preprocess, known.inference, PostprocessSpec(), known.scheme, World()
    alone, together = (validate(*given, jobs=jobs) for jobs in (0, 2))
    assert alone == together and set(alone["cases"]) == {case.id for case in cases}
    assert run.stepper.network.training
