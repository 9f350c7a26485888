"""The Structured Report, read back by pydicom alone; and two dates of DICOM files from series to report."""

import json

import numpy as np
import pytest
from dicom_files import PATIENT, head, pydicom, write_series
from segmamba.cases.dicom_seg import ModelFacts, write_seg
from segmamba.errors import InputError
from segmamba.followup.dates import dicom_facts
from segmamba.followup.lesions import measure
from segmamba.followup.structured import check_sr, write_sr
from segmamba.images.dicom import find_series


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("sr")
    array, affine = head(spacing=(5.5, 5.5, 5.0))
    maker = {"Manufacturer": "Maker", "ManufacturerModelName": "Model", "MagneticFieldStrength": "3"}
    write_series(root / "series", array, affine, 7, SeriesDescription="T1 KM", **maker)
    (series,) = find_series(root / "series")
    label_map = np.zeros(series.geometry.shape, np.uint8)
    label_map[3:7, 4:8, 5:8] = 3
    label_map[9:11, 12:14, 9:11] = 3
    label_map[8, 9, 9:12] = 1
    facts = ModelFacts(name="quick", version="0123456789abcdef", software="0.1.0")
    seg = write_seg(label_map, series.geometry.affine, series, root / "seg.dcm", facts)
    measured = measure(label_map, series.geometry.affine)
    tracking = {1: ("Lesion 1", "1.2.3.1"), 2: ("Lesion 2", "1.2.3.2")}
    path = write_sr(measured, series, seg, tracking, root / "sr.dcm")
    return pydicom.dcmread(path), pydicom.dcmread(seg), measured, series


def items(data, kind):
    for item in data.get("ContentSequence", []):
        if item.ValueType == kind:
            yield item
        yield from items(item, kind)


def groups(data):
    return [i for i in items(data, "CONTAINER") if i.ConceptNameCodeSequence[0].CodeValue == "125007"]


def test_it_is_a_measurement_report_of_the_same_patient_and_study(written):
    data, seg, _measured, series = written
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR
    assert data.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert data.PatientName == PATIENT["PatientName"] and data.StudyInstanceUID == seg.StudyInstanceUID
    (study,) = data.CurrentRequestedProcedureEvidenceSequence
    referred = {s.SeriesInstanceUID for s in study.ReferencedSeriesSequence}
    assert {seg.SeriesInstanceUID, series.uid} <= referred


def test_each_lesion_has_its_diameters_lines_and_volume(written):
    data, seg, measured, _series = written
    found = groups(data)
    assert len(found) == 2 * len(measured.lesions) == 4
    assert measured.lesions[0].line2 is not None
    for group, lines, lesion in zip(found[::2], found[1::2], measured.lesions):
        numbers = {i.ConceptNameCodeSequence[0].CodeMeaning: i for g in (group, lines) for i in items(g, "NUM")}
        values = {name: i.MeasuredValueSequence[0] for name, i in numbers.items()}
        assert float(values["Long Axis"].NumericValue) == pytest.approx(lesion.d1, abs=1e-3)
        assert ("Short Axis" in values) == (lesion.line2 is not None)  # none is at a right angle: none is told
        if lesion.line2 is not None:
            assert float(values["Short Axis"].NumericValue) == pytest.approx(lesion.d2, abs=1e-3)
        assert float(values["Volume"].NumericValue) == pytest.approx(lesion.volume_ml, abs=1e-5)
        assert values["Long Axis"].MeasurementUnitsCodeSequence[0].CodeValue == "mm"
        (line,) = items(numbers["Long Axis"], "SCOORD3D")
        ends = np.array(line.GraphicData, float).reshape(2, 3)
        np.testing.assert_allclose(ends * (-1, -1, 1), lesion.line1, atol=1e-3)
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(lesion.d1, abs=1e-3)
        assert line.ReferencedFrameOfReferenceUID == seg.FrameOfReferenceUID
        reference = next(i for i in items(group, "IMAGE") if "ReferencedSOPSequence" in i).ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == 3
        assert {i.UID for g in (group, lines) for i in items(g, "UIDREF")} == {f"1.2.3.{lesion.number}"}


def test_the_scanner_and_the_day_come_from_the_files(written):
    assert dicom_facts(written[3]) == ("20260102", "Maker Model 3")


def test_a_file_that_is_there_is_refused(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"x")
    with pytest.raises(InputError, match="DICOM files are never overwritten"):
        check_sr(tmp_path / "x.dcm")


