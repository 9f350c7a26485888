"""Evaluation of folders of label maps: what the values mean."""

import json

import numpy as np
import pytest
from label_maps import LABELS, SHAPE, save, tumour
from segmamba.cases.labels import GLIOMA, LabelScheme
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.evaluation.evaluate import evaluate_folders


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


OWN = {2: 1, 1: 2, 4: 3}  # as of a data set made with --label ED=2 --label NCR=1 --label ET=4
OF_OWN = LabelScheme(labels={"ED": 1, "NCR": 2, "ET": 3}, regions=GLIOMA.regions)


def test_one_case_with_a_4_settles_all_predictions_of_a_data_set(folders):
    predictions, truths = folders
    for case, et in (("c0", False), ("c1", True)):
        for folder in folders:
            save(tumour("brats2021", et=et), folder, f"{case}.nii.gz")
    result = evaluate_folders(predictions, truths, scheme=OF_OWN, renumbering=OWN)
    assert [set(scores["dice"].values()) for scores in result["cases"].values()] == [{1.0}, {1.0}]
    assert any(note.startswith("the predictions hold a 4: taken for the values of the") for note in result["notes"])


def test_predictions_with_the_labels_of_a_model_are_read_as_such(folders):
    predictions, truths = folders
    for case, et in (("c0", False), ("c1", True)):
        labels = tumour("brats2021", et=et)
        save(labels, truths, f"{case}.nii.gz")
        save(np.array([0, 2, 1, 0, 3], np.uint8)[labels], predictions, f"{case}.nii.gz")
    result = evaluate_folders(predictions, truths, scheme=OF_OWN, renumbering=OWN)
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    assert not any("the predictions" in note for note in result["notes"])
    save(tumour("brats2021"), predictions, "c1.nii.gz")  # some with a model's labels, others with the files'
    save(tumour("msd"), predictions, "c0.nii.gz")
    with pytest.raises(InputError, match=r"c1\.nii\.gz: label values \[4\]"):
        evaluate_folders(predictions, truths, scheme=OF_OWN, renumbering=OWN)


def test_what_is_open_in_the_predictions_of_a_data_set_is_said(folders):
    predictions, truths = folders
    for folder in folders:
        save(tumour("brats2021", et=False), folder, "c0.nii.gz")
    result = evaluate_folders(predictions, truths, scheme=OF_OWN, renumbering=OWN)
    assert result["mean"]["dice"]["TC"] == 0
    (note,) = (note for note in result["notes"] if "the predictions" in note)
    assert "1 ED, 2 NCR, 3 ET" in note and "the files have 1 NCR, 2 ED, 4 ET" in note


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
