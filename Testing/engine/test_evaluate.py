"""Evaluation of folders of label maps: which files belong together, other ways to score, what comes out."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from label_maps import AFFINE, SHAPE, save, tumour
from segmamba.cases.labels import LabelScheme
from segmamba.cli import main
from segmamba.datasets.manifest import Dataset, write_dataset
from segmamba.errors import InputError
from segmamba.evaluation.evaluate import evaluate_folders

# ---- The result


def test_scores_by_hand(folders):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour("brats2021", shift=1), truths, "a", "a-seg.nii.gz")
    save(np.zeros(SHAPE, np.uint8), predictions, "b.nii.gz")
    save(tumour("brats2021", et=False), truths, "b", "b-seg.nii.gz")
    result = evaluate_folders(predictions, truths, convention="brats2021")

    assert list(result) == [
        *("cases", "mean", "ci95", "n", "convention", "scoring"),
        *("nsd_tolerance_mm", "lesion_parameters", "without_truth", "notes"),
    ]
    assert (result["n"], result["convention"], result["without_truth"]) == (2, "brats2021", [])
    a, b, mean = result["cases"]["a"], result["cases"]["b"], result["mean"]
    metrics = ["dice", "hd95", "nsd", "lesion_dice", "lesion_hd95", "lesions", "false_positives"]
    assert list(a) == list(mean) == list(result["ci95"]) == metrics
    assert all(list(a[metric]) == ["WT", "TC", "ET"] for metric in a)
    # columns of 9, 6 and 3 layers, moved by one layer of 2 mm
    assert list(a["dice"].values()) == pytest.approx([8 / 9, 5 / 6, 2 / 3])
    assert list(a["hd95"].values()) == pytest.approx([2.0, 2.0, 2.0])
    # of ET, each mask has 4 x 3 x 2 voxels, all surface: the layers at its two ends, 8 + 8 of 48, lie 2 mm off
    assert a["nsd"]["ET"] == pytest.approx(32 / 48)
    # one lesion each, of 24 voxels of 3 mm3 and more
    assert list(a["lesion_dice"].values()) == pytest.approx([8 / 9, 5 / 6, 2 / 3])
    assert list(a["lesion_hd95"].values()) == pytest.approx([2.0, 2.0, 2.0])
    assert b["dice"] == b["lesion_dice"] == {"WT": 0.0, "TC": 0.0, "ET": 1.0}
    assert b["nsd"] == {"WT": 0.0, "TC": 0.0, "ET": 1.0}
    assert [b[count]["TC"] for count in ("lesions", "false_positives")] == [1, 0]
    assert b["hd95"] == b["lesion_hd95"] == {"WT": 374.0, "TC": 374.0, "ET": 0.0}
    assert list(mean["dice"].values()) == pytest.approx([4 / 9, 5 / 12, 5 / 6])
    assert list(mean["hd95"].values()) == pytest.approx([188.0, 188.0, 1.0])
    # of two cases the bootstrap gives 0, 1/2 or 1 of either: its ends are the cases themselves
    assert result["ci95"]["dice"]["ET"] == pytest.approx([2 / 3, 1.0])
    assert json.loads(json.dumps(result)) == result


def test_lesion_scores_differ_from_those_of_the_whole_image(folders):
    predictions, truths = folders
    labels = tumour()
    labels[8, 0, 0] = 3
    save(labels, predictions, "a.nii.gz")
    save(tumour(), truths, "a.nii.gz")
    case = evaluate_folders(predictions, truths, convention="brats2023")["cases"]["a"]
    assert case["dice"]["ET"] == pytest.approx(2 * 24 / (24 + 25))
    assert case["lesion_dice"]["ET"] == 0.5
    assert case["lesion_hd95"]["ET"] == 187.0


# ---- Which file belongs to which case


def test_two_files_are_paired_whatever_their_names(folders):
    predictions, truths = folders
    prediction = save(tumour(), predictions, "answer.nii.gz")
    truth = save(tumour("brats2021"), truths, "case7", "seg.nii.gz")
    result = evaluate_folders(prediction, truth, convention="brats2021")
    assert list(result["cases"]) == ["case7"]
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_one_prediction_against_a_folder_uses_the_whole_folder_for_the_convention(folders):
    predictions, truths = folders
    prediction = save(tumour(et=False), predictions, "a_seg.nii.gz")
    save(tumour("brats2021", et=False), truths, "a.nii.gz")
    save(tumour("brats2021"), truths, "b.nii.gz")
    result = evaluate_folders(prediction, truths, convention="brats2021")
    assert list(result["cases"]) == ["a"]
    assert result["convention"] == "brats2021"
    stranger = save(tumour(), predictions, "c.nii.gz")
    with pytest.raises(InputError, match=r"no truth for case c .* a, b"):
        evaluate_folders(stranger, truths, convention="brats2021")


def test_a_truth_without_prediction_is_an_error_that_names_it(folders):
    predictions, truths = folders
    for case in ("a", "b", "c"):
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
    save(tumour(), predictions, "b.nii.gz")
    save(tumour(), predictions, "C.nii.gz")
    with pytest.raises(InputError, match=r"2 of the 3 truths .*: a, c; predictions without truth: C;"):
        evaluate_folders(predictions, truths, convention="brats2021")


def test_a_prediction_without_truth_is_listed_and_not_scored(folders, caplog):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour(), predictions, "a.nii.gz")
    (predictions / "z.nii.gz").write_bytes(b"never opened")
    with caplog.at_level(logging.WARNING):
        result = evaluate_folders(predictions, truths, convention="brats2021")
    assert (result["without_truth"], result["n"]) == (["z"], 1)
    assert "z" in caplog.text


def test_scoring_of_the_paper(folders):
    predictions, truths = folders
    save(tumour(shift=1), predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour(et=False), predictions, "b.nii.gz")
    save(tumour("brats2021", et=False), truths, "b.nii.gz")
    result = evaluate_folders(predictions, truths, scoring="paper", convention="brats2021")
    assert list(result["mean"]) == ["dice", "hd95"]
    assert result["cases"]["a"]["dice"]["ET"] == pytest.approx(2 / 3)
    assert result["cases"]["b"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 0.0}
    assert result["cases"]["b"]["hd95"] == {"WT": 0.0, "TC": 0.0, "ET": 50.0}


def test_tolerance_of_nsd(folders):
    predictions, truths = folders
    save(tumour(shift=1), predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    for tolerance, expected in ((1.999, 32 / 48), (2.0, 1.0)):
        result = evaluate_folders(predictions, truths, tolerance=tolerance, convention="brats2021")
        assert result["mean"]["nsd"]["ET"] == pytest.approx(expected)
        assert result["nsd_tolerance_mm"] == tolerance


def test_an_interval_needs_two_cases(folders):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    assert evaluate_folders(predictions, truths, convention="brats2021")["ci95"] is None


def test_a_grid_that_is_not_1_mm_is_noted(folders):
    predictions, truths = folders
    for case, affine in (("a", AFFINE), ("b", np.diag([-1.0, 1, 1, 1]))):
        save(tumour(), predictions, f"{case}.nii.gz", affine=affine)
        save(tumour("brats2021"), truths, f"{case}.nii.gz", affine=affine)
    (note,) = evaluate_folders(predictions, truths, convention="brats2021")["notes"]
    assert note.startswith("1 of 2 cases are not on a grid of 1 mm")


CT = LabelScheme(labels={"airway": 1, "vessel": 2}, regions={"airway": ("airway",), "tree": ("airway", "vessel")})


def lung(values):
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 1:7, 2:4] = values[0]
    labels[2:6, 7:9, 2:4] = values[1]
    return labels


def test_another_task_has_labels_and_regions_of_its_own(folders):
    predictions, truths = folders
    save(lung((1, 2)), predictions, "a.nii.gz")
    save(lung((255, 0)), truths, "a.nii.gz")
    result = evaluate_folders(predictions, truths, scheme=CT, renumbering={255: 1, 9: 2})
    assert result["cases"]["a"]["dice"] == {"airway": 1.0, "tree": pytest.approx(2 * 48 / (48 + 64))}
    assert result["convention"] == "data set"
    assert any("adult glioma" in note for note in result["notes"])
    save(lung((255, 9)), predictions, "a.nii.gz")  # as the data set's files have it
    assert evaluate_folders(predictions, truths, scheme=CT, renumbering={255: 1, 9: 2})["cases"] == result["cases"]
    save(lung((1, 3)), predictions, "a.nii.gz")
    with pytest.raises(InputError, match=r"a\.nii\.gz: label values \[3\]"):
        evaluate_folders(predictions, truths, scheme=CT, renumbering={255: 1, 9: 2})
    with pytest.raises(InputError, match="airway, vessel: nothing says"):
        evaluate_folders(predictions, truths, scheme=CT)


def test_labels_of_a_truth_that_the_data_set_does_not_have_are_refused(folders):
    predictions, truths = folders
    save(lung((1, 2)), predictions, "a.nii.gz")
    save(lung((1, 2)), truths, "a.nii.gz")
    with pytest.raises(InputError, match=r"truths.a\.nii\.gz: label values \[1, 2\] are none of \[9, 255\]"):
        evaluate_folders(predictions, truths, scheme=CT, renumbering={255: 1, 9: 2})


# ---- Several processes, and the command


@pytest.fixture
def three_cases(folders):
    predictions, truths = folders
    for shift, case in enumerate("cab"):
        save(tumour(shift=shift), predictions, f"{case}.nii.gz")
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
    return str(predictions), str(truths)


def test_processes_change_nothing(three_cases):
    one, two = (evaluate_folders(*three_cases, convention="brats2021", jobs=jobs) for jobs in (1, 2))
    assert json.dumps(one) == json.dumps(two)
    (Path(three_cases[0]) / "b.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        evaluate_folders(*three_cases, convention="brats2021", jobs=2)
    with pytest.raises(InputError, match="--jobs 0"):
        evaluate_folders(*three_cases, convention="brats2021", jobs=0)


def test_command_writes_json_table_and_csv(three_cases, tmp_path, capsys):
    assert (
        main(["evaluate", *three_cases, "--labels", "brats2021", "--json", "--csv", str(tmp_path / "scores.csv")]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result == evaluate_folders(*three_cases, convention="brats2021")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    for row in rows:
        for metric, regions in result["cases"][row["case"]].items():
            assert all(float(row[f"{metric}_{region}"]) == value for region, value in regions.items())

    assert main(["evaluate", *three_cases, "--labels", "brats2021"]) == 0
    lines = capsys.readouterr().out.splitlines()
    whole = next(line.split() for line in lines if line.startswith("a "))
    assert whole[1:7] == ["0.889", "0.833", "0.667", "2.00", "2.00", "2.00"]  # moved by one layer
    assert lines[1].split()[:5] == ["case", "Dice", "WT", "Dice", "TC"]
    dice = next(line for line in lines if line.startswith("Dice "))
    low, high = result["ci95"]["dice"]["ET"]
    assert f"{result['mean']['dice']['ET']:.3f} [{low:.3f}, {high:.3f}]" in dice
    assert "cases: 3; labels of the truths: brats2021" in lines
    assert lines[-1].startswith("note: 3 of 3 cases are not on a grid of 1 mm")


def test_command_with_the_labels_and_scoring_told(three_cases, capsys):
    for file in Path(three_cases[1]).iterdir():
        save(tumour("msd"), file)
    assert main(["evaluate", *three_cases]) == 1
    assert "--labels" in capsys.readouterr().err
    assert main(["evaluate", *three_cases, "--convention", "msd"]) == 1
    assert "--labels msd" in capsys.readouterr().err
    assert main(["evaluate", *three_cases, "--labels", "msd", "--convention", "paper", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scoring"], result["cases"]["c"]["dice"]["TC"]) == ("paper", 1.0)
    # as a caller of BraTS 2023's evaluation says it
    assert main(["evaluate", *three_cases, "--convention", "brats2023", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["convention"] == "brats2023"


def test_command_refuses_a_csv_without_folder_before_the_work(three_cases, tmp_path, capsys):
    assert main(["evaluate", *three_cases, "--csv", str(tmp_path / "nowhere" / "x.csv")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_command_with_a_data_set(folders, tmp_path, capsys):
    predictions, truths = folders
    write_dataset(
        Dataset(
            name="lungs",
            modalities=("ct",),
            labels=CT.labels,
            regions=CT.regions,
            label_values={"255": "airway", "9": "vessel"},
            cases=(),
            folder=str(tmp_path),
        )
    )
    save(lung((1, 2)), predictions, "a.nii.gz")
    save(lung((255, 9)), truths, "a-seg.nii.gz")
    save(lung((255, 9)), truths, "a-ct.nii.gz")
    assert main(["evaluate", str(predictions), str(truths), "--dataset", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["dice"] == {"airway": 1.0, "tree": 1.0}
    assert main(["evaluate", str(predictions), str(truths), "--dataset", str(tmp_path), "--labels", "msd"]) == 1
    assert "--dataset" in capsys.readouterr().err
