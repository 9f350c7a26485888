"""A site: corrections to a candidate through the real engine; what a run learns from; what goes wrong is said."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import pytest
from correction_runs import edited, send
from segmamba.cases.case import find_label
from segmamba.cli import main
from segmamba.datasets.manifest import read_dataset, write_dataset
from segmamba.datasets.split import training_cases, validation_cases
from segmamba.errors import InputError
from segmamba.files.digest import hash_file
from segmamba.learning.gate import score_cache
from segmamba.learning.provenance import doubtful_cases, shipped_cases
from segmamba.learning.registry import in_use, state
from segmamba.learning.registry.state import MODELS
from segmamba.learning.site import Site, improve, summarise
from segmamba.learning.site.data import (
    copy_shipped,
    freeze,
)
from segmamba.learning.site.layout import STATUS
from segmamba.learning.site.status import StatusWriter
from segmamba.learning.submissions.intake import ingest
from segmamba.models.package import read_manifest
from site_runs import shrunk, tree
from training_runs import narrow_network, single_precision, without_curves

ROOT = Path(__file__).resolve().parents[2]
# the contract of SITE.md
STATUS_KEYS = {
    *("schema", "run", "way", "state", "text", "step", "steps", "seconds_left", "loss", "candidate", "verdict", "pid"),
    *("host", "started", "updated", "gate"),
}
WITHDRAWN = f"{0:032x}.safetensors"  # a prepared case that no data set has any more
WORKING_SITE = {"corrections", "models", "runs", "replay", "anchor", "cache"}


@pytest.fixture(scope="module")
def improved(site_template, tmp_path_factory):
    """A site on which one improvement of two steps was made, and that run's last status."""
    site = Site(shutil.copytree(site_template, tmp_path_factory.mktemp("improved") / "site"))
    site.cache.mkdir()
    (site.cache / WITHDRAWN).write_bytes(b"prepared for an earlier run")
    with narrow_network(), single_precision(), without_curves():
        return site, improve(site, steps=2, model=str(site_template.with_name("old")))


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


def test_of_cases_that_it_does_not_know_nothing_stays_prepared(improved):
    site, _ = improved
    prepared = {path.name for path in site.cache.iterdir()}
    assert len(prepared) == 6 and WITHDRAWN not in prepared  # three corrections, one old case, two that judge


def test_the_candidate_lies_between_the_model_in_use_and_what_was_learnt(improved, site_template):
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


def test_it_is_validated_at_the_end_and_every_step_has_a_line(improved):
    site, _ = improved
    log = summarise(site, "finetune-0001")["log"]
    assert [line["step"] for line in log if line["kind"] == "validation"] == [2]  # the gate scores the model as it was
    assert [line["step"] for line in log if line["kind"] == "step"] == [1, 2]


def test_the_time_left_counts_only_what_models_are_still_asked(improved, tmp_path, monkeypatch):
    """In a second run the scores of the model in use are known; of a case without a label map nobody is asked."""
    site = Site(shutil.copytree(improved[0].folder, tmp_path / "site"))
    anchor = read_dataset(site.anchor)
    write_dataset(replace(anchor, cases=(*anchor.cases, replace(anchor.cases[0], id="unlabelled", label=None))))
    told, go_on = [], StatusWriter.go_on

    def listen(self, done, total, text, **changes):
        if text.startswith("choosing"):
            told.append(total - done)
        go_on(self, done, total, text, **changes)

    monkeypatch.setattr(StatusWriter, "go_on", listen)
    with narrow_network(), single_precision(), without_curves():
        improve(site, steps=3)
    assert told == [9, 8, 7, 6, 5, 4, 3, 2, 1]  # three shares of the way, three cases


def test_a_run_that_is_done_stays_done(improved):
    site, status = improved
    before = tree(site.models)
    with narrow_network():
        assert improve(site, status.run) == status
    assert tree(site.models) == before


def test_a_case_withdrawn_before_the_gate_ends_the_run(improved, tmp_path):
    site = Site(shutil.copytree(improved[0].folder, tmp_path / "site"))
    status = site.run("finetune-0001") / STATUS
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "stopped"}))
    kept = validation_cases(read_dataset(site.run("finetune-0001") / "corrections"))[0]
    ingest(site.corrections, withdraw=[f"{kept.id}-v1"])
    with pytest.raises(InputError, match=f"{kept.id}-v1 was withdrawn since run finetune-0001 began"):
        improve(site, "finetune-0001")


def test_a_case_withdrawn_while_the_gate_asks_is_not_said_to_be_missing(improved, tmp_path, monkeypatch):
    site = Site(shutil.copytree(improved[0].folder, tmp_path / "site"))
    status = site.run("finetune-0001") / STATUS
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "stopped"}))
    shutil.rmtree(score_cache(site.models / MODELS))  # the models are asked anew
    kept = validation_cases(read_dataset(site.run("finetune-0001") / "corrections"))[0]
    go_on = StatusWriter.go_on

    def withdraw(self, done, total, text, **changes):
        if (site.corrections / "incoming" / f"{kept.id}-v1").is_dir():
            ingest(site.corrections, withdraw=[f"{kept.id}-v1"])
        go_on(self, done, total, text, **changes)

    monkeypatch.setattr(StatusWriter, "go_on", withdraw)
    with narrow_network(), pytest.raises(InputError, match=f"{kept.id}-v1 was withdrawn since run finetune-0001 began"):
        improve(site, "finetune-0001")


