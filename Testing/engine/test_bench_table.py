"""The README's figures of speed are those of the results file, and the table's are those of arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import bench
import bench_table

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("hello_s", "ready_s", "first_case_s", "warm_case_s")


def test_the_readme_quotes_the_committed_results():
    """A figure that is stale, on either side, is another line: run `make bench`, and paste what bench_table writes."""
    facts = json.loads((ROOT / "Testing" / "benchmarks" / "results" / "cpu.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(bench_table.markdown(facts)) + "\n\n" in text
    assert bench_table.machine(facts) + "." in text


def test_ratios_are_of_medians_and_of_the_faster_memory_format():
    windows = {
        "size": 64,
        "threads": 1,
        "rows": [
            {"network": "released", "format": "engine", "seconds": [4.0, 2.0, 90.0], "peak_mb": [1000, 3010]},
            {"network": "UNETR", "format": "plain", "seconds": [3.0, 1.0], "peak_mb": [500]},
            {"network": "UNETR", "format": "channels last", "seconds": [9.0], "peak_mb": [7000]},
        ],
    }
    case = {"model": "quick", "threads": 2, "rows": [{"mirrorings": 0, "seconds": [10.0], "peak_mb": [1200]}]}
    worker = {"hello_s": [0.25, 0.35, 0.3], "warm_case_s": [5.0]}
    cells = [row.cells() for row in bench_table.rows({"window": windows, "case": case, "worker": worker})]
    assert cells == [
        ("one 4x64\u00b3 window, 1 thread: `released`", "4.0", "1.00", "3.0 GB"),
        ("one 4x64\u00b3 window, 1 thread: UNETR", "2.0", "0.50", "0.5 GB"),
        ("a whole case, start-up included, `quick`, 2 threads", "10.0", "1.00", "1.2 GB"),
        ("the worker says hello", "0.300", "0.03", ""),
        ("its next case, the model loaded", "5.0", "0.50", ""),
    ]
    assert bench_table.rows({}) == []


@pytest.mark.parametrize(("minutes", "rounds"), [(100, 3), (25, 2), (1, 1)])
def test_nothing_is_repeated_that_would_not_end_in_time(monkeypatch, minutes, rounds):
    """A round of ten minutes, on a clock of the test's own."""
    now = [0.0]
    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])
    done = 0
    for number in bench._repeats(3, 60 * minutes):
        assert number == done
        now[0] += 600
        done += 1
    assert done == rounds


def test_the_worker_is_timed_through_its_protocol(tiny_model, phantom_cases, tmp_path):
    program = ROOT / "Testing" / "benchmarks" / "bench_worker.py"
    line = [sys.executable, str(program), str(phantom_cases / "phantom-0"), str(tiny_model)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert tuple(found) == TIMES and found["hello_s"] < found["ready_s"] and min(found.values()) > 0
