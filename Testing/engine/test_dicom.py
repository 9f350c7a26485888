"""Folders of DICOM slices given as images, written by pydicom and real ones."""

import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import PATIENT, head, pydicom, write_enhanced, write_series
from image_files import RIGHT_HANDED, SHAPE, noise, write_dicom
from segmamba.cases.case import load_case, load_label_map
from segmamba.errors import InputError


def test_a_dicom_folder(tmp_path):
    array = np.random.default_rng(0).integers(0, 900, SHAPE)
    folder = write_dicom(tmp_path / "t1c", array, RIGHT_HANDED)
    case = load_case({"t1c": folder}, modalities=("t1c",))
    np.testing.assert_array_equal(case.images["t1c"], array * 2 - 7)
    np.testing.assert_allclose(case.affine, RIGHT_HANDED, atol=1e-4)


def load(folder):
    return load_case({"t1c": folder}, modalities=("t1c",))


def same_image(case, array, affine):
    """The same values at the same places, and the axes in the order of columns, rows and slices."""
    np.testing.assert_allclose(case.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(case.images["t1c"], np.asarray(array, np.float32))


# ---------------------------------------------------------------- what GDCM's reading of a folder got wrong


def test_the_frames_of_an_enhanced_file_lie_where_they_say(tmp_path):
    """GDCM takes them as they come, 1 mm apart, with the first one's rescaling."""
    array, affine = head()
    slopes = 0.5 + 0.25 * np.arange(array.shape[2])
    order = np.random.default_rng(0).permutation(array.shape[2])
    write_enhanced(tmp_path / "e.dcm", array, affine, order, rescale=lambda k: (slopes[k], k - 3))
    same_image(load(tmp_path), array * slopes + np.arange(array.shape[2]) - 3, affine)


def test_whole_numbers_in_the_first_slice_do_not_cut_the_others_off(tmp_path):
    array, affine = head()
    slopes = np.where(np.arange(array.shape[2]) % 7, 0.25, 1)
    write_series(tmp_path, array, affine, each=lambda k: {"RescaleSlope": str(slopes[k]), "RescaleIntercept": "0"})
    same_image(load(tmp_path), array * slopes, affine)


@pytest.mark.parametrize("mm", [0.09, 0.3])
def test_slices_that_are_a_little_off_make_a_volume(tmp_path, mm):
    """Up to 2 % of their distance."""
    array, affine = head()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    normal = lps[:3, 2] / np.linalg.norm(lps[:3, 2])
    places = [lps[:3] @ [0, 0, k, 1] + normal * mm * (k == 6) for k in range(array.shape[2])]
    write_series(tmp_path, array, affine, each=lambda k: {"ImagePositionPatient": [f"{v:.6f}" for v in places[k]]})
    if mm < 0.1:
        return same_image(load(tmp_path), array, affine)
    with pytest.raises(InputError, match=r"is not a volume: uneven distances between slices, 4.7 to 5.3 mm"):
        load(tmp_path)


# ---------------------------------------------------------------- several volumes in one folder


def write_localizer(folder, number=1):
    uid = f"1.2.3.{number}"
    for k, turn in enumerate(([0, 1, 2], [2, 0, 1])):
        array, affine = head((20, 22, 3), (12, 12, 20), k)
        more = {"SeriesInstanceUID": uid, "SeriesDescription": "localizer"}
        write_series(folder, array, affine[:, [*turn, 3]], number, 1 + 3 * k, **more)


def test_what_no_case_is_made_of_is_left_aside_and_told(tmp_path):
    array, affine = head()
    write_localizer(tmp_path)
    write_series(tmp_path, array, affine, 5, SeriesDescription="T1 tra KM")
    write_series(tmp_path, array + 1, affine, 6, SeriesDescription="T1 SUB", ImageType=["DERIVED", "SECONDARY", "SUB"])
    write_series(tmp_path, array[:, :, :4], affine, 7, SeriesDescription="T1 tra KM MIP")
    case = load(tmp_path)
    same_image(case, array, affine)
    (told,) = [line for line in case.notes if "left aside" in line]
    assert told.startswith("t1c: read from series 5; left aside: series 1.1 (localizer); series")
    assert told.endswith("series 6 (a subtraction); series 7 (a projection)")


def test_a_folder_with_one_volume_is_that_volume_whatever_it_looks_like(tmp_path):
    array, affine = head((14, 16, 4))
    write_series(tmp_path, array, affine, 5, SeriesDescription="ADC map")
    same_image(load(tmp_path), array, affine)


def test_several_volumes_that_could_be_meant_are_listed(tmp_path):
    array, affine = head()
    write_localizer(tmp_path)
    write_series(tmp_path, array, affine, 5, SeriesDescription="T1 tra KM")
    write_series(tmp_path, array[:, :, :13], affine, 6, SeriesDescription="T2 tra")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path}: holds 2 DICOM volumes that could be meant (series 5 'T1 tra KM': 15 axial slices every" in text
    assert "; series 6 'T2 tra': 13 axial slices every 5 mm, 14 x 16 pixels of 6 x 5.5 mm" in text
    assert "expected one: put the files of each into a folder of its own, or" in text
    assert "localizer" not in text and not any(value in text for value in PATIENT.values() if len(value) > 1)
    (tmp_path / "s006-893.dcm").unlink()  # one with a fault could be meant all the same
    with pytest.raises(InputError, match=r"2 DICOM volumes .* series 6 .*, but 1 slice missing, after slice 6 of 12"):
        load(tmp_path)


def test_echoes_of_one_series_are_several_volumes(tmp_path):
    array, affine = head()
    for k, echo in enumerate((12, 90)):
        more = {"SeriesInstanceUID": "1.2.3.4", "EchoTime": str(echo)}
        write_series(tmp_path, array + k, affine, 5, 1 + 20 * k, **more)
    with pytest.raises(
        InputError, match=r"2 DICOM volumes that could be meant .series 5.1: 15 axial.*; series 5.2: 15"
    ):
        load(tmp_path)


def test_phase_beside_magnitude_is_left_aside(tmp_path):
    array, affine = head()
    write_series(tmp_path, array, affine, 5, SeriesInstanceUID="1.2.3.4")
    phase = {"SeriesInstanceUID": "1.2.3.4", "ImageType": ["ORIGINAL", "PRIMARY", "P"]}
    write_series(tmp_path, array + 1, affine, 5, 21, **phase)
    same_image(load(tmp_path), array, affine)


@pytest.mark.parametrize("stray", ["turned", "larger"])
def test_slices_that_do_not_fit_the_others_are_not_lost_silently(tmp_path, stray):
    """At the end of a stack no gap gives them away."""
    array, affine = head()
    write_series(tmp_path, array, affine, 5, SeriesInstanceUID="1.2.3.4")
    other = affine.copy()
    other[:3, 3] += 15 * affine[:3, 2]
    if stray == "turned":
        other[:3, :3] = nib.eulerangles.euler2mat(0.05, 0, 0) @ affine[:3, :3]
    shape = (14, 16, 1) if stray == "turned" else (14, 18, 1)
    write_series(tmp_path, head(shape)[0], other, 5, 30, SeriesInstanceUID="1.2.3.4")
    with pytest.raises(InputError, match=r"series 5.1: 1 of its 16 slices are not parallel to the others or differ in"):
        load(tmp_path)


def test_folders_below_are_not_looked_into(tmp_path):
    """Of a folder its own files are the image: they are what its sha256 is taken over."""
    array, affine = head()
    write_series(tmp_path / "below", array, affine)
    with pytest.raises(InputError, match="a folder without a DICOM series; give an image file, or the folder of the"):
        load(tmp_path)
    write_series(tmp_path, array + 1, affine)
    same_image(load(tmp_path), array + 1, affine)


def test_a_label_map_may_be_a_folder_too(tmp_path):
    labels = np.random.default_rng(0).choice([0, 1, 2, 4], (9, 8, 7))
    write_series(tmp_path, labels, head((9, 8, 7))[1])
    np.testing.assert_array_equal(load_label_map(tmp_path, "brats2021", None), np.where(labels == 4, 3, labels))


# ---------------------------------------------------------------- what is not a volume


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


def dicom_of_one_place(tmp_path):
    array, affine = head((9, 8, 5))
    affine[:3, 2] *= 1e-6
    return write_series(tmp_path / "d", array, affine)


def dicom_inverted(tmp_path):
    return write_series(tmp_path / "d", *head(), PhotometricInterpretation="MONOCHROME1")


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
            r"d: series x 'series 1.2.3' is not a volume: 1 slice missing, after slice 4 of 8; look for missing slices",
        ),
        (dicom_of_two_series, r"several DICOM volumes .*'series 1.2.4': 9 .*'series 1.2.3': 9 .*folder of its own"),
        (dicom_of_two_echoes, "several DICOM volumes .*series x.1 .*series x.2 .*; expected one"),
        (dicom_of_one_place, "several slices, and nothing tells them apart"),
        (dicom_inverted, "pixels are MONOCHROME1, expected MONOCHROME2"),
        (dicom_of_a_tilted_gantry, r"slices lie up to 4 mm sideways of the first \(a tilted gantry.*resample"),
        (dicom_of_one_slice, "is not a volume: one slice"),
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


