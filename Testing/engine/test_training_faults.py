"""Training in processes of their own: killed again and again, stopped by signals, shared by two."""

import json
import os
import random
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import in_process, kill
from segmamba.datasets.split import make_split, validation_cases
from segmamba.models.package import load_package
from segmamba.training import loop
from segmamba.training.checkpoint import LAST, load_checkpoint
from segmamba.training.config import ValidationConfig
from segmamba.training.distributed import join, leave, standing
from training_runs import lines_of, narrow_network, start_training, without_curves

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def finish(process, code=0):
    process.join(900)
    assert process.exitcode == code


def same_weights(one, other, tolerance):
    states = [load_checkpoint(run)[0] for run in (one, other)]
    assert states[0]["step"] == states[1]["step"]
    for name in ("network", "averaged"):
        for key, tensor in states[0][name].items():
            torch.testing.assert_close(states[1][name][key], tensor, rtol=0, atol=tolerance)


def test_a_run_killed_again_and_again_ends_where_an_uninterrupted_one_does(config, tmp_path):
    """With a checkpoint after every step, so that many kills hit one that is being written; some hit the start."""
    config = replace(config, steps=24, batch=1, checkpoint_minutes=1e-9)
    finish(start_training(config, tmp_path / "whole"))
    rng = random.Random(4)
    run, codes = tmp_path / "killed", []
    for number in range(6):
        before = written(run)
        process = start_training(config, run, resume="auto")
        deadline = time.monotonic() + 300
        while number % 4 < 3 and process.is_alive() and written(run) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        process.join(rng.uniform(0, 0.4))
        if process.is_alive():
            os.kill(process.pid, rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.join(60)
        codes.append(process.exitcode)
        if process.exitcode == 0:
            break
    else:
        finish(start_training(config, run, resume="auto"))
    assert len(codes) >= 5 and set(codes) <= {0, 3, -signal.SIGKILL, -signal.SIGTERM}
    same_weights(tmp_path / "whole", run, 1e-6)


def written(run):
    """When the newest checkpoint was written; None where there is none, yet or at this moment."""
    try:
        return (run / LAST).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def last_of(pid):
    """The processes below this one that have started none; itself where it is one of them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [last for child in children for last in last_of(int(child))] or [pid]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of child processes on this system")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_that_was_done(config, tmp_path, number, workers):
    """A terminal and Slurm tell every process, those that make patches too."""
    steps = 240 if workers else 80  # more than a second of them: see below
    config = replace(config, steps=steps, batch=1, checkpoint_minutes=1e9, workers=workers)
    process = start_training(config, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and '"kind": "step"' in log.read_text()) and time.monotonic() < deadline:  # of step 2
        time.sleep(0.05)
    makers = [
        pid for pid in last_of(process.pid) if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(makers) == max(workers, 1)  # the training itself where it has none
    if workers:
        os.kill(makers[0], number)
        time.sleep(1)  # so that a maker of patches that ends is gone before the training hears of it
    os.kill(process.pid, number)
    finish(process, 3)
    assert load_checkpoint(tmp_path / "run")[0]["step"] >= 2
    assert "by a signal" in log.read_text()


def killed_while_validating(config, run):
    loop.validate = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    with narrow_network(), without_curves():
        loop.train(config, run)


def test_a_run_killed_in_a_validation_loses_no_step(config, split_dataset, tmp_path):
    """As torchrun does half a minute after a stop signal; the validation is made at the next start."""
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True, fold=0)
    validation = ValidationConfig(every=2, at_start=False)
    config, run = replace(config, sources=(source,), validation=validation, checkpoint_minutes=1e9), tmp_path / "run"
    finish(in_process(killed_while_validating, config, run), -signal.SIGKILL)
    assert load_checkpoint(run)[0]["step"] == 2
    finish(start_training(config, run, resume="auto"))
    assert [line["step"] for line in lines_of(run, "validation")] == [2, 4]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_processes_learn_what_one_does(config, own_phantoms, tmp_path):
    dataset = own_phantoms()
    make_split(dataset, folds=3, seed=1)
    source = replace(config.sources[0], dataset=str(dataset.folder), validate=True, fold=0)
    config = replace(
        config,
        batch=4,
        sources=(source,),
        steps=2,
        validation=ValidationConfig(every=2, release="last", at_start=False),
        optimizer=replace(config.optimizer, name="sgd", learning_rate=1e-2),
    )
    finish(start_training(config, tmp_path / "one"))
    run, port = tmp_path / "two", free_port()
    both = [start_training(config, run, rank=rank, world=2, port=port) for rank in range(2)]
    for process in both:
        finish(process)
    same_weights(tmp_path / "one", run, 1e-5)
    one, two = (load_package(tmp_path / name / "model").manifest.metrics for name in ("one", "two"))
    assert one["cases"].keys() == two["cases"].keys()
    assert one["mean"]["WT"]["dice"] == pytest.approx(two["mean"]["WT"]["dice"], abs=0.01)


def resume_late(config, run, rank, port):
    """One of two processes that go on with a run; the second reads its record a second after the first."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    read = loop.read_record
    loop.read_record = lambda run: (time.sleep(rank), read(run))[1]
    world = standing()
    join(world)
    with narrow_network(), without_curves():
        training = loop.Training(config, run, world, "must", [])
        training.train()
    (run / f"{rank}.json").write_text(json.dumps([training.best, training.since_best, training.metrics]))
    leave(world)


def test_processes_that_resume_with_other_held_out_cases_agree_on_what_to_validate(config, split_dataset, tmp_path):
    """One of them would wait for the others in a validation that they do not make."""
    run, port = tmp_path / "run", free_port()
    source = replace(config.sources[0], dataset=str(split_dataset.folder), validate=True)
    validation = ValidationConfig(every=1, at_start=False)
    folds = [replace(config, sources=(replace(source, fold=n),), steps=1, validation=validation) for n in range(2)]
    finish(start_training(folds[0], run))
    both = [in_process(resume_late, folds[1], run, rank, port) for rank in range(2)]
    deadline = time.monotonic() + 240
    for process in both:
        process.join(max(0, deadline - time.monotonic()))
    if hung := [process for process in both if process.is_alive()]:
        for process in hung:
            kill(process)
    assert not hung and [process.exitcode for process in both] == [0, 0]
    one, two = (json.loads((run / f"{rank}.json").read_text()) for rank in range(2))
    assert one == two and list(one[2]["cases"]) == [case.id for case in validation_cases(split_dataset, 1)]
