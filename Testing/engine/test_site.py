"""A site: corrections to a candidate through the real engine, and what is said of it while and after it happens."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
from correction_runs import edited, send
from segmamba.cases.case import find_label
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.phantom import make_phantom
from segmamba.datasets.reading import hash_file
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.errors import InputError
from segmamba.learning.registry import in_use, state
from segmamba.learning.site import Site, improve, summarise
from segmamba.learning.site.data import (
    ANCHOR_KINDS,
    ANCHOR_SEEDS,
    REPLAY_SEEDS,
    freeze,
    is_of_phantoms,
    make_phantoms,
)
from segmamba.learning.site.layout import STATUS
from segmamba.learning.site.status import RunStatus, StatusWriter, in_words, read_status
from segmamba.learning.site.words import verdict_text
from segmamba.learning.submissions.intake import ingest
from segmamba.models.package import read_manifest
from site_runs import build_site, in_process, preload, pretend_to_work, save_model, shrunk, wait_for
from training_runs import narrow_network, single_precision

# the contract of SITE.md
STATUS_KEYS = {
    *("schema", "run", "way", "state", "text", "step", "steps", "seconds_left", "loss", "candidate", "verdict", "pid"),
    *("host", "started", "updated", "gate"),
}
WORKING_SITE = {"corrections", "models", "runs", "replay", "anchor", "cache"}


@pytest.fixture(scope="module")
def template(tmp_path_factory, phantom_cases, make_dataset):
    """Beside it the model `old`."""
    return build_site(tmp_path_factory.mktemp("site") / "site", phantom_cases, make_dataset)


@pytest.fixture
def site(template, tmp_path):
    return Site(shutil.copytree(template, tmp_path / "the site"))


@pytest.fixture(scope="module")
def improved(template, tmp_path_factory):
    """A site on which one improvement of two steps was made, and that run's last status."""
    site = Site(shutil.copytree(template, tmp_path_factory.mktemp("improved") / "site"))
    with narrow_network(), single_precision():
        return site, improve(site, steps=2, model=str(template.with_name("old")))


