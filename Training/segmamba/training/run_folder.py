"""The folder of a training run: what was asked and with what, and a line for everything that happened.

run/config.json      the configuration, resolved, with versions, hardware, git commit and hashes of the data
run/log.jsonl        one line a logged step, validation or event
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import torch

from segmamba import __version__
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, share, sweep, write_aside
from segmamba.files.shares import exclusive
from segmamba.settings import read_json
from segmamba.training.config import without_empty
from segmamba.training.distributed import World
from segmamba.training.stop_signals import STOP

CONFIG, LOG = "config.json", "log.jsonl"
LOCK = ".train.lock"
# settings that nothing that is learnt depends on
FREE = {"name", "cache", "workers", "checkpoint_minutes", "channels_last", "cudnn_benchmark", "compile"}
_LIBRARIES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "numba", "triton", "mamba-ssm", "causal-conv1d")


@contextlib.contextmanager
def alone(run: Path, world: World, stop_counts: bool = False) -> Iterator[None]:
    """Keeps the run folder, made where it is missing, to one training: two would write over one another.

    Args:
        run: its folder.
        world: the processes of the training, of which the first holds it, until the block ends.
        stop_counts: a file run/stop is of this start, for somebody listens already; else it is of an earlier one.

    Yields:
        Once, while the folder is kept.

    Raises:
        InputError: where another training is at work in the folder.
    """
    if not world.is_first:
        yield
        return
    sweep(make_folder(run))
    with exclusive(run / LOCK, 0):
        if not stop_counts:
            (run / STOP).unlink(missing_ok=True)
        yield


def write_record(run: Path, record: dict) -> None:
    """Writes the run's record, aside first."""
    write_aside(run / CONFIG, json.dumps(record, indent=2).encode())


def read_record(run: Path) -> dict:
    """What config.json says; empty where there is none. Raises InputError where it cannot be read."""
    values = read_json(run / CONFIG, optional=True)
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{run / CONFIG} is no record of a training")
    return values or {}


def changed_settings(old: dict, new: dict) -> dict:
    """What another record says of settings that what is learnt depends on, by dotted names: {"steps": 100}.

    And "cases", "held_out": how many of these were there, and are not, or have another content.
    """
    before, now = (_flat(json.loads(json.dumps(without_empty(record.get("config", {}))))) for record in (old, new))
    names = sorted({*before, *now} - FREE)
    changed = {name: before.get(name) for name in names if before.get(name) != now.get(name)}
    for part in ("cases", "held_out"):
        then, there = old.get(part, {}), new.get(part, {})
        if others := sum(there.get(case) != digest for case, digest in then.items()):
            changed[part] = f"{others} of {len(then)} are others"
        elif len(there) > len(then):
            changed[part] = f"{len(there) - len(then)} were not there"
    return changed


def _flat(values: object, name: str = "") -> dict:
    """Leaves of tables and lists of tables, by dotted names."""
    if isinstance(values, dict):
        inside = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        inside = enumerate(values)
    else:
        return {name: values}
    return {key: leaf for part, value in inside for key, leaf in _flat(value, f"{name}.{part}".strip(".")).items()}


def append_log(run: Path, kind: str, **values: Any) -> dict:
    """Adds a line to the log of a run, and returns it as written.

    kind: "step", "validation" or "event"; values: plain JSON.
    """
    line = {"kind": kind, **values, "time": round(time.time(), 1)}
    fresh = not (run / LOG).exists()
    with (run / LOG).open("a+b") as file:
        cut = file.tell() and not _ends_a_line(file)  # by a kill or a full disk
        file.write(b"\n" * bool(cut) + json.dumps(line).encode() + b"\n")
    if fresh:
        share(run / LOG)
    return line


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def surroundings(device: str) -> dict:
    """Where a run is made: {"versions", "hardware", "git_commit"}.

    Of the libraries, of this machine, of the code where it is a checkout.
    """
    versions = {"segmamba": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    hardware = {"device": device, "cpu": _cpu_name(), "cores": os.cpu_count(), "platform": platform.platform()}
    if torch.device(device).type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        versions["cuda"] = str(torch.version.cuda)
    return {"versions": versions, "hardware": hardware, "git_commit": _git_commit()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    folder = Path(__file__).parent
    try:
        ask = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
