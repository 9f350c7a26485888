"""Evaluation of folders of label maps: which files belong together, what values mean, what comes out."""

import csv
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.labels import LabelScheme
from segmamba.cli import main
from segmamba.datasets.manifest import Dataset, write_dataset
from segmamba.errors import InputError
from segmamba.evaluation.evaluate import evaluate_folders

SHAPE = (9, 14, 6)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 1.5, -20], [0, 0, 0, 1]])  # LPS, 1 x 2 x 1.5 mm
LABELS = {"brats2023": (1, 2, 3), "brats2021": (1, 2, 4), "msd": (2, 1, 3)}  # NCR, ED, ET


def tumour(convention="brats2023", *, ncr=True, ed=True, et=True, shift=0):
    """A label map with 24 voxels of ED, then 24 of NCR, then 24 of ET, in a column along the second axis."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, (there, value) in enumerate(zip((ncr, ed, et), LABELS[convention])):
        start = 1 + shift + (3, 0, 6)[number]
        labels[2:6, start : start + 3, 2:4] = value * there
    return labels


def save(labels, *path, affine=AFFINE):
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), file)
    return file


@pytest.fixture
def folders(tmp_path):
    for name in ("predictions", "truths"):
        (tmp_path / name).mkdir()
    return tmp_path / "predictions", tmp_path / "truths"


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


# ---- Conventions


def test_one_case_with_a_4_settles_the_cohort(folders):
    predictions, truths = folders
    for case, et in (("BraTS2021_1", False), ("BraTS2021_2", True), ("BraTS2021_3", False)):
        save(tumour(et=et), predictions, f"{case}.nii.gz")
        save(tumour("brats2021", et=et), truths, f"{case}.nii.gz")
    result = evaluate_folders(predictions, truths)
    assert result["convention"] == "brats2021"
    assert set(result["mean"]["dice"].values()) == {1.0}


def test_a_4_under_a_name_that_tells_nothing_is_asked_about(folders):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    with pytest.raises(InputError, match=r"fit several .*brats2021, brats2024, brats-ped.*--labels.*4 in a.nii.gz"):
        evaluate_folders(predictions, truths)


@pytest.mark.parametrize("parts", [{}, {"et": False}, {"ncr": False, "et": False}])
def test_a_folder_without_4_must_be_told(folders, parts):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour(**parts), truths, "a.nii.gz")
    with pytest.raises(InputError, match="--labels") as caught:
        evaluate_folders(predictions, truths)
    assert str(truths) in str(caught.value)


def test_a_told_convention_is_used_for_truths_alone(folders):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour("msd"), truths, "a.nii.gz")
    right = evaluate_folders(predictions, truths, convention="msd")
    assert right["convention"] == "msd"
    assert right["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    wrong = evaluate_folders(predictions, truths, convention="brats2023")
    assert wrong["mean"]["dice"]["WT"] == 1.0
    assert wrong["mean"]["dice"]["TC"] == pytest.approx(0.5)


def test_a_prediction_with_a_4_follows_the_truths_or_is_asked_about(folders):
    predictions, truths = folders
    save(tumour("brats2021"), predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    result = evaluate_folders(predictions, truths, convention="brats2021")
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    assert "the predictions hold a 4" in result["notes"][0]
    save(tumour(), truths, "a.nii.gz")
    with pytest.raises(InputError, match=r"holds label 4, which is ET in brats2021, a cavity in .*--prediction-labels"):
        evaluate_folders(predictions, truths, convention="brats2023")
    result = evaluate_folders(predictions, truths, convention="brats2023", predicted="brats2021")
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def parts(**values):
    """Four blocks of 24 voxels each, along the second axis: NCR (CC), ED, ET, and one of RC or NET."""
    labels = np.zeros(SHAPE, np.uint8)
    for k, name in enumerate(("ncr", "ed", "et", "other")):
        labels[2:6, 1 + 3 * k : 4 + 3 * k, 2:4] = values.get(name, 0)
    return labels


ENGINE = parts(ncr=1, ed=2, et=3)
AFTER = parts(ncr=1, ed=2, et=3, other=4)  # a cavity
CHILD = parts(ncr=3, ed=4, et=1)
CHILD_NET = parts(ncr=3, ed=4, et=1, other=2)
MIXES = [  # truth, its convention, prediction, its convention (None: found), Dice by region
    (AFTER, "brats2024", AFTER, None, {"WT": 1, "TC": 1, "ET": 1, "RC": 1}),
    (AFTER, "brats2024", ENGINE, None, {"WT": 1, "TC": 1, "ET": 1}),
    (AFTER, "brats2024", ENGINE, "brats2024", {"WT": 1, "TC": 1, "ET": 1, "RC": 0}),
    (ENGINE, "brats2023", AFTER, "brats2024", {"WT": 1, "TC": 1, "ET": 1}),
    (ENGINE, "brats2023", parts(ncr=1, ed=2, et=4), "brats2021", {"WT": 1, "TC": 1, "ET": 1}),
    (parts(ncr=1, ed=2, et=4), "brats2021", AFTER, "brats2024", {"WT": 1, "TC": 1, "ET": 1}),
    (CHILD, "brats-ped", CHILD, "brats-ped", {"WT": 1, "TC": 1, "ET": 1, "NET": 1, "CC": 1, "ED": 1}),
    (CHILD_NET, "brats-ped", CHILD, "brats-ped", {"WT": 6 / 7, "TC": 4 / 5, "ET": 1, "NET": 0, "CC": 1, "ED": 1}),
    (CHILD, "brats-ped", ENGINE, "brats2023", {"WT": 1, "TC": 1, "ET": 1}),
    (CHILD_NET, "brats-ped", ENGINE, "brats2023", {"WT": 6 / 7, "TC": 4 / 5, "ET": 1}),
    (CHILD, "brats-ped", AFTER, "brats2024", {"WT": 1, "TC": 1, "ET": 1}),
    (ENGINE, "brats-men", ENGINE, None, {"WT": 1, "TC": 1, "ET": 1}),
    (ENGINE, "brats-met", ENGINE, None, {"WT": 1, "TC": 1, "ET": 1}),
    (ENGINE, "brats-ssa", ENGINE, None, {"WT": 1, "TC": 1, "ET": 1}),
    (parts(ncr=2, ed=1, et=3), "msd", ENGINE, None, {"WT": 1, "TC": 1, "ET": 1}),
]


@pytest.mark.parametrize(("truth", "convention", "prediction", "predicted", "dice"), MIXES)
def test_truth_and_prediction_of_any_two_conventions(folders, truth, convention, prediction, predicted, dice):
    predictions, truths = folders
    save(prediction, predictions, "a.nii.gz")
    save(truth, truths, "a.nii.gz")
    result = evaluate_folders(predictions, truths, convention=convention, predicted=predicted)
    assert result["mean"]["dice"] == pytest.approx(dice)
    assert any("only WT, TC and ET" in note for note in result["notes"]) is (
        len(dice) == 3 and ("brats2024" in (convention, predicted) or "brats-ped" in (convention, predicted))
    )


def test_predictions_against_children_are_asked_about(folders):
    predictions, truths = folders
    save(ENGINE, predictions, "BraTS-PED-00001-000.nii.gz")
    save(CHILD, truths, "BraTS-PED-00001-000.nii.gz")
    with pytest.raises(InputError, match=r"--prediction-labels .brats2023 for a model of this program"):
        evaluate_folders(predictions, truths)
    result = evaluate_folders(predictions, truths, predicted="brats2023")
    assert (result["convention"], result["mean"]["dice"]["ET"]) == ("brats-ped", 1.0)


def test_a_prediction_with_3_and_4_is_refused(folders):
    predictions, truths = folders
    labels = tumour("brats2021")
    labels[0, 0, 0] = 3
    file = save(labels, predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    with pytest.raises(InputError, match="3") as caught:
        evaluate_folders(predictions, truths, convention="brats2021")
    assert str(file) in str(caught.value)


MIXED = {"BraTS2021_00006": "brats2021", "BraTS-GLI-00003-001": "brats2023", "BraTS-SSA-00012-000": "brats-ssa"}


def test_truths_of_several_conventions_are_told_apart_by_their_names(folders):
    predictions, truths = folders
    for case, convention in MIXED.items():
        save(tumour(), predictions, f"{case}.nii.gz")
        save(tumour(convention if convention in LABELS else "brats2023"), truths, f"{case}.nii.gz")
    result = evaluate_folders(predictions, truths)
    assert result["convention"] == "brats-ssa, brats2021, brats2023"
    assert set(result["mean"]["dice"].values()) == {1.0}


def test_truths_of_several_conventions_under_names_that_tell_nothing_need_a_table(folders, tmp_path, capsys):
    predictions, truths = folders
    for case, convention in (("old", "brats2021"), ("new", "brats2023"), ("msd", "msd")):
        save(tumour(), predictions, f"{case}.nii.gz")
        save(tumour(convention), truths, f"{case}.nii.gz")
    with pytest.raises(InputError, match=r"3 in \w+\.nii\.gz, 4 in old\.nii\.gz.*--labels TABLE.csv"):
        evaluate_folders(predictions, truths)
    with pytest.raises(InputError, match=r"\w+\.nii\.gz: label values \[3\] are none of"):
        evaluate_folders(predictions, truths, convention="brats2021")
    table = tmp_path / "table.csv"
    table.write_text("case,convention\nold,brats2021\nnew, brats2023\n")
    command = ["evaluate", str(predictions), str(truths), "--json", "--labels", str(table)]
    assert main(command) == 1 and "does not say what msd follow" in capsys.readouterr().err
    table.write_text("case,convention\nold,brats2021\nnew, brats2023\nmsd,msd\n")
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["mean"]["dice"].values()) == {1.0}
    for text in ("old,brats2021\nold,msd\n", "a,b\nold,brats1999\n", "old\n\nnew;msd\n"):
        table.write_text(text)
        assert main(command) == 1 and "table.csv" in capsys.readouterr().err


def test_unknown_convention_is_refused(folders):
    with pytest.raises(InputError, match="brats2020"):
        evaluate_folders(*folders, convention="brats2020")


def test_truths_without_any_label_need_no_convention(folders):
    predictions, truths = folders
    save(np.zeros(SHAPE, np.uint8), truths, "a.nii.gz")
    save(np.zeros(SHAPE, np.uint8), predictions, "a.nii.gz")
    mean = evaluate_folders(predictions, truths)["mean"]
    assert set(mean["dice"].values()) == set(mean["lesion_dice"].values()) == {1.0}
    assert set(mean["hd95"].values()) == set(mean["lesion_hd95"].values()) == {0.0}


# ---- Grids and files


def test_the_storage_of_the_voxels_does_not_matter(folders):
    predictions, truths = folders
    save(tumour().astype(np.float32), predictions, "a.nii.gz")
    save(tumour("brats2021").astype(np.int16), truths, "a.nii")
    assert evaluate_folders(predictions, truths, convention="brats2021")["mean"]["dice"]["ET"] == 1.0


def test_rounding_of_the_affine_is_forgiven_and_no_more(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 4e-2
    far[0, 3] += 6e-2
    save(tumour(), predictions, "a.nii.gz", affine=near)
    assert evaluate_folders(predictions, truths, convention="brats2021")["n"] == 1
    save(tumour(), predictions, "a.nii.gz", affine=far)
    with pytest.raises(InputError, match=r"a\.nii\.gz: does not lie on the grid .*0\.06 mm"):
        evaluate_folders(predictions, truths, convention="brats2021")


def test_another_shape_is_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour()[:, :-1], predictions, "a.nii.gz")
    with pytest.raises(InputError, match=r"\(9, 13, 6\) instead of \(9, 14, 6\)"):
        evaluate_folders(predictions, truths, convention="brats2021")


def test_same_shape_without_geometry_is_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour(), predictions, "a.nii.gz", affine=np.eye(4))
    with pytest.raises(InputError, match="affines differ by up to 40 mm"):
        evaluate_folders(predictions, truths, convention="brats2021")


@pytest.mark.parametrize("axes", ["RAS", "LAS", "SPL", "PIR"])
def test_same_voxels_in_another_orientation_are_told_apart_from_another_grid(folders, axes):
    predictions, truths = folders
    truth = save(tumour("brats2021"), truths, "a.nii.gz")
    image = nib.Nifti1Image(tumour(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), predictions / "a.nii.gz")
    with pytest.raises(InputError, match=rf"same voxels .* another orientation \({axes} instead of LPS\)") as caught:
        evaluate_folders(predictions, truths, convention="brats2021")
    assert str(truth) in str(caught.value)


def test_grids_are_checked_before_anything_is_scored(folders, caplog):
    predictions, truths = folders
    for case in ("a", "b"):
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
        save(tumour(), predictions, f"{case}.nii.gz", affine=AFFINE if case == "a" else np.eye(4))
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=r"b\.nii\.gz"):
        evaluate_folders(predictions, truths, convention="brats2021")
    assert "scored" not in caplog.text


@pytest.mark.parametrize("value", [1.5, -1.0, np.nan, np.inf, 300.0])
def test_values_that_are_no_labels_are_refused(folders, value):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    labels = tumour().astype(np.float32)
    labels[0, 0, 0] = value
    file = save(labels, predictions, "a.nii.gz")
    with pytest.raises(InputError, match="not labels") as caught:
        evaluate_folders(predictions, truths, convention="brats2021")
    assert str(file) in str(caught.value)


def test_vector_images_are_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(np.zeros((*SHAPE, 3), np.uint8), predictions, "a.nii.gz")
    with pytest.raises(InputError, match="3 volumes; expected one 3-D image"):
        evaluate_folders(predictions, truths, convention="brats2021")


def test_unreadable_files_are_named(folders):
    predictions, truths = folders
    truth = save(tumour("brats2021"), truths, "a.nii.gz")
    file = predictions / "a.nii.gz"
    noise = np.random.default_rng(0).integers(0, 3, (40, 50, 30)).astype(np.uint8)
    whole = save(noise, predictions, "whole.nii.gz").read_bytes()
    (predictions / "whole.nii.gz").unlink()
    file.write_bytes(b"this is no image")
    with pytest.raises(InputError, match="damaged") as caught:
        evaluate_folders(predictions, truths, convention="brats2021")
    assert str(file) in str(caught.value)
    file.write_bytes(whole[: len(whole) // 2])  # as a broken download: the header is there
    save(noise, truth)
    with pytest.raises(InputError, match="damaged") as caught:
        evaluate_folders(predictions, truths, convention="brats2023")
    assert str(file) in str(caught.value)


def test_a_damaged_file_is_found_before_anything_is_scored(folders, caplog):
    predictions, truths = folders
    for case in ("a", "b"):
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
        file = save(tumour(), predictions, f"{case}.nii.gz")
    file.write_bytes(file.read_bytes()[:-6])  # the voxels are whole, the checksum is not
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=r"b\.nii\.gz"):
        evaluate_folders(predictions, truths, convention="brats2021")
    assert "scored" not in caplog.text


# ---- Other ways to score


def test_names_tell_brats2023_and_the_result_says_so(folders):
    predictions, truths = folders
    save(tumour(), predictions, "BraTS-GLI-00003-001.nii.gz")
    save(tumour(), truths, "BraTS-GLI-00003-001", "seg.nii.gz")
    result = evaluate_folders(predictions, truths)
    assert (result["convention"], result["mean"]["dice"]["TC"]) == ("brats2023", 1.0)
    assert "BraTS 2023" in result["notes"][0]


def test_the_last_resort_for_open_labels(folders):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour("msd"), truths, "a.nii.gz")
    assert evaluate_folders(predictions, truths, otherwise="msd")["mean"]["dice"]["TC"] == 1.0
    save(tumour("brats2021"), truths, "a.nii.gz")
    with pytest.raises(InputError, match="fit several"):
        evaluate_folders(predictions, truths, otherwise="msd")


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
