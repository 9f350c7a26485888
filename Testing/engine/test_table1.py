"""Table 1 on real parts: FLOPs counted by doing, rows trained and collected, what is written."""

import json
import os
import shutil
import sys
from dataclasses import replace
from unittest import mock

import nibabel
import numpy as np
import pytest
import torch
from segmamba.cases.case import load_case, load_label_map
from segmamba.cli import main
from segmamba.datasets.manifest import write_dataset
from segmamba.datasets.split import make_split
from segmamba.datasets.split import test_cases as split_test_cases
from segmamba.errors import InputError
from segmamba.evaluation.metrics import dice
from segmamba.models.package import load_package, read_manifest
from segmamba.networks.baselines import BASELINES, BaselineConfig, build_baseline
from segmamba.networks.choice import NetworkChoice
from segmamba.networks.segmamba import NetworkConfig, SegMamba
from segmamba.prediction.segment import segment
from segmamba.training import costs, table1
from segmamba.training.config import SourceConfig
from segmamba.training.costs import Costs, count_flops, tom_flops
from segmamba.training.final_score import find_test_cases, score_on_test
from segmamba.training.table1 import Row, format_markdown, make_table, parse_networks
from torch.utils.flop_counter import FlopCounterMode
from training_runs import MODALITIES, small_config

NARROW = {"segresnet": 8, "transbts": 8, "unetr": 1, "nnformer": 32, "uxnet": 2}


COSTS = Costs(
    parameters=12_345_678,
    flops=9_870_000_000,
    micro_batches=1,
    step_seconds=0.1234,
    step_mb=2048.4,
    case_seconds=None,
    case_mb=None,
    device="a GPU",
)


def narrow(name):
    if name in NARROW:
        return BaselineConfig(name=name, in_channels=4, out_channels=4, patch=(32, 32, 32), width=NARROW[name])
    return NetworkConfig(features=(4, 4, 8, 8), full_features=4, bottleneck=8, depths=(1, 1, 1, 1))


@pytest.fixture
def narrow_networks():
    """Every network with few channels."""

    def resolve(choice, in_channels, out_channels, patch):
        return narrow(choice.name)

    with mock.patch.object(NetworkChoice, "resolve", resolve):
        yield


@pytest.fixture(scope="module")
def phantom_dataset(own_phantoms):
    return own_phantoms()  # split here


@pytest.fixture(scope="module")
def config(phantom_dataset, tmp_path_factory):
    make_split(phantom_dataset, folds=3, seed=1)
    source = SourceConfig(dataset=str(phantom_dataset.folder), validate=True, fold=0)
    cache = tmp_path_factory.mktemp("cache")
    return small_config(phantom_dataset.folder, cache, sources=(source,), steps=2, batch=1)


# --- FLOPs


def test_tom_is_counted_by_doing_it():
    """Every multiplication, addition and exp of one ToM, in plain loops over 5 tokens of 3 channels."""
    length, channels, directions, taps, states = 5, 3, 2, 4, 16
    inner, rank, done = 2 * channels, 1, 0

    def product(rows, inputs, outputs):
        return sum(2 for _ in range(rows) for _ in range(inputs) for _ in range(outputs))

    done += product(length, channels, 2 * inner)  # in_proj
    for _ in range(directions):
        done += sum(2 for _ in range(length) for _ in range(inner) for _ in range(taps))
        done += product(length, inner, rank + 2 * states) + product(length, rank, inner)
        for _ in range(length * inner):
            done += 1  # dt u
            for _ in range(states):
                done += 1 + 1  # dt A, exp
                done += 1 + 2  # dt u B, decay h + it
                done += 2  # C h, sum
            done += 2 + 1  # D u + y, gate
    done += product(length, inner, channels)  # out_proj
    assert tom_flops(length, channels, directions) == done