def test_the_json_is_that_of_the_contract(improved, capsys):
    site, status = improved
    assert {field for field in asdict(status)} == STATUS_KEYS
    assert set(json.loads((site.run(status.run) / STATUS).read_text())) == STATUS_KEYS
    assert main(["status", str(site.folder), "--run", status.run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"schema", "corrections", "models", "runs", "log"} and found["schema"] == 1
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


def test_what_was_accepted_against_the_advice_of_intake_is_known_by_name(site, phantom_cases, tmp_path):
    case = phantom_cases / "phantom-0"
    mirrored = edited(find_label(case), tmp_path / "mirrored.nii.gz", lambda voxels: voxels[::-1])
    name = send(site.corrections, case, labels=mirrored, subject="patient 0").name
    assert ingest(site.corrections).names("doubtful") == [name]
    assert doubtful_cases(freeze(site.corrections, tmp_path / "before")) == ()
    ingest(site.corrections, accept={name: "looked at"})
    assert doubtful_cases(read_dataset(site.corrections)) == (name,)
    freeze(site.corrections, tmp_path / "after")
    ingest(site.corrections, withdraw=[name])  # while a run is at work that has learnt it
    assert doubtful_cases(read_dataset(site.corrections)) == ()
    assert doubtful_cases(read_dataset(tmp_path / "after")) == (name,)


@pytest.mark.parametrize("name", ["replay", "anchor"])
def test_a_site_without_old_data_gets_the_cases_that_ship(tmp_path, name):
    folder, half = tmp_path / name, tmp_path / f".{name}.copying"
    folder.mkdir()  # empty: as good as none
    (half / "BraTS-SSA-00000-000").mkdir(parents=True)  # of a copy that was broken off
    full = mock.patch("segmamba.learning.site.data.init_dataset", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(OSError, match="No space"):
        copy_shipped(folder)
    assert not list(folder.iterdir())
    copy_shipped(folder)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    dataset = read_dataset(folder)
    assert shipped_cases(dataset) == tuple(case.id for case in dataset.cases)
    assert len(dataset.cases) == {"replay": 7, "anchor": 5}[name]
    assert all(case.label and dataset.path(case.label).is_file() for case in dataset.cases)
    (folder / "own").mkdir()
    before = tree(folder)
    copy_shipped(folder)
    assert tree(folder) == before


def test_the_cases_that_ship_are_on_the_grid_of_the_model_that_ships(tmp_path):
    spacing = read_manifest(ROOT / "Resources" / "models" / "quick").preprocess.spacing
    sets = {}
    for name in ("replay", "anchor"):
        copy_shipped(tmp_path / name)
        sets[name] = read_dataset(tmp_path / name)
        for case in sets[name].cases:
            assert case.spacing == spacing and not case.statistics["notes"], case.id
            assert sum(label["ml"] for label in case.statistics["labels"].values()) > 10, case.id
    learnt, judging = ({case.subject for case in dataset.cases} for dataset in sets.values())
    assert not learnt & judging


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_is_copied_from_a_read_only_installation_can_be_removed(tmp_path):
    source = tmp_path / "installed" / "replay"
    shutil.copytree(ROOT / "Resources" / "cases" / "replay", source)
    for path in (*source.rglob("*"), source):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with mock.patch("segmamba.learning.site.data._CASES", source.parent):
        copy_shipped(tmp_path / "replay")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "replay").rglob("*"))


def test_where_the_cases_that_ship_are_missing(tmp_path):
    missing = mock.patch("segmamba.learning.site.data._CASES", tmp_path / "none")
    with missing, pytest.raises(InputError, match=r"none.replay is missing.*cases of your own in .*replay"):
        copy_shipped(tmp_path / "replay")


# --- what goes wrong is said


@pytest.mark.parametrize("options", ([], ["--detach"], ["--run", "mine"]))
def test_a_site_without_a_case_or_misspelt_is_named_and_nothing_is_made(tmp_path, capsys, options):
    assert main(["status", str(tmp_path / "none"), "--json"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["improve", str(tmp_path / "none"), "--device", "cpu", *options]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'none' / 'corrections'} is not a folder of corrections")
    assert "check the path, or send a case first" in last
    assert list(tmp_path.iterdir()) == []


def test_without_an_accepted_case_a_run_says_why_it_failed(site, capsys):
    shutil.rmtree(site.corrections / "incoming")
    (site.corrections / "incoming").mkdir()
    site.cache.mkdir()
    (site.cache / WITHDRAWN).write_bytes(b"of the last case, which was withdrawn")
    picture = site.models / "models" / "old" / f"gate-{'0' * 20}.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"the same")
    assert main(["improve", str(site.folder), "--device", "cpu"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: there is no accepted case to train on yet: send corrected cases"
    (run,) = summarise(site)["runs"]
    assert (run["state"], run["text"], run["alive"]) == ("failed", last.removeprefix("error: "), False)
    assert not list(site.cache.iterdir()) and not picture.exists()


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
