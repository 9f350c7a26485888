"""Which series are in a folder, and which four make a case; folders as scanners fill them."""

import errno
import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, head, write_series
from examinations import FLAIR, SMALL, SPACING, T1, T2, add, by_name, four, names
from pydicom.uid import MRSpectroscopyStorage, generate_uid
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.images.dicom import choose_four, doubt, find_series

MPRAGE = {"ScanningSequence": ["GR", "IR"], "RepetitionTime": "1900", "EchoTime": "2.9", "InversionTime": "900"}


def others(root):
    """Eight series that no case is made of, as examinations have them."""
    array, affine = head(SMALL, (10.0, 10.0, 10.0))
    uid = generate_uid()
    for k, plane in enumerate((affine, affine[:, [0, 2, 1, 3]])):  # alike but for their planes
        write_series(
            *(root, array[:, :, :3], plane @ np.diag([1, 1, 4, 1]), 1),
            first=1 + 3 * k,
            SeriesInstanceUID=uid,
            SeriesDescription="Localizer",
        )
    array, affine = head(SMALL, SPACING)
    uid = generate_uid()
    for k, value in enumerate((0, 1000)):
        write_series(
            *(root, array, affine, 6),
            first=1 + 20 * k,
            SeriesInstanceUID=uid,
            SeriesDescription="ep2d_diff",
            ScanningSequence="EP",
            DiffusionBValue=float(value),
        )
    add(root, 7, "ep2d_diff_ADC", {}, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"])
    uid = generate_uid()
    for k in range(5):
        write_series(
            *(root, array[:, :, :9], affine, 8),
            first=1 + 20 * k,
            SeriesInstanceUID=uid,
            SeriesDescription="volumes 1",
            AcquisitionTime=f"1008{k:02d}",
            AcquisitionNumber=k,
            RepetitionTime="1500",
            EchoTime="30",
        )
    add(root, 10, "T1 SE tra KM MIP", T1, ImageType=["DERIVED", "SECONDARY", "MIP"])
    add(root, 11, "T1 SUB", T1)
    add(root, 12, "T2* hemo", {"ScanningSequence": "GR", "RepetitionTime": "700", "EchoTime": "22"})
    add(root, 13, "T1 SE fine", T1, shape=(8, 8, 13), spacing=(10, 10, 2))


def test_four_among_eight_others(tmp_path):
    four(tmp_path / "a" / "deep")
    others(tmp_path / "b")
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 20)
    (tmp_path / "DICOMDIR").write_bytes(next((tmp_path / "b").glob("*.dcm")).read_bytes()[:60])
    for copy in list((tmp_path / "a" / "deep").glob("s009*"))[:4]:
        (tmp_path / "b" / f"copy-{copy.name}").write_bytes(copy.read_bytes())
    found = by_name(tmp_path)
    assert list(found) == ["1.1", "1.2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13"]
    assert names(choose_four(list(found.values()))) == {"t1n": "3", "t1c": "9", "t2w": "4", "t2f": "5"}
    left_out = {name: series.left_out for name, series in found.items() if series.left_out}
    assert left_out == {
        "1.1": "localizer",
        "1.2": "localizer",
        "6": "diffusion",
        "7": "diffusion",
        "8": "5 volumes over time at one place (perfusion or another dynamic series)",
        "10": "a projection",
        "11": "a subtraction",
        "12": "susceptibility",
        "13": "covers 26 mm only, not a head",
    }
    assert all(found[name].guess.confidence > 0.9 for name in ("3", "4", "5", "9"))
    assert found["9"].guess.reason == (
        "TE 12, TR 550 ms of T1; named T1; described as with contrast agent; contrast agent noted in the header"
    )
    told = "2 files that may be slices of it look like DICOM and cannot be read: were they copied whole?"
    assert (len(found["9"].frames), found["9"].geometry.notes) == (13, (told,))


def test_what_a_folder_without_the_four_lacks(tmp_path):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 5, "FLAIR tra", FLAIR)
    with pytest.raises(InputError, match=r"^no series for t1c \(T1 with contrast agent\), t2w \(T2\); `segmamba dicom"):
        choose_four(find_series(tmp_path))
    add(tmp_path, 4, "T2 TSE tra", T2, each=lambda k: {"ImagePositionPatient": [0, 0, k * k]})
    with pytest.raises(
        InputError, match=r"; series 4 could be t2w, but: uneven distances between slices, 0.995 to 22.9 mm; "
    ):
        choose_four(find_series(tmp_path))
    found = find_series(tmp_path)
    assert names(choose_four(found, modalities=("t1n", "t2f"))) == {"t1n": "3", "t2f": "5"}


def test_equally_good_series_are_named_and_one_can_be_taken(tmp_path):
    four(tmp_path)
    add(tmp_path, 14, "T1 SE tra KM repeat", T1, ContrastBolusAgent="Gadovist")
    found = find_series(tmp_path)
    with pytest.raises(InputError) as error:
        choose_four(found)
    assert str(error.value) == (
        "2 candidates for t1c: 14 ('T1 SE tra KM repeat', 13 slices every 6 mm), 9 ('T1 SE tra KM', 13 slices every "
        "6 mm); say --series t1c=14, or another"
    )
    assert names(choose_four(found, {"t1c": "9"}))["t1c"] == "9"


