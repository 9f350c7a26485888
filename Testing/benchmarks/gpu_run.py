"""`make gpu-run`: all that a quarter hour of a GPU is for, in one command: checks, figures, a trained model.

    python gpu_run.py --output OUT --budget 560     # seconds for everything; again, to go on with what is left
    python gpu_run.py --output OUT --dry            # on the CPU at toy size: that every step runs

Each step is a process with a limit of its own, and no step takes from those after it. OUT/results.json is written after
every step; what a step measured is in it, also of a step that ran out of time. Steps that are done are not repeated.
OUT holds few files of 16 MiB at most: results.json, model.json, and the weights in pieces (gpu_train.py).
Needs the standard library alone; what the steps need is said there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from measure import HERE, describe

ROOT = HERE.parents[1]
GRACE = 12.0  # seconds for a step to end after SIGTERM: a training saves first
LEAST = 5.0  # seconds below which no step is begun
TAIL = 4000  # characters of what a step printed last
DRY = 30  # times as long a step may take on the CPU, which others use too


@dataclass(frozen=True)
class Step:
    """seconds: at most; None: what is left. script: beside this file, or of `python -m` where it begins with -m."""

    name: str
    seconds: float | None
    arguments: tuple[str, ...]


def plan(dry: bool) -> list[Step]:
    kind = ("--dry",) if dry else ()
    steps = [
        Step("info", 20, ("-m", "segmamba", "info", "--json")),
        Step("check", 60, ("gpu_check.py", "--quick")),
        Step("steps", 110, ("gpu_steps.py", "steps", *kind)),
        Step("profile", 40, ("gpu_steps.py", "profile", *kind)),
        Step("case", 60, ("gpu_steps.py", "case", *kind)),
        Step("peers", 60, ("gpu_steps.py", "peers", *kind)),
        Step("train", None, ("gpu_train.py", *kind)),
    ]
    return [replace(step, seconds=DRY * step.seconds) if dry and step.seconds else step for step in steps]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The plan for a quarter hour of a GPU.")
    parser.add_argument("--output", required=True)
    parser.add_argument("--work", help="what may be lost: run folders, caches; default OUTPUT-work")
    parser.add_argument("--cases", default=str(ROOT / "cases"), help="packed cases (gpu_pack.py)")
    parser.add_argument("--budget", type=float, default=560, help="seconds for everything")
    parser.add_argument("--only", help="names of steps, with commas between them")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at toy size")
    options = parser.parse_args(arguments)
    output = Path(options.output).resolve()
    work = Path(options.work or f"{output}-work").resolve()
    cases = str(Path(options.cases).resolve())  # the steps run in another folder
    for folder in (output, work):
        folder.mkdir(parents=True, exist_ok=True)
    steps = plan(options.dry)
    if options.only:
        wanted = options.only.split(",")
        if unknown := sorted(set(wanted) - {step.name for step in steps}):
            raise SystemExit(f"unknown steps {', '.join(unknown)}; known are {', '.join(step.name for step in steps)}")
        steps = [step for step in steps if step.name in wanted]
    end = time.monotonic() + options.budget
    results = read_results(output) or {"dry": options.dry, **describe(), "steps": {}}
    if results["dry"] != options.dry:
        raise SystemExit(f"{output} holds {'a dry' if results['dry'] else 'another'} run; name another --output")
    environment = surroundings(work)
    for step in steps:
        if results["steps"].get(step.name, {}).get("status") == "done":
            continue
        left = end - time.monotonic() - GRACE
        limit = min(left, step.seconds or left)
        if limit < LEAST:
            results["steps"].setdefault(step.name, {"status": "not begun: no time was left"})
        else:
            results["steps"][step.name] = run_step(step, limit, cases, output, work, environment)
        said = results["steps"][step.name]
        print(f"{step.name}: {said['status']}, {said.get('seconds', 0):.0f} s", flush=True)
        write_json(output / "results.json", results)
    return 0 if all(results["steps"][step.name]["status"] == "done" for step in steps) else 1


def run_step(step: Step, limit: float, cases: str, output: Path, work: Path, environment: dict[str, str]) -> dict:
    """Runs a step as a process group of its own; what it measured is in WORK/NAME.json, written as it goes."""
    found = work / f"{step.name}.json"
    found.unlink(missing_ok=True)
    arguments = [str(HERE / part) if part.endswith(".py") else part for part in step.arguments]
    if arguments[0] != "-m":
        arguments += ["--results", str(found)]
    if step.name == "train":
        arguments += ["--cases", cases, "--output", str(output), "--work", str(work), "--seconds", f"{limit:.0f}"]
    print(f"{step.name}: at most {limit:.0f} s", flush=True)
    start = time.monotonic()
    with (work / f"{step.name}.txt").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment,
            start_new_session=True,
        )
        status = wait(process, limit)
        said.seek(0)
        text = said.read()
    result = read_json(found) if step.arguments[0] != "-m" else None
    return {
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "limit": round(limit, 1),
        "result": result,
        "printed": text[-TAIL:],
    }


def wait(process: subprocess.Popen, limit: float) -> str:
    """ "done", or what went wrong. A step beyond its limit is asked to end, then ended, with all that it started."""
    try:
        code = process.wait(limit)
        return "done" if code == 0 else f"failed with {code}"
    except subprocess.TimeoutExpired:
        stop(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    stop(process, signal.SIGKILL)  # what it started may outlive it
    process.wait()
    return f"stopped after {limit:.0f} s"


def stop(process: subprocess.Popen, number: signal.Signals) -> None:
    """The step's own process group: no other process is in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def surroundings(work: Path) -> dict[str, str]:
    """The environment of the steps: the engine of this folder, and the wheels beside it."""
    paths = [str(ROOT / "Training")]
    wheels = sorted((ROOT / "wheels").glob("*.whl"))
    if wheels:
        target = work / "wheels"
        line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
        if not target.exists():  # without them the steps do what they can
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run([*line, *map(str, wheels)], check=True, timeout=60)
        paths.append(str(target))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}


def read_results(output: Path) -> dict | None:
    return read_json(output / "results.json")


def read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: Path, values: dict) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
