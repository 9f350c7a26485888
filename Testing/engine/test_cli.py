"""The command line as a user types it: output, errors in one line, exit codes."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from segmamba.cli import _parser, main
from segmamba.training import recipes


def run(*arguments, **environment):
    """In a process of its own, as from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "segmamba", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_info_shows_the_scan_back_end(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["scan_backend"]["cpu"] == "cpu"
    assert facts["scan_backends"]["cpu"]["torch"] == ""
    assert facts["cpu_convolution"].startswith("Winograd")


def test_the_override_of_the_scan_is_visible_and_checked():
    assert json.loads(run("info", "--json", SEGMAMBA_SCAN="torch").stdout)["scan_backend"]["cpu"] == "torch"
    refused = run("info", SEGMAMBA_SCAN="cuda")
    assert refused.returncode == 1 and "SEGMAMBA_SCAN" in refused.stderr and "Traceback" not in refused.stderr


def test_the_help_of_improve_says_the_steps_of_its_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["improve", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    most = re.search(r"^steps = (\d+)$", recipes.config_file("finetune.toml").read_text(), re.MULTILINE)[1]
    assert f"{recipes._STEPS}, plus {recipes._STEPS_A_CASE} per corrected case, at most {most}" in said


def test_network_lists_its_keys(capsys):
    assert main(["network", "quick", "--keys"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert lines[0] == "vit.downsample_layers.0.0.weight (24, 4, 7, 7, 7) float32"
    sizes = [
        int(np.prod([int(n) for n in line[line.index("(") + 1 : line.index(")")].split(",") if n.strip()]))
        for line in lines
    ]
    assert total == f"quick: {sum(sizes)} parameters in {len(lines)} tensors"


def test_follow_takes_away_what_a_killed_one_left_among_its_segmentations(tmp_path, capsys):
    left = tmp_path / "out" / "segmentations" / ".1.0123.tmp.nii.gz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert main(["follow", "a", "b", "--dates", "0", "30", "--output", str(tmp_path / "out")]) == 1
    assert not left.exists() and capsys.readouterr().err.startswith("error: a: ")


def test_predict_by_name_and_by_folder_agree(phantom_cases, tiny_model, tmp_path, capsys):
    folder = phantom_cases / "phantom-2"
    named = [part for m in ("t2f", "t1c", "t2w", "t1n") for part in (f"--{m}", str(folder / f"phantom-2-{m}.nii.gz"))]
    common = ["--model", str(tiny_model), "--device", "cpu", "--json", "--output"]
    assert main(["predict", str(folder), *common, str(tmp_path / "a")]) == 0
    by_folder = json.loads(capsys.readouterr().out)
    assert main(["predict", *named, *common, str(tmp_path / "b")]) == 0
    assert json.loads(capsys.readouterr().out)["volumes_ml"] == by_folder["volumes_ml"]


def test_predict_prints_volumes_and_where_the_label_map_is(phantom_cases, tiny_model, tmp_path):
    result = run("predict", phantom_cases / "phantom-0", "--model", tiny_model, "-o", tmp_path / "x.nii.gz")
    assert result.returncode == 0, result.stderr
    assert "WT " in result.stdout and str(tmp_path / "x.nii.gz") in result.stdout
    assert result.stderr.split("\n")[:2] == [
        "read",
        "check",
    ]  # plain lines, no bar, away from a terminal


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["predict", "-o", "out"], "give one of"),
        (["predict", "nowhere", "-o", "out"], "nowhere"),
        (["predict", "{case}", "--t1n", "x.nii.gz", "-o", "out"], "give one of"),
        (["predict", "--t1n", "{case}/phantom-0-t1n.nii.gz", "-o", "out"], "t1c"),
        (["predict", "{case}", "-o", "out", "--model", "nonesuch"], "there is no model 'nonesuch'"),
        (["predict", "{case}", "-o", "out", "--device", "cuda:9"], "device 'cuda:9' cannot be used"),
        (["predict", "{case}", "-o", "out", "--remove-small", "WT"], "expected REGION=MM3"),
        (["predict", "{case}", "-o", "out", "--remove-small", "XX=5"], "XX"),
        (["evaluate", "nowhere", "nowhere"], "nowhere"),
        (["network", "huge"], "unknown network preset 'huge'"),
        (["import", "nowhere.pt", "-o", "out"], "nowhere.pt: no such file; check the path"),
        (["train", "nowhere.toml"], "nowhere.toml does not exist"),
        (["predict", "--batch", "nowhere", "-o", "out"], "nowhere: no such folder; check the path"),
        (
            ["predict", "--batch", "{case}/phantom-0-t1c.nii.gz", "-o", "out"],
            "phantom-0-t1c.nii.gz: a file; expected a",
        ),
        (["predict", "--batch", "{case}", "-o", "out"], "phantom-0: a case itself; give it without --batch"),
        (["measure", "{case}/phantom-0-seg.nii.gz", "--csv", "nodir/x.csv"], "there is no folder nodir; create it"),
    ],
)
def test_a_wrong_command_gets_one_clear_line(arguments, text, phantom_cases, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [part.format(case=phantom_cases / "phantom-0") for part in arguments]
    if arguments[0] == "predict" and "--model" not in arguments:
        arguments += ["--model", str(tiny_model)]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("error: ") and text in captured.err
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_a_folder_of_cases_in_the_place_of_a_case_is_told_where_it_goes(tiny_model, tmp_path, capsys):
    cases = tmp_path / "cases"
    (cases / "p1").mkdir(parents=True)
    (cases / "dataset.json").touch()
    assert main(["predict", str(cases), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]) == 1
    assert capsys.readouterr().err.endswith(f"; a folder of cases is given as --batch {cases}\n")


def test_batch_exits_with_1_if_one_case_failed(phantom_cases, tiny_model, tmp_path, capsys):
    (tmp_path / "cases" / "empty").mkdir(parents=True)
    arguments = [
        "predict",
        "--batch",
        str(tmp_path / "cases"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(tiny_model),
    ]
    assert main(arguments) == 1
    assert "0 done, 0 skipped, 1 failed" in capsys.readouterr().out


def test_shards_of_a_batch_are_all_of_it_and_torchrun_gives_each_process_its_own(
    phantom_cases, tiny_model, tmp_path, monkeypatch
):
    arguments = ["predict", "--batch", str(phantom_cases), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]
    assert main([*arguments, "--shard", "1/2"]) == 0
    assert [path.name for path in (tmp_path / "out").glob("*-seg.nii.gz")] == ["phantom-1-seg.nii.gz"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(arguments) == 0
    assert len(list((tmp_path / "out").glob("*-seg.nii.gz"))) == 3


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "a/b"])
def test_a_shard_that_is_none(shard, phantom_cases, tiny_model, tmp_path, capsys):
    arguments = ["predict", "--batch", str(phantom_cases), "-o", str(tmp_path), "--model", str(tiny_model)]
    assert main([*arguments, f"--shard={shard}"]) == 1
    assert "expected I/N" in capsys.readouterr().err


def test_prediction_then_evaluation(phantom_cases, tiny_model, tmp_path, capsys):
    assert main(["predict", "--batch", str(phantom_cases), "-o", str(tmp_path), "--model", str(tiny_model)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), str(phantom_cases), "--convention", "brats2023", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sorted(result["cases"]) == ["phantom-0", "phantom-1", "phantom-2"]
    assert set(result["mean"]["dice"]) == set(result["mean"]["hd95"]) == {"WT", "TC", "ET"}


def test_a_published_checkpoint_becomes_a_model(tmp_path, capsys):
    import torch
    from segmamba.models.package import load_package
    from segmamba.networks.segmamba import NetworkConfig, SegMamba

    network = SegMamba(NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, directions=("forward",)))
    torch.save({"module": network.state_dict()}, tmp_path / "published.pt")
    assert main(["import", str(tmp_path / "published.pt"), "-o", str(tmp_path / "model"), "--no-mamba-residual"]) == 0
    manifest = load_package(tmp_path / "model").manifest
    assert manifest.network.directions == ("forward",) and not manifest.network.mamba_residual
    assert manifest.preprocess.modalities == ("t2w", "t2f", "t1n", "t1c")
    assert manifest.preprocess.normalisation == "zscore_box"


def test_another_model_is_not_written_over_by_an_import(tiny_model, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    (tmp_path / "published.pt").write_bytes(b"not read")
    assert main(["import", str(tmp_path / "published.pt"), "-o", str(tiny_model)]) == 1
    assert f"{tiny_model}: holds another model, tiny; name another folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tiny_model.iterdir()} == before


def test_a_checkpoint_of_another_task_leaves_the_model_that_it_was_to_replace(tmp_path, capsys):
    """What cannot be read again is not written, neither over a model of the same name nor into a new folder."""
    import torch
    from segmamba.networks.segmamba import NetworkConfig, SegMamba

    narrow = NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))
    checkpoint, model = tmp_path / "published.pt", tmp_path / "model"
    torch.save(SegMamba(narrow).state_dict(), checkpoint)
    assert main(["import", str(checkpoint), "-o", str(model)]) == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for other in (replace(narrow, out_channels=2), replace(narrow, in_channels=1)):
        torch.save(SegMamba(other).state_dict(), checkpoint)
        for folder in (model, tmp_path / "new"):
            assert main(["import", str(checkpoint), "-o", str(folder)]) == 1
            assert f"published.pt: {other.in_channels} input and {other.out_channels} output" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())


