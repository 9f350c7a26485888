"""The plan for a quarter hour of a GPU, tried on the CPU at toy size.

In a folder made by gpu_pack, by a Python in which what such a machine lacks cannot be imported.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import gpu_pack
from segmamba.datasets.manifest import write_dataset
from segmamba.datasets.split import make_split, training_cases
from segmamba.models.package import load_package
from segmamba.training.packed import read_packed

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["info", "check", "steps", "profile", "case", "peers", "train"]
LACKING = ("monai", "nibabel", "SimpleITK", "matplotlib", "pydicom", "nilearn", "einops")
BLOCK = f"""
import sys
class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {LACKING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked)
"""

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process groups, /proc"),
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="packs what git lists"),
]


def run(script, *arguments, cwd=None, **environment):
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return done.returncode, done.stdout + done.stderr


def lives(pid):
    """Whether a process is at work: one that nobody has waited for is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def arguments_of_pack(dataset, folder):
    return [dataset, "--spacing", 4, "--no-wheels", "--output", folder / "pack", "--cache", folder / "cache"]


def make_pack(dataset, folder, *more):
    """In this process: that gpu_pack can be started, `pack` shows."""
    return gpu_pack.main([str(argument) for argument in (*arguments_of_pack(dataset, folder), *more)])


@pytest.fixture(scope="module")
def pack(phantom_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    script = ROOT / "Testing/benchmarks/gpu_pack.py"
    code, said = run(script, *arguments_of_pack(phantom_dataset.folder, folder), PYTHONPATH=str(ROOT / "Training"))
    assert code == 0, said
    assert "3 of 3 cases" in said
    return folder / "pack"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The environment of a Python that lacks what the machine lacks."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {"PYTHONPATH": str(folder)}


def test_the_pack_holds_what_a_run_needs_and_no_images(pack):
    names = {path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file()}
    assert {
        "Training/segmamba/cli.py",
        "Testing/benchmarks/gpu_run.py",
        "Testing/engine/scan_inputs.py",
        "COMMIT",
    } <= names
    assert not [name for name in names if name.endswith((".nii", ".nii.gz", ".pyc"))]
    assert sum(path.stat().st_size for path in pack.rglob("*") if path.is_file()) < 60 * 2**20


def test_a_data_set_that_is_split_by_shares_is_packed_without_what_it_keeps(phantom_cases, make_dataset, tmp_path):
    """A case each to train, to validate and to test; where it does not fit, nothing is left behind."""
    shutil.copytree(phantom_cases, tmp_path / "cases", ignore=shutil.ignore_patterns("*.json"))
    dataset = make_dataset(tmp_path / "cases")
    make_split(dataset, shares={"train": 0.34, "validation": 0.33, "test": 0.33}, seed=1)
    with pytest.raises(SystemExit, match="nothing of data set cases fits into a pack of 0 MiB; raise --most"):
        make_pack(dataset.folder, tmp_path, "--most", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cases"]
    assert make_pack(dataset.folder, tmp_path) == 0
    packed = read_packed(tmp_path / "pack/cases/cases")
    assert [case.id for case in packed.cases] == [case.id for case in training_cases(dataset)]
    assert len(packed.cases) == 1
    write_dataset(replace(dataset, cases=tuple(replace(case, label=None) for case in dataset.cases)))
    shutil.rmtree(tmp_path / "pack")
    with pytest.raises(SystemExit, match="data set cases has no labelled case to pack"):
        make_pack(dataset.folder, tmp_path)


def test_every_step_runs_dry_and_a_second_call_repeats_none(pack, machine, tmp_path):
    script = pack / "Testing/benchmarks/gpu_run.py"
    arguments = ["--output", tmp_path / "out", "--work", tmp_path / "work", "--budget", 3600, "--dry"]
    code, said = run(script, *arguments, **machine)
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert code == 0, said + json.dumps(results, indent=1)
    assert list(results["steps"]) == STEPS
    assert all(step["status"] == "done" for step in results["steps"].values())
    assert results["commit"] == (pack / "COMMIT").read_text().strip()
    checks = results["steps"]["check"]["result"]["checks"]
    assert checks and all(check["passed"] for check in checks)
    assert {row["format"] for row in results["steps"]["steps"]["result"]["rows"]} == {"plain", "channels last"}
    assert len(results["steps"]["profile"]["result"]["rows"]) == 40
    against = [row for row in results["steps"]["case"]["result"]["rows"] if row.get("against")]
    assert against[0]["same_label"] == 1 and against[0]["largest_difference"] < 1e-6
    notes = {row["network"]: row.get("note") for row in results["steps"]["peers"]["result"]["rows"]}
    assert notes["released"] is None and "No module named 'monai'" in notes["SwinUNETR"]
    log = results["steps"]["train"]["result"]["log"]
    assert [line["step"] for line in log if line["kind"] == "step"][-1] == 6
    model = tmp_path / "model"
    model.mkdir()
    pieces = sorted((tmp_path / "out").glob("model.safetensors.??"))
    (model / "model.safetensors").write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    shutil.copy(tmp_path / "out/model.json", model)
    assert load_package(model).manifest.metrics == {"step": 6}
    code, said = run(script, *arguments, **machine)
    assert code == 0
    assert json.loads((tmp_path / "out/results.json").read_text()) == results


def test_a_step_that_takes_too_long_is_ended_and_the_others_have_their_turn(pack, machine, tmp_path):
    """Of a copy in which a step never ends, and starts a process that does not either."""
    shutil.copytree(pack, tmp_path / "pack")
    script = tmp_path / "pack/Testing/benchmarks/gpu_steps.py"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    script.write_text(
        f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}])
