"""What README and model card say of the shipped model is what the results files hold: no figure grows stale."""

import json
import re
import sys
from pathlib import Path
from statistics import fmean, median

import pytest
from figures import README, REGIONS, ROOT, results, same, table_after

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import cross_validation
from segmamba.models.package import read_manifest

CARD = ROOT / "Resources" / "models" / "quick" / "MODEL_CARD.md"
# rows of README or card -> cohort and step of cross_validation.json
ROWS = {
    "all": ("after", "all"),
    "all, after post-processing": ("after", "all"),
    "BraTS 2018": ("after", "brats_2018"),
    "BraTS 2021": ("after", "brats_2021"),
    "BraTS-Africa": ("after", "brats_ssa"),
    "BraTS-Africa (SSA)": ("after", "brats_ssa"),
    "all, nothing left out": ("before", "all"),
    "all, before post-processing": ("before", "all"),
}
MISSING = {
    "nothing": "",
    "T1": "t1n",
    "T1c": "t1c",
    "T2": "t2w",
    "FLAIR": "t2f",
    "T1 and T2": "t1n+t2w",
    "t1n and t2w": "t1n+t2w",
}


def test_a_cohort_of_one_case_has_a_mean_and_no_interval():
    """After hours of segmenting, it does not end in an error with nothing written."""
    scores = {
        case: {region: dict.fromkeys(cross_validation.METRICS, value) for region in REGIONS}
        for case, value in (("a", 0.5), ("b", 0.75), ("c", 0.25))
    }
    found = cross_validation.summarize(scores, {"a": "large", "b": "large", "c": "small"})
    assert {cohort: entry["cases"] for cohort, entry in found.items()} == {"all": 3, "large": 2, "small": 1}
    assert found["large"]["ET"]["nsd"] == [0.625, 0.5, 0.75]
    assert found["small"]["WT"]["dice"] == [0.25]


@pytest.mark.parametrize(("path", "spots"), [(README, ["WT"]), (CARD, REGIONS)])
def test_the_table_of_cross_validation(path, spots):
    mean = results("cross_validation.json")["mean"]
    checked = 0
    for row in table_after(path, "| | cases | Dice WT |")[1:]:
        name = row[0].split(", after")[0] if row[0].startswith("all, after") else row[0]
        if name not in ROWS:
            continue
        step, cohort = ROWS[name]
        found = mean[step][cohort]
        expected = [found[region]["dice"][0] for region in REGIONS]
        expected += [found[region]["lesion_dice"][0] for region in REGIONS]
        expected += [found[region]["false_positives"][0] for region in spots]
        assert int(row[1]) == found["cases"]
        assert all(same(cell, value) for cell, value in zip(row[2:], expected, strict=True)), row
        checked += 1
    assert checked == 5


def test_the_intervals_and_distances_of_cross_validation():
    found = results("cross_validation.json")["mean"]["after"]["all"]
    (line,) = (line for line in CARD.read_text(encoding="utf-8").splitlines() if "bootstrap intervals, Dice: " in line)
    told = re.findall(r"(WT|TC|ET) ([\d.]+)(?: \(([\d.]+) to ([\d.]+)\))?", line)
    expected = [(region, found[region][metric]) for metric in ("dice", "hd95", "nsd") for region in REGIONS]
    for (region, *cells), (name, values) in zip(told, expected, strict=True):
        cells = [cell.rstrip(".") for cell in cells if cell]
        assert region == name and all(same(cell, value) for cell, value in zip(cells, values)), name


def test_what_the_aims_are_missed_by():
    mean = results("cross_validation.json")["mean"]["after"]["all"]
    (told,) = re.findall(
        r"\(0.90, 0.80, 0.77\) by ([\d.]+) of WT, ([\d.]+) of TC and ([\d.]+) of ET", README.read_text()
    )
    for text, region, aim in zip(told, REGIONS, (0.90, 0.80, 0.77), strict=True):
        assert same(text, aim - mean[region]["dice"][0]), region


def test_the_table_of_a_longer_training_and_a_finer_grid():
    runs = results("longer_and_finer.json")["runs"]
    tables = [(cases, when) for cases in runs.values() for when in ("before", "after")]
    metrics = [(metric, region) for metric in ("dice", "lesion_dice", "nsd") for region in REGIONS]
    metrics.append(("false_positives", "WT"))
    names = next(iter(runs.values()))
    for row, (cases, when) in zip(table_after(CARD, "| fold 0 |")[1:], tables, strict=True):
        expected = [fmean(cases[name][when][region][metric] for name in names) for metric, region in metrics]
        assert row[0].endswith("after post-processing") == (when == "after")
        assert all(same(cell, value) for cell, value in zip(row[1:], expected, strict=True)), row


