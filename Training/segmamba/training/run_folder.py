"""The folder of a training run: what was asked and with what, and a line for everything that happened.

run/config.json      the configuration, resolved, with versions, hardware, git commit and hashes of the data
run/log.jsonl        one line a logged step, validation or event
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segmamba import __version__
from segmamba.files.atomic import share, write_aside

CONFIG, LOG = "config.json", "log.jsonl"
_LIBRARIES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "numba", "triton", "mamba-ssm", "causal-conv1d")


def write_record(run: Path, record: dict) -> None:
    """Writes the run's record, aside first."""
    write_aside(run / CONFIG, json.dumps(record, indent=2).encode())


def append_log(run: Path, kind: str, **values: Any) -> dict:
    """kind: "step", "validation" or "event"; values: plain JSON. Returns the line as written."""
    line = {"kind": kind, **values, "time": round(time.time(), 1)}
    fresh = not (run / LOG).exists()
    with (run / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if fresh:
        share(run / LOG)
    return line


def surroundings(device: str) -> dict:
    """{"versions", "hardware", "git_commit"}: of the libraries, of this machine, of the code where it is a checkout."""
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
