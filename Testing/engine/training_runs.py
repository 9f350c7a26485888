"""Trainings small enough for tests: real data, loop and network, a few channels wide; here or in other processes."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from processes import in_process
from segmamba.errors import InputError, Stopped
from segmamba.models.specs import InferenceSpec, PreprocessSpec
from segmamba.networks.choice import NetworkChoice
from segmamba.networks.segmamba import NetworkConfig
from segmamba.training.config import OptimizerConfig, SourceConfig, TrainingConfig, ValidationConfig

MODALITIES = ("t1n", "t1c", "t2w", "t2f")


def small_config(dataset: Path, cache: Path, **settings) -> TrainingConfig:
    values = {
        "name": "small",
        "sources": (SourceConfig(dataset=str(dataset)),),
        "preprocess": PreprocessSpec(modalities=MODALITIES, spacing=(4.0, 4.0, 4.0)),
        "inference": InferenceSpec(window=(64, 64, 64)),
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup=2, ema=0.9),
        "validation": ValidationConfig(every=1000, at_start=False),
        "patch": (32, 32, 32),
        "steps": 4,
        "precision": "fp32",
        "cache": str(cache),
    }
    return TrainingConfig(**{**values, **settings})


@contextmanager
def narrow_network(widths: tuple[int, int, int, int] = (4, 4, 8, 8)):
    """`released` with a hundredth of its channels."""

    def narrow(self, in_channels, out_channels, patch):
        return NetworkConfig(
            in_channels=in_channels,
            out_channels=out_channels,
            features=widths,
            full_features=widths[0],
            bottleneck=widths[-1],
            depths=(1, 1, 1, 1),
        )

    with mock.patch.object(NetworkChoice, "resolve", narrow):
        yield


@contextmanager
def single_precision():
    """What takes its precision from a recipe trains in fp32 too: the same on every CPU."""
    uses, check = "segmamba.training.stepper.uses_bf16", "segmamba.training.experiment.check_patch"
    with mock.patch(uses, return_value=False), mock.patch(check):
        yield


@contextmanager
def without_curves():
    """matplotlib would take most of the time of a short training."""
    with mock.patch("segmamba.training.loop.write_progress"):
        yield


def lines_of(run: Path, kind: str) -> list[dict]:
    """What a run wrote of one kind into its log: steps, validations, events."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def start_training(
    config: TrainingConfig, run: Path, *, resume: str = "never", rank: int = 0, world: int = 1, port: int = 0
):
    """A started process that trains; its exit code is 0, 3 when it was stopped by a signal, 1 for an InputError."""
    return in_process(_train, config, run, resume, rank, world, port)


def _train(config: TrainingConfig, run: Path, resume: str, rank: int, world: int, port: int) -> None:
    import torch
    from segmamba.training.loop import train

    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with narrow_network(), without_curves():
        try:
            train(config, run, resume=resume)
        except Stopped:
            os._exit(3)
        except InputError as error:
            print(error, flush=True)
            os._exit(1)