@pytest.mark.parametrize(
    ("name", "first"), [("coarser.json", "| folds 0 and 1 |"), ("coarser_fitting.json", "| folds 0 and 1, 420 steps |")]
)
def test_the_tables_of_coarser_voxels(name, first):
    runs = results(name)["runs"]
    metrics = [(m, region) for m in ("dice", "lesion_dice", "nsd", "false_positives") for region in REGIONS]
    rows = iter(table_after(CARD, first)[1:])
    for cases in runs.values():
        assert len(cases) == 28
        for when in ("before", "after"):
            expected = [fmean(case[when][region][metric] for case in cases.values()) for metric, region in metrics]
            row = next(rows)
            assert row[0].endswith("after post-processing") == (when == "after")
            assert all(same(cell, value) for cell, value in zip(row[1:], expected, strict=True)), row
    assert next(rows, None) is None
    assert read_manifest(CARD.parent).inference.coarser == tuple(results(name)["coarser"])


def test_what_a_second_training_brings():
    runs = results("ensemble.json")["runs"]
    metrics = [(m, region) for m in ("dice", "lesion_dice", "nsd", "false_positives") for region in REGIONS]
    rows = table_after(CARD, "| two trainings, ten cases |")[1:]
    for (name, cases), row in zip(runs.items(), rows, strict=True):
        expected = [fmean(case[region][metric] for case in cases.values()) for metric, region in metrics]
        assert row[0] == name and len(cases) == 10
        assert all(same(cell, value) for cell, value in zip(row[1:], expected, strict=True)), row
    (told,) = re.findall(r"expected to be by ([\d.]+) of WT, ([\d.]+) of TC and ([\d.]+) of ET", CARD.read_text())
    first, second, both = ([fmean(c[r]["dice"] for c in cases.values()) for r in REGIONS] for cases in runs.values())
    for text, one, other, mean in zip(told, first, second, both, strict=True):
        assert same(text, mean - (one + other) / 2)


def test_what_a_second_look_costs():
    three = r"([\d.]+), ([\d.]+) and ([\d.]+) s"
    told = re.search(
        rf"its network took {three} for both looks,\s+{three} for one and {three} with\s+the second filled up; "
        rf"with 7 mirrorings {three}, {three} and {three}",
        README.read_text(encoding="utf-8"),
    )
    expected = [seconds for way in results("coarser_fitting.json")["network_seconds"].values() for seconds in way]
    assert told and all(same(cell, value) for cell, value in zip(told.groups(), expected, strict=True))


def test_the_longest_trained_model_of_fold_0_is_that_of_the_table_of_all_folds():
    folds = results("cross_validation.json")["cases"]
    for name, case in results("longer_and_finer.json")["runs"]["2 mm, 2200, then 600 by Muon"].items():
        assert case["before"] == folds[name]["before"], name


def test_what_muon_brings_from_scratch():
    found = results("muon.json")["optimizers"]
    (told,) = re.findall(
        r"fold 0: WT ([\d.]+) to ([\d.]+), TC ([\d.]+) to ([\d.]+), ET ([\d.]+) to ([\d.]+), at the same",
        CARD.read_text(),
    )
    names = [(region, name) for region in REGIONS for name in ("AdamW", "Muon")]
    for text, (region, name) in zip(told, names, strict=True):
        assert same(text, fmean(case[region]["dice"] for case in found[name].values())), (region, name)


def test_what_mirrorings_bring():
    found = results("longer_and_finer.json")["mirrorings"]
    for steps in (700, 2200):
        cases = found[f"2 mm, {steps} steps more"].values()
        dice = [fmean(case[region]["dice"] for case in cases) for region in REGIONS]
        text = rf"after {steps}[^.]*?\s(0\.\d+), (0\.\d+), (0\.\d+)"
        told = re.search(text, CARD.read_text(encoding="utf-8").partition("Seven mirrorings")[2]).groups()
        assert all(same(cell, value) for cell, value in zip(told, dice, strict=True)), (steps, dice)


