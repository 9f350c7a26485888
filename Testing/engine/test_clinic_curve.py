"""The benchmark of the loop in small: it sends, improves and scores by the commands themselves, and goes on where it
was. In this process, so that the network can be narrow; its numbers mean nothing.
"""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from correction_runs import edited, send
from segmamba.cases.case import find_case, find_label
from segmamba.cli import main
from segmamba.prediction.options import PredictOptions, digest_images, output_files
from segmamba.prediction.result import begin
from training_runs import narrow_network, single_precision

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import clinic_curve
import measure
from clinic_cases import link_case, read_cases


@pytest.fixture(scope="module")
def place(tmp_path_factory, phantom_cases, make_dataset, site_template):
    """clinic/: three phantoms, a fold each; site/: old data and anchor cases; old/: a model."""
    root = tmp_path_factory.mktemp("curve")
    for folder in (site_template, site_template.with_name("old")):
        shutil.copytree(folder, root / folder.name)
    shutil.copytree(phantom_cases, root / "clinic")
    make_dataset(root / "clinic")
    assert main(["dataset", "split", str(root / "clinic"), "--folds", "3"]) == 0
    return root


@pytest.fixture
def commands(monkeypatch):
    """What the benchmark asks for, run here; a list of the commands."""
    asked = []

    def run(*arguments, may_refuse=False):
        asked.append(arguments[0])
        text = io.StringIO()
        with contextlib.redirect_stdout(text), narrow_network(), single_precision():
            code = main([str(argument) for argument in arguments])
        assert code <= (1 if may_refuse else 0), arguments
        return text.getvalue()

    monkeypatch.setattr(clinic_curve, "segmamba", run)
    return asked


def test_a_curve_of_one_order_and_two_corrections(place, commands, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    arguments = ["clinic_curve.py", place / "old", place / "clinic", place / "clinic", "--work", work, "--steps", 1]
    arguments += [
        "--shares",
        0.5,
        "--orders",
        0,
        "--after",
        2,
        "--replay",
        place / "site/replay",
        "--anchor",
        place / "site/anchor",
    ]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    clinic_curve.main()
    assert [commands.count(name) for name in ("correct", "improve", "evaluate")] == [2, 1, 6]
    found = json.loads((tmp_path / "results" / "clinic_curve.json").read_text())
    (row,), (line,) = found["rows"], found["summary"]
    folds = json.loads((place / "clinic" / "splits.json").read_text())["subjects"]
    unseen = {case for case, fold in folds.items() if fold == 0}
    assert set(row["unseen"]["cases"]) == set(row["others"]["cases"]) == unseen and len(unseen) == 1
    assert set(row["shares"]) == {"0.5"} and set(row["shares"]["0.5"]["unseen"]["cases"]) == unseen
    incoming = work / "order0" / "site" / "corrections" / "incoming"
    subjects = {json.loads(path.read_text())["subject"] for path in incoming.glob("*/case.json")}
    assert len(subjects) == 2
    assert (row["sent"], row["steps"], row["damage"]) == (2, 1, "sound") and 1 <= row["trained"] <= 2
    changes = np.subtract(row["unseen"]["mean"], found["before"]["unseen"]["mean"])
    assert line["unseen"] == [pytest.approx(changes.mean()), None] and sum(line["verdicts"].values()) == 1
    assert "change of mean Dice" in capsys.readouterr().out
    before = list(commands)
    clinic_curve.main()  # all of it is there
    assert commands == before
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in [*arguments, "--shares", 0.5, 0.25]])
    clinic_curve.main()  # of another share the weights are there
    assert commands[len(before) :] == ["predict", "evaluate"] * 2
    (row,) = json.loads((tmp_path / "results" / "clinic_curve.json").read_text())["rows"]
    assert set(row["shares"]) == {"0.5", "0.25"} and set(row["shares"]["0.25"]["others"]["cases"]) == unseen


