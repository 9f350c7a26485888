"""What `make bench` measured as one table of ratios. The README quotes it; a test holds both together.

python Testing/benchmarks/bench_table.py        # the README's lines, of results/cpu.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from measure import RESULTS

HEADER = ("", "seconds", "ratio", "peak memory")


@dataclass(frozen=True)
class Row:
    """ratio: to the first row of its group, which has 1."""

    what: str
    seconds: Sequence[float]
    ratio: float
    peak_mb: float | None = None

    def cells(self) -> tuple[str, str, str, str]:
        peak = f"{self.peak_mb / 1000:.1f} GB" if self.peak_mb else ""
        return self.what, _rounded(median(self.seconds)), _ratio(self.ratio), peak


def rows(facts: dict) -> list[Row]:
    """facts: of results/cpu.json, or as much of it as was measured."""
    return [*_scan(facts), *_windows(facts), *_case(facts), *_worker(facts), *_step(facts)]


def machine(facts: dict) -> str:
    """Where and when it was measured, in a line."""
    found, flags = facts["machine"], facts["machine"].get("flags") or {}
    known = (("amx_bf16", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))
    widest = next((f" with {name}" for flag, name in known if flags.get(flag)), "")
    return f"{found['cpu']}{widest}, {found['logical_cores']} cores, {facts['date'][:10]}"


def markdown(facts: dict) -> list[str]:
    """Lines for the README."""
    lines = [f"| {' | '.join(HEADER)} |".replace("|  |", "| |"), "|---" * len(HEADER) + "|"]
    return lines + [f"| {' | '.join(row.cells())} |".replace("|  |", "| |") for row in rows(facts)]


def _scan(facts: dict) -> list[Row]:
    scan = facts.get("scan")
    if not scan:
        return []
    longest = max(row["tokens"] for row in scan["rows"])
    found = [row for row in scan["rows"] if row["tokens"] == longest]
    what = f"selective scan forward, {longest} tokens, d = {scan['d']}, {_threads(scan['threads'])}"
    base = median(found[0]["forward_s"])
    return [
        Row(f"{what}: `{row['implementation']}` back end", row["forward_s"], median(row["forward_s"]) / base)
        for row in found
    ]


def _windows(facts: dict) -> list[Row]:
    """Ratios are to the first row, `released`, of the same instruction set."""
    windows = facts.get("window")
    if not windows:
        return []
    bases, found = {}, []
    for row in windows["rows"]:
        base = bases.setdefault(row["isa"], median(row["seconds"]))
        isa = f"{row['isa']}, " if row["isa"] else ""
        what = f"one 4x{windows['size']}\u00b3 window, {isa}{_threads(row['threads'])}: {_called(row)}"
        found.append(Row(what, row["seconds"], median(row["seconds"]) / base, max(row["peak_mb"])))
    return found


def _case(facts: dict) -> list[Row]:
    """The whole, then, without mirrorings, its stages."""
    case = facts.get("case")
    if not case or "rows" not in case:
        return []
    what, base = f"a whole case, start-up included, `{case['model']}`, {_threads(case['threads'])}", case["rows"][0]
    found = [
        Row(
            what + (f", {row['mirrorings']} mirrorings" if row["mirrorings"] else ""),
            row["seconds"],
            median(row["seconds"]) / median(base["seconds"]),
            max(row["peak_mb"]),
        )
        for row in case["rows"]
    ]
    parts, stages = [], base["stages"]
    seconds = {name: [one[name] for one in stages] for name in stages[0] if name != "total"}
    start = [whole - one["total"] for whole, one in zip(base["seconds"], stages)]
    for name, values in {"start-up": start, **seconds}.items():
        parts.append(Row(f"of this case: {name}", values, median(values) / median(base["seconds"])))
    return [found[0], *parts, *found[1:]]


def _worker(facts: dict) -> list[Row]:
    """Their ratios are to a whole case from the command line."""
    worker, case = facts.get("worker"), facts.get("case")
    if not worker or not case or "rows" not in case:
        return []
    base = median(case["rows"][0]["seconds"])
    named = {
        "hello_s": "the worker says hello",
        "ready_s": "the worker has its libraries",
        "first_case_s": "its first case",
        "warm_case_s": "its next case, the model loaded",
        "mirrored_case_s": "such a case with 7 mirrorings",
    }
    return [Row(what, worker[key], median(worker[key]) / base) for key, what in named.items() if worker.get(key)]


def _step(facts: dict) -> list[Row]:
    step = facts.get("step")
    if not step:
        return []
    precision = "bfloat16" if step["bf16"] else "float32"
    patches = f"{step['batch']} x {step['side']}\u00b3"
    what = f"a training step of `quick`, {patches}, {precision}, {_threads(step['threads'])}"
    base = median(step["rows"][0]["seconds"])
    return [
        Row(
            f"{what}, {'with' if row['huge_pages'] else 'without'} huge pages",
            row["seconds"],
            median(row["seconds"]) / base,
            max(row["peak_mb"]),
        )
        for row in step["rows"]
    ]


def _called(row: dict) -> str:
    if row["network"] != "released":
        return row["network"]
    return "`released`" + (", its convolutions by oneDNN alone" if row["way"] == "oneDNN alone" else "")


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _rounded(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


if __name__ == "__main__":
    found = json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8"))
    print(f"{machine(found)}.\n", *markdown(found), sep="\n")
