"""Guesses of modalities: a table of names as they occur, DICOM headers, and scenes with more than one case."""

import numpy as np
import pytest
import slicer
import synth
from SegMambaSlicerLib.volumes.dicomtags import TAGS, judgeTags
from SegMambaSlicerLib.volumes.modalities import MODALITIES, checkVolumes, guessModalities, undecidedVolumes
from SegMambaSlicerLib.volumes.names import judgeName
from SegMambaSlicerLib.volumes.scene import readImage
from series_names import SAID

# As BraTS, BIDS, scanners and people write them; "none" has to be left alone.
NAMES = {
    "t1n": "BraTS-GLI-00001-000-t1n|BraTS2021_00006_t1|t1|sub-01_ses-post_T1w|AX T1 PRE|T1 SE TRA|t1_mprage_sag_iso|"
    "T1 MPRAGE nativ|3: Ax T1 FLAIR|t1 tse ohne KM|T1 sans injection|T1 w/o contrast|AX T1 non-contrast|FSPGR 3D|"
    "preop T1|T1 vor KM|t1_nat|SAG 3D BRAVO|postop_T1|T1 plain",
    "t1c": "BraTS-GLI-00001-000-t1c|BraTS2021_00006_t1ce|t1Gd|T1 MPRAGE +C|AX T1 POST|t1 gd|T1_post_contrast|AX T1+C|"
    "T1 C+|t1_km|T1 tra KM|t1 mprage nach KM|T1 apres injection|T1 après gado|sub-01_ce-gadolinium_T1w|T1-KM|"
    "T1 mit Kontrastmittel|SAG MPRAGE POST|Post|sT1W_3D_TFE_Gd|T1wCE|T1 tse tra +KM|T1 enhanced|COR T1 w/ contrast",
    "t2w": "BraTS-GLI-00001-000-t2w|BraTS2021_00006_t2|T2|AX T2 FSE|t2_tse_tra|AX T2 PROPELLER|sub-01_T2w|T2 SPACE",
    "t2f": "BraTS-GLI-00001-000-t2f|BraTS2021_00006_flair|AX T2 FLAIR|t2_tirm_tra_dark-fluid|T2-FLAIR|sub-01_FLAIR|"
    "Sag CUBE FLAIR|AX FLAIR POST|FLAIR nach KM|T2 TIRM TRA|T2W_FLAIR",
    "none": "AX DWI|ADC|t2*_gre|SWI_Images|TOF 3D multi-slab|localizer|BraTS2021_00006_seg|ep2d_perf|T1 SUB|MRHead|"
    "CTACardio|T2 C-SPINE|CBV|t2_fl2d_tra_hemo|brain_mask|T2 Sag LWS",
}


def _guess(*names):
    guesses = guessModalities([synth.addVolume(name, seed=i) for i, name in enumerate(names)])
    return {modality: guess.node.GetName() for modality, guess in guesses.items()}


@pytest.mark.parametrize("modality", NAMES)
def test_names_as_they_occur(modality):
    for name in NAMES[modality].split("|"):
        scores, reasons = judgeName(name)
        best = max(scores, key=scores.get) if scores and max(scores.values()) >= 1 else "none"
        assert best == modality, (name, scores, reasons)


@pytest.mark.parametrize(("name", "said"), SAID, ids=[name for name, _said in SAID])
def test_what_names_say_of_contrast_agent(name, said):
    """Spine is another part of the body; with and without leaves the two alike."""
    scores, _reasons = judgeName(name)
    if "SPINE" in name:
        assert max(scores.values()) < 0
        return
    more = {"with": 1, "without": -1, "": -1, "both": 0}[said]
    assert np.sign(scores["t1c"] - scores["t1n"]) == more


