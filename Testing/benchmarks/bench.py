"""`make bench`: what this machine's CPU does, all in one run and interleaved, so that ratios hold elsewhere.

1. the back ends of the selective scan, forward and backward, beside a plain loop
2. a whole case through `python -m segmamba predict`, start-up included, and the seconds of its stages
3. the worker that the panel starts: until it says hello, until it is ready, a first case, a next one, one mirrored
4. a step of the training of `quick`, with and without huge pages
5. one 128^3 window of `released` beside other networks (bench_windows.py)

Writes results/cpu.json, and ends with one table of ratios, which the README quotes (bench_table.py). Each part is done
once in any case, and repeated while its share of --minutes lasts. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import bench_table
import bench_windows
from measure import HERE, HUGE_PAGES, describe, print_table, progress, ratio, run_child, write_results

MIRRORINGS = (0, 7)
_CASE, _WORKER, _STEP = 0.1, 0.1, 0.05  # of the time; the windows have what is left
_STEPS, _PATCH = 3, 64  # of a process that trains; side of its patches


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmarks on the CPU.")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of everything at most; medians are shown")
    parser.add_argument("--minutes", type=float, default=15, help="after which nothing is repeated any more")
    parser.add_argument(
        "--threads", type=int, default=1, help="for the scan, the windows and a step; a case takes what it wants"
    )
    parser.add_argument("--size", type=int, default=128, help="side of the windows, a multiple of 32, 64 or more")
    parser.add_argument("--tokens", type=int, default=32768, help="length of the scan")
    parser.add_argument("--model", default="quick", help="name or folder of the model for the whole case")
    parser.add_argument("--case", type=Path, help="folder of the whole case; default: a phantom made on the spot")
    parser.add_argument("--output", type=Path, help="another file than results/cpu.json")
    options = parser.parse_args()
    begin, seconds = time.monotonic(), 60 * options.minutes
    facts = describe()
    machine = facts["machine"]
    print(f"{machine['cpu']}, {machine['logical_cores']} logical cores, commit {facts['commit']}")

    def record(**values: object) -> None:
        facts.update(values)
        write_results("cpu", facts, options.output)

    scan = run_child(HERE / "bench_scan.py", options.tokens, min(2, options.rounds), options.threads)
    record(scan=json.loads(scan.output))
    _show_scan(facts["scan"])

    with tempfile.TemporaryDirectory() as place:
        case = options.case or _phantom(place)
        record(case=_case(options.model, case, _repeats(options.rounds, _CASE * seconds), place))
        _show_case(facts["case"])
        if "skipped" not in facts["case"]:
            record(worker=_worker(options.model, case, _repeats(options.rounds, _WORKER * seconds)))

    record(step=_step(_repeats(options.rounds, _STEP * seconds), options.threads))
    left = begin + seconds - time.monotonic()
    record(window=bench_windows.measure(machine, options.size, options.rounds, left, options.threads))
    bench_windows.show(facts["window"])
    print_table(bench_table.machine(facts), bench_table.HEADER, [row.cells() for row in bench_table.rows(facts)])


def _repeats(rounds: int, seconds: float) -> Iterator[int]:
    """Numbers of rounds from 0, at most so many, while another one as long as the longest would end in time."""
    start = begin = time.monotonic()
    longest = 0.0
    for number in range(rounds):
        if number:
            longest = max(longest, time.monotonic() - begin)
            if time.monotonic() - start + longest > seconds:
                return
        begin = time.monotonic()
        yield number


def _show_scan(scan: dict) -> None:
    first = {}  # tokens -> the row of the CPU kernels, or of torch where numba is missing
    for row in scan["rows"]:
        first.setdefault(row["tokens"], row)
    cells = []
    for row in scan["rows"]:
        base = first[row["tokens"]]
        cells.append([f"{row['implementation']}, {row['tokens']} tokens"])
        for way in ("forward", "backward"):
            seconds = row[f"{way}_s"]
            cells[-1] += [
                f"{1000 * median(seconds):.1f}",
                ratio(seconds, base[f"{way}_s"]),
                f"{row[f'{way}_error']:.1e}",
            ]
    header = ["scan", "forward ms", "ratio", "error", "backward ms", "ratio", "error"]
    print_table(
        f"Selective scan, d = {scan['d']}, {scan['states']} states, {scan['threads']} thread(s)",
        header,
        cells,
    )
    print("ratio: to the first row of the same length; error: of the scale, against float64")


def _phantom(place: str) -> Path:
    progress("case: making a phantom")
    return Path(run_child("-m", "segmamba", "phantom", "--output", place).output.split()[-1])


def _case(model: str, case: Path, rounds: Iterator[int], place: str) -> dict:
    """The real command on a whole case, without and with seven mirrorings."""
    known = json.loads(run_child("-m", "segmamba", "info", "--json").output)["models"]
    if model not in known and not (Path(model) / "model.json").is_file():
        return {"skipped": f"there is no model {model!r}; shipped are: {', '.join(known) or 'none'}"}
    rows = [{"mirrorings": n, "seconds": [], "peak_mb": [], "stages": []} for n in MIRRORINGS]
    command = ["-m", "segmamba", "predict", case, "--output", f"{place}/out", "--model", model, "--device", "cpu"]
    progress("case: once, to compile the kernels")
    run_child(*command, "--json")
    for number in rounds:
        for row in rows:
            progress(f"case: round {number + 1}, {row['mirrorings']} mirrorings")
            child = run_child(*command, "--mirrorings", row["mirrorings"], "--json")
            summary = json.loads(child.output)
            row["seconds"].append(child.seconds)
            row["peak_mb"].append(child.peak_mb)
            row["stages"].append(summary["seconds"])
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    return {"case": case.name, "model": summary["model"], "threads": int(threads), "rows": rows}


def _worker(model: str, case: Path, rounds: Iterator[int]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for number in rounds:
        progress(f"worker: round {number + 1}")
        for name, seconds in json.loads(run_child(HERE / "bench_worker.py", case, model).output).items():
            found.setdefault(name, []).append(seconds)
    return found


def _step(rounds: Iterator[int], threads: int) -> dict:
    """Steps of the training of `quick`, each round in a process with huge pages, then in one without."""
    rows = [{"huge_pages": huge, "seconds": [], "cpu_s": [], "peak_mb": []} for huge in (True, False)]
    found = {}
    for number in rounds:
        for row in rows:
            progress(f"training step: round {number + 1}, huge pages: {row['huge_pages']}")
            environment = {HUGE_PAGES: str(int(row["huge_pages"]))}
            child = run_child(HERE / "bench_step.py", _STEPS, _PATCH, threads, environment=environment)
            found = json.loads(child.output)
            for name in ("seconds", "cpu_s"):
                row[name] += found[name]
            row["peak_mb"].append(child.peak_mb)
    return {"batch": found["batch"], "side": _PATCH, "bf16": found["bf16"], "threads": threads, "rows": rows}


def _show_case(case: dict) -> None:
    if "skipped" in case:
        print(f"\nWhole case: skipped: {case['skipped']}")
        return
    base, cells = case["rows"][0], []
    for row in case["rows"]:
        network = median(stages["network"] for stages in row["stages"])
        cells.append(
            [
                f"{row['mirrorings']} mirrorings",
                f"{median(row['seconds']):.1f}",
                f"{network:.1f}",
                ratio(row["seconds"], base["seconds"]),
                f"{max(row['peak_mb']) / 1000:.2f}",
            ]
        )
    header = ["segmamba predict", "seconds", "in the network", "ratio", "peak GB"]
    print_table(f"Whole case {case['case']}, model {case['model']}, {case['threads']} thread(s)", header, cells)
    _show_stages(case["rows"])


def _show_stages(rows: list[dict]) -> None:
    """Where the seconds of a case go; what is left of the whole is start-up, and loading the model."""
    names = [name for name in rows[0]["stages"][0] if name != "total"]
    cells = []
    for row in rows:
        parts = [median(stages[name] for stages in row["stages"]) for name in names]
        whole = median(row["seconds"])
        start = whole - median(stages["total"] for stages in row["stages"])
        cells.append([f"{row['mirrorings']} mirrorings", *(f"{part:.2f}" for part in [start, *parts, whole])])
    print_table("Seconds of each stage", ["segmamba predict", "start-up", *names, "whole"], cells)


if __name__ == "__main__":
    main()
