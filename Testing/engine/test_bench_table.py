"""The README's figures of speed are those of the results file, and the table's are those of arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import before_after
import bench
import bench_table
import bench_windows
import measure
import peers
from segmamba.training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = {"released": 67e6, "UNETR": 102e6}
TIMES = ("hello_s", "ready_s", "first_case_s", "warm_case_s", "mirrored_case_s")


def test_the_readme_quotes_the_committed_results():
    """A figure that is stale, on either side, is another line: run `make bench`, and paste what bench_table writes."""
    facts = json.loads((ROOT / "Testing" / "benchmarks" / "results" / "cpu.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(bench_table.markdown(facts)) + "\n\n" in text
    assert bench_table.machine(facts) + "." in text


def test_a_figure_that_is_stale_is_another_line():
    """Of any part: seconds, and peaks of memory."""
    facts = json.loads((ROOT / "Testing" / "benchmarks" / "results" / "cpu.json").read_text(encoding="utf-8"))
    before = bench_table.markdown(facts)
    for part in ("window", "case"):
        changed = json.loads(json.dumps(facts))
        changed[part]["rows"][-1]["seconds"] = [1.5 * s for s in facts[part]["rows"][-1]["seconds"]]
        assert bench_table.markdown(changed) != before


def test_ratios_are_of_medians_and_of_one_instruction_set():
    ours = {"network": "released", "way": "engine", "threads": 1}
    windows = {
        "size": 64,
        "rows": [
            {"isa": "AVX2", **ours, "seconds": [4.0, 2.0, 90.0], "peak_mb": [1000, 3010]},
            {"isa": "AVX2", **ours, "way": "oneDNN alone", "seconds": [8.0], "peak_mb": [4000]},
            {"isa": "AVX2", "network": "UNETR", "way": "direct", "threads": 1, "seconds": [3.0, 1.0], "peak_mb": [500]},
            {"isa": "AVX-512", **ours, "seconds": [1.0], "peak_mb": [1000]},
            {"isa": "AVX-512", **ours, "threads": 2, "seconds": [0.5], "peak_mb": [1000]},
        ],
    }
    stages = [{"read": 1.0, "network": 6.0, "total": 8.0}]
    first = {"mirrorings": 0, "seconds": [10.0], "peak_mb": [1200], "stages": stages}
    case = {"model": "quick", "threads": 2, "rows": [first]}
    worker = {"hello_s": [0.25, 0.35, 0.3], "warm_case_s": [5.0]}
    steps = [{"huge_pages": huge, "seconds": [s], "peak_mb": [900]} for huge, s in ((True, 2.0), (False, 3.0))]
    step = {"batch": 2, "side": 64, "bf16": True, "threads": 1, "rows": steps}
    facts = {"window": windows, "case": case, "worker": worker, "step": step}
    ours, step = (
        "one 4x64\u00b3 window, AVX2, 1 thread: `released`",
        "a training step of `quick`, 2 x 64\u00b3, bfloat16",
    )
    assert [row.cells() for row in bench_table.rows(facts)] == [
        (ours, "4.0", "1.00", "3.0 GB"),
        (f"{ours}, its convolutions by oneDNN alone", "8.0", "2.00", "4.0 GB"),
        ("one 4x64\u00b3 window, AVX2, 1 thread: UNETR", "2.0", "0.50", "0.5 GB"),
        ("one 4x64\u00b3 window, AVX-512, 1 thread: `released`", "1.0", "1.00", "1.0 GB"),
        ("one 4x64\u00b3 window, AVX-512, 2 threads: `released`", "0.500", "0.50", "1.0 GB"),
        ("a whole case, start-up included, `quick`, 2 threads", "10.0", "1.00", "1.2 GB"),
        ("of this case: start-up", "2.0", "0.20", ""),
        ("of this case: read", "1.0", "0.10", ""),
        ("of this case: network", "6.0", "0.60", ""),
        ("the worker says hello", "0.300", "0.03", ""),
        ("its next case, the model loaded", "5.0", "0.50", ""),
        (f"{step}, 1 thread, with huge pages", "2.0", "1.00", "0.9 GB"),
        (f"{step}, 1 thread, without huge pages", "3.0", "1.50", "0.9 GB"),
    ]
    assert bench_table.rows({}) == []


@pytest.mark.parametrize(("minutes", "passes"), [(100, 5), (16, 3), (1, 2)])
def test_windows_that_would_not_end_in_time_are_not_begun(monkeypatch, minutes, passes):
    """Passes of five minutes on a clock of the test's own: two that are needed, one for which there may be time."""
    now = [0.0]
    monkeypatch.setattr(bench_windows.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bench_windows.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(bench_windows, "TARGETS", bench_windows.TARGETS[:1])
    monkeypatch.setattr(bench_windows, "ONCE", bench_windows.ONCE[:1])
    monkeypatch.setattr(bench_windows, "IF_TIME", bench_windows.IF_TIME[:1])
    run = []

    def child(program, network, way, size, threads, environment):
        run.append((network, way))
        now[0] += 300
        return measure.Child(300.0, 1000.0, json.dumps({"seconds": 290.0, "cpu_s": 280.0, "format": "plain"}))

    monkeypatch.setattr(bench_windows, "run_child", child)
    found = bench_windows.measure({"flags": None}, 64, 3, 60 * minutes)
    assert len(run) == passes and run[:2] == [("released", "engine"), ("released", "oneDNN alone")]
    assert [len(row["seconds"]) for row in found["rows"]] == [max(1, passes - 2), 1, 1][: min(3, passes)]


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


@pytest.mark.parametrize(
    ("network", "way", "size"),
    [
        ("released", bench_windows.ENGINE, 32),
        ("released", bench_windows.ONEDNN, 32),
        ("UNETR", bench_windows.DIRECT, 64),
    ],
)
def test_a_window_is_measured_in_a_process_of_its_own(network, way, size):
    row = bench_windows._row("AVX2", network, way, threads=1)
    bench_windows._pass(row, size, {})
    assert [len(row[name]) for name in ("formats", "seconds", "cpu_s", "peak_mb")] == [1] * 4
    assert set(row["formats"]) <= ({*peers.FORMATS} if way == bench_windows.DIRECT else {"engine"})
    assert 0 < row["seconds"][0] < row["took_s"]  # of the pass alone
    assert row["peak_mb"][0] > 4 * PARAMETERS[network] / 1e6  # its weights at least


def test_before_and_after_take_turns(tmp_path):
    """Here both are this tree; a round is one pass of each."""
    program, isa = (
        ROOT / "Testing" / "benchmarks" / "before_after.py",
        [*measure.instruction_sets(measure._machine())][-1],
    )
    line = [program, ROOT, "--rounds", 1, "--size", 64, "--isa", isa, "--output", tmp_path / "found.json"]
    table = measure.run_child(*line).output
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["before"] in found["commit"] and found["isa"] == isa
    assert [*found["rows"]] == ["before", "now", "nnU-Net plain"]
    assert all(len(row["seconds"]) == 1 and row["seconds"][0] > 0 for row in found["rows"].values())
    assert f"{found['rows']['now']['seconds'][0]:.1f}" in table


def test_the_readme_says_what_was_measured_before_and_after():
    found = json.loads((ROOT / "Testing" / "benchmarks" / "results" / "before_after.json").read_text(encoding="utf-8"))
    rows, text = found["rows"], " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    before, now = (f"{before_after.of_rounds(rows, name):.2f}" for name in ("before", "now"))
    rounds = [a / b for a, b in zip(rows["now"]["seconds"], rows["nnU-Net plain"]["seconds"])]
    assert f"`released` took {before} of nnU-Net's time, now {now}." in text
    assert f"Rounds differ by more than that: {min(rounds):.2f} to {max(rounds):.2f} now." in text


def test_ratios_before_and_after_are_taken_round_by_round():
    rows = {"now": {"seconds": [2.0, 9.0, 4.0]}, "nnU-Net plain": {"seconds": [1.0, 10.0, 4.0]}}
    assert before_after.of_rounds(rows, "now") == 1.0


def test_steps_of_the_training_are_measured_without_the_first():
    found = json.loads(measure.run_child(bench_windows.HERE / "bench_step.py", 2, 32, 1).output)
    assert found["batch"] == load_config(ROOT / "Training" / "configs" / "quick.toml").batch
    assert found["bf16"] in (True, False)
    assert len(found["seconds"]) == len(found["cpu_s"]) == 2 and min(found["seconds"]) > 0


def test_the_worker_is_timed_through_its_protocol(tiny_model, phantom_cases, tmp_path):
    program = ROOT / "Testing" / "benchmarks" / "bench_worker.py"
    line = [sys.executable, str(program), str(phantom_cases / "phantom-0"), str(tiny_model)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert tuple(found) == TIMES and found["hello_s"] < found["ready_s"] and min(found.values()) > 0