def tree(folder):
    """Every path below with its time and its bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


# --- a whole improvement


def test_corrections_become_a_candidate_with_evidence(improved):
    site, status = improved
    assert (status.run, status.state, status.step, status.steps) == ("finetune-0001", "done", 2, 2)
    found = state.read_registry(site.models)
    champion = in_use.current(site.models).name
    assert {name: entry.state for name, entry in found.models.items()} == {
        champion: "champion",
        status.candidate: "candidate",
    }
    report = json.loads((Path(status.gate) / "gate.json").read_text())
    assert report["verdict"] == status.verdict and report["champion"]["id"] == "old"
    assert len(report["local"]["cases"]) == 1 and len(report["anchor"]["cases"]) == 2
    assert list(Path(status.gate).glob("gate-*.png")) and (Path(status.gate) / "GATE.md").is_file()


def test_what_it_learnt_is_what_intake_accepted(improved):
    site, status = improved
    manifest = read_manifest(site.models / "models" / status.candidate)
    dataset = read_dataset(site.corrections)
    learnt = {case.id for case in training_cases(dataset)}
    kept = {case.id for case in validation_cases(dataset)}
    assert len(learnt) == 2 and len(kept) == 1
    assert set(manifest.training["cases"]) == learnt | {"replay-9"}
    assert set(manifest.training["held_out"]) == kept | {"anchor-11", "anchor-12"}
    assert (manifest.id, manifest.parent) == ("finetune-0001", "old")


def test_the_candidate_lies_between_the_model_in_use_and_what_was_learnt(improved, template):
    site, status = improved
    run = site.run(status.run)
    candidate = read_manifest(site.models / "models" / status.candidate)
    assert candidate == read_manifest(run / "candidate") and not (run / "shares").exists()
    learnt = read_manifest(run / "model")
    assert candidate.training["cases"] == learnt.training["cases"]
    way = candidate.training.get("interpolation")
    if way is None:  # all of the way
        assert candidate.weights_sha256 == learnt.weights_sha256
    else:
        assert way["from"] == "old" and 0 < way["share"] < 1 and candidate.weights_sha256 != learnt.weights_sha256
        report = json.loads((Path(status.gate) / "gate.json").read_text())
        assert any(f"are {way['share']} of the way from old" in note for note in report["notes"])


def test_it_is_validated_before_the_first_step_and_every_step_has_a_line(improved):
    site, _ = improved
    log = summarise(site, "finetune-0001")["log"]
    assert [line["step"] for line in log if line["kind"] == "validation"] == [0, 1, 2]
    assert [line["step"] for line in log if line["kind"] == "step"] == [1, 2]


def test_a_run_that_is_done_stays_done(improved):
    site, status = improved
    before = tree(site.models)
    with narrow_network():
        assert improve(site, status.run) == status
    assert tree(site.models) == before


def test_the_json_is_that_of_the_contract(improved, capsys):
    site, status = improved
    assert {field for field in asdict(status)} == STATUS_KEYS
    assert set(json.loads((site.run(status.run) / STATUS).read_text())) == STATUS_KEYS
    assert main(["status", str(site.folder), "--run", status.run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        set(found) == {"schema", "corrections", "models", "runs", "prepared", "log"}
        and found["prepared"] is True
        and found["schema"] == 1
    )
    assert set(found["corrections"]) == {
        *("sent", "train", "validation", "refused", "waiting", "doubtful", "replaced", "new", "rows")
    }
    counts = {key: value for key, value in found["corrections"].items() if key != "rows"}
    assert counts == {
        "sent": 3,
        "train": 2,
        "validation": 1,
        "refused": 0,
        "waiting": 0,
        "doubtful": 0,
        "replaced": 0,
        "new": 0,
    }
    assert all({"name", "status", "findings"} <= set(row) for row in found["corrections"]["rows"])
    assert set(found["models"]) == {"champion", "folder", "id", "parents", "previous", "states", "history"}
    (run,) = found["runs"]
    assert set(run) == STATUS_KEYS | {"alive", "own"} and run["alive"] is False and run["state"] == "done"
    assert {path.name for path in site.folder.iterdir()} == WORKING_SITE
    assert main(["status", str(site.folder)]) == 0
    assert "finetune-0001  done" in capsys.readouterr().out


def test_the_models_of_a_site_have_parents_and_a_way_back(improved, tmp_path, capsys):
    site = Site(shutil.copytree(improved[0].folder, tmp_path / "site"))
    old, new = in_use.current(site.models).name, improved[1].candidate
    arguments = ["models", str(site.models), "adopt", new, "--reason", "looked at", "--json"]
    arguments += ["--against-the-gate"]  # whatever two steps have brought
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"name": new, "in_use": new}
    found = summarise(site)["models"]
    assert (found["champion"], found["id"], found["previous"]) == (new, "finetune-0001", old)
    assert found["parents"] == [old] and Path(found["folder"]) == site.models / "models" / new
    assert found["states"] == {old: "retired", new: "champion"}
    assert found["history"][-1]["what"] == "adopt" and found["history"][-1]["reason"] == "looked at"
    assert main(["models", str(site.models), "rollback", "--json"]) == 0
    assert summarise(site)["models"]["champion"] == old
    assert main(["models", str(site.models), "refuse", new, "--reason", "worse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"name": new, "in_use": old}
    (run,) = summarise(site)["runs"]  # its report lies where the site lies now
    assert Path(run["gate"]) == site.models / "models" / new


def test_a_run_goes_on_as_it_was_begun(improved):
    site, status = improved
    for other in ({"way": "retrain"}, {"steps": 3}):
        with pytest.raises(InputError, match="was begun as finetune with 2 steps"):
            improve(site, status.run, **other)


# --- what a run learns from


def test_a_run_sees_the_cases_as_they_were_when_it_began(site, phantom_cases, tmp_path):
    ingest(site.corrections)
    folder = site.run("finetune-0001") / "corrections"
    folder.parent.mkdir(parents=True)
    seen = freeze(site.corrections, folder)
    case = phantom_cases / "phantom-1"
    labels = edited(find_label(case), tmp_path / "again.nii.gz", lambda voxels: shrunk(shrunk(voxels)))
    send(site.corrections, case, labels=labels, subject="patient 1")
    ingest(site.corrections)
    assert len(read_dataset(site.corrections).left_out) == 0 and read_dataset(site.corrections) != seen
    assert freeze(site.corrections, folder) == seen
    parts = [{case.id for case in part(dataset)} for part in (training_cases, validation_cases)
             for dataset in (seen, read_dataset(site.corrections))]  # fmt: skip
    assert parts[0] == parts[1] and parts[2] == parts[3]
    for entry in seen.cases:
        for file in (*entry.images.values(), entry.label):
            assert hash_file(seen.path(file)) == file.sha256
            assert not Path(file.path).is_absolute()  # the site may move
            assert "-v1/" in file.path


def test_a_site_without_old_data_gets_phantoms_and_a_broken_making_goes_on(tmp_path):
    class KilledError(Exception):
        pass

    def kill(done):
        if done == 1:
            raise KilledError

    folder, seeds = tmp_path / "replay", range(3, 5)
    folder.mkdir()  # empty: as good as none
    with pytest.raises(KilledError):
        make_phantoms(folder, seeds, (8, 8, 8), kill)
    assert not folder.exists()
    half = tmp_path / ".replay.making" / ".half"
    half.mkdir()
    (half / "phantom-000004-t1n.nii.gz").write_bytes(b"half")
    asked = []
    with mock.patch("segmamba.learning.site.data.make_phantom", wraps=make_phantom) as make:
        make_phantoms(folder, seeds, (8, 8, 8), asked.append)
    assert [call.args for call in make.call_args_list] == [(4,)]  # nothing is made twice
    assert asked == [1, 2]  # of the time left only what is made now tells
    assert [path.name for path in tmp_path.iterdir()] == ["replay"]
    dataset = read_dataset(folder)
    assert [case.id for case in dataset.cases] == ["phantom-000003", "phantom-000004"] and is_of_phantoms(dataset)
    assert all(case.spacing == (8, 8, 8) and case.label for case in dataset.cases)
    assert all(dataset.path(file).is_file() for case in dataset.cases for file in case.images.values())
    before = tree(folder)
    make_phantoms(folder, range(90, 99), (8, 8, 8))
    assert tree(folder) == before


def test_anchor_phantoms_enhance_or_do_not_as_they_are_asked_to(tmp_path):
    make_phantoms(tmp_path / "anchor", range(500_001, 500_005), (8, 8, 8), kinds=(True, False))
    dataset = read_dataset(tmp_path / "anchor")
    assert [case.statistics["labels"]["ET"]["voxels"] > 0 for case in dataset.cases] == [True, False, True, False]
    assert is_of_phantoms(dataset)


def test_what_is_replayed_and_what_is_judged_by_are_other_cases():
    """Nor are they the test and demonstration phantoms (20 000 and on)."""
    assert not set(REPLAY_SEEDS) & set(ANCHOR_SEEDS)
    assert len(ANCHOR_SEEDS) % len(ANCHOR_KINDS) == 0
    assert (len(REPLAY_SEEDS), len(ANCHOR_SEEDS), min(ANCHOR_SEEDS)) == (60, 12, 500_001) and max(REPLAY_SEEDS) < 20_000


# --- what goes wrong is said


def test_without_a_case_there_is_nothing_to_learn(tmp_path, capsys):
    assert main(["status", str(tmp_path / "none"), "--json"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["improve", str(tmp_path / "site"), "--device", "cpu"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "send a case first" in last
    (run,) = summarise(Site(tmp_path / "site"))["runs"]
    assert run["state"] == "failed" and "send a case first" in run["text"] and run["alive"] is False


def test_cases_that_are_not_trained_on_are_named(site, phantom_cases, tmp_path):
    shutil.rmtree(site.corrections)
    case = phantom_cases / "phantom-0"
    labels = edited(find_label(case), tmp_path / "x.nii.gz", lambda voxels: voxels[::-1])
    name = send(site.corrections, case, labels=labels, subject="A").name
    with pytest.raises(InputError, match=f"no accepted case to train on yet; 1 doubtful, {name}: .*accept or withdraw"):
        improve(site, "mine")
    (run,) = summarise(site)["runs"]
    assert run["run"] == "mine" and run["state"] == "failed" and name in run["text"]
    (row,) = summarise(site)["corrections"]["rows"]
    assert row["status"] == "doubtful" and {"doubtful"} <= {finding["severity"] for finding in row["findings"]}
    assert all(finding["mend"] for finding in row["findings"] if finding["severity"] != "note")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b"])
def test_a_run_has_a_plain_name(site, name):
    with pytest.raises(InputError, match="expected a plain name"):
        improve(site, name)
    assert not site.runs.exists()


def test_nothing_to_stop_or_to_follow(site, capsys):
    for arguments in (["improve", str(site.folder), "--stop", "x"], ["status", str(site.folder), "--run", "x"]):
        assert main(arguments) == 1
        assert "has no run x; it has none" in capsys.readouterr().err


# --- alive, lost, alone


@pytest.fixture
def worker(site):
    preload()
    process = in_process(pretend_to_work, site.folder, "other")
    place = site.run("other")
    wait_for(lambda: (s := read_status(place)) and s.state == "training", process)
    yield process
    process.kill()
    process.join(60)


def test_one_improvement_at_a_time(site, worker, capsys):
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"], run["loss"]) == ("training", True, None)
    before = tree(site.folder)
    for arguments in ([], ["--run", "other"], ["--run", "mine"], ["--detach", "--json"]):
        assert main(["improve", str(site.folder), *arguments]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: run other is at work") and "--stop other" in last
    assert {path for path in tree(site.folder)} == set(before)
    assert main(["improve", str(site.folder), "--stop", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "other", "folder": str(site.run("other"))}
    assert (site.run("other") / "stop").exists()


def test_a_run_that_was_ended_from_outside_is_lost(site, worker):
    worker.kill()
    worker.join(60)
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"], run["text"]) == ("lost", False, "was ended from outside; resume it")
    with pytest.raises(InputError, match="not at work"):
        from segmamba.learning.site import ask_to_stop

        ask_to_stop(site, "other")


def test_of_another_machine_nothing_is_known(site, worker):
    worker.kill()
    worker.join(60)
    place = site.run("other") / STATUS
    place.write_text(json.dumps({**json.loads(place.read_text()), "host": "elsewhere"}))
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["alive"]) == ("training", None)


def test_the_time_left_is_that_of_a_steady_pace(tmp_path, monkeypatch):
    from segmamba.learning.site import status as module

    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with StatusWriter(tmp_path, "finetune") as writer:
        for step in (10, 11, 20):  # resumed at 10; 2 s a step
            now[0] = 100 + 2 * (step - 10)
            writer.go_on(step, 100, f"step {step}", step=step)
        assert writer.status.seconds_left == 160 and writer.status.text == "step 20, about 3 min left"
        writer.begin("judging", "next")
        assert writer.status.seconds_left is None and writer.status.step == 20
    assert read_status(tmp_path) == writer.status


def test_lengths_of_time_in_words():
    words = {0.2: "about 1 s", 61: "about 61 s", 100: "about 2 min", 3600: "about 60 min", 3 * 3600: "about 3.0 h"}
    assert {seconds: in_words(seconds) for seconds in words} == words


def test_a_status_that_is_broken_or_of_another_version_is_none(tmp_path):
    assert read_status(tmp_path) is None
    for text in ("{", '{"schema": 1, "strange": 2}', "[]"):
        (tmp_path / STATUS).write_text(text)
        assert read_status(tmp_path) is None


def test_lines_of_lost_work_are_left_out(site):
    run = site.run("r")
    run.mkdir(parents=True)
    steps = [("step", 1), ("step", 2), ("validation", 2), ("step", 3), ("event", 3), ("step", 2), ("validation", 2)]
    lines = [json.dumps({"kind": kind, "step": step, "number": n}) for n, (kind, step) in enumerate(steps)]
    (run / "log.jsonl").write_text("\n".join([*lines[:4], '{"kind": "st', *lines[4:]]) + "\n")
    assert [line["number"] for line in summarise(site, "r")["log"]] == [0, 4, 5, 6]


def test_asking_how_a_site_stands_loads_no_heavy_library(improved):
    code = (
        "import sys; from segmamba.cli import main; "
        f"main(['status', {str(improved[0].folder)!r}, '--run', 'finetune-0001', '--json']); "
        "print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and json.loads(result.stdout)["runs"]
    loaded = set(result.stderr.split())
    assert "segmamba.learning.registry.state" in loaded
    assert not loaded & {"torch", "monai", "nibabel", "scipy", "matplotlib", "SimpleITK", "segmamba.models.package"}


# --- the evidence in words


def report(verdict, **failed):
    checks = [{"name": "anchor Dice WT", "holds": True, "text": "fine"}]
    checks += [{"name": name, "holds": False, "text": text} for name, text in failed.items()]
    cases = {"anchor": {"cases": {"a": "", "b": ""}}, "local": {"cases": {"c": ""}}}
    return {"verdict": verdict, "checks": checks, "low_evidence": ["2 anchor cases: few"], **cases}


def test_a_verdict_in_words_says_what_it_is_worth():
    text = verdict_text(report("refuse", worse="0.9 to 0.1"), phantoms=True)
    assert "should not be taken: worse: 0.9 to 0.1." in text and "fine" not in text
    assert "1 corrected case(s)" in text and "2 synthetic anchor cases" in text and "say nothing about patients" in text
    assert "Low evidence: 2 anchor cases: few" in text
    text = verdict_text({**report("promote"), "low_evidence": []}, phantoms=False)
    assert (
        text.startswith("Better: the new model is recommended.")
        and "synthetic" not in text
        and "Low evidence" not in text
    )
    looks = [{"part": "local", "case": "c", "text": "Dice ET 0.9 -> 0.7"}]
    text = verdict_text({**report("confirm", worst="x"), "look_first": looks}, phantoms=False)
    assert "Not worse: a person decides." in text and "Look first at c (Dice ET 0.9 -> 0.7)." in text


def test_fields_of_a_status_have_one_home():
    """SITE.md names every field."""
    text = (Path(sys.modules["segmamba.learning.site"].__file__).parent / "SITE.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in RunStatus.__dataclass_fields__)


# --- it outlives who started it


def test_a_detached_run_outlives_its_parent_and_stops_by_a_file(site, tmp_path):
    model = save_model(tmp_path / "wide", narrow=False)
    line = [sys.executable, "-m", "segmamba", "improve", str(site.folder), "--model", str(model)]
    line += ["--device", "cpu", "--steps", "10000", "--detach", "--json"]
    started = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert started.returncode == 0, started.stderr  # the parent is gone
    folder = site.run("finetune-0001")
    assert json.loads(started.stdout) == {"run": "finetune-0001", "folder": str(folder)}
    (run,) = summarise(site)["runs"]
    assert run["alive"] is True
    try:
        wait_for(lambda: (read_status(folder) or run).step >= 1)
        if os.name == "posix":
            assert os.getsid(run["pid"]) == run["pid"] != os.getsid(0)
    finally:
        assert main(["improve", str(site.folder), "--stop", "finetune-0001"]) == 0
    wait_for(lambda: read_status(folder).state == "stopped")
    wait_for(lambda: summarise(site)["runs"][0]["alive"] is False)
    status = read_status(folder)
    assert "stopped after step" in (folder / "output.txt").read_text() and not (folder / "stop").exists()
    assert f"stopped after step {status.step}" in (folder / "log.jsonl").read_text()


def test_a_detached_run_that_ends_at_once_says_why(site, capsys, monkeypatch):
    from segmamba.learning.site import detached as module

    monkeypatch.setattr(module, "free_or_refuse", lambda site: None)  # as when another one begins at this moment
    preload()
    process = in_process(pretend_to_work, site.folder, "other")
    try:
        wait_for(lambda: read_status(site.run("other")), process)
        assert main(["improve", str(site.folder), "--detach"]) == 1
        assert "error: run other is at work" in capsys.readouterr().err
        assert [path.name for path in site.run_folders()] == ["other"]
    finally:
        process.kill()
        process.join(60)
