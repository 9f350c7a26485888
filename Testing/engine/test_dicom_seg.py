"""A label map as DICOM SEG, read back by hand with pydicom, and by GDCM; and what it must not say or overwrite."""

import importlib
import json
import sys
import types
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from dicom_files import PATIENT, head, pydicom, write_enhanced, write_series
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff
from segmamba.cases.dicom_seg import ModelFacts, write_seg
from segmamba.cases.structures import ANATOMY, CATEGORY, STRUCTURES
from segmamba.commands.dicom import dicom_case, seg_target, write_case_seg
from segmamba.errors import InputError
from segmamba.images.dicom import find_series

FACTS = ModelFacts(name="quick-2", version="0123456789abcdef", software="0.1.0")
SHUFFLED = [3, 0, 7, 1, 12, 5, 14, 2, 9, 4, 11, 6, 13, 8, 10]


def tumour(shape):
    label_map = np.zeros(shape, np.uint8)
    label_map[3:9, 4:11, 5:10] = 2
    label_map[4:7, 5:8, 6:9] = 3
    label_map[5, 6, 7:9] = 1
    label_map[1, 2, 13] = 3
    return label_map


def classic(folder, affine, array):
    write_series(folder, array, affine, 7, SeriesDescription="T1 KM")


def enhanced(folder, affine, array):
    write_enhanced(folder / "e.dcm", array, affine, SHUFFLED, number=7, SeriesDescription="T1 KM")


def two_echoes_in_one_file(folder, affine, array):
    """The second echo lies at the same places, and comes first."""
    depth = array.shape[2]
    both = np.concatenate([array + 1, array], axis=2)

    path = write_enhanced(folder / "e.dcm", both, affine, number=7, SeriesDescription="T1 KM")
    data = pydicom.dcmread(path)
    for k, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 30.0 if k < depth else 10.0
        frame.MREchoSequence = pydicom.Sequence([echo])
        like = data.PerFrameFunctionalGroupsSequence[k % depth].PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = like
    data.save_as(path)


def frames_by_hand(path):
    """[(segment number, position, mask (rows, columns), references)] of a SEG, its bits unpacked here."""
    data = pydicom.dcmread(path)
    rows, columns, count = data.Rows, data.Columns, data.NumberOfFrames
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")[: rows * columns * count]
    shared = data.SharedFunctionalGroupsSequence[0]
    cosines = [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    found = []
    for mask, group in zip(bits.reshape(count, rows, columns), data.PerFrameFunctionalGroupsSequence):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        position = np.array([float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient])
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.append((number, position, mask, source))
    return data, np.array(cosines), spacing, found


def voxels_by_hand(path, affine, shape):
    """segment number -> (X, Y, Z) bool on the grid of `affine`, from the positions that the SEG itself gives."""
    _data, cosines, spacing, frames = frames_by_hand(path)
    masks = {}
    for number, position, mask, _source in frames:
        assert mask.any(), "an empty frame"
        row, column = np.nonzero(mask)
        lps = position + np.outer(column * spacing[1], cosines[:3]) + np.outer(row * spacing[0], cosines[3:])
        index = apply_affine(np.linalg.inv(affine), lps * (-1, -1, 1))
        np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
        masks.setdefault(number, np.zeros(shape, bool))[tuple(np.rint(index).astype(int).T)] = True
    return masks


@pytest.fixture(params=[classic, enhanced, two_echoes_in_one_file], ids=lambda build: build.__name__)
def case(request, tmp_path):
    array, affine = head()
    request.param(tmp_path / "in", affine, array)
    series = find_series(tmp_path / "in")[-1]
    return series, tumour(array.shape), affine, tmp_path / "seg.dcm"


def test_every_voxel_lies_where_it_was(case):
    series, label_map, affine, path = case
    assert write_seg(label_map, affine, series, path, FACTS) == path
    masks = voxels_by_hand(path, affine, label_map.shape)
    assert set(masks) == {1, 2, 3}
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, label_map == number)


def test_the_regions_overlap(case):
    series, label_map, affine, path = case
    write_seg(label_map, affine, series, path, FACTS, regions=True)
    masks = voxels_by_hand(path, affine, label_map.shape)
    for number, values in {1: (1, 2, 3), 2: (1, 3), 3: (3,)}.items():
        np.testing.assert_array_equal(masks[number], np.isin(label_map, values))
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"