def test_the_table_of_networks_trained_alike():
    networks = results("network_comparison.json")["networks"]
    first = median(networks["quick"]["step_seconds"])
    rows = table_after(CARD, "| network | cases |")[1:]
    assert [row[0] for row in rows] == list(networks)
    for name, cases, size, step, *dices in rows:
        found = networks[name]
        assert int(cases) == len(found["cases"])
        assert same(size, found["parameters"] / 1e6) and same(step, median(found["step_seconds"]) / first)
        assert all(same(cell, found["mean"][region]["dice"]) for cell, region in zip(dices, REGIONS, strict=True))


@pytest.mark.parametrize("path", [README, CARD])
def test_the_table_of_missing_modalities(path):
    dice = results("missing_modalities.json")["mean_dice"]
    head, *rows = table_after(path, "| missing |")
    if head[1] == "WT":  # a row for what is missing
        found = {row[0]: row[1:] for row in rows}
    else:  # a column
        found = {name: [row[n] for row in rows] for n, name in enumerate(head[1:], start=1)}
    assert len(found) == len(dice)
    for name, cells in found.items():
        expected = dice[MISSING.get(name, name)]
        assert all(same(cell, value) for cell, value in zip(cells, expected, strict=True)), (name, cells, expected)


def test_what_the_brightness_of_coils_costs():
    dice = results("shading.json")["mean_dice"]
    plain, shaded = dice["as it is"], dice["shaded"]
    text = re.search(r"costs ([\d.]+) of WT, ([\d.]+) of TC and ([\d.]+) of ET", README.read_text())
    assert text
    assert all(same(cell, a - b) for cell, a, b in zip(text.groups(), plain, shaded, strict=True))
    said = re.findall(
        r"WT ([\d.]+), TC ([\d.]+), ET ([\d.]+)[;.]", CARD.read_text().partition("brightness of coils")[2]
    )
    assert len(said) == 2
    for cells, values in zip(said, (plain, shaded)):
        assert all(same(cell, value) for cell, value in zip(cells, values, strict=True))


def test_the_limits_of_post_processing_are_those_that_were_fitted():
    fitted = results("cross_validation.json")["limits"]
    shipped = json.loads((CARD.parent / "model.json").read_text())["postprocess"]
    assert {name: shipped[name] for name in fitted} == fitted


# --- the loop


def test_what_the_swap_guard_notices():
    summary = results("swap_guard.json")["summary"]
    prepared = [summary[setting] for setting in ("as prepared", "other cohorts")]
    quiet = [found["nothing exchanged"] for found in prepared]
    pairs = [found for of_setting in prepared for name, found in of_setting.items() if name != "nothing exchanged"]
    (row,) = re.findall(
        r"\| swap guard, (\d+) prepared.*?noticed (\d+) of (\d+).*?in (\d+); (\d+) false",
        README.read_text(encoding="utf-8"),
    )
    cases, noticed, all_of_them, named, alarms = map(int, row)
    assert (cases, alarms) == (sum(q["runs"] for q in quiet), sum(q["false_alarms"] for q in quiet))
    found = [sum(pair[name] for pair in pairs) for name in ("caught", "runs", "named")]
    assert [noticed, all_of_them, named] == found


def test_what_raw_series_and_thick_slices_cost():
    found, text = results("raw_input.json"), README.read_text(encoding="utf-8")
    (row,) = re.findall(
        r"results of `(.+?)` \| Dice WT ([\d.]+), TC ([\d.]+), ET ([\d.]+); ([\d.]+) to ([\d.]+) mm", text
    )
    raw = found["raw"]["brain found"]["against_pair"]
    shifts = [raw[region]["shift_mm"] for region in REGIONS]
    assert row[0] == found["model"]
    expected = [*(raw[region]["dice"] for region in REGIONS), min(shifts), max(shifts)]
    assert all(same(cell, value) for cell, value in zip(row[1:], expected, strict=True)), expected
    (cells,) = re.findall(
        r"against the same at 1 mm \| WT ([\d.]+) to ([\d.]+), TC ([\d.]+) to ([\d.]+), ET ([\d.]+) to ([\d.]+) \|",
        text,
    )
    means = []
    for region in REGIONS:
        of_planes = {}
        for one in found["thick"]:
            of_planes.setdefault(one["plane"], []).append(one["against_as_it_is"][region]["dice"])
        planes = [fmean(value for value in values if value is not None) for values in of_planes.values()]
        means += [min(planes), max(planes)]
    assert all(same(cell, value) for cell, value in zip(cells, means, strict=True)), means