def test_the_finer_series_is_taken_and_an_original_before_a_reformat(tmp_path):
    four(tmp_path)
    fine = {"shape": (8, 8, 13), "spacing": (10.0, 10.0, 6.0)}
    add(tmp_path, 14, "T1 MPRAGE KM", MPRAGE, (32, 32, 40), (2.5, 2.5, 2.5), ContrastBolusAgent="x")
    mpr = ["DERIVED", "SECONDARY", "MPR"]
    add(tmp_path, 15, "T1 MPRAGE KM", MPRAGE, (32, 32, 40), (2.5, 2.5, 2.4), ContrastBolusAgent="x", ImageType=mpr)
    add(tmp_path, 16, "T1 MPRAGE KM", MPRAGE, **fine, ContrastBolusAgent="x")
    choice = choose_four(find_series(tmp_path))["t1c"]
    assert choice.series.name == "14"
    assert "taken before series 9, 15, 16, which are coarser, reformatted or less sure" in choice.reason


def test_agent_once_given_stays(tmp_path):
    """Two T1 series with one name, and nothing about contrast agent but a perfusion between them."""
    add(tmp_path, 3, "T1 MPRAGE", MPRAGE)
    others(tmp_path)
    add(tmp_path, 20, "perfusion", {"ScanningSequence": "EP"}, AcquisitionTime="102000")
    add(tmp_path, 21, "T1 MPRAGE", MPRAGE, AcquisitionTime="103000")
    found = by_name(tmp_path)
    assert found["3"].guess.modality == "t1n"
    assert found["21"].guess.modality == "t1c"
    assert "taken after contrast agent was first given" in found["21"].guess.reason
    assert 0.5 < found["21"].guess.confidence < 0.99


@pytest.mark.parametrize(
    ("description", "noted", "expected", "sure"),
    [
        ("AX T1 -C", None, "t1n", True),
        ("AX T1 +C", None, "t1c", True),
        ("AX T1 GRE +C", "Gadovist", "t1c", True),
        ("AX T1", "Gadovist", "t1c", True),
        ("AX T1", "NO", "t1n", True),
        ("AX T1 -C", "Gadovist", "t1n", False),  # the header may be that of the whole examination
        ("AX T1 +C", "NONE", "t1c", False),
        ("AX T1 +C", "without contrast", "t1c", False),
    ],
)
def test_words_and_header_have_a_say(tmp_path, description, noted, expected, sure):
    add(tmp_path, 3, description, T1, ContrastBolusAgent=noted)
    (series,) = find_series(tmp_path)
    assert series.guess.modality == expected
    assert 0.5 < series.guess.confidence < (1 if sure else 0.8) and (series.guess.confidence > 0.9) is sure


def test_a_description_that_says_both_is_asked_about(tmp_path):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 4, "T2 TSE tra", T2)
    add(tmp_path, 5, "FLAIR tra", FLAIR)
    add(tmp_path, 9, "AX T1 +/- C", T1)
    for incomplete in (False, True):
        with pytest.raises(InputError, match=r"no series for t1c.*"):
            choose_four(find_series(tmp_path), incomplete=incomplete)
    assert names(choose_four(find_series(tmp_path), {"t1c": "9"}))["t1n"] == "3"


@pytest.mark.parametrize("description", ["T1 ORBIT +C", "AX T1 PERF +C", "T1 VESSEL WALL POST", "T1 SELLA KM"])
def test_a_series_left_out_for_a_word_is_named_where_it_could_be_what_is_missing(tmp_path, description):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 4, "T2 TSE tra", T2)
    add(tmp_path, 5, "FLAIR tra", FLAIR)
    add(tmp_path, 9, description, T1)
    found = find_series(tmp_path)
    with pytest.raises(InputError, match=rf"series 9 could be t1c, but: .{re.escape(description)}. was taken for "):
        choose_four(found, incomplete=True)
    assert names(choose_four(found, {"t1c": "9"}))["t1c"] == "9"
    without = choose_four(found, {"t1n": "3", "t2w": "4", "t2f": "5"}, incomplete=True)
    assert names(without) == {"t1n": "3", "t2w": "4", "t2f": "5"}


def test_intensities_that_say_otherwise_leave_no_choice_sure(tmp_path):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 9, "T1 SE tra KM", T1)
    choices = choose_four(find_series(tmp_path), {"t1n": "3"}, ("t1n", "t1c"))
    doubted = doubt(choices, ["Are the two swapped?"])
    assert choices["t1c"].confidence > 0.9
    assert doubted["t1c"].confidence == 0.5 and doubted["t1c"].reason.endswith("; Are the two swapped?")
    assert doubted["t1n"] == choices["t1n"]  # a user's own word stands


