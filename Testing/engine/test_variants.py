"""Cross-validation and seeds in one command: who is held out where, what is summed up, what goes on after a stop."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from segmamba.cli import main
from segmamba.datasets.split import make_split, read_split
from segmamba.errors import InputError
from segmamba.models.package import read_manifest
from segmamba.training import loop
from segmamba.training.config import SourceConfig
from segmamba.training.variants import make_variants, train_variants
from training_runs import narrow_network, small_config


@pytest.fixture(scope="module")
def trained(split_dataset, tmp_path_factory):
    """Every fold from two seeds, a step each."""
    root = tmp_path_factory.mktemp("variants")
    config = small_config(split_dataset.folder, root / "cache", steps=1)
    variants = make_variants(config, 3, [4, 5])
    with narrow_network():
        summary = train_variants(variants, root / "run", device="cpu")
    return config, variants, root / "run", summary


def test_every_case_is_held_out_in_its_own_fold(trained, split_dataset):
    _, variants, run, summary = trained
    assert list(variants) == [f"fold-{fold}-seed-{seed}" for fold in range(3) for seed in (4, 5)]
    split = read_split(split_dataset)
    for name, row in summary["variants"].items():
        fold, seed = int(name[5]), int(name[-1])
        held_out = [case.id for case in split_dataset.cases if split.part_of(case.subject) == fold]
        record = read_manifest(run / name / "model").training
        assert list(row["cases"]) == sorted(held_out) == sorted(record["held_out"]) and len(held_out) == 1
        assert sorted(record["cases"]) == sorted({case.id for case in split_dataset.cases} - set(held_out))
        assert (record["config"]["seed"], record["config"]["sources"][0]["fold"]) == (seed, fold)


def test_a_case_counts_once_with_its_mean_over_the_seeds(trained):
    _, variants, run, summary = trained
    assert json.loads((run / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["cases"] == 3
    found = [read_manifest(run / name / "model").metrics["cases"] for name in variants]
    each = {}
    for cases in found:
        for case, scores in cases.items():
            each.setdefault(case, []).append(scores["WT"]["hd95"])
    values = [np.mean(scores) for scores in each.values()]
    assert len(found[0]) == 1 and [len(scores) for scores in each.values()] == [2, 2, 2]
    assert summary["mean"]["WT"]["hd95"] == pytest.approx(np.mean(values))
    assert summary["deviation"]["WT"]["hd95"] == pytest.approx(np.std(values))
    lines = (run / "summary.md").read_text().splitlines()
    assert len(lines) == 2 + 6 + 2 and lines[-2].startswith("| all cases | 3 |")


def test_what_is_finished_is_collected_and_what_is_missing_is_trained(trained, tmp_path):
    config, variants, run, summary = trained
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "fold-1-seed-5")
    with narrow_network(), mock.patch("segmamba.training.variants.train", side_effect=loop.train) as train:
        found = train_variants(variants, again, resume="auto", device="cpu")
    assert [call.args[1].name for call in train.call_args_list] == ["fold-1-seed-5"]
    kept = {name: row for name, row in found["variants"].items() if name != "fold-1-seed-5"}
    assert kept == {name: row for name, row in summary["variants"].items() if name != "fold-1-seed-5"}
    assert list(found["variants"]) == list(variants)
    other = make_variants(replace(config, steps=2), 3, [4, 5])
    shutil.rmtree(again / "fold-0-seed-4")  # the first: not trained before the others are looked at
    with mock.patch("segmamba.training.variants.train", side_effect=AssertionError("trained")):
        with pytest.raises(InputError, match=r"other settings \(steps\)"):
            train_variants(other, again, resume="auto", device="cpu")
        with pytest.raises(InputError, match="holds a training already"):
            train_variants(variants, again, device="cpu")


def test_what_is_finished_on_other_data_is_not_collected(trained, tmp_path, monkeypatch):
    _, variants, run, _ = trained
    path = shutil.copytree(run, tmp_path / "run") / "fold-1-seed-4/config.json"
    record = json.loads(path.read_text())
    record["held_out"] = dict.fromkeys(record["held_out"], "another label map")
    path.write_text(json.dumps(record))
    shutil.rmtree(tmp_path / "run/fold-0-seed-4")
    monkeypatch.setattr("segmamba.training.variants.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"fold-1-seed-4 is of .* other data \(held_out: 1 of 1 are others\)"):
        train_variants(variants, tmp_path / "run", resume="auto", device="cpu")


def test_cases_of_one_id_in_two_data_sets_are_not_folds_of_one(split_dataset, own_phantoms, tmp_path):
    """In other folds, where each training alone has nothing against them."""
    other = own_phantoms()
    make_split(other, folds=3, seed=2)
    config = small_config(other.folder, tmp_path / "cache")
    both = tuple(SourceConfig(dataset=dataset.folder) for dataset in (split_dataset, other))
    with pytest.raises(InputError, match="hold out several cases of one id: phantom-0"):
        make_variants(replace(config, sources=both), 3)


def test_a_resume_that_must_needs_one_that_was_begun(trained, tmp_path):
    _, variants, run, summary = trained
    with pytest.raises(InputError, match="elsewhere holds none of the trainings fold-0-seed-4, fold-0-seed-5, fold-1"):
        train_variants(variants, tmp_path / "elsewhere", resume="must", device="cpu")
    assert not (tmp_path / "elsewhere").exists()
    shutil.copytree(run, tmp_path / "run")
    assert train_variants(variants, tmp_path / "run", resume="must", device="cpu") == summary


def test_sources_without_a_split_are_trained_on_whole(split_dataset, own_phantoms, tmp_path):
    more = own_phantoms()
    sources = (SourceConfig(dataset=split_dataset.folder), SourceConfig(dataset=more.folder, share=0.5))
    config = small_config(more.folder, tmp_path / "cache", sources=sources)
    one = make_variants(config, 3)["fold-2"]
    assert [(source.validate, source.fold) for source in one.sources] == [(True, 2), (False, None)]
    with pytest.raises(InputError, match="is split into 3 folds, seed 1; expected 5 folds"):
        make_variants(config, 5)
    with pytest.raises(InputError, match="no data set of the configuration is split"):
        make_variants(replace(config, sources=sources[1:]), 3)


def test_seeds_alone_change_nothing_else(split_dataset, tmp_path):
    config = small_config(split_dataset.folder, tmp_path / "cache")
    variants = make_variants(config, None, [7, 8])
    assert variants == {f"seed-{n}": replace(config, name=f"small-seed-{n}", seed=n) for n in (7, 8)}


@pytest.mark.parametrize("seeds", ["", ",", "1,01", "1,-2", "a", "9" * 5000])
def test_seeds_are_whole_numbers_each_once(seeds, tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text('name = "a"\n[[sources]]\ndataset = "cases"\n')
    arguments = ["train", str(config), "--seeds", seeds, "--run-folder", str(tmp_path / "run"), "--device", "cpu"]
    assert main(arguments) == 1
    assert "expected whole numbers with commas between them, each once" in capsys.readouterr().err


def test_a_resume_with_other_settings_is_recorded(split_dataset, tmp_path):
    """In the log and, for good, in the record that goes into the model."""
    config = small_config(split_dataset.folder, tmp_path / "cache", steps=1)
    other = replace(config, steps=2, optimizer=replace(config.optimizer, learning_rate=1e-4), workers=1)
    heard = []
    with narrow_network():
        loop.train(config, tmp_path / "run", on_line=heard.append)
    assert heard == [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"event", "step"} <= {line["kind"] for line in heard}
    with narrow_network():
        loop.train(other, tmp_path / "run", resume="must")
        model = loop.train(replace(other, steps=3), tmp_path / "run", resume="must")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    said = [line["text"] for line in lines if line.get("text", "").startswith("resumed with")]
    assert said[0] == "resumed with other settings: optimizer.learning_rate (before: 0.003), steps (before: 1)"
    resumed = read_manifest(model).training["resumed"]
    assert resumed == [
        {"step": 1, "was": {"optimizer.learning_rate": 0.003, "steps": 1}},
        {"step": 2, "was": {"steps": 2}},
    ]
    assert json.loads((tmp_path / "run/config.json").read_text())["resumed"] == resumed