pathlib.Path("child").write_text(str(child.pid))
pathlib.Path(sys.argv[sys.argv.index("--results") + 1]).write_text('{{"rows": [1]}}')
time.sleep(600)
"""
    )
    run_script = tmp_path / "pack/Testing/benchmarks/gpu_run.py"
    run_script.write_text(
        run_script.read_text().replace('"profile", 40', '"profile", 0.2').replace("GRACE = 12", "GRACE = 2")
    )
    arguments = ["--output", tmp_path / "out", "--work", tmp_path / "work", "--budget", 900, "--dry"]
    code, said = run(run_script, *arguments, "--only", "profile,info", **machine)
    results = json.loads((tmp_path / "out/results.json").read_text())["steps"]
    assert code == 1, said
    assert results["info"]["status"] == "done"
    assert results["profile"]["status"] == "stopped after 6 s" and results["profile"]["result"] == {"rows": [1]}
    assert not lives(int((tmp_path / "work/child").read_text()))


def test_a_relative_folder_of_cases_counts_from_where_the_command_was_given(pack, machine, tmp_path):
    arguments = ["--output", tmp_path / "out", "--work", tmp_path / "work", "--cases", "none/cases", "--only", "train"]
    code, said = run(pack / "Testing/benchmarks/gpu_run.py", *arguments, "--dry", cwd=tmp_path, **machine)
    step = json.loads((tmp_path / "out/results.json").read_text())["steps"]["train"]
    assert code == 1, said
    assert f"there are no packed cases in {tmp_path.resolve() / 'none/cases'};" in step["printed"]


def test_what_does_not_fit_the_budget_is_not_begun(pack, machine, tmp_path):
    arguments = ["--output", tmp_path / "out", "--work", tmp_path / "work", "--budget", 4, "--dry"]
    code, _ = run(pack / "Testing/benchmarks/gpu_run.py", *arguments, **machine)
    steps = json.loads((tmp_path / "out/results.json").read_text())["steps"]
    assert code == 1 and list(steps) == STEPS
    assert {step["status"] for step in steps.values()} == {"not begun: no time was left"}