def test_each_frame_refers_to_the_slice_it_lies_on(case):
    series, label_map, affine, path = case
    write_seg(label_map, affine, series, path, FACTS)
    data, _cosines, _spacing, frames = frames_by_hand(path)
    places = {}
    for file in series.files:
        source = pydicom.dcmread(file)
        groups = source.get("PerFrameFunctionalGroupsSequence") or [None]
        for k, group in enumerate(groups, 1):
            own = group.PlanePositionSequence[0] if group else source
            number = k if group else None
            places[source.SOPInstanceUID, number] = np.array([float(v) for v in own.ImagePositionPatient])
            echo = group.get("MREchoSequence") if group else None
            if echo and echo[0].EffectiveEchoTime != 10.0:
                del places[source.SOPInstanceUID, number]
    for _number, position, _mask, source in frames:
        np.testing.assert_allclose(
            position, places[source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")], atol=1e-4
        )
    (referenced,) = data.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == series.uid
    first = pydicom.dcmread(series.files[0])
    assert data.SeriesInstanceUID != series.uid
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert data[name].value == first[name].value


def test_gdcm_reads_the_same_pixels(case):
    import SimpleITK as sitk

    series, label_map, affine, path = case
    write_seg(label_map, affine, series, path, FACTS)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    np.testing.assert_array_equal(frames, np.stack([mask for _n, _p, mask, _s in frames_by_hand(path)[3]]) > 0)


def test_any_order_of_the_axes_is_taken(case):
    series, label_map, affine, path = case
    turn = np.array([[2, -1], [0, 1], [1, -1]])
    turned, turned_affine = apply_orientation(label_map, turn), affine @ inv_ornt_aff(turn, label_map.shape)
    nib.save(nib.Nifti1Image(turned, turned_affine), path.with_suffix(".nii.gz"))
    write_seg(path.with_suffix(".nii.gz"), None, series, path, FACTS)
    masks = voxels_by_hand(path, affine, label_map.shape)
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, label_map == number)


def panel_vocabulary():
    """The panel's own table, loaded without Slicer."""
    folder = Path(__file__).resolve().parents[2] / "SegMambaSlicer" / "SegMambaSlicerLib"
    package = types.ModuleType("panel_side")
    package.__path__ = [str(folder)]
    sys.modules["panel_side"] = package
    try:
        return importlib.import_module("panel_side.results.vocabulary")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "panel_side"]:
            del sys.modules[name]


def test_segments_are_coded_as_in_the_panel(case):
    series, label_map, affine, path = case
    vocabulary = panel_vocabulary()
    for regions, mode in ((False, "labels"), (True, "regions")):
        out = path.with_name(f"{mode}.dcm")
        write_seg(label_map, affine, series, out, FACTS, regions=regions)
        segments = pydicom.dcmread(out).SegmentSequence
        assert [segment.SegmentNumber for segment in segments] == [1, 2, 3]
        for segment, name in zip(segments, vocabulary.MODES[mode]):
            panel = vocabulary.structure(name)
            _context, category, kind, _modifier, _anatomy_context, anatomy, _rest = panel.terminology.split("~")
            coded = {
                category: segment.SegmentedPropertyCategoryCodeSequence,
                kind: segment.SegmentedPropertyTypeCodeSequence,
                anatomy: segment.AnatomicRegionSequence,
            }
            for text, (code,) in coded.items():
                assert f"{code.CodingSchemeDesignator}^{code.CodeValue}^{code.CodeMeaning}" == text
            assert segment.SegmentLabel == panel.name
            assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "quick-2")
            assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0123456789abcdef"


def test_the_panels_table_is_the_engines():
    vocabulary = panel_vocabulary()
    for name, own in STRUCTURES.items():
        theirs = vocabulary.structure(name)
        assert (own.name, own.color, own.code) == (theirs.name, theirs.color, theirs.code)
    assert "SCT^{}^{}".format(*CATEGORY) == vocabulary._CATEGORY
    assert "SCT^{}^{}".format(*ANATOMY) == vocabulary._BRAIN


@pytest.fixture
def small(tmp_path):
    array, affine = head()
    classic(tmp_path / "in", affine, array)
    return find_series(tmp_path / "in")[0], tumour(array.shape), affine, tmp_path / "seg.dcm"


def test_a_label_without_voxels_is_described_and_has_no_frame(small):
    series, label_map, affine, path = small
    write_seg(np.where(label_map == 3, 0, label_map), affine, series, path, FACTS)
    assert len(pydicom.dcmread(path).SegmentSequence) == 3
    assert {number for number, *_rest in frames_by_hand(path)[3]} == {1, 2}


def test_an_empty_map_makes_no_file(small):
    series, label_map, affine, path = small
    assert write_seg(label_map * 0, affine, series, path, FACTS) is None
    assert not path.exists()


def test_nothing_is_overwritten(small):
    series, label_map, affine, path = small
    path.write_text("mine")
    with pytest.raises(InputError, match=r"seg.dcm: already exists, and DICOM files are never overwritten"):
        write_seg(label_map, affine, series, path, FACTS)
    assert path.read_text() == "mine"


