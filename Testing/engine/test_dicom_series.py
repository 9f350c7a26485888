"""Slices become series: echoes, passes, slices sent twice or under one identity, and what their descriptions say."""

import logging

import pydicom
import pytest
from dicom_files import head, write_enhanced, write_series
from examinations import SMALL, SPACING, by_name, four, names
from pydicom.uid import generate_uid
from segmamba.images.dicom import choose_four, find_series
from segmamba.images.dicom.words import other_kind, weighting
from segmamba.shared.contrast_words import agent_said


def test_echoes_of_one_series_are_series(tmp_path):
    uid = generate_uid()
    for echo, time in ((1, "15"), (2, "95")):
        array, affine = head(SMALL, SPACING, seed=echo)
        write_series(
            *(tmp_path, array, affine, 4),
            first=1 + 50 * echo,
            SeriesInstanceUID=uid,
            SeriesDescription="double echo tra",
            ScanningSequence="SE",
            RepetitionTime="3000",
            EchoTime=time,
            EchoNumbers=echo,
        )
    found = by_name(tmp_path)
    assert [(name, s.guess.modality, len(s.frames)) for name, s in found.items()] == [
        ("4.1", None, 13),
        ("4.2", "t2w", 13),
    ]


def test_two_passes_of_one_series_are_two(tmp_path):
    """Each slice has a time of its own, as in 2-D: the order at each place tells the passes apart."""
    uid = generate_uid()
    arrays = []
    for k in range(2):
        array, affine = head(SMALL, SPACING, seed=k)
        arrays.append(array)
        write_series(
            *(tmp_path, array, affine, 4),
            first=1 + 50 * k,
            SeriesInstanceUID=uid,
            SeriesDescription="T1",
            each=lambda j, k=k: {"AcquisitionTime": f"10{10 + k}{j:02d}.5"},
        )
    found = find_series(tmp_path)
    assert [(s.name, len(s.frames), s.geometry.fault) for s in found] == [("4.1", 13, ""), ("4.2", 13, "")]
    first = {f.header.path.name for f in found[0].frames}
    assert first == {f"s004-{900 - 1 - k}.dcm" for k in range(13)}


def test_slices_that_were_sent_twice(tmp_path):
    array, affine = head(SMALL, SPACING)
    uid = generate_uid()
    write_series(tmp_path, array, affine, 4, SeriesInstanceUID=uid, SeriesDescription="T1")
    write_series(tmp_path, array[:, :, :5], affine, 4, 100, SeriesInstanceUID=uid, SeriesDescription="T1")
    (series,) = find_series(tmp_path)
    assert (len(series.frames), series.geometry.fault) == (13, "")
    assert "5 slices were there twice" in series.geometry.notes


IDENTITIES = {
    "empty": lambda k: "",
    "missing": lambda k: None,
    "the same for all": lambda k: "1.2.3",
    "repeated in every series": lambda k: f"1.2.3.{k + 1}",
    "repeated within a series": lambda k: f"1.2.3.{k // 2 + 1}",
}


@pytest.mark.parametrize("series_uid", [False, True], ids=["series known", "series without identity"])
@pytest.mark.parametrize("name", IDENTITIES)
def test_anonymized_slices_of_one_identity_are_all_there(tmp_path, caplog, name, series_uid):
    """And real copies, bit for bit, are still passed over, once they have an identity, or lie at one place."""
    four(tmp_path)
    for path in sorted(tmp_path.glob("*.dcm")):
        data = pydicom.dcmread(path)
        if series_uid:
            data.SeriesInstanceUID = ""
        uid = IDENTITIES[name](int(data.InstanceNumber) - 1)
        if uid is None:
            del data.SOPInstanceUID
        else:
            data.SOPInstanceUID = uid
        data.save_as(path)
    for copy in list(tmp_path.glob("s009*"))[:4]:
        (tmp_path / f"copy-{copy.name}").write_bytes(copy.read_bytes())
    with caplog.at_level(logging.WARNING):
        found = by_name(tmp_path)
    assert {name: len(series.frames) for name, series in found.items()} == {"3": 13, "4": 13, "5": 13, "9": 13}
    assert names(choose_four(list(found.values()))) == {"t1n": "3", "t1c": "9", "t2w": "4", "t2f": "5"}
    if name in ("empty", "missing"):
        assert "4 slices were there twice" in found["9"].geometry.notes
    else:
        assert "4 files are copies" in caplog.text and "have the identity" in caplog.text