def test_phantoms_can_be_made(tmp_path, capsys):
    assert main(["phantom", "-o", str(tmp_path), "--count", "2", "--spacing", "6", "--seed", "9"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".phantom.lock") == ["phantom-0009", "phantom-0010"]
    assert len(list((tmp_path / "phantom-0009").glob("*.nii.gz"))) == 5


def test_phantoms_that_are_there_are_said_to_stay_as_they_are(tmp_path, capsys):
    """Whatever was asked of them this time: another spacing would else seem to have been made."""
    common = ["phantom", "-o", str(tmp_path), "--seed", "9"]
    assert main([*common, "--spacing", "10"]) == 0
    capsys.readouterr()
    assert main([*common, "--spacing", "8", "--count", "2"]) == 0
    made, said = capsys.readouterr()
    assert made == f"{tmp_path / 'phantom-0010'}\n"
    assert said == "1 of 2 were there and stay as they are; for other settings, name another folder\n"
    assert main([*common, "--count", "0"]) == 1
    assert capsys.readouterr().err == "error: --count 0: expected 1 or more\n"


@pytest.mark.parametrize("output", ["results", "results/run1", "results/today/run1", "p0", "p0/results/run1"])
def test_results_of_a_batch_inside_its_own_folder_are_no_case(phantom_cases, tiny_model, tmp_path, capsys, output):
    """However deep they lie. A folder in which the images are is a case, wherever the results go."""
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "p0")
    line = ["predict", "--batch", str(tmp_path), "-o", str(tmp_path / output), "--model", str(tiny_model)]
    for state in ("1 done, 0 skipped, 0 failed", "0 done, 1 skipped, 0 failed"):
        assert main(line) == 0
        assert state in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", "{case}", "-o", ""], "--output/-o"),
        (["predict", "{case}", "-o", "out", "--brain-mask", ""], "--brain-mask"),
        (["predict", "--t1n", "", "--t1c", "x.nii.gz", "-o", "out"], "--t1n"),
        (["predict", "--batch", "{case}", "-o", "out", "--shard="], "--shard"),
        (["look", ""], "case"),
        (["follow", "a", "b", "--t1c", "c", "", "-o", "out"], "--t1c"),
        (["dataset", "init", ""], "FOLDER_OR_LIST"),
        (["dataset", "split", "x", "--shares", ""], "--shares"),
        (["train", "--finetune", ""], "--finetune"),
    ],
)
def test_an_empty_text_is_no_path(arguments, named, phantom_cases, tmp_path, monkeypatch, capsys):
    """It was the current folder, or as if it had not been given: what a script's unset variable leaves."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([part.format(case=phantom_cases / "phantom-0") for part in arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: argument {named}: an empty text; give a value, or leave it out\n")
    assert not list(tmp_path.iterdir())


def test_a_reason_may_be_empty():
    options = _parser().parse_args(["models", "folder", "--reason", ""])
    assert (
        options.reason == ""
        and _parser().parse_args(["correct", "c", "--labels", "l", "-o", "x", "--role", ""]).role == ""
    )


@pytest.mark.parametrize("batch", [[], ["--batch"]])
def test_a_folder_that_is_named_as_a_file_is_refused_before_the_work(batch, phantom_cases, tmp_path, capsys):
    output = tmp_path / "d.nii.gz"
    output.mkdir()
    assert main(["predict", *batch, str(phantom_cases / "phantom-0"), "-o", str(output)]) == 1
    said = capsys.readouterr().err
    assert ("a batch writes many files" if batch else "a folder; expected the name of a file") in said
    assert "read" not in said.split() and not list(output.iterdir())