@pytest.mark.parametrize(
    ("names", "sure"),
    [
        (("BraTS-GLI-1-t1n", "BraTS-GLI-1-t1c", "BraTS-GLI-1-t2w", "BraTS-GLI-1-t2f"), True),
        (("BraTS2021_6_t1", "BraTS2021_6_t1ce", "BraTS2021_6_t2", "BraTS2021_6_flair"), True),
        (("3: AX T1", "9: AX T1 POST GAD", "4: AX T2 FSE", "5: AX T2 FLAIR"), True),
        (("t1 tse tra nativ", "t1 mpr nach KM", "t2 tse tra", "tirm dark fluid"), True),
        (("T1 MPRAGE", "T1 MPRAGE_1", "T2", "FLAIR"), False),
    ],
)
def test_cases_are_assigned_in_any_order(scene, names, sure):
    expected = dict(zip(MODALITIES, names))
    rng = np.random.default_rng(5)
    for _repeat in range(4):
        scene.Clear(0)
        volumes = [synth.addVolume(name) for name in rng.permutation(names).tolist()]
        guesses = guessModalities(volumes)
        found = {modality: guess.node.GetName() for modality, guess in guesses.items()}
        assert set(found) == set(MODALITIES)
        assert {m: found[m] for m in ("t2w", "t2f")} == {m: expected[m] for m in ("t2w", "t2f")}
        if sure:
            assert found == expected
        assert (min(guesses[m].confidence for m in ("t1n", "t1c")) > 0.7) == sure, guesses
        assert all(guess.reason for guess in guesses.values())


def test_all_volumes_of_the_scene_are_looked_at(scene):
    for name in ("t1", "t1ce", "t2", "flair", "ADC"):
        synth.addVolume(name)
    slicer.util.addVolumeFromArray(synth.labelMap(), name="t1ce labels", nodeClassName="vtkMRMLLabelMapVolumeNode")
    assert [guess.node.GetName() for guess in guessModalities().values()] == ["t1", "t1ce", "t2", "flair"]


def test_nothing_fits(scene):
    assert guessModalities([]) == {}
    assert _guess("MRHead", "CTACardio") == {}


def test_what_is_missing_is_left_out(scene):
    assert _guess("t1", "flair") == {"t1n": "t1", "t2f": "flair"}


def test_two_patients_are_not_mixed(scene):
    """The second case is whole; the first lacks its FLAIR, and the second's does not make up for it."""
    names = ["A_t1", "A_t1ce", "A_t2", "B_t1", "B_t1ce", "B_t2", "B_flair"]
    assert set(_guess(*names).values()) == {"B_t1", "B_t1ce", "B_t2", "B_flair"}


SERIES = {"t1n": "T1", "t1c": "T1 Gd", "t2w": "T2", "t2f": "FLAIR"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Anna {}", "Bob {}"),
        ("BraTS-GLI-00001-000 {}", "BraTS-GLI-00002-000 {}"),
        ("2026-01-10 {}", "2026-06-12 {}"),
        ("AX {}", "Second AX {}"),
        ("Second AX {}", "AX {}"),
    ],
)
def test_another_examination_fills_no_empty_place(scene, first, second):
    """The first case has no T2, and may go without; the second's is another patient's, or of another date."""
    case = {m: synth.addVolume(first.format(name), seed=i) for i, (m, name) in enumerate(SERIES.items()) if m != "t2w"}
    others = {m: synth.addVolume(second.format(name), "RAS", seed=9 + i) for i, (m, name) in enumerate(SERIES.items())}
    assert guessModalities(fixed=case) == {}
    assert checkVolumes({**case, "t2w": None})[0].kind == "missing"
    mixed = [{**case, "t2w": others["t2w"]}, {**others, "t1c": case["t1c"]}, {**others, **dict(list(case.items())[:2])}]
    for volumes in mixed:
        assert [(problem.kind, problem.blocking) for problem in checkVolumes(volumes, prepare="auto")] == [
            ("examination", False)
        ]
    assert "Check T2." in checkVolumes(mixed[0], prepare="auto")[0].text
    assert checkVolumes(others) == []


@pytest.mark.parametrize("names", ["AX T1|AX T1 +C|COR T2|AX FLAIR|COR T1 +C|SAG T1 +C", "AX T1|AX T1 +C|SAG T2 3D|SAG "
    "FLAIR 3D|SAG T1", "t1_mprage_sag|t1_mprage_sag_KM|t2_space_sag|flair_space_sag", "3: AX T1|9: AX T1 POST|4: AX T2|"
    "5: SAG CUBE FLAIR|6: AX DWI", "T1|T1 Gd|T2 repeated|FLAIR|T2"])  # fmt: skip
