"""Evaluation of folders of label maps: grids, and files that are no label maps."""

import logging

import nibabel as nib
import numpy as np
import pytest
from label_maps import AFFINE, SHAPE, save, tumour
from segmamba.errors import InputError
from segmamba.evaluation.evaluate import evaluate_folders


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
