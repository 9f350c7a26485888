"""What the benchmarks share: the machine's description, child processes, tables, result files.

Imports neither torch nor the project: on Linux a child begins with the peak memory of the process that starts
it, so a parent that measures its children's memory must stay small.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
LIBRARIES = ("torch", "monai", "numpy", "numba", "triton", "mamba-ssm", "causal-conv1d", "segmamba")

HELD_TO_AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma",
}
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch's, as segmamba.cli and the worker set it
_WIDEST = (("avx512f", "AVX-512"), ("avx2", "AVX2"))  # of float32: what AMX multiplies is bfloat16

STOPPED = ("refused", "doubtful")  # status of a submission that intake stops; what is doubtful, a person may accept


@dataclass(frozen=True)
class Child:
    """A process that ended well. seconds: wall time with start-up. peak_mb: largest resident set, in MB."""

    seconds: float
    peak_mb: float
    output: str


def instruction_sets(machine: dict) -> dict[str, dict[str, str]]:
    """What float32 can be measured with here: name -> environment of the process, the machine as it is last."""
    flags = machine["flags"] or {}
    widest = next((name for flag, name in _WIDEST if flags.get(flag)), "")
    held = {"AVX2": HELD_TO_AVX2} if widest == "AVX-512" else {}
    return {**held, widest: {}}


def run_child(*arguments: object, environment: Mapping[str, str] | None = None) -> Child:
    """Runs this Python with `arguments` (Linux, macOS); its stderr is shown. Raises RuntimeError if it fails.

    environment: variables added to those of this process.
    """
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=out, env={**os.environ, **(environment or {})})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return Child(seconds, usage.ru_maxrss * unit / 1e6, output)


def segmamba(*arguments: object, may_refuse: bool = False) -> str:
    """What `segmamba ARGUMENTS` prints; its stderr is shown. may_refuse: 1 is an answer too (`intake`, `gate`).

    Ends the program where it fails.
    """
    line = [sys.executable, "-m", "segmamba", *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode > (1 if may_refuse else 0) or done.returncode < 0:
        raise SystemExit(f"segmamba {' '.join(line[3:])} ended with {done.returncode}")
    return done.stdout


def describe() -> dict:
    """Date, commit, machine and libraries: the head of every result file."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
    }


def write_results(name: str, facts: dict, path: Path | None = None) -> None:
    """Writes results/NAME.json, or `path`, aside and renamed."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    print(f"\n{title}")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def progress(text: str) -> None:
    """A line on standard error: what runs now."""
    print(text, file=sys.stderr, flush=True)


def ratio(values: Sequence[float] | None, base: Sequence[float] | None) -> str:
    """Median over median as a cell, "" where either was not measured."""
    return f"{median(values) / median(base):.2f}" if values and base else ""


def slug(text: str) -> str:
    """A device's name as part of a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        packed = HERE.parents[1] / "COMMIT"  # a copy without its repository, made by gpu_pack.py
        return packed.read_text(encoding="utf-8").strip() if packed.exists() else "unknown"


def _machine() -> dict:
    model, flags = platform.processor(), None
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        model = facts.get("model name", model)
        words = facts.get("flags", "").split()
        flags = {flag: flag in words for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")}
    return {
        "cpu": model,
        "logical_cores": os.cpu_count(),
        "flags": flags,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