@pytest.mark.parametrize(
    ("places", "folders"), [(("1.2.1", "1.2.2"), "AB"), (("1.2.1", "1.2.2"), "AA"), (("", ""), "AB")]
)
def test_anonymized_series_of_two_patients_stay_two(tmp_path, places, folders):
    """Half a slice apart they would make one volume, in which two heads alternate."""
    for k, (place, folder) in enumerate(zip(places, folders)):
        array, affine = head(SMALL, SPACING, seed=k)
        affine[:3, 3] += k * affine[:3, 2] / 2
        blank = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID"), "") | {"FrameOfReferenceUID": place}
        more = {"SeriesDescription": "AX T2", "PatientID": str(k)}
        write_series(tmp_path / folder, array, affine, 5, 1 + 50 * k, each=lambda j, blank=blank: blank, **more)
    found = find_series(tmp_path)
    assert [(s.name, len(s.frames), s.geometry.fault) for s in found] == [("5.1", 13, ""), ("5.2", 13, "")]
    assert {frozenset(f.instance // 50 for f in s.frames) for s in found} == {frozenset({0}), frozenset({1})}


def test_other_slices_at_the_same_places_are_refused(tmp_path):
    array, affine = head(SMALL, SPACING)
    uid = generate_uid()
    write_series(tmp_path, array, affine, 4, SeriesInstanceUID=uid, SeriesDescription="T1")
    write_series(tmp_path, array[:, :, :5] + 1, affine, 4, 100, SeriesInstanceUID=uid, SeriesDescription="T1")
    (series,) = find_series(tmp_path)
    assert series.geometry.fault == "5 places hold several slices, and nothing tells them apart"


def test_an_enhanced_file_says_what_it_is_in_its_groups(tmp_path):
    array, affine = head(SMALL, SPACING)

    def groups(k):
        return {
            "MREchoSequence": {"EffectiveEchoTime": 320.0},
            "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 4800.0},
            "MRModifierSequence": {"InversionRecovery": "YES", "InversionTimes": [1650.0]},
            "MRImageFrameTypeSequence": {
                "FrameType": ["ORIGINAL", "PRIMARY", "FLUID_ATTENUATED", "NONE"],
                "ComplexImageComponent": "MAGNITUDE",
                "AcquisitionContrast": "FLUID_ATTENUATED",
            },
        }

    write_enhanced(tmp_path / "e.dcm", array, affine, groups=groups, EchoPulseSequence="SPIN")
    (series,) = find_series(tmp_path)
    assert series.guess.modality == "t2f"
    assert series.guess.reason == "TE 320, TR 4800, TI 1650 ms of FLAIR; stated to be fluid-attenuated"


DESCRIPTIONS = [
    ("t1_mprage_sag_p2_iso", "t1", None),
    ("AX T1 POST", "t1", True),
    ("Ax T1 +C", "t1", True),
    ("T1C+", "t1", True),
    ("SAG BRAVO +GD", "t1", True),
    ("AX T1 W/O CONTRAST", "t1", False),
    ("AX T1 PRE", "t1", False),
    ("T1 post-op pre contrast", "t1", False),
    ("T1w post op", "t1", None),
    ("t1_se_tra_KM", "t1", True),
    ("t1 tra nach KM", "t1", True),
    ("t1_tra_ohne_KM", "t1", False),
    ("T1 nativ", "t1", False),
    ("T1 SE AX APRES INJECTION", "t1", True),
    ("3D T1 GADO", "t1", True),
    ("T1 sans injection", "t1", False),
    ("T1 avant injection", "t1", False),
    ("T1 axial con contraste", "t1", True),
    ("T1 axial sin contraste", "t1", False),
    ("T1 SE ax mdc", "t1", True),
    ("T1 ax senza mdc", "t1", False),
    ("T1 pós contraste", "t1", True),
    ("T1 sem contraste", "t1", False),
    ("T1 zonder contrast", "t1", False),
    ("T1 po kontraście", "t1", True),
    ("T1 bez kontrastu", "t1", False),
    ("T1 kontrastlı", "t1", True),
    ("T1 kontrastsız", "t1", False),
    ("T1 с контрастом", "t1", True),
    ("T1 без контраста", "t1", False),
    ("T1 增强", "t1", True),
    ("T1 平扫", "t1", False),
    ("T1 造影後", "t1", True),
    ("T1 조영증강", "t1", True),
    ("t2_tse_tra", "t2", None),
    ("T2W_TSE_DRIVE", "t2", None),
    ("t2_tirm_tra_dark-fluid", "flair", None),
    ("AX T2 FLAIR", "flair", None),
    ("Sag CUBE T2 FLAIR POST", "flair", True),
    ("T1 FLAIR", "t1", None),
    ("T2 压水", "flair", None),
]


@pytest.mark.parametrize(("description", "expected", "given"), DESCRIPTIONS, ids=[d[0] for d in DESCRIPTIONS])
def test_descriptions_of_many_clinics(description, expected, given):
    assert weighting(description) == expected
    if expected == "t1" or given is not None:
        assert agent_said(description) == {True: "with", False: "without", None: ""}[given]
    assert other_kind(description) == ""


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("3-plane loc", "localizer"),
        ("AAHead_Scout", "localizer"),
        ("DWI b1000", "diffusion"),
        ("ep2d_perf", "perfusion"),
        ("SWI_Images", "susceptibility"),
        ("T2* GRE", "susceptibility"),
        ("TOF 3D", "an angiography"),
        ("rsfMRI", "functional"),
        ("T2 C-spine", "another part of the body"),
        ("T1 sub", "a subtraction"),
        ("PD TSE", "proton density"),
        ("T2 STIR cor", "STIR"),
    ],
)
def test_descriptions_of_other_images(description, kind):
    assert other_kind(description) == kind