def test_two_studies_are_not_mixed(tmp_path):
    four(tmp_path / "a")
    add(tmp_path / "b", 3, "T1 SE tra KM", T1, StudyInstanceUID="1.2.3.4", AcquisitionDate="20260303")
    found = by_name(tmp_path)
    assert list(found) == ["A3", "A4", "A5", "A9", "B3"]
    assert names(choose_four(list(found.values())))["t1c"] == "A9"
    with pytest.raises(InputError, match=r"belong to 2 studies \(A, B\)"):
        choose_four(list(found.values()), {"t1c": "B3", "t2w": "A4"})
    four(tmp_path / "c", StudyInstanceUID="1.2.3.4", AcquisitionDate="20260303")
    with pytest.raises(InputError, match=r"2 studies \(A, B\) have every series.*--series t1n=A3"):
        choose_four(find_series(tmp_path))


def test_named_series(tmp_path):
    four(tmp_path)
    others(tmp_path)
    found = find_series(tmp_path)
    assert names(choose_four(found, {"t1n": "10"}))["t1n"] == "10"
    with pytest.raises(InputError, match=r"--series t1c=99: no such series; there are 1.1, 1.2, 3, 4"):
        choose_four(found, {"t1c": "99"})
    with pytest.raises(InputError, match="series 3 was named twice"):
        choose_four(found, {"t1c": "3", "t1n": "3"})
    with pytest.raises(InputError, match=r"series 8 cannot be used for t1c: \d+ places hold several slices"):
        choose_four(found, {"t1c": "8"})


def test_the_list_as_a_user_sees_it(tmp_path, capsys, caplog):
    four(tmp_path)
    others(tmp_path)
    with caplog.at_level(logging.DEBUG):
        assert main(["dicom", str(tmp_path)]) == 0
    text = capsys.readouterr()
    assert (
        "  9  t1c 1.00  T1 SE tra KM: 13 axial slices every 6 mm, 8 x 8 pixels of 10 x 10 mm, oblique by 13 degrees; "
        "TE 12, TR 550 ms of T1;" in text.out
    )
    assert text.out.strip().endswith("chosen: t1n 3, t1c 9, t2w 4, t2f 5")
    assert main(["dicom", str(tmp_path), "--json"]) == 0
    listing = capsys.readouterr().out
    assert json.loads(listing)["chosen"]["t1c"] == "9"
    for secret in (PATIENT["PatientName"], "Secret", PATIENT["PatientID"], PATIENT["PatientBirthDate"]):
        assert secret not in text.out + text.err + listing + caplog.text
    assert main(["dicom", str(tmp_path / "none")]) == 1
    assert "none: no such folder" in capsys.readouterr().err


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="no DICOM image in it or below it"):
        find_series(tmp_path)


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    """The series in it would count as not acquired."""
    add(tmp_path / "a", 3, "T1 SE tra", T1)
    (tmp_path / "lost+found").mkdir()  # of a disk: nobody may, and no series is there
    usual = os.scandir

    def refused(place):
        if Path(place).name in ("b", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return usual(place)

    monkeypatch.setattr(os, "scandir", refused)
    assert len(find_series(tmp_path)) == 1
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path / 'b'))}: no permission"):
        find_series(tmp_path)


@pytest.mark.parametrize(
    ("place", "noted"), [("a", ["3", "4", "5"]), ("b", ["9"]), ("c", ["3", "4", "5", "9"])], ids=["a", "b", "c"]
)
def test_slices_that_cannot_be_read_are_noted_at_every_series_that_they_may_be_of(tmp_path, place, noted):
    """Those in one folder with them; of a folder with nothing else, every one."""
    for number, description, times in ((3, "T1 SE tra", T1), (4, "T2 TSE tra", T2), (5, "FLAIR tra", FLAIR)):
        add(tmp_path / "a", number, description, times)
    add(tmp_path / "b", 9, "T1 SE tra KM", T1)
    (tmp_path / "c").mkdir()
    for k in (1, 2):
        (tmp_path / place / f"Secret{k}.dcm").write_bytes(b"\0" * 128 + b"DICM")
    found = by_name(tmp_path)
    told = "2 files that may be slices of it look like DICOM and cannot be read: were they copied whole?"
    assert [name for name, series in found.items() if told in series.geometry.notes] == noted
    assert "Secret" not in str([series.geometry.notes for series in found.values()])


def test_a_folder_of_nothing_but_damaged_files_says_so(tmp_path):
    (tmp_path / "a.dcm").touch()
    with pytest.raises(InputError, match=r"a.dcm: looks like DICOM and cannot be read; copy"):
        find_series(tmp_path)


def test_a_spectrum_is_no_slice_that_was_cut_off(tmp_path):
    """It has rows and columns, and no pixels."""
    add(tmp_path, 3, "T1 SE tra", T1)
    data = pydicom.dcmread(next(path for path in tmp_path.rglob("*") if path.is_file()))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRSpectroscopyStorage
    data.SOPInstanceUID, data.SeriesInstanceUID, data.Rows, data.Columns = generate_uid(), generate_uid(), 1, 1
    del data.PixelData
    data.save_as(tmp_path / "spectrum.dcm", enforce_file_format=True)
    assert [series.geometry.notes for series in find_series(tmp_path)] == [()]
