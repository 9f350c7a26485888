"""What a training does on its device: what comes there, how often the CPU waits for it, what is made of it there."""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from segmamba.errors import InputError
from segmamba.models.specs import ModelSpecs, PostprocessSpec
from segmamba.training import experiment, stepper
from segmamba.training.augment import build_augmentation
from segmamba.training.config import AugmentConfig, OptimizerConfig
from segmamba.training.distributed import World
from segmamba.training.experiment import begin, load_experiment, prepare_ahead
from segmamba.training.loop import Training, train
from segmamba.training.optimize import average_of, build_optimizer, state_to_come, update_average, uses_bf16
from segmamba.training.samples import find_case
from segmamba.training.validation import validate
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import lines_of

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


pytestmark = pytest.mark.usefixtures("narrow")


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
    for _ in range(2):
        run._step({"image": image, "label": label})
    assert read == [2, 2] and run.stepper.ema.n_averaged == 2


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
    return [line["text"] for line in lines_of(run, "event")]


def losses(run):
    return [line["loss"] for line in lines_of(run, "step")]


def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(config, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler here\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda network: broken)
    config = replace(config, steps=1)
    train(replace(config, compile=True), tmp_path / "run")
    assert events(tmp_path / "run")[-1] == "the network is not compiled: RuntimeError: no compiler here"
    train(config, tmp_path / "plain")
    assert losses(tmp_path / "run") == losses(tmp_path / "plain") and math.isfinite(losses(tmp_path / "run")[0])


def test_a_network_that_is_to_be_compiled_learns_the_same(config, tmp_path, monkeypatch):
    """With torch's own tracing and without its code generator, which takes a minute; traced or not, the log says so."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = replace(config, steps=1, optimizer=replace(config.optimizer, name="sgd"))
    found = []
    for chosen in (True, False):
        run = tmp_path / str(chosen)
        train(replace(config, compile=chosen), run)
        assert len([text for text in events(run) if "compiled" in text]) == chosen
        found.append(losses(run))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_many_cases_are_prepared_side_by_side_before_processes_join(
    config, phantom_dataset, tmp_path, monkeypatch, caplog
):
    """Each process its part; what is there already is not prepared again."""
    config = replace(config, cache=str(tmp_path))
    monkeypatch.setattr(experiment, "_CASES_A_PROCESS", 1)
    monkeypatch.setattr(experiment, "cores", lambda: 2)
    spec, cache = config.preprocess, Path(config.cache)
    found = [find_case(phantom_dataset, entry, spec, cache).cached for entry in phantom_dataset.cases]
    with caplog.at_level("INFO"):
        prepare_ahead(begin(config, World()), World(rank=1, size=2))  # one of three cases: not worth a process
        assert not any(path.exists() for path in found)
        prepare_ahead(begin(config, World()), World(rank=0, size=1))
    assert all(path.exists() for path in found) and "preparing 3 cases in 2 processes" in caplog.text
    before = [path.stat().st_mtime_ns for path in found]
    load_experiment(config, World())
    assert [path.stat().st_mtime_ns for path in found] == before


def test_a_validation_in_other_processes_gives_the_same_scores(config, tmp_path):
    run = Training(config, tmp_path / "run", World(), "never", [])
    known = run.experiment
    cases = known.groups[0]
    specs = ModelSpecs(config.preprocess, known.inference, PostprocessSpec(), known.scheme)
    given = run.stepper.network, cases, specs, World()
    alone, together = (validate(*given, jobs=jobs) for jobs in (0, 2))
    assert alone == together and set(alone["cases"]) == {case.id for case in cases}
    assert run.stepper.network.training


# --- memory, cores, precision


def test_a_gpu_too_small_for_the_batch_gets_smaller_parts_of_it(config, tmp_path, monkeypatch):
    told = []
    run = Training(replace(config, batch=8), tmp_path / "run", World(), "never", []).stepper
    monkeypatch.setattr(run, "world", World(device="meta"))  # any device but the CPU

    def short_of_memory(image, label, parts):
        if len(image) // parts > limit:
            raise RuntimeError("CUDA error: out of memory")  # the driver's own words

    def fitted():
        run.prepare(told.append)
        return run.parts

    monkeypatch.setattr(run, "_gradient", short_of_memory)
    limit = 8
    assert fitted() == 1
    limit = 2
    assert fitted() == 4
    assert told == [
        "out of GPU memory: 2 micro-batches of 4 patches, the same batch",
        "out of GPU memory: 4 micro-batches of 2 patches, the same batch",
    ]
    told.clear()
    run.config = replace(run.config, batch=6)
    assert fitted() == 3 and told[-1] == "out of GPU memory: 3 micro-batches of 2 patches, the same batch"
    limit = 0
    with pytest.raises(InputError, match=r"a single patch of .* does not fit.*checkpoint_activations"):
        fitted()
    monkeypatch.setattr(run, "_gradient", lambda *_: fail("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):  # which smaller parts do not mend
        fitted()


@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_are_averaged_with_the_last_micro_batch(parts, config, tmp_path, monkeypatch):
    """However many there are: three of four parts are none in a batch of three. Else each process learns for itself."""
    run = Training(replace(config, batch=3), tmp_path / "run", World(), "never", []).stepper
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(run.learner)
        monkeypatch.setattr(run, "ddp", ddp)
        monkeypatch.setattr(run, "world", World(size=2))
        averaged = []
        run.learner.register_forward_pre_hook(lambda *_: averaged.append(ddp.require_backward_grad_sync))
        run._gradient(torch.zeros(3, 4, 32, 32, 32), torch.zeros(3, 4, 32, 32, 32), parts)
    finally:
        dist.destroy_process_group()
    assert averaged == ([True] if parts == 1 else [False, False, True])


def fail(text):
    raise RuntimeError(text)


@pytest.mark.parametrize("optimizer", [OptimizerConfig(name=name) for name in ("adamw", "muon", "sgd")])
def test_room_is_left_for_the_state_that_the_first_step_makes(optimizer):
    network = torch.nn.Linear(30, 20)
    stepped = build_optimizer(network, optimizer)
    expected = state_to_come(stepped)
    network(torch.ones(1, 30)).sum().backward()
    stepped.step()
    made = [x for state in stepped.state.values() for x in state.values() if torch.is_tensor(x) and x.ndim]
    assert sum(x.numel() for x in expected) == sum(x.numel() for x in made) >= 620
    assert state_to_come(stepped) == []


def test_bf16_on_the_cpu_needs_a_deep_patch(config, tmp_path):
    with pytest.raises(InputError, match="depth of 48 or more for bf16 on the CPU"):
        train(replace(config, precision="bf16"), tmp_path / "run")


def test_the_log_says_the_precision_that_the_cpu_is_fast_in(config, tmp_path):
    config = replace(config, steps=1, batch=1, patch=(48, 48, 48))
    for precision in ("bf16", "fp32"):
        train(replace(config, precision=precision), tmp_path / precision)
    fast = uses_bf16(replace(config, precision="bf16"), "cpu")
    slow = "training in fp32; bf16 is slow or missing on this device"
    found = {run: events(tmp_path / run) for run in ("bf16", "fp32")}
    assert found == {"bf16": ["training in bf16" if fast else slow], "fp32": ["training in fp32"]}
