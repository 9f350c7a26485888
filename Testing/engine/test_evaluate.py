"""Evaluation of folders of label maps: which files belong together, what values mean, what comes out."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.errors import InputError
from segmamba.evaluate import evaluate_folders, find_label_maps, format_table

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
    result = evaluate_folders(predictions, truths)

    assert list(result) == ["cases", "mean", "n", "convention", "without_truth"]
    assert (result["n"], result["convention"], result["without_truth"]) == (2, "brats2021", [])
    a, b, mean = result["cases"]["a"], result["cases"]["b"], result["mean"]
    assert list(a) == list(mean) == ["dice", "hd95", "lesion_dice", "lesion_hd95"]
    assert all(list(a[metric]) == ["WT", "TC", "ET"] for metric in a)
    # columns of 9, 6 and 3 layers, moved by one layer of 2 mm
    assert list(a["dice"].values()) == pytest.approx([8 / 9, 5 / 6, 2 / 3])
    assert list(a["hd95"].values()) == pytest.approx([2.0, 2.0, 2.0])
    # one lesion each, of 24 voxels of 3 mm3 and more
    assert list(a["lesion_dice"].values()) == pytest.approx([8 / 9, 5 / 6, 2 / 3])
    assert list(a["lesion_hd95"].values()) == pytest.approx([2.0, 2.0, 2.0])
    assert b["dice"] == b["lesion_dice"] == {"WT": 0.0, "TC": 0.0, "ET": 1.0}
    assert b["hd95"] == b["lesion_hd95"] == {"WT": 374.0, "TC": 374.0, "ET": 0.0}
    assert list(mean["dice"].values()) == pytest.approx([4 / 9, 5 / 12, 5 / 6])
    assert list(mean["hd95"].values()) == pytest.approx([188.0, 188.0, 1.0])
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


def test_table(folders):
    predictions, truths = folders
    save(tumour(), predictions, "case-one.nii.gz")
    save(tumour("brats2021", shift=1), truths, "case-one.nii.gz")
    save(tumour(), predictions, "another.nii.gz")
    text = format_table(evaluate_folders(predictions, truths))
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("case-one"))
    assert row.split() == ["case-one", "0.889", "0.833", "0.667", "2.00", "2.00", "2.00"]
    assert sum(line.startswith("mean") for line in lines) == 2
    assert next(line for line in lines if line.startswith("case ")).split() == ["case"] + ["WT", "TC", "ET"] * 2
    assert any("Whole image" in line for line in lines)
    assert any("Lesion" in line for line in lines)
    assert "brats2021" in text
    assert "another" in lines[-1]
    assert max(map(len, lines)) <= 80


# ---- Which file belongs to which case


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("BraTS-GLI-00003-001.nii.gz", "BraTS-GLI-00003-001"),
        ("BraTS-GLI-00003-001-seg.nii.gz", "BraTS-GLI-00003-001"),
        ("BraTS2021_00006_seg.nii.gz", "BraTS2021_00006"),
        ("x.seg.2.nii", "x.seg.2"),
        ("BraTS2021_00006/seg.nii.gz", "BraTS2021_00006"),
        ("BraTS2021_00006/BraTS2021_00006_seg.nii.gz", "BraTS2021_00006"),
        ("patient 7/answer-seg.nii.gz", "patient 7"),
    ],
)
def test_case_ids(tmp_path, file, case):
    where = tmp_path / "folder"
    path = save(tumour(), where, file)
    assert find_label_maps(where) == {case: path}


def test_images_and_leftovers_are_passed_over(tmp_path):
    expected = save(tumour(), tmp_path, "b", "b-seg.nii.gz")
    other = save(tumour(), tmp_path, "a.nii.gz")
    for name in ("b/b-t1c.nii.gz", "b/b_flair.nii.gz", "a-t2f.nii.gz", "a_t1ce.nii", "t1n.nii.gz"):
        save(tumour(), tmp_path, name)
    (tmp_path / "._a.nii.gz").write_bytes(b"not an image")
    (tmp_path / "b" / "._b-seg.nii.gz").write_bytes(b"not an image")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    assert find_label_maps(tmp_path) == {"a": other, "b": expected}
    assert list(find_label_maps(tmp_path)) == ["a", "b"]


def test_a_case_folder_itself(tmp_path):
    file = save(tumour(), tmp_path, "BraTS2021_00006", "seg.nii.gz")
    save(tumour(), tmp_path, "BraTS2021_00006", "t1c.nii.gz")
    assert find_label_maps(file.parent) == {"BraTS2021_00006": file}


def test_two_label_maps_of_one_case_are_refused(tmp_path):
    save(tumour(), tmp_path, "a.nii.gz")
    save(tumour(), tmp_path, "a", "seg.nii.gz")
    with pytest.raises(InputError, match="case a has two label maps"):
        find_label_maps(tmp_path)


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(InputError, match="no label maps"):
        find_label_maps(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        find_label_maps(tmp_path / "nowhere")


def test_two_files_are_paired_whatever_their_names(folders):
    predictions, truths = folders
    prediction = save(tumour(), predictions, "answer.nii.gz")
    truth = save(tumour("brats2021"), truths, "case7", "seg.nii.gz")
    result = evaluate_folders(prediction, truth)
    assert list(result["cases"]) == ["case7"]
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_one_prediction_against_a_folder_uses_the_whole_folder_for_the_convention(folders):
    predictions, truths = folders
    prediction = save(tumour(et=False), predictions, "a_seg.nii.gz")
    save(tumour("brats2021", et=False), truths, "a.nii.gz")
    save(tumour("brats2021"), truths, "b.nii.gz")
    result = evaluate_folders(prediction, truths)
    assert list(result["cases"]) == ["a"]
    assert result["convention"] == "brats2021"
    stranger = save(tumour(), predictions, "c.nii.gz")
    with pytest.raises(InputError, match=r"no truth for case c .* a, b"):
        evaluate_folders(stranger, truths)


def test_a_truth_without_prediction_is_an_error_that_names_it(folders):
    predictions, truths = folders
    for case in ("a", "b", "c"):
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
    save(tumour(), predictions, "b.nii.gz")
    save(tumour(), predictions, "C.nii.gz")
    with pytest.raises(InputError, match=r"2 of the 3 truths .*: a, c; predictions without truth: C;"):
        evaluate_folders(predictions, truths)


def test_a_prediction_without_truth_is_listed_and_not_scored(folders, caplog):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour(), predictions, "a.nii.gz")
    (predictions / "z.nii.gz").write_bytes(b"never opened")
    with caplog.at_level(logging.WARNING):
        result = evaluate_folders(predictions, truths)
    assert (result["without_truth"], result["n"]) == (["z"], 1)
    assert "z" in caplog.text


# ---- Conventions


def test_one_case_with_a_4_settles_the_folder(folders):
    predictions, truths = folders
    for case, et in (("a", False), ("b", True), ("c", False)):
        save(tumour(et=et), predictions, f"{case}.nii.gz")
        save(tumour("brats2021", et=et), truths, f"{case}.nii.gz")
    result = evaluate_folders(predictions, truths)
    assert result["convention"] == "brats2021"
    assert set(result["mean"]["dice"].values()) == {1.0}


@pytest.mark.parametrize("parts", [{}, {"et": False}, {"ncr": False, "et": False}])
def test_a_folder_without_4_must_be_told(folders, parts):
    predictions, truths = folders
    save(tumour(), predictions, "a.nii.gz")
    save(tumour(**parts), truths, "a.nii.gz")
    with pytest.raises(InputError, match="--convention") as caught:
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


def test_a_prediction_with_a_4_is_brats2021(folders):
    predictions, truths = folders
    save(tumour("brats2021"), predictions, "a.nii.gz")
    save(tumour(), truths, "a.nii.gz")
    result = evaluate_folders(predictions, truths, convention="brats2023")
    assert result["mean"]["dice"] == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_a_prediction_with_3_and_4_is_refused(folders):
    predictions, truths = folders
    labels = tumour("brats2021")
    labels[0, 0, 0] = 3
    file = save(labels, predictions, "a.nii.gz")
    save(tumour("brats2021"), truths, "a.nii.gz")
    with pytest.raises(InputError, match="3") as caught:
        evaluate_folders(predictions, truths)
    assert str(file) in str(caught.value)


def test_truths_that_mix_conventions_are_refused(folders):
    predictions, truths = folders
    for case, convention in (("old", "brats2021"), ("new", "brats2023")):
        save(tumour(), predictions, f"{case}.nii.gz")
        save(tumour(convention), truths, f"{case}.nii.gz")
    with pytest.raises(InputError, match=r"3 in new\.nii\.gz, 4 in old\.nii\.gz"):
        evaluate_folders(predictions, truths)
    with pytest.raises(InputError, match=r"new\.nii\.gz"):
        evaluate_folders(predictions, truths, convention="brats2021")


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
    assert evaluate_folders(predictions, truths)["mean"]["dice"]["ET"] == 1.0


def test_rounding_of_the_affine_is_forgiven_and_no_more(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 5e-4
    far[0, 3] += 5e-3
    save(tumour(), predictions, "a.nii.gz", affine=near)
    assert evaluate_folders(predictions, truths)["n"] == 1
    save(tumour(), predictions, "a.nii.gz", affine=far)
    with pytest.raises(InputError, match=r"a\.nii\.gz: does not lie on the grid .*0\.005 mm"):
        evaluate_folders(predictions, truths)


def test_another_shape_is_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour()[:, :-1], predictions, "a.nii.gz")
    with pytest.raises(InputError, match=r"\(9, 13, 6\) instead of \(9, 14, 6\)"):
        evaluate_folders(predictions, truths)


def test_same_shape_without_geometry_is_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(tumour(), predictions, "a.nii.gz", affine=np.eye(4))
    with pytest.raises(InputError, match="affines differ by up to 40 mm"):
        evaluate_folders(predictions, truths)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "SPL", "PIR"])
def test_same_voxels_in_another_orientation_are_told_apart_from_another_grid(folders, axes):
    predictions, truths = folders
    truth = save(tumour("brats2021"), truths, "a.nii.gz")
    image = nib.Nifti1Image(tumour(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), predictions / "a.nii.gz")
    with pytest.raises(InputError, match=rf"same voxels .* another orientation \({axes} instead of LPS\)") as caught:
        evaluate_folders(predictions, truths)
    assert str(truth) in str(caught.value)


def test_grids_are_checked_before_anything_is_scored(folders, caplog):
    predictions, truths = folders
    for case in ("a", "b"):
        save(tumour("brats2021"), truths, f"{case}.nii.gz")
        save(tumour(), predictions, f"{case}.nii.gz", affine=AFFINE if case == "a" else np.eye(4))
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=r"b\.nii\.gz"):
        evaluate_folders(predictions, truths)
    assert "scored" not in caplog.text


@pytest.mark.parametrize("value", [1.5, -1.0, np.nan, np.inf, 300.0])
def test_values_that_are_no_labels_are_refused(folders, value):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    labels = tumour().astype(np.float32)
    labels[0, 0, 0] = value
    file = save(labels, predictions, "a.nii.gz")
    with pytest.raises(InputError, match="no labels") as caught:
        evaluate_folders(predictions, truths)
    assert str(file) in str(caught.value)


def test_vector_images_are_refused(folders):
    predictions, truths = folders
    save(tumour("brats2021"), truths, "a.nii.gz")
    save(np.zeros((*SHAPE, 3), np.uint8), predictions, "a.nii.gz")
    with pytest.raises(InputError, match="three axes"):
        evaluate_folders(predictions, truths)


def test_unreadable_files_are_named(folders):
    predictions, truths = folders
    truth = save(tumour("brats2021"), truths, "a.nii.gz")
    file = predictions / "a.nii.gz"
    noise = np.random.default_rng(0).integers(0, 3, (40, 50, 30)).astype(np.uint8)
    whole = save(noise, predictions, "whole.nii.gz").read_bytes()
    (predictions / "whole.nii.gz").unlink()
    file.write_bytes(b"this is no image")
    with pytest.raises(InputError, match="cannot be read") as caught:
        evaluate_folders(predictions, truths)
    assert str(file) in str(caught.value)
    file.write_bytes(whole[: len(whole) // 2])  # as a broken download: the header is there
    save(noise, truth)
    with pytest.raises(InputError, match="cannot be read") as caught:
        evaluate_folders(predictions, truths, convention="brats2023")
    assert str(file) in str(caught.value)