def test_lesions_of_a_mixed_tumor_are_all_there_and_refer_to_a_segment_where_they_are_one(tmp_path):
    array, affine = head(spacing=(5.5, 5.5, 5.0))
    write_series(tmp_path / "series", array, affine, 7, SeriesDescription="T1 KM")
    (series,) = find_series(tmp_path / "series")
    label_map = np.zeros(series.geometry.shape, np.uint8)
    label_map[3:7, 4:8, 5:8] = 3
    label_map[3:7, 9:14, 5:8] = 2
    label_map[5, 11, 6] = 1
    seg = write_seg(
        label_map,
        series.geometry.affine,
        series,
        tmp_path / "seg.dcm",
        ModelFacts(name="quick", version="0", software="0.1"),
    )
    measured = measure(label_map, series.geometry.affine, "mixed")
    assert [(one.number, one.region, one.voxels) for one in measured.lesions] == [
        (1, "ET", 48),
        (2, "non-enhancing", 60),
    ]
    tracking = {1: ("Lesion 1 (ET)", "1.2.3.1"), 2: ("Lesion 2 (non-enhancing)", "1.2.3.2")}
    data = pydicom.dcmread(write_sr(measured, series, seg, tracking, tmp_path / "sr.dcm"))
    found = {}
    for group in groups(data):
        (uid,) = {i.UID for i in items(group, "UIDREF")}
        numbers = {i.ConceptNameCodeSequence[0].CodeMeaning: i.MeasuredValueSequence[0] for i in items(group, "NUM")}
        found.setdefault(uid, {}).update({name: float(value.NumericValue) for name, value in numbers.items()})
        segments = [i.ReferencedSOPSequence[0].get("ReferencedSegmentNumber") for i in items(group, "IMAGE")]
        assert (3 in segments) == (uid == "1.2.3.1" and "Volume" in numbers)
    for lesion in measured.lesions:
        values = {"Long Axis": lesion.d1, "Short Axis": lesion.d2, "Volume": lesion.volume_ml}
        assert found[f"1.2.3.{lesion.number}"] == pytest.approx(values, abs=1e-3)


def test_two_dates_of_dicom_go_all_the_way(phantom_cases, tiny_model, tmp_path, capsys):
    """Dates and scanners from the files, segmented, and where there is a lesion a SEG and an SR of each."""
    import nibabel as nib
    from segmamba.cli import main

    words = {"t1n": "T1", "t1c": "T1 KM", "t2w": "T2", "t2f": "FLAIR"}
    for place, date, maker in (("first", "20260102", "A"), ("second", "20260401", "B")):
        for number, (modality, name) in enumerate(words.items(), 1):
            image = nib.load(phantom_cases / "phantom-0" / f"phantom-0-{modality}.nii.gz")
            array = np.asarray(image.dataobj)
            stored = np.round(array / array.max() * 2000).astype(np.int16)
            facts = {"SeriesDescription": name, "AcquisitionDate": date, "StudyDate": date, "Manufacturer": maker}
            if modality == "t1c":
                facts["ContrastBolusAgent"] = "Gd"
            write_series(tmp_path / place / f"s{number}", stored, image.affine, number, **facts)
    output = tmp_path / "out"
    arguments = ["follow", str(tmp_path / "first"), str(tmp_path / "second"), "--model", str(tiny_model)]
    assert main([*arguments, "--device", "cpu", "--dicom-sr", "-o", str(output)]) == 0, capsys.readouterr().err
    record = json.loads((output / "follow-up.json").read_text())
    assert [date["day"] for date in record["dates"]] == [0, 89]
    assert any("another scanner" in warning for warning in record["warnings"])
    assert record["dates"][0]["made_by"]["model"] == "tiny"
    assert {"P >= 0.3", "P >= 0.7"} <= set(record["dates"][0]["burdens"][0]["spread"])
    for date in record["dates"]:
        seg = output / "segmentations" / f"day-{date['day']:04d}-seg.dcm"
        assert (output / f"day-{date['day']:04d}-sr.dcm").exists() == seg.exists()
    capsys.readouterr()
    assert main([*arguments, "--device", "cpu", "--targets", "1", "-o", str(output)]) == 0
    shown = capsys.readouterr().err
    assert "segmenting" not in shown and "registering" not in shown  # the voxels of the series are the same
    text = (output / "follow-up.json").read_text() + (output / "report.html").read_text()
    assert "Secret" not in text and "4711" not in text and "19501231" not in text and "202604" not in text


