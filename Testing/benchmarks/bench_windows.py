"""One window of `released` beside other networks, for bench.py: by instruction set, and with a second thread.

Each pass runs in a process of its own, for its peak memory, and each has large tensors in huge pages, as the engine
asks for wherever it runs. What is in TARGETS and ONCE is measured in any case; while time lasts, then once what is in
IF_TIME, and again what the targets compare (`released`, nnU-Net's plain network, two threads).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from statistics import median

from measure import HERE, HUGE_PAGES, instruction_sets, print_table, progress, ratio, run_child

ENGINE, ONEDNN, DIRECT = "engine", "oneDNN alone", "direct"  # as bench_forward.py has them
TARGETS = (("released", ENGINE), ("nnU-Net plain", DIRECT))
ONCE = (("released", ONEDNN), ("SwinUNETR", DIRECT))
IF_TIME = (("SegResNet", DIRECT), ("UNETR", DIRECT))  # on the first instruction set


def measure(machine: dict, size: int, rounds: int, seconds: float, threads: int = 1) -> dict:
    """The rows of results/cpu.json under "window".

    Args:
        machine: as measure.describe has it.
        size: of the windows, voxels a side.
        rounds: at most.
        seconds: after which nothing is begun that is not needed, or would not end in time.
        threads: of every pass but those that show what a second one brings.
    """
    environments = instruction_sets(machine)
    needed, again, spare = [], [], []
    for number, isa in enumerate(environments):
        rows = [_row(isa, network, way, threads) for network, way in TARGETS]
        if threads == 1 and (os.cpu_count() or 1) > 1:
            rows.append(_row(isa, "released", ENGINE, 2))
        again += rows
        needed += rows + [_row(isa, network, way, threads) for network, way in ONCE]
        if number == 0:
            spare += [_row(isa, network, way, threads) for network, way in IF_TIME]
    begin = time.monotonic()
    for row in needed:
        _pass(row, size, environments[row["isa"]])
    for row in _in_time([*spare, *(row for _ in range(rounds - 1) for row in again)], begin + seconds):
        _pass(row, size, environments[row["isa"]])
    measured = [row for row in (*needed, *spare) if row["seconds"]]
    order = list(environments)
    return {"size": size, "precision": "fp32", "rows": sorted(measured, key=lambda row: order.index(row["isa"]))}


def _row(isa: str, network: str, way: str, threads: int) -> dict:
    lists = {name: [] for name in ("formats", "seconds", "cpu_s", "peak_mb")}
    return {"isa": isa, "network": network, "way": way, "threads": threads, **lists}


def _in_time(rows: Iterable[dict], end: float) -> Iterator[dict]:
    """Those that end in time if they take as long as the last time; what was never measured takes none."""
    for row in rows:
        if time.monotonic() + (row["took_s"] if row["seconds"] else 0.0) <= end:
            yield row


def _pass(row: dict, size: int, environment: dict[str, str]) -> None:
    progress(f"window: {row['isa']}, {row['network']}, {row['way']}, {row['threads']} thread(s)")
    program = HERE / "bench_forward.py"
    arguments = row["network"], row["way"], size, row["threads"]
    child = run_child(program, *arguments, environment={**environment, HUGE_PAGES: "1"})
    found = json.loads(child.output)
    for name, value in (("formats", found["format"]), ("seconds", found["seconds"]), ("cpu_s", found["cpu_s"])):
        row[name].append(value)
    row["peak_mb"].append(child.peak_mb)
    row["took_s"] = child.seconds


def show(windows: dict) -> None:
    """Prints a table for each instruction set."""
    size = windows["size"]
    for isa in dict.fromkeys(row["isa"] for row in windows["rows"]):
        rows = [row for row in windows["rows"] if row["isa"] == isa]
        cells = [
            [
                f"{row['network']}, {' or '.join(sorted({row['way']} if row['way'] != DIRECT else {*row['formats']}))}",
                str(row["threads"]),
                f"{median(row['seconds']):.2f}",
                ratio(row["seconds"], rows[0]["seconds"]),
                f"{median(row['cpu_s']):.2f}",
                f"{max(row['peak_mb']) / 1000:.2f}",
                str(len(row["seconds"])),
            ]
            for row in rows
        ]
        header = ["network", "threads", "seconds", "ratio", "of the CPU", "peak GB", "rounds"]
        print_table(f"One window, 4x{size}x{size}x{size}, fp32, {isa or 'this CPU'}", header, cells)
