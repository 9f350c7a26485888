"""One window of `released` by another commit and by this one, in turn with nnU-Net's plain network.

git worktree add BEFORE COMMIT
python Testing/benchmarks/before_after.py BEFORE      # --rounds, --size, --isa; writes results/before_after.json

Each pass is that of `make bench` (bench_forward.py of the commit itself), in a process of its own. Ratios are taken
round by round, of passes that came one after the other, and their median is shown: the machine's own ups and downs are
larger than most changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from statistics import median

from bench_windows import DIRECT, ENGINE
from measure import HERE, HUGE_PAGES, describe, instruction_sets, print_table, progress, run_child, write_results

NOW = HERE.parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="A window by another commit and by this one.")
    parser.add_argument("before", type=Path, help="folder with a checkout of the other commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="side of the window")
    parser.add_argument("--isa", help="one instruction set of those that `make bench` names; default: the first")
    parser.add_argument("--output", type=Path, help="another file than results/before_after.json")
    options = parser.parse_args()
    facts = describe()
    environments = instruction_sets(facts["machine"])
    isa = options.isa or next(iter(environments))
    subjects = {
        "before": (options.before.resolve(), "released", ENGINE),
        "now": (NOW, "released", ENGINE),
        "nnU-Net plain": (NOW, "nnU-Net plain", DIRECT),
    }
    rows = {name: {"seconds": [], "peak_mb": []} for name in subjects}
    for number in range(options.rounds):
        for name, (tree, network, way) in subjects.items():
            progress(f"round {number + 1} of {options.rounds}: {name}")
            environment = {**environments[isa], HUGE_PAGES: "1", "PYTHONPATH": str(tree / "Training")}
            program = tree / "Testing" / "benchmarks" / "bench_forward.py"
            child = run_child(program, network, way, options.size, 1, environment=environment)
            rows[name]["seconds"].append(json.loads(child.output)["seconds"])
            rows[name]["peak_mb"].append(child.peak_mb)
    facts |= {"before": _commit_of(options.before), "size": options.size, "threads": 1, "isa": isa, "rows": rows}
    write_results("before_after", facts, options.output)
    cells = [
        [name, f"{median(row['seconds']):.1f}", f"{of_rounds(rows, name):.2f}", f"{max(row['peak_mb']) / 1000:.1f}"]
        for name, row in rows.items()
    ]
    title = (
        f"`released`, one 4x{options.size}\u00b3 window, {isa or 'this CPU'}, 1 thread, before: {facts['before'][:7]}"
    )
    print_table(title, ["", "seconds", "of nnU-Net's", "peak GB"], cells)


def of_rounds(rows: dict, name: str, base: str = "nnU-Net plain") -> float:
    """The median over the rounds of one subject's seconds by those of another.

    Args:
        rows: of results/before_after.json.
        name: of the one.
        base: of the other.

    Returns:
        Below 1 where the one is faster.
    """
    return median(a / b for a, b in zip(rows[name]["seconds"], rows[base]["seconds"]))


def _commit_of(tree: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True, check=True).stdout[
        :-1
    ]


if __name__ == "__main__":
    main()