def test_the_date_is_that_of_the_t1c_whatever_else_the_folder_holds(tmp_path):
    """The first series of all is a localizer of an earlier examination."""
    from segmamba.commands.follow_dates import date_of

    array, affine = head()
    earlier = {"AcquisitionDate": "20250601", "StudyDate": "20250601", "StudyInstanceUID": "1.2.3"}
    write_series(tmp_path / "a", array[..., :3], affine, 1, SeriesDescription="localizer", **earlier)
    with pytest.raises(InputError, match="images of 2 dates"):  # before there is a case in it
        write_series(tmp_path / "b", array, affine, 2, SeriesDescription="survey")
        date_of(tmp_path)
    for number, name in enumerate(("T1", "T1 KM", "T2", "FLAIR"), 3):
        write_series(tmp_path / "b", head(seed=number)[0], affine, number, SeriesDescription=name)
    assert find_series(tmp_path)[0].study == "A" and date_of(tmp_path / "a") == "20250601"
    assert date_of(tmp_path) == "20260102"


def dicom_date(phantom_cases, place, date):
    """A case folder whose modalities are folders of DICOM files, named as the modalities are."""
    import nibabel as nib

    for number, modality in enumerate(("t1n", "t1c", "t2w", "t2f"), 1):
        image = nib.load(phantom_cases / "phantom-0" / f"phantom-0-{modality}.nii.gz")
        array = np.asarray(image.dataobj)
        stored = np.round(array / array.max() * 2000).astype(np.int16)
        facts = {"SeriesDescription": modality, "AcquisitionDate": date, "StudyDate": date}
        write_series(place / modality, stored, image.affine, number, **facts)


@pytest.fixture(scope="module")
def subfolders(phantom_cases, tmp_path_factory):
    root = tmp_path_factory.mktemp("subfolders")
    for name, date in (("first", "20260102"), ("second", "20260401")):
        dicom_date(phantom_cases, root / name, date)
    return root


def label_map_over(folder, path, boxes):
    """A label map on the grid of the DICOM files in `folder`."""
    from segmamba.cases.case import save_image
    from segmamba.images.dicom import find_in_folder

    geometry = find_in_folder(folder)[0].geometry
    label_map = np.zeros(geometry.shape, np.uint8)
    for box in boxes:
        label_map[box] = 3
    save_image(label_map, geometry.affine, path, np.uint8)
    return label_map


def test_case_folders_of_dicom_folders_have_dates_and_reports(subfolders, tiny_model, tmp_path, capsys):
    """The dates come from the T1c; each date that has a lesion has a SEG and an SR, and one without says why not."""
    from segmamba.cli import main

    output = tmp_path / "out"
    places = [str(subfolders / name) for name in ("first", "second")]
    more = ["--model", str(tiny_model), "--device", "cpu", "--dicom-sr", "-o", str(output)]
    assert main(["follow", *places, *more]) == 0
    told = capsys.readouterr()
    record = json.loads((output / "follow-up.json").read_text())
    assert [date["day"] for date in record["dates"]] == [0, 89]
    for day in (0, 89):
        seg = output / "segmentations" / f"day-{day:04d}-seg.dcm"
        assert seg.exists() == (output / f"day-{day:04d}-sr.dcm").exists()
        assert seg.exists() != (f"day {day}: nothing is segmented" in told.err)


def test_label_maps_over_series_have_reports_and_an_empty_one_says_why_not(subfolders, tmp_path, capsys):
    """As the panel asks for them: label maps, T1c, and the folder of its DICOM files. One line is drawn by hand."""
    from segmamba.cli import main
    from segmamba.followup.dates import read_label_map

    series = [subfolders / name / "t1c" for name in ("first", "second")]
    maps = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    label_map_over(series[0], maps[0], [np.s_[20:26, 20:26, 15:19]])
    label_map_over(series[1], maps[1], [])
    lesion = measure(*read_label_map(maps[0], "brats2023")[:2]).lesions[0]
    start, end = lesion.line1
    ends = [start.tolist(), (end + 0.1 * (start - end)).tolist()]
    hand = tmp_path / "hand.json"
    hand.write_text(json.dumps({"schema": 1, "lines": [{"day": 0, "which": "D1", "ends": ends}]}))
    output = tmp_path / "out"
    t1c = ["--t1c", *map(str, series), "--series", *map(str, series), "--labels", "brats2023"]
    arguments = ["follow", *map(str, maps), *t1c, "--dates", "0", "30", "--by-hand", str(hand)]
    assert main([*arguments, "--made-by", "quick", "quick", "--dicom-sr", "-o", str(output)]) == 0
    assert "day 30: nothing is segmented" in capsys.readouterr().err
    assert not (output / "day-0030-sr.dcm").exists()
    data = pydicom.dcmread(output / "day-0000-sr.dcm")
    (lines,) = groups(data)[1:]
    long, short = items(lines, "NUM")
    assert float(long.MeasuredValueSequence[0].NumericValue) == pytest.approx(0.9 * lesion.d1, abs=1e-3)
    methods = [[i.ConceptCodeSequence[0].CodeValue for i in items(one, "CODE")] for one in (long, short)]
    assert "113857" in methods[0] and "113857" not in methods[1]  # Manual Entry
    assert next(i.TextValue for i in items(short, "TEXT")) == "segmamba follow"
    seg = pydicom.dcmread(output / "segmentations" / "day-0000-seg.dcm")
    assert seg.ManufacturerModelName == "quick"