def test_unlike_names_of_one_examination_go_together(scene, names):
    """Planes and techniques are another thing than patients; so is a series alone under a name of its own."""
    nodes = [synth.addVolume(name, seed=i) for i, name in enumerate(names.split("|"))]
    case = dict(zip(MODALITIES, nodes))
    left_out = dict(case)
    if "T2 repeated" not in names:
        del left_out["t2w"]
        assert guessModalities(fixed=left_out)["t2w"].node is case["t2w"]
    assert checkVolumes(case) == []


def test_studies_of_dicom_tell_examinations_apart(scene, monkeypatch):
    """Both patients were examined by one protocol."""
    headers = {
        f"{study}.{modality}": {"StudyInstanceUID": study, "SeriesDescription": f"SE {name}"}
        for study in ("1", "2")
        for modality, name in SERIES.items()
        if (study, modality) != ("1", "t2w")
    }
    nodes = _fromDicom(monkeypatch, **headers)
    first = {m: nodes[f"1.{m}"] for m in MODALITIES if m != "t2w"}
    assert guessModalities(fixed=first) == {}
    assert "examination" in [problem.kind for problem in checkVolumes({**first, "t2w": nodes["2.t2w"]})]
    second = {m: nodes[f"2.{m}"] for m in MODALITIES}
    assert "examination" not in [problem.kind for problem in checkVolumes(second)]


def test_registered_volumes_are_taken_together(scene):
    """Names say nothing of who belongs to whom here, the grids do."""
    names = ("3 T1", "4 T1 post", "5 T2", "6 FLAIR")
    natives = [synth.addVolume(name, "LPS") for name in names]
    for i, node in enumerate(natives):
        node.SetOrigin(i, 0, 0)
    registered = [synth.addVolume(name) for name in names]
    guesses = guessModalities([*natives, *registered])
    assert [guesses[m].node for m in MODALITIES] == registered


class HeaderDatabase:
    """Slicer's DICOM database as far as it is asked: one attribute of one image, as text."""

    def __init__(self, headers):
        self.headers = headers

    def instanceValue(self, uid, tag):
        keyword = {code: name for name, code in TAGS.items()}[tag]
        value = self.headers[uid].get(keyword, "")
        return "\\".join(map(str, value)) if not isinstance(value, str) and hasattr(value, "__len__") else str(value)


def _fromDicom(monkeypatch, **headers):
    """A volume for each header, named after nothing."""
    monkeypatch.setattr(slicer, "dicomDatabase", HeaderDatabase(headers), raising=False)
    nodes = {}
    for uid in headers:
        nodes[uid] = synth.addVolume(f"Series {len(nodes)}")
        nodes[uid].SetAttribute("DICOM.instanceUIDs", f"{uid} {uid}.2")
    return nodes


def test_attributes_of_dicom(scene, monkeypatch):
    """Times as in common protocols: MPRAGE before and after contrast agent, TSE, and dark fluid."""
    mprage = {"EchoTime": "2.3", "RepetitionTime": "1900", "InversionTime": "900", "ScanningSequence": "GR\\IR"}
    nodes = _fromDicom(
        monkeypatch,
        t1n=mprage,
        t1c=mprage | {"ContrastBolusAgent": "Gadovist"},
        t2w={"EchoTime": "96", "RepetitionTime": "6000", "ScanningSequence": "SE"},
        t2f={"EchoTime": "87", "RepetitionTime": "9000", "InversionTime": "2500", "ScanningSequence": "SE\\IR"},
        dwi={"EchoTime": "90", "RepetitionTime": "5000", "ScanningSequence": "EP", "SeriesDescription": "ep2d_diff"},
        ct={"Modality": "CT"},
    )
    guesses = guessModalities(nodes.values())
    assert {modality: guess.node for modality, guess in guesses.items()} == {m: nodes[m] for m in MODALITIES}
    assert guesses["t1c"].reason == "TE 2.3, TR 1900, TI 900 ms; contrast agent noted in DICOM"