@pytest.mark.skipif("SEGMAMBA_SCAN" in os.environ, reason="needs the kernels that the counter does not see")
def test_of_segmamba_only_what_the_counter_does_not_see_is_added():
    pytest.importorskip("numba")
    torch.manual_seed(0)
    network, shape = SegMamba(narrow("segmamba")), (1, 4, 32, 48, 32)
    # with gradients and without oneDNN every product is one of torch's that the counter knows
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        network(torch.randn(shape))
    lengths = [32 * 48 * 32 // 8 ** (stage + 1) for stage in range(4)]
    unseen = sum(3 * length * 2 * c * (7 * 16 + 4 + 2 * 4) for length, c in zip(lengths, (4, 4, 8, 8)))
    assert count_flops(network, shape) == counter.get_total_flops() + unseen


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_counted_without_computing(name):
    side = max(32, BASELINES[name].longest)
    width = 12 if name.startswith("swin") else NARROW.get(name, 4)
    config = BaselineConfig(name=name, patch=(32, side, 32), width=width)
    assert count_flops(build_baseline(config), (1, 4, 32, side, 32)) > 1e6


def test_a_convolution_has_two_flops_a_tap():
    assert count_flops(torch.nn.Conv3d(2, 3, 3, padding=1), (1, 2, 4, 5, 6)) == 2 * 4 * 5 * 6 * 27 * 2 * 3


# --- names


def test_presets_and_baselines_are_known_by_name():
    assert parse_networks("quick, uxnet") == (NetworkChoice(preset="quick"), NetworkChoice(name="uxnet"))
    assert len(parse_networks(",".join(table1.NETWORKS))) == 1 + len(BASELINES)
    for wrong in ("", "uxnet,uxnet", "unet"):
        with pytest.raises(InputError, match="known are released"):
            parse_networks(wrong)


# --- rows


def test_networks_are_trained_once_and_then_collected(config, narrow_networks, tmp_path, monkeypatch):
    networks, folder = parse_networks("released,unetr"), tmp_path / "table"
    rows = make_table(config, networks, folder, "cpu")
    assert [row.network for row in rows] == ["released", "unetr"]
    for row in rows:
        manifest = read_manifest(folder / row.network / "model")
        assert manifest.id == f"small-{row.network}"
        assert row.mean == manifest.metrics["mean"] and set(row.mean) == {"WT", "TC", "ET"}
        assert row.cases == len(manifest.training["held_out"]) == 1
        assert not row.failure and row.costs.step_seconds > 0 and row.costs.case_seconds > 0
        assert row.costs.step_mb is None  # a CPU
    assert rows[1].costs.parameters == sum(p.numel() for p in build_baseline(narrow("unetr")).parameters())
    written = json.loads((folder / "table1.json").read_text())
    assert [row["network"] for row in written["rows"]] == ["released", "unetr"]
    assert written["rows"][1]["mean"] == rows[1].mean and written["config"]["steps"] == 2
    assert (folder / "table1.md").read_text() == format_markdown(rows)

    monkeypatch.setattr(table1, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(table1, "measure_costs", lambda *_, **__: pytest.fail("measured again"))
    assert make_table(config, networks, folder, "cpu") == rows
    assert make_table(replace(config, name="a", workers=1), networks, folder, "cpu") == rows  # nothing learnt differs
    record = json.loads((folder / "unetr/config.json").read_text())
    record["config"]["sources"][0]["packed"] = ""  # as it was written for a while
    (folder / "unetr/config.json").write_text(json.dumps(record))
    assert make_table(config, networks, folder, "cpu") == rows
    with pytest.raises(InputError, match=r"other settings.*steps"):
        make_table(replace(config, steps=3), networks, folder, "cpu")
    for changes in ({"deep_supervision": True}, {"network": {**record["config"]["network"], "width": 32}}):
        other = {**record, "config": {**record["config"], **changes}}
        (folder / "unetr/config.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=rf"other settings.*{next(iter(changes))}"):
            make_table(config, networks, folder, "cpu")
    record["cases"] = dict.fromkeys(record["cases"], "another label map")
    (folder / "unetr/config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"unetr is of a training on other data \(cases: 2 of 2 are others\)"):
        make_table(config, networks, folder, "cpu")


def test_a_network_that_fails_leaves_the_others_their_rows(config, narrow_networks, tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "measure_costs", lambda *_: COSTS)
    real = table1.train

    def train(config, *arguments, **settings):
        if config.network.name == "segresnet":
            raise InputError("training diverged")
        return real(config, *arguments, **settings)

    monkeypatch.setattr(table1, "train", train)
    rows = make_table(config, parse_networks("segresnet,released"), tmp_path, "cpu")
    assert [row.failure for row in rows] == ["training diverged", ""] and rows[1].cases == 1
    assert "segresnet has no model: training diverged" in (tmp_path / "table1.md").read_text()


def test_a_patch_that_a_network_does_not_take_is_said_before_anything_is_trained(config, tmp_path):
    with pytest.raises(InputError, match="swinunetr"):
        make_table(replace(config, patch=(48, 48, 48)), parse_networks("segresnet,swinunetr"), tmp_path, "cpu")
    assert not list(tmp_path.glob("segresnet*"))


def test_a_package_that_a_network_needs_is_asked_for_before_anything_is_trained(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    monkeypatch.setattr(table1, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match="transbts needs einops"):
        make_table(config, parse_networks("segresnet,transbts"), tmp_path, "cpu")


def test_costs_that_cannot_be_measured_leave_a_row_its_scores(config, narrow_networks, tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "measure_costs", mock.Mock(side_effect=[InputError("no memory"), COSTS]))
    first, second = make_table(config, parse_networks("released,segresnet"), tmp_path, "cpu")
    assert first.cases == 1 and (first.costs, second.costs) == (None, COSTS)
    text = (tmp_path / "table1.md").read_text()
    assert "| released | - | - | - | - | - | - |" in text and "released has no costs: no memory" in text


def test_a_network_trained_by_its_own_configuration_is_collected(config, narrow_networks, tmp_path, monkeypatch):
    """As many processes would train it; the preset, which a baseline ignores, is not that of the table's choice."""
    monkeypatch.setattr(table1, "measure_costs", lambda *_: COSTS)
    alone = replace(config, name="own", network=NetworkChoice(name="unetr", preset="paper"))
    model = table1.train(alone, tmp_path / "unetr")
    monkeypatch.setattr(table1, "train", lambda *_, **__: pytest.fail("trained again"))
    (row,) = make_table(config, parse_networks("unetr"), tmp_path, "cpu")
    assert row.mean == read_manifest(model).metrics["mean"]


def test_several_processes_are_refused(config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun"):
        make_table(config, parse_networks("released"), tmp_path, "cpu")


def test_a_step_that_does_not_fit_is_cut_into_micro_batches(config, narrow_networks, monkeypatch):
    """As training does; the GPU is made up, the loop is real."""
    tried, real = [], costs._stepper

    def stepper(config, experiment, device, parts):
        tried.append(parts)
        if parts < fits:
            raise torch.cuda.OutOfMemoryError
        return real(config, experiment, device, parts)

    monkeypatch.setattr(costs, "_stepper", stepper)
    config, fits = replace(config, batch=4), 2
    found = costs.measure_costs(config, "cpu")
    assert tried == [1, 2] and found.micro_batches == 2 and found.step_seconds > 0
    fits = 8
    found = costs.measure_costs(config, "cpu")
    assert tried[2:] == [1, 2, 4] and found.step_seconds is None and found.case_seconds > 0


# --- the table


def test_the_table_has_percent_and_millimetres():
    mean = {"WT": {"dice": 0.9, "hd95": 4.0}, "TC": {"dice": 0.8, "hd95": 5.0}, "ET": {"dice": 0.7, "hd95": 9.0}}
    text = format_markdown([Row(network="a", costs=COSTS, mean=mean, cases=7), Row(network="b", costs=COSTS)])
    header, rule, first, second = text.splitlines()[:4]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    numbers = ["90.00", "80.00", "70.00", "80.00", "4.00", "5.00", "9.00", "6.00"]
    assert cells == ["a", "12.35", "9.9", "0.123", "2048", "-", "-", *numbers, "7"]
    assert header.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert second.split("|")[8:16] == [" - "] * 8
    assert "a GPU" in text


def test_the_command_refuses_unknown_networks(tmp_path, phantom_dataset, capsys):
    path = tmp_path / "config.toml"
    path.write_text(f'name = "x"\n[[sources]]\ndataset = "{phantom_dataset.folder}"\n')
    assert main(["table1", str(path), "--output", str(tmp_path), "--networks", "unet"]) == 1
    assert "unknown networks unet" in capsys.readouterr().err


# --- the test part


def test_a_test_part_with_labels_of_two_sides_is_refused_before_anything_is_trained(phantom_dataset, tmp_path):
    labels = {"left_kidney": 1, "right_kidney": 2, "liver": 3}
    values = {str(value): name for name, value in labels.items()}
    sided = {"labels": labels, "regions": {name: (name,) for name in labels}, "label_values": values}
    dataset = replace(phantom_dataset, folder=str(tmp_path), **sided)
    write_dataset(dataset)
    make_split(dataset, shares={"train": 0.34, "validation": 0.33, "test": 0.33}, seed=1)
    config = small_config(tmp_path, tmp_path / "cache", sources=(SourceConfig(dataset=str(tmp_path), validate=True),))
    with pytest.raises(InputError, match=r"left_kidney and right_kidney .*segmamba evaluate"):
        find_test_cases(config)


def test_the_test_part_is_scored_once_with_mirrorings(
    phantom_cases, make_dataset, tmp_path, narrow_networks, monkeypatch
):
    """A case each to train, to validate and to test; the score is that of the model on the third one, run by hand."""
    shutil.copytree(phantom_cases, tmp_path / "cases", ignore=shutil.ignore_patterns("*.json"))  # no split yet
    dataset = make_dataset(tmp_path / "cases")
    source = SourceConfig(dataset=dataset.folder, validate=True)
    config = small_config(dataset.folder, tmp_path / "cache", sources=(source,), steps=1, batch=1)
    monkeypatch.setattr(table1, "measure_costs", lambda config, device: COSTS)
    with pytest.raises(InputError, match="keeps cases for a test"):
        make_table(config, parse_networks("released"), tmp_path / "none", "cpu", test=True)
    split, _ = make_split(dataset, shares={"train": 0.34, "validation": 0.33, "test": 0.33}, seed=1)
    (entry,) = [case for case in dataset.cases if split.part_of(case.subject) == "test"]
    (row,) = make_table(config, parse_networks("released"), tmp_path / "table", "cpu", test=True)
    assert row.cases == 1 and not row.failure
    model = load_package(tmp_path / "table/released/model")
    assert list(model.manifest.metrics["cases"]) != [entry.id]
    case = load_case(dataset.sources(entry), entry.id, config.preprocess.modalities)
    truth = load_label_map(dataset.path(entry.label), dataset.renumbering, case)
    found = segment(case, model.network, model.manifest.preprocess, model.manifest.inference, mirrorings=7).label_map
    assert row.mean["WT"]["dice"] == pytest.approx(dice(found > 0, truth > 0))
    assert "Scores: test cases, 7 mirrorings." in (tmp_path / "table/table1.md").read_text()
    monkeypatch.setattr("segmamba.training.final_score.validate", None)  # it is there already
    assert make_table(config, parse_networks("released"), tmp_path / "table", "cpu", test=True) == [row]

    scored = []
    scores = {"mean": row.mean, "cases": {}}
    monkeypatch.setattr("segmamba.training.final_score.validate", lambda *_, **__: scored.append(1) or scores)
    path = tmp_path / "table/released/model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "postprocess": {"min_total_mm3": {"ET": 500.0}}}))
    score_on_test(path.parent, config, tmp_path / "table/released", "cpu")
    assert len(scored) == 1  # another manifest of the same weights
    image = dataset.path(entry.images["t2w"])
    voxels = nibabel.load(image)
    nibabel.save(nibabel.Nifti1Image(voxels.get_fdata() * 2, voxels.affine), image)
    make_dataset(tmp_path / "cases")
    score_on_test(path.parent, config, tmp_path / "table/released", "cpu")
    score_on_test(path.parent, config, tmp_path / "table/released", "cpu")
    assert len(scored) == 2  # another image of the same case


@pytest.fixture
def thirds(phantom_cases, make_dataset, tmp_path):
    """A data set with a case each to train, to validate and to test."""
    shutil.copytree(phantom_cases, tmp_path / "thirds", ignore=shutil.ignore_patterns("*.json"))
    dataset = make_dataset(tmp_path / "thirds")
    make_split(dataset, shares={"train": 0.34, "validation": 0.33, "test": 0.33}, seed=1)
    return dataset


@pytest.mark.parametrize(("held_out", "use"), [(False, "trained on"), (True, "validated on")])
def test_a_source_that_is_used_whole_keeps_nothing_for_a_test(thirds, phantom_dataset, tmp_path, held_out, use):
    """Its training has seen the test part of its split."""
    make_split(phantom_dataset, folds=3, seed=1)  # as it is: of folds nothing is kept
    other = SourceConfig(dataset=str(phantom_dataset.folder), validate=True, fold=0)
    whole = SourceConfig(dataset=thirds.folder, held_out=held_out)
    config = small_config(thirds.folder, tmp_path / "cache", sources=(other, whole))
    with pytest.raises(InputError, match=f"keeps 1 cases for a test, but all of it is {use}"):
        find_test_cases(config)


def test_a_test_case_that_another_source_trains_on_is_refused(thirds, phantom_cases, make_dataset, tmp_path):
    """A copy of the same images under other names, without a split."""
    shutil.copytree(phantom_cases, tmp_path / "copy", ignore=shutil.ignore_patterns("*.json"))
    for case in sorted((tmp_path / "copy").iterdir()):
        if case.is_dir():
            case.rename(case.with_name(f"other-{case.name}"))
    copy = make_dataset(tmp_path / "copy")
    validated = SourceConfig(dataset=thirds.folder, validate=True)
    alone = small_config(thirds.folder, tmp_path / "cache", sources=(validated,))
    (case,) = find_test_cases(alone)
    (entry,) = split_test_cases(thirds)
    assert case.id == entry.id
    held = replace(alone, sources=(validated, SourceConfig(dataset=copy.folder)))
    only = replace(copy, cases=tuple(c for c in copy.cases if same_images(c, entry)))
    write_dataset(only)
    with pytest.raises(InputError, match=f"{entry.id} .* is tested on, and trained on as {only.cases[0].id};"):
        find_test_cases(held)
    with pytest.raises(InputError, match=f"keep for a test several cases of one id: {entry.id};"):
        find_test_cases(replace(alone, sources=(validated, validated)))


def test_a_crop_of_a_tested_patient_is_refused(thirds, tmp_path):
    """As far as its name tells; a crop of another patient is not."""
    validated = SourceConfig(dataset=thirds.folder, validate=True)
    (entry,) = split_test_cases(thirds)
    for name, refused in ((f"{entry.subject}_lesion-2", True), ("somebody-1_lesion-2", False)):
        side = {"image": (1, 4, 8, 8, 8), "label": (1, 8, 8, 8), "valid": (1, 8, 8, 8)}
        arrays = {key: np.ones(shape, np.int8) for key, shape in side.items()}
        facts = {"ids": [name], "spacing_mm": [2.0, 2.0, 2.0], "axes": "LPS", "modalities": list(MODALITIES)}
        np.savez(tmp_path / "crops.npz", **arrays, **facts)
        sources = (validated, SourceConfig(patches=str(tmp_path / "crops.npz")))
        config = small_config(thirds.folder, tmp_path / "cache", sources=sources)
        if refused:
            with pytest.raises(InputError, match=f"patch {name} of .*crops.npz is named as .*, which is tested on"):
                find_test_cases(config)
        else:
            assert [case.id for case in find_test_cases(config)] == [entry.id]


def test_a_data_set_that_lacks_a_modality_is_not_tested_on(thirds, tmp_path):
    config = small_config(
        thirds.folder, tmp_path / "cache", sources=(SourceConfig(dataset=thirds.folder, validate=True),)
    )
    config = replace(config, preprocess=replace(config.preprocess, modalities=("t1n", "adc")))
    with pytest.raises(InputError, match=r"case phantom-\d of data set .* has no adc; it has t1n, t1c, t2w, t2f"):
        find_test_cases(config)


def same_images(one, other):
    return {file.sha256 for file in one.images.values()} == {file.sha256 for file in other.images.values()}