def test_no_free_text_of_the_files_is_in_what_a_date_has_to_say(tmp_path):
    """A series may be called by the patient's name; the notes of a date stand in the report and the record."""
    from segmamba.followup.dates import read_timepoint

    array, affine = head()
    write_series(tmp_path / "t1c", array, affine, 5, SeriesDescription="T1 KM Doe", ProtocolName="Doe")
    more = {"SeriesDescription": "localizer Doe", "ProtocolName": "Doe"}
    write_series(tmp_path / "t1c", array[..., :3], affine, 6, **more)
    label_map_over(tmp_path / "t1c", tmp_path / "x-seg.nii.gz", [np.s_[3:7, 4:8, 5:8]])
    notes = read_timepoint(0, tmp_path / "x-seg.nii.gz", tmp_path / "t1c").notes
    assert "read from series 5; left aside: series 6 (localizer)" in notes
    assert "Doe" not in " ".join(notes)


@pytest.mark.parametrize("fault", ["a SEG of the second date", "no frame of reference"])
def test_what_stops_a_seg_is_told_before_anything_is_measured(subfolders, tmp_path, capsys, fault):
    from segmamba.cli import main

    series = [subfolders / "first" / "t1c", tmp_path / "t1c"]
    array, affine = head(spacing=(5.5, 5.5, 5.0))
    place = {"FrameOfReferenceUID": None} if fault == "no frame of reference" else {}
    write_series(series[1], array, affine, SeriesDescription="T1 KM", **place)
    maps = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    label_map_over(series[0], maps[0], [np.s_[20:26, 20:26, 15:19]])
    label_map_over(series[1], maps[1], [np.s_[3:7, 4:8, 5:8]])
    output = tmp_path / "out"
    if not place:
        (output / "segmentations").mkdir(parents=True)
        (output / "segmentations" / "day-0030-seg.dcm").write_bytes(b"x")
    t1c = ["--t1c", *map(str, series), "--series", *map(str, series), "--labels", "brats2023"]
    arguments = ["follow", *map(str, maps), *t1c, "--dates", "0", "30", "--dicom-sr", "-o", str(output)]
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert ("no Frame of Reference UID" if place else "never overwritten") in told and "measuring" not in told
    assert not (output / "follow-up.json").exists() and not (output / "day-0000-sr.dcm").exists()


@pytest.mark.parametrize(("patient", "ends"), [("OTHER-1", 1), (PATIENT["PatientID"] + " ", 0), (None, 0)])
def test_dates_of_two_patients_are_refused_without_naming_them(tmp_path, capsys, patient, ends):
    """Also where the registration finds nothing odd: the images are the same here."""
    from segmamba.cli import main

    series = [tmp_path / "first", tmp_path / "second"]
    maps = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    array, affine = head(spacing=(5.5, 5.5, 5.0))
    for number, (folder, path) in enumerate(zip(series, maps)):
        known = {"PatientID": patient} if number else {}
        write_series(folder, array + number, affine, SeriesDescription="T1 KM", **known)
        label_map_over(folder, path, [np.s_[3:7, 4:8, 5:8]])
    t1c = ["--t1c", *map(str, series), "--series", *map(str, series), "--labels", "brats2023"]
    output = tmp_path / "out"
    assert main(["follow", *map(str, maps), *t1c, "--dates", "0", "30", "-o", str(output)]) == ends
    told = capsys.readouterr()
    assert ("day 0 and day 30 have different patient IDs" in told.err) == bool(ends)
    assert not any(word in told.err + told.out for word in ("OTHER", "SECRET"))
    assert (output / "follow-up.json").exists() != bool(ends)


def test_dates_that_are_not_of_dicom_are_refused_before_anything_is_written(tmp_path, phantom_cases, capsys):
    from segmamba.cli import main

    case = phantom_cases / "phantom-0"
    arguments = ["follow", str(case), str(case), "--dates", "0", "30", "--dicom-sr", "-o", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "of none of the timepoints the T1c is a series of DICOM files" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