# ---------------------------------------------------------------- slices that cannot be read


@pytest.mark.parametrize("length", [0, 100, 132, 200, 330, 400, 600, 800, 1000, 1100])
def test_slices_whose_files_are_cut_off_are_not_lost_silently(tmp_path, length):
    """At the end of a stack no gap gives them away."""
    write_series(tmp_path, *head())
    for path in sorted(tmp_path.iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        InputError, match=r"s001-885.dcm: looks like DICOM and cannot be read, and 2 more; copy the slices again"
    ):
        load(tmp_path)


def test_what_is_no_slice_may_lie_beside_them(tmp_path):
    array, affine = head()
    write_series(tmp_path, array, affine)
    (tmp_path / "._s001-900.dcm").write_bytes(b"\0\5\x16\7" + bytes(4092))  # of macOS
    (tmp_path / "notes.txt").write_text("x" * 200)
    for name, kind in (("DICOMDIR", "1.2.840.10008.1.3.10"), ("report.dcm", "1.2.840.10008.5.1.4.1.1.88.11")):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, "1.2.3"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data = pydicom.dataset.FileDataset(name, {}, file_meta=meta, preamble=bytes(128))
        data.FileSetID = "X"
        if name != "DICOMDIR":
            data.SOPClassUID = kind
        data.save_as(tmp_path / name, enforce_file_format=True)
    same_image(load(tmp_path), array, affine)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (lambda path: PermissionError(errno.EACCES, "Permission denied", str(path)), "no permission"),
        (lambda _path: OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_slices_that_may_not_be_read_are_not_lost_silently(tmp_path, monkeypatch, error, told):
    write_series(tmp_path, *head())
    usual = Path.open

    def refused(path, *arguments, **more):
        if path.name == "s001-885.dcm":
            raise error(path)
        return usual(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match=rf"s001-885.dcm: {told}"):
        load(tmp_path)