def test_what_is_killed_anywhere_goes_on_where_it_was(place, commands, tmp_path, monkeypatch, capsys):
    """After a case was sent, and after an improvement was judged, but before anything of it was written down."""
    work = tmp_path / "work"
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")

    def run(*more, after=(1, 2)):
        places = ("--replay", place / "site/replay", "--anchor", place / "site/anchor")
        asked = ["", place / "old", place / "clinic", place / "clinic", "--work", work, "--steps", 1, "--orders", 0]
        monkeypatch.setattr(sys, "argv", [str(part) for part in [*asked, "--after", *after, *places, *more]])
        clinic_curve.main()
        return capsys.readouterr().out.splitlines()

    def killed_after(command):
        whole = clinic_curve.segmamba

        def kill(*arguments, **options):
            answer = whole(*arguments, **options)
            if arguments[0] == command:
                raise KeyboardInterrupt
            return answer

        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(clinic_curve, "segmamba", kill)
            run()

    first = run("--left")
    assert [line.partition(": about")[0] for line in first[:2]] == [
        "left: order0, 1 corrections",
        "left: order0, 2 corrections",
    ]
    assert first[2].startswith("2 pieces left") and not commands
    killed_after("correct")
    killed_after("improve")
    assert commands.count("correct") == 1 and run("--minutes", 0)[-1].startswith("2 pieces left")
    assert run()[-1] == "0 pieces left, about 0 min of one core"
    assert [commands.count(name) for name in ("correct", "improve", "evaluate")] == [2, 3, 6]
    sent = [path.name for path in (work / "order0/site/corrections/incoming").iterdir()]
    assert len(sent) == 2 and all(name.endswith("-v1") for name in sent)
    rows = json.loads((tmp_path / "results" / "clinic_curve.json").read_text())["rows"]
    assert [(row["sent"], row["minutes"] is None) for row in rows] == [(1, True), (2, False)]  # only the rest was timed
    assert set(rows[0]["checks"]) > {"anchor Dice", "local Dice"} and rows[0]["doubtful"] == 0
    shutil.rmtree(work / "order0/after1")
    shutil.rmtree(work / "order0/site/runs/after1")
    with pytest.raises(SystemExit, match="has 2 corrections already: fewer need another --work"):
        run(after=(1,))


def test_a_prediction_that_was_killed_is_made_anew(place, commands, tmp_path):
    """It has left a summary, which says so, and no label map."""
    (case, *_) = read_cases(place / "clinic")
    options = SimpleNamespace(work=tmp_path, model=place / "old", device="cpu")
    files = output_files(tmp_path / "proposals" / "sound", case.id, PredictOptions())
    folder = link_case(tmp_path / "proposals/sound/images" / case.id, case, {})
    begin(files, case.id, digest_images(find_case(folder)), {})
    for site in ("a", "b"):  # the second time it is there
        (tmp_path / site).mkdir()
        clinic_curve.send(options, tmp_path / site / "site", case, "sound")
    assert commands == ["predict", "correct", "correct"]


def test_what_waits_for_a_person_is_accepted(phantom_cases, commands, tmp_path):
    labels = edited(find_label(phantom_cases / "phantom-0"), tmp_path / "x.nii.gz", lambda voxels: voxels[::-1])
    send(tmp_path / "corrections", phantom_cases / "phantom-0", labels=labels, subject="A")

    def statuses():
        answer = clinic_curve.segmamba("intake", tmp_path / "corrections", "--json")
        return [row["status"] for row in json.loads(answer)["rows"]]

    assert statuses() == ["doubtful"]
    clinic_curve.accept_all(tmp_path)
    assert statuses() == ["train"]


def test_a_share_of_the_cases_is_damaged_and_the_labels_are_those_of_the_expert(place, tmp_path):
    case, *_ = clinic_curve.read_cases(place / "clinic")
    voxels, affine = clinic_curve.read_label(case)
    stored = nib.load(case.label)
    assert np.array_equal(np.where(voxels == 4, 3, voxels), np.asarray(stored.dataobj))
    assert np.array_equal(affine, stored.affine) and (voxels == 4).any()
    swap = {"t1n": "t1c", "t1c": "t1n"}
    folder = clinic_curve.link_case(tmp_path / case.id, case, swap)
    assert (folder / f"{case.id}-t1c.nii.gz").resolve() == case.images["t1n"]
    shares = {share: sum(clinic_curve.is_spoilt(k, share) for k in range(15)) for share in (0.0, 0.1, 0.5, 1.0)}
    assert shares == {0.0: 0, 0.1: 2, 0.5: 8, 1.0: 15}
    assert clinic_curve.is_spoilt(0, 0.1) and not clinic_curve.is_spoilt(1, 0.1)