def test_another_grid_is_refused(small):
    series, label_map, affine, path = small
    moved = affine.copy()
    moved[0, 3] += 0.02
    for array, where in ((label_map, moved), (label_map[1:], affine)):
        with pytest.raises(InputError, match=r"not on the grid of series 7.*resample it"):
            write_seg(array, where, series, path, FACTS)
    with pytest.raises(InputError, match=r"the label map holds \[4\]; expected 0 and \[1, 2, 3\]"):
        write_seg(np.where(label_map == 3, 4, label_map), affine, series, path, FACTS)
    assert not path.exists()


def test_a_series_without_a_frame_of_reference(tmp_path):
    array, affine = head()
    write_series(tmp_path / "in", array, affine, 7, SeriesDescription="T1", FrameOfReferenceUID=None)
    (series,) = find_series(tmp_path / "in")
    with pytest.raises(InputError, match=r"series 7 \('T1'\) has no Frame of Reference UID"):
        write_seg(tumour(array.shape), affine, series, tmp_path / "seg.dcm", FACTS)


SECRET = {"PatientName": "SECRET^" * 12, "PatientID": "SECRET" * 20, "StudyDate": "SECRET"}
SECRET |= {"PatientBirthDate": "SECRET"}
ABSENT = dict.fromkeys([*PATIENT, "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDate", "StudyTime"])


@pytest.mark.parametrize("attributes", [SECRET, ABSENT], ids=["malformed", "absent"])
def test_odd_attributes_of_the_patient_do_no_harm_and_are_not_told(tmp_path, attributes, caplog, capfd, recwarn):
    array, affine = head()
    with pydicom.config.disable_value_validation():
        write_series(tmp_path / "in", array, affine, 7, SeriesDescription="T1 KM", **attributes)
    for records in (caplog, recwarn):
        records.clear()
    with caplog.at_level("DEBUG"):
        (series,) = find_series(tmp_path / "in")
        write_seg(tumour(array.shape), affine, series, tmp_path / "seg.dcm", FACTS)
    told = caplog.text + "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    assert "SECRET" not in told
    assert "exceeds" not in told
    masks = voxels_by_hand(tmp_path / "seg.dcm", affine, array.shape)
    np.testing.assert_array_equal(masks[3], tumour(array.shape) == 3)


def test_an_error_of_highdicom_quotes_nobody(small, monkeypatch):
    series, label_map, affine, path = small

    def fail(*_arguments, **_more):
        raise ValueError("Unable to convert 'Secret^Name'")

    monkeypatch.setattr(highdicom.seg, "Segmentation", fail)
    with pytest.raises(InputError, match=r"series 7 \('T1 KM'\) cannot be referred to.*\(ValueError\)") as error:
        write_seg(label_map, affine, series, path, FACTS)
    assert "Secret" not in str(error.value)
    assert error.value.__suppress_context__


def test_without_highdicom_it_says_what_to_install(small, monkeypatch):
    series, label_map, affine, path = small
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="DICOM SEG needs highdicom: in Slicer, Setup installs it"):
        write_seg(label_map, affine, series, path, FACTS)


def ball(shape):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum(axis**2 for axis in axes) < 0.8


def test_a_case_from_dicom_to_seg(tmp_path, tiny_model):
    """Four series on one grid, through a model, to segments on the T1c; the summary knows no patient."""
    from segmamba.models.package import load_package
    from segmamba.prediction.predict import PredictOptions, predict_case

    for number, description in ((3, "T1"), (4, "T2"), (5, "FLAIR"), (9, "T1 KM")):
        array, affine = head((20, 18, 16), (8.0, 8.0, 6.0), seed=number)
        array = np.where(ball(array.shape), array + 1, 0)  # as images are whose skull was taken off
        write_series(tmp_path / "in", array, affine, number, SeriesDescription=description, SliceThickness="5")
    model, out = load_package(tiny_model), tmp_path / "out"
    with dicom_case(tmp_path / "in", {"t2w": "4"}) as case:
        path = seg_target(case, out / "case-seg.dcm", model)
        summary = predict_case(model, case.sources, out, "case", PredictOptions(compressed=False))
        label_map = out / summary["files"]["label_map"]
        write_case_seg(case, label_map, path, model)
        places = [source.path for source in case.sources.values()]
        assert case.lines()[1] == "t1c is series 9 (0.99): named T1; described as with contrast agent"
        text = (out / summary["files"]["summary"]).read_text() + json.dumps(case.facts()) + "\n".join(case.lines())
    assert "t1c: slices are 5 mm thick, one every 6 mm" in summary["notes"]
    assert not any(place.exists() for place in places)
    assert not any(str(value) in text for value in (*PATIENT.values(), "Secret") if value != "O")
    result = np.asarray(nib.load(label_map).dataobj)
    masks = voxels_by_hand(path, affine, array.shape)
    truth = {v: result == v for v in np.unique(result) if v}
    assert set(masks) == set(truth)
    own_affine = nib.load(label_map).affine
    np.testing.assert_allclose(own_affine, affine, atol=1e-4)
    for number, mask in masks.items():
        np.testing.assert_array_equal(mask, truth[number])
