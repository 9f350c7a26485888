"""Two predictions against each other: by hand on few cases, and through the command."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.evaluation.compare import compare_folders, compare_scores

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def scores(dice, hd95):
    return {
        case: {"dice": {"WT": d}, "hd95": {"WT": h}, "lesions": {"WT": 1}} for case, d, h in zip("pqrstu", dice, hd95)
    }


A = scores([0.5, 0.6, 0.7, 0.8, 0.9, 0.4], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
B = scores([0.6, 0.7, 0.7, 0.9, 0.8, 0.7], [8.0, 9.0, 374.0, 6.0, 4.0, 3.0])


def test_comparison_by_hand():
    result = compare_scores(A, B)
    assert list(result) == ["dice", "hd95"]
    dice, hd95 = result["dice"]["WT"], result["hd95"]["WT"]
    assert (dice["a"], dice["b"], dice["difference"]) == pytest.approx((3.9 / 6, 4.4 / 6, 0.5 / 6))
    assert (dice["better"], dice["same"], dice["worse"]) == (4, 1, 1)
    assert dice["worst"] == [{"case": "t", "a": 0.9, "b": 0.8}]
    # of HD95 less is better: p, t, u gain, q and r lose
    assert (hd95["better"], hd95["same"], hd95["worse"]) == (3, 1, 2)
    assert [row["case"] for row in hd95["worst"]] == ["r", "q"]
    assert hd95["difference"] == pytest.approx((404 - 39) / 6)
    # signs of 0.1 0.1 0 0.1 -0.1 0.3 with a sum of 0.5 or more from 0, of 64: the 0 doubles all. Of the 32 of the
    # others: all + (0.7), one of the four 0.1 negative (0.5), and their mirrors
    assert dice["p"] == pytest.approx((1 + 4) * 2 / 32)
    assert dice["p_exact"]
    # of -1 1 367 0 -1 -1, with a sum of 365, the 367 decides the side: far enough are all in which the four 1 do not
    # sum to -4 on that side, and in which they sum to -2 or more: 1 + 4 + 6 + 4 of 16
    assert hd95["p"] == pytest.approx(15 / 16)
    low, high = dice["ci95"]
    assert 0 <= low + 0.05 < dice["difference"] < high < 0.2
    assert json.loads(json.dumps(result)) == result


def test_order_of_the_cases_does_not_matter():
    assert compare_scores(A, dict(reversed(B.items()))) == compare_scores(A, B)


def test_turning_the_two_round_turns_the_signs():
    there, back = (compare_scores(*pair)["dice"]["WT"] for pair in ((A, B), (B, A)))
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["p"], back["wilcoxon_p"]) == pytest.approx((there["p"], there["wilcoxon_p"]))
    assert (back["better"], back["worse"]) == (there["worse"], there["better"])


def test_nothing_differs():
    row = compare_scores(A, A)["hd95"]["WT"]
    assert (row["p"], row["wilcoxon_p"], row["difference"], row["same"]) == (1.0, 1.0, 0.0, 6)
    assert (row["ci95"], row["worst"]) == ([0.0, 0.0], [])


def test_one_case_has_no_interval():
    row = compare_scores({"p": A["p"]}, {"p": B["p"]})["dice"]["WT"]
    assert (row["ci95"], row["p"], row["better"]) == (None, 1.0, 1)


def test_other_cases_are_refused():
    with pytest.raises(InputError, match="same cases"):
        compare_scores(A, {case: row for case, row in B.items() if case != "q"})


# ---- Folders


@pytest.fixture
def folders(tmp_path):
    """Truths of a cube of ET; A is moved by two voxels in "far" and one in "near", B finds "far" and misses "near"."""
    for folder in ("a", "b", "truths"):
        (tmp_path / folder).mkdir()

    def write(shift, value, *path):
        labels = np.zeros((14, 9, 8), np.uint8)
        labels[2 + shift : 7 + shift, 2:7, 2:6] = value
        nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path.joinpath(*path))

    for case, a, b in (("far", (2, 3), (0, 3)), ("near", (1, 3), (0, 0))):
        write(0, 4, "truths", f"{case}_seg.nii.gz")
        write(*a, "a", f"{case}.nii.gz")
        write(*b, "b", f"{case}.nii.gz")
    return [tmp_path / folder for folder in ("a", "b", "truths")]


def test_folders_by_hand(folders):
    result = compare_folders(*folders, convention="brats2021")
    dice = result["comparison"]["dice"]["ET"]
    assert (dice["a"], dice["b"]) == pytest.approx(((0.6 + 0.8) / 2, 0.5))
    assert (dice["better"], dice["worse"]) == (1, 1)
    assert dice["worst"] == [{"case": "near", "a": pytest.approx(0.8), "b": 0.0}]
    assert result["comparison"]["nsd"]["ET"]["worst"][0] == {"case": "near", "a": 1.0, "b": 0.0}
    assert (result["n"], result["convention"], list(result["a"]["cases"])) == (2, "brats2021", ["far", "near"])
    assert result["b"]["mean"]["hd95"]["ET"] == 187.0


def test_command(folders, capsys):
    arguments = ["compare", *map(str, folders), "--labels", "brats2021"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == compare_folders(*folders, convention="brats2021")
    assert main([*arguments, "--convention", "paper"]) == 0
    text = capsys.readouterr().out
    row = next(line.split() for line in text.splitlines() if line.startswith("Dice") and " ET " in line)
    assert row[:5] == ["Dice", "ET", "0.700", "0.500", "-0.200"]
    assert "near 0.800 -> 0.000" in text
    assert "NSD" not in text


def test_a_missing_prediction_is_named(folders, capsys):
    (folders[1] / "near.nii.gz").unlink()
    assert main(["compare", *map(str, folders), "--labels", "brats2021"]) == 1
    assert "near" in capsys.readouterr().err


def test_two_files_of_different_cases_are_refused(folders):
    with pytest.raises(InputError, match="expected the same cases"):
        compare_folders(folders[0] / "near.nii.gz", folders[1] / "far.nii.gz", folders[2], convention="brats2021")


def test_two_that_are_scored_in_different_regions_are_refused(folders):
    """A found cavities, the 4 of BraTS 2024, and B none: by its labels B is of a model that knows no cavity."""
    for file in folders[0].iterdir():
        image = nib.load(file)
        nib.save(nib.Nifti1Image(np.where(np.asarray(image.dataobj), np.uint8(4), np.uint8(0)), image.affine), file)
    a, b, truths = folders
    for one, other in ((a, b), (b, a)):
        with pytest.raises(InputError, match=r"scored in WT, TC, ET(, RC)? and .*; say .*--prediction-labels"):
            compare_folders(one, other, truths, convention="brats2024")
    both = compare_folders(a, b, truths, convention="brats2024", predicted="brats2024")["comparison"]["dice"]
    assert both["RC"]["a"] == pytest.approx((0.6 + 0.8) / 2)
    assert (both["RC"]["b"], both["ET"]["a"], both["ET"]["b"]) == (0.0, 1.0, 0.5)


# ---- Folders of two conventions


ENGINE = {"NCR": 1, "ED": 2, "ET": 3}
OF_2021 = {"NCR": 1, "ED": 2, "ET": 4}
OF_MSD = {"NCR": 2, "ED": 1, "ET": 3}
OF_2024 = {**ENGINE, "RC": 4}
OF_CHILDREN = {"NCR": 3, "ED": 4, "ET": 1}


@pytest.fixture
def two_tools(tmp_path):
    """Writes truths, a and b of one case, each in values of its own; of every label A has a half and B a quarter."""

    def write(truth, a, b):
        for folder, values, length in (("truths", truth, 8), ("a", a, 4), ("b", b, 2)):
            labels = np.zeros((8, 8, 8), np.uint8)
            for k, value in enumerate(values.values()):
                labels[:length, 2 * k, :4] = value
            (tmp_path / folder).mkdir()
            nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / folder / "p.nii.gz")
        return [tmp_path / folder for folder in ("a", "b", "truths")]

    return write


HALF, QUARTER = 2 * 4 / (4 + 8), 2 * 2 / (2 + 8)


def means(result, region="ET"):
    return result["a"]["mean"]["dice"][region], result["b"]["mean"]["dice"][region]


@pytest.mark.parametrize(
    ("truth", "convention", "a", "predicted", "b", "predicted_b"),
    [
        (ENGINE, "brats2023", ENGINE, None, OF_2021, "brats2021"),
        (ENGINE, "brats2023", ENGINE, "brats2023", OF_2021, "brats2021"),
        (ENGINE, "brats2023", OF_2021, "brats2021", ENGINE, "brats2023"),
        (ENGINE, "brats2023", ENGINE, None, OF_MSD, "msd"),
        (ENGINE, "brats2023", OF_MSD, "msd", OF_2021, "brats2021"),
        (OF_2021, "brats2021", OF_2021, "brats2021", OF_MSD, "msd"),
        (OF_CHILDREN, "brats-ped", ENGINE, "brats2023", OF_CHILDREN, "brats-ped"),
        (OF_2024, "brats2024", ENGINE, "brats2023", OF_2024, "brats2024"),
        (OF_2024, "brats2024", OF_2024, None, OF_2021, "brats2021"),
    ],
)
def test_each_folder_is_read_by_its_own_convention(two_tools, truth, convention, a, predicted, b, predicted_b):
    folders = two_tools(truth, a, b)
    result = compare_folders(*folders, convention=convention, predicted=predicted, predicted_b=predicted_b)
    for region in ("WT", "TC", "ET"):
        assert means(result, region) == pytest.approx((HALF, QUARTER))
        assert result["comparison"]["dice"][region]["difference"] == pytest.approx(QUARTER - HALF)
    assert list(result["a"]["mean"]["dice"]) == list(result["b"]["mean"]["dice"]) == ["WT", "TC", "ET"]


def test_one_convention_told_is_that_of_both(two_tools):
    folders = two_tools(ENGINE, OF_2021, OF_2021)
    assert means(compare_folders(*folders, convention="brats2023", predicted="brats2021")) == pytest.approx(
        (HALF, QUARTER)
    )


def test_the_command_of_the_readme(two_tools, capsys):
    """Our model's labels, another tool's with a 4 for ET, corrected cases: each folder by its own option."""
    arguments = ["compare", *map(str, two_tools(ENGINE, ENGINE, OF_2021)), "--labels", "brats2023", "--json"]
    assert main([*arguments, "--prediction-labels-b", "brats2021"]) == 0
    assert means(json.loads(capsys.readouterr().out)) == pytest.approx((HALF, QUARTER))


@pytest.mark.parametrize(
    ("a", "b", "options", "file", "option"),
    [
        (ENGINE, OF_2021, [], "b/p.nii.gz", "--prediction-labels-b"),
        (OF_2021, ENGINE, [], "a/p.nii.gz", "--prediction-labels"),
        (OF_2021, ENGINE, ["--prediction-labels", "brats2021"], "b/p.nii.gz", "--prediction-labels-b"),
        (OF_2021, ENGINE, ["--prediction-labels-b", "brats2023"], "a/p.nii.gz", "--prediction-labels"),
        (ENGINE, OF_2021, ["--prediction-labels", "brats2021"], "a/p.nii.gz", "--prediction-labels"),
        (ENGINE, OF_2021, ["--prediction-labels-b", "msd"], "b/p.nii.gz", "--prediction-labels-b"),
        (ENGINE, ENGINE, ["--prediction-labels-b", "brats1999"], "brats1999", "--prediction-labels-b"),
        (ENGINE, ENGINE, ["--prediction-labels", "brats1999"], "brats1999", "--prediction-labels"),
    ],
)
def test_what_does_not_fit_names_the_option_of_its_folder(two_tools, capsys, a, b, options, file, option):
    arguments = ["compare", *map(str, two_tools(ENGINE, a, b)), "--labels", "brats2023"]
    assert main([*arguments, *options]) == 1
    error = capsys.readouterr().err
    assert file in error
    assert set(re.findall(r"--[a-z-]*labels[a-z-]*", error)) == {option}
