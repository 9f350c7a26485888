"""Folders of DICOM slices, written by pydicom and real ones."""

import nibabel as nib
import numpy as np
import pytest
from image_files import RIGHT_HANDED, SHAPE, noise, write_dicom
from segmamba.case import load_case
from segmamba.errors import InputError


def test_a_dicom_folder(tmp_path):
    array = np.random.default_rng(0).integers(0, 900, SHAPE)
    folder = write_dicom(tmp_path / "t1c", array, RIGHT_HANDED)
    case = load_case({"t1c": folder}, modalities=("t1c",))
    np.testing.assert_array_equal(case.images["t1c"], array * 2 - 7)
    np.testing.assert_allclose(case.affine, RIGHT_HANDED, atol=1e-4)


def dicom_with_a_gap(tmp_path):
    folder = write_dicom(tmp_path / "d", noise(0), RIGHT_HANDED)
    (folder / "896.dcm").unlink()
    return folder


def dicom_of_two_series(tmp_path):
    write_dicom(tmp_path / "d", noise(0), RIGHT_HANDED)
    return write_dicom(tmp_path / "d", noise(1), RIGHT_HANDED, "1.2.4", 100)


def dicom_of_two_echoes(tmp_path):
    write_dicom(tmp_path / "d", noise(0), RIGHT_HANDED)
    return write_dicom(tmp_path / "d", noise(1), RIGHT_HANDED, first=100)


def dicom_of_a_tilted_gantry(tmp_path):
    sheared = np.diag([1.0, 1, 3, 1])
    sheared[1, 2] = 0.5
    return write_dicom(tmp_path / "d", noise(0), sheared)


def dicom_of_one_slice(tmp_path):
    return write_dicom(tmp_path / "d", noise(0)[:, :, :1], RIGHT_HANDED)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            dicom_with_a_gap,
            r"distance between slices goes from 2.500 to 5.000 mm over 8 slices.*missing slices",
        ),
        (dicom_of_two_series, r"holds 2 DICOM series \('series 1.2.\d' with 9 files, .*folder of its own"),
        (dicom_of_two_echoes, "several slices at one place; expected one volume, not several echoes"),
        (dicom_of_a_tilted_gantry, r"shifted sideways by 0.500 mm.*tilted gantry.*resample"),
        (dicom_of_one_slice, r"one slice, 11 x 14 x 1; expected a 3-D image"),
    ],
)
def test_dicom_that_is_no_block_of_slices(tmp_path, build, text):
    with pytest.raises(InputError, match=text):
        load_case({"t1c": build(tmp_path)}, modalities=("t1c",))


@pytest.mark.parametrize("maker", ["ge", "philips", "siemens"])
def test_real_dicom_becomes_its_nifti(real_dicom, maker):
    folder = real_dicom / maker / "anatomical" / "001"
    case = load_case({"t1n": folder}, modalities=("t1n",))
    truth = nib.as_closest_canonical(nib.load(folder.with_name("001_ground_truth.nii.gz")))
    ours = nib.as_closest_canonical(nib.Nifti1Image(case.images["t1n"], case.affine))
    np.testing.assert_allclose(ours.affine, truth.affine, atol=1e-3)
    np.testing.assert_allclose(ours.get_fdata(), truth.get_fdata(), rtol=1e-5)