def test_computed_images_are_none_of_the_four(scene, monkeypatch):
    """A subtraction has the times of the T1 that it was made from."""
    mprage = {"EchoTime": "2.3", "RepetitionTime": "1900", "InversionTime": "900", "ScanningSequence": "GR\\IR"}
    nodes = _fromDicom(
        monkeypatch,
        plain=mprage | {"ImageType": "ORIGINAL\\PRIMARY\\M\\ND\\NORM"},
        difference=mprage | {"ImageType": "DERIVED\\SECONDARY\\SUBTRACTION", "ContrastBolusAgent": "Gadovist"},
    )
    guesses = guessModalities(nodes.values())
    assert {modality: guess.node for modality, guess in guesses.items()} == {"t1n": nodes["plain"]}
    assert undecidedVolumes(dict.fromkeys(MODALITIES)) == [nodes["plain"]]


def test_agent_that_was_not_given():
    for words in ("", "NONE", "no"):
        scores, _reasons = judgeTags({"ContrastBolusAgent": words})
        assert not any(scores.values())


def test_real_headers(scene, monkeypatch, real_dicom):
    """A 3-D gradient echo of GE; 3-D turbo spin echoes with inversion, which are FLAIR, of Philips and Siemens."""
    pydicom = pytest.importorskip("pydicom")
    headers = {}
    for maker in ("ge", "philips", "siemens"):
        file = next(path for path in sorted((real_dicom / maker / "anatomical" / "001").rglob("*")) if path.is_file())
        headers[maker] = pydicom.dcmread(file, stop_before_pixels=True)
    nodes = _fromDicom(monkeypatch, **headers)
    guesses = guessModalities(nodes.values())
    assert guesses["t2f"].node in (nodes["philips"], nodes["siemens"])
    assert nodes["ge"] in [guesses[modality].node for modality in ("t1n", "t1c") if modality in guesses]
    assert set(guesses) <= {"t1n", "t1c", "t2f"}


def _load(case, order):
    """The images of a case folder in the scene under names that say nothing, in `order`: modality -> node."""
    nodes = {}
    for place, modality in enumerate(order):
        array, matrix = readImage(case / f"{modality}.nii.gz")
        nodes[modality] = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=f"Series {3 + place}")
    return nodes


@pytest.mark.parametrize(("name", "isTold"), [("01480", True), ("01481", True), ("01479", False)])
def test_images_are_told_by_what_they_show_or_not_at_all(scene, brats, name, isTold):
    """Of the last one another order is nearly as good."""
    nodes = _load(brats / f"BraTS2021_{name}", ("t2f", "t1c", "t2w", "t1n"))
    guesses = guessModalities()
    assert {modality: guess.node for modality, guess in guesses.items()} == (nodes if isTold else {})
    assert all(guess.isByIntensity and guess.confidence < 0.6 for guess in guesses.values())


def test_what_is_chosen_already_stays_and_the_rest_goes_with_it(scene, brats):
    nodes = _load(brats / "BraTS2021_01480", ("t2f", "t1c", "t2w", "t1n"))
    fixed = {"t1c": nodes["t1c"], "t2w": nodes["t2w"]}
    guesses = guessModalities(fixed=fixed)
    assert {modality: guess.node for modality, guess in guesses.items()} == {m: nodes[m] for m in ("t1n", "t2f")}
    slicer.mrmlScene.RemoveNode(nodes["t1n"])
    assert guessModalities(fixed=fixed) == {}  # one alone has nothing that it could be exchanged with


def test_a_choice_by_hand_draws_its_own_case(scene):
    names = ("T1", "T1 Gd", "T2", "FLAIR")
    first, second = ({n: synth.addVolume(f"{p} {n}", seed=i) for i, n in enumerate(names)} for p in ("A", "B"))
    for case in (first, second):
        guesses = guessModalities(fixed={"t2w": case["T2"]})
        assert {m: g.node for m, g in guesses.items()} == {
            "t1n": case["T1"],
            "t1c": case["T1 Gd"],
            "t2f": case["FLAIR"],
        }
