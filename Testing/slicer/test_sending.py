"""A corrected case from the scene into a folder of corrections, through the real engine; nibabel and json read it."""

import gc
import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials==6.11.3")

import standin_app

standin_app.install()

import qt  # noqa: E402
import slicer  # noqa: E402
import synth  # noqa: E402
from editor import Editor  # noqa: E402
from SegMambaSlicerLib.engine.client import EngineError  # noqa: E402
from SegMambaSlicerLib.errors import InputError  # noqa: E402
from SegMambaSlicerLib.learning import corrections  # noqa: E402
from SegMambaSlicerLib.learning.corrections import Correction, addCorrectedCase  # noqa: E402
from SegMambaSlicerLib.results import history  # noqa: E402
from SegMambaSlicerLib.results.segments import createSegmentation  # noqa: E402
from SegMambaSlicerLib.session import Session  # noqa: E402
from SegMambaSlicerLib.volumes.checks import PREPARED  # noqa: E402

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
WEIGHTS = "ab" * 32
PATIENT = "Zyxgrimm"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "clinic's site \u00fc"
    folder.mkdir()
    return folder


@pytest.fixture
def session(scene):
    qt.QSettings().clear()
    qt.QSettings().setValue("SegMamba/Python", sys.executable)
    session = Session()
    yield session
    session.stop()
    qt.QSettings().clear()
    assert list(Path(slicer.app.temporaryPath).iterdir()) == []


def stroke():
    """(K, J, I) bool: where the clinician paints enhancing tumor; part of it was edema, part nothing."""
    mask = np.zeros(synth.SHAPE, bool)
    mask[4:7, 2:6, 9:13] = True
    return mask


def make(kind="oblique", mode="labels", moved=False, tmp_path=None):
    """A result on four volumes, as `Run` leaves it. Returns the segmentation and the volumes."""
    volumes = {m: synth.addVolume(f"{PATIENT} {m}", kind, seed=seed) for seed, m in enumerate(MODALITIES)}
    if moved:
        transform = synth.addTransform()
        for volume in volumes.values():
            volume.SetAndObserveTransformNodeID(transform.GetID())
    segmentation = createSegmentation(synth.labelMap(), volumes["t1c"], mode=mode)
    answer = {"model": "quick-1", "mirrorings": 7}
    if tmp_path is not None:
        answer["summary"] = str(tmp_path / "summary.json")
        Path(answer["summary"]).write_text(json.dumps({"settings": {"weights_sha256": WEIGHTS}}))
    history.keepOrigin(segmentation, volumes, answer)
    return segmentation, volumes


def assertPlaced(path, array, affine):
    """The file holds `array` (K, J, I) at the places that `affine` gives it, in whatever order of voxels."""
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    kji = np.argwhere(np.ones(array.shape, bool))
    ras = affine @ np.vstack([kji[:, ::-1].T, np.ones(len(kji))])
    there = (np.linalg.inv(image.affine) @ ras)[:3]
    assert np.abs(there - np.rint(there)).max() < 1e-2
    np.testing.assert_array_equal(data[tuple(np.rint(there).astype(int))], array[tuple(kji.T)])
    assert sorted(data.shape) == sorted(array.shape)


@pytest.mark.parametrize(
    ("kind", "mode", "moved"),
    [("oblique", "labels", True), ("oblique-left", "regions", False), ("PIR", "labels", True)],
)
def test_what_is_sent_lies_where_the_scene_shows_it(session, site, kind, mode, moved):
    segmentation, volumes = make(kind, mode, moved)
    Editor(segmentation, volumes["t1c"]).paint("ET", stroke())
    corrected = np.where(stroke(), 3, synth.labelMap())
    if moved:
        added = addCorrectedCase(session.command, segmentation, site, consent=True)
    else:  # without waiting
        heard = []
        calls = {"onDone": heard.append, "onError": heard.append}
        correction = addCorrectedCase(session.command, segmentation, site, consent=True, wait=False, **calls)
        assert heard == []
        while not heard:
            session.tick()
        added = heard[0]
        assert not correction.isBusy
        assert correction.sentBefore == added["name"]
    folder = Path(added["folder"])
    assert folder == site / "corrections" / "incoming" / f"{added['case']}-v1"
    affine = synth.matrixFor(kind)
    if moved:
        matrix = volumes["t1c"].GetParentTransformNode().GetMatrixTransformToParent()
        affine = slicer.util.arrayFromVTKMatrix(matrix) @ affine
    for modality, volume in volumes.items():
        assertPlaced(folder / f"{modality}.nii.gz", slicer.util.arrayFromVolume(volume), affine)
    assertPlaced(folder / "seg.nii.gz", corrected, affine)
    assertPlaced(folder / "proposal.nii.gz", synth.labelMap(), affine)
    said = json.loads((folder / "case.json").read_text())["changes"]
    assert said["ET"]["added"] == int((stroke() & (synth.labelMap() != 3)).sum()) > 0
    assert said["ED"]["removed"] == int((stroke() & (synth.labelMap() == 2)).sum()) > 0


def test_what_is_known_of_the_result_survives_the_scene_and_the_case_is_known_again(session, site, tmp_path):
    """A left-handed grid, which Slicer loads in another order of voxels than it was saved in."""
    segmentation, volumes = make("oblique-left", tmp_path=tmp_path)
    Editor(segmentation, volumes["t1c"]).paint("ET", stroke())
    last = history.noteEdit(segmentation, None, 100.0)
    history.noteEdit(segmentation, last, 112.5)
    first = addCorrectedCase(session.command, segmentation, site, subject=f" {PATIENT}77 ", consent=True)
    bundle = str(tmp_path / "case.mrb")
    assert slicer.mrmlScene.WriteToMRB(bundle)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.ReadFromMRB(bundle, False)
    again = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    assert history.modelFacts(again) == {"model": "quick-1", "weights_sha256": WEIGHTS, "mirrorings": "7"}
    with zipfile.ZipFile(bundle) as archive:  # the subject is never written into the scene
        assert not any(f"{PATIENT}77".encode() in archive.read(name) for name in archive.namelist())
    second = addCorrectedCase(session.command, again, site, subject=f"{PATIENT}77", role="radiologist", consent=True)
    assert (second["case"], second["version"]) == (first["case"], 2)
    records = [json.loads((Path(sent["folder"]) / "case.json").read_text()) for sent in (first, second)]
    for record in records:
        assert record["model"] == {"id": "quick-1", "weights_sha256": WEIGHTS}
        assert record["settings"] == {"mirrorings": 7}
        assert record["editor_seconds"] == pytest.approx(12.5, abs=0.5)
    assert [record["role"] for record in records] == ["", "radiologist"]
    assert records[0]["subject"] == records[1]["subject"] != first["case"]
    assert records[0]["segmentation"] == records[1]["segmentation"]
    for path in site.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        data = gzip.decompress(data) if path.name.endswith(".gz") else data
        assert PATIENT.lower() not in (str(path.relative_to(site)) + data.decode("latin-1")).lower()

    # and the intake takes it, once a person says that noise in place of images is right
    line = [sys.executable, "-m", "segmamba", "intake", str(site / "corrections"), "--json"]
    line += [f"--accept={second['name']}", "--reason=made up"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows[second["name"]]["status"] in ("train", "validation"), rows
    kinds = {finding["kind"] for row in rows.values() for finding in row["findings"]}
    assert not kinds & {"record", "identifying", "file", "changed", "consent", "label values"}


def test_a_label_without_a_voxel_has_to_be_confirmed(session, site):
    segmentation, volumes = make()
    Editor(segmentation, volumes["t1c"]).erase("ET", np.ones(synth.SHAPE, bool))
    correction = Correction(session.command, segmentation, site).prepare()
    report = correction.check().wait()
    assert report["empty"] == ["ET"]
    assert not (site / "corrections").exists()
    with pytest.raises(InputError, match="ET has no voxel"):
        correction.send()
    with pytest.raises(InputError, match="WT is not a label"):
        correction.send(["ET", "WT"])
    added = correction.send(["ET"]).wait()
    record = json.loads((Path(added["folder"]) / "case.json").read_text())
    assert record["confirmed_empty"] == ["ET"]
    assert correction.sentBefore == added["name"]
    with pytest.raises(InputError, match="not been checked as it is now"):
        correction.send(["ET"])


def never(*arguments, **keywords):
    raise AssertionError("the engine was started")


def test_without_consent_nothing_happens(scene, site):
    segmentation, _volumes = make()
    with pytest.raises(InputError, match=r"de-identified. Faces identify people"):
        addCorrectedCase(never, segmentation, site)
    assert list(site.iterdir()) == []


def spoilt(how):
    segmentation, volumes = make("RAS")
    if how == "none":
        return None, {}
    if how == "foreign":
        return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand"), volumes
    if how == "original":
        slicer.mrmlScene.RemoveNode(segmentation.GetNodeReference(history.ORIGINAL_ROLE))
    elif how == "volume":
        slicer.mrmlScene.RemoveNode(volumes["t2f"])
    elif how == "without":
        for modality in ("t1n", "t2w"):
            segmentation.SetNodeReferenceID(history.VOLUME_ROLE + modality, None)
    elif how == "moved":
        for volume in volumes.values():
            volume.SetAndObserveTransformNodeID(synth.addTransform().GetID())
    return segmentation, volumes


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("none", "no result yet"),
        ("foreign", "is not a result of SegMamba"),
        ("original", "has no copy of what the model made"),
        ("volume", "FLAIR: not in the scene"),
        ("without", "T1 and T2: .*made without one of T1, T1c, T2 and FLAIR cannot be added"),
        ("moved", "is no longer on the grid of"),
    ],
)
def test_what_does_not_do_is_said_before_the_engine_is_asked(scene, site, how, text):
    segmentation, _volumes = spoilt(how)
    with pytest.raises(InputError, match=text):
        Correction(never, segmentation, site).prepare()
    assert list(Path(slicer.app.temporaryPath).iterdir()) == []


@pytest.mark.parametrize("how", ["grids", "skull", "ready"])
def test_raw_volumes_go_out_on_their_own_grids_to_be_prepared(scene, site, how):
    """T1c and T2 left-handed: written in the order in which Slicer loads them again."""
    segmentation, volumes = make("oblique-left")
    place = {m: synth.matrixFor("oblique-left") for m in volumes}
    if how == "grids":
        array = np.random.default_rng(5).integers(0, 1000, (6, 15, 21)).astype(np.int16)
        slicer.util.updateVolumeFromArray(volumes["t2w"], array)
        place["t2w"] = synth.matrixFor("LAS")
        volumes["t2w"].SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(place["t2w"]))
    if how != "ready":
        segmentation.SetAttribute(PREPARED, "brain")
    lines = []
    correction = Correction(lambda line, *_others, **_more: lines.append(line), segmentation, site).prepare()
    correction.check()
    folder = Path(lines[0][1])
    assert f"--prepare={'never' if how == 'ready' else 'auto'}" in lines[0]
    assert correction.isRaw == (how != "ready")
    for modality, volume in volumes.items():
        path = folder / f"{modality}.nii"
        assertPlaced(path, slicer.util.arrayFromVolume(volume), place[modality])
        assert np.linalg.det(nib.load(path).affine[:3, :3]) > 0
    assertPlaced(folder.parent / "corrected.nii", synth.labelMap(), place["t1c"])
    np.testing.assert_allclose(nib.load(folder.parent / "corrected.nii").affine, nib.load(folder / "t1c.nii").affine)
    correction.close()


def test_a_site_that_is_no_folder(scene, tmp_path):
    segmentation, _volumes = make()
    for site in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(InputError, match="is not a folder that can be reached"):
            Correction(never, segmentation, site).prepare()


def test_segments_of_ones_own_and_overlaps_are_told(scene, site):
    segmentation, volumes = make()
    segment = segmentation.GetSegmentation().AddEmptySegment("Segment_1", "Bleeding")
    correction = Correction(never, segmentation, site).prepare()
    assert correction.notes == []  # it is empty
    correction.close()
    editor = Editor(segmentation, volumes["t1c"], overwrite="none")
    editor.paint(segment, stroke())
    editor.paint("ET", stroke())
    correction = Correction(never, segmentation, site).prepare()
    correction.close()
    assert [note["severity"] for note in correction.notes] == ["doubtful", "note"]
    assert "Bleeding" in correction.notes[0]["text"]
    assert "belonged to more than one label" in correction.notes[1]["text"]


def test_the_files_are_removed_whatever_happens(session, site, monkeypatch):
    segmentation, _volumes = make()
    temporary = Path(slicer.app.temporaryPath)
    correction = Correction(session.command, segmentation, site).prepare()
    assert len(list(temporary.iterdir())) == 1
    command = correction.check()
    correction.close()  # in the midst
    assert command.isDone
    assert list(temporary.iterdir()) == []
    assert list(site.iterdir()) == []

    correction = Correction(session.command, segmentation, site).prepare()
    del correction  # forgotten
    gc.collect()
    assert list(temporary.iterdir()) == []

    qt.QSettings().setValue("SegMamba/Python", str(site))  # no program
    with pytest.raises(EngineError):
        addCorrectedCase(session.command, segmentation, site, consent=True)
    assert list(temporary.iterdir()) == []

    def full(*arguments):
        raise InputError("the disk is full")

    monkeypatch.setattr(corrections, "exportLabels", full)
    with pytest.raises(InputError, match="the disk is full"):
        Correction(never, segmentation, site).prepare()
    assert list(temporary.iterdir()) == []


def test_a_site_that_cannot_be_written_to(session, site):
    """A file where a folder should be: what the engine says of it is put in plain words."""
    segmentation, _volumes = make()
    (site / "corrections").write_text("not a folder")
    with pytest.raises(InputError, match="is a file; a folder was expected"):
        Correction(never, segmentation, site).prepare()
    (site / "corrections").unlink()
    (site / "corrections").mkdir()
    (site / "corrections" / "incoming").write_text("not a folder")
    with pytest.raises(EngineError, match=r"incoming: a file; expected a folder, or nothing yet: choose another name"):
        addCorrectedCase(session.command, segmentation, site, consent=True)
    assert (site / "corrections" / "incoming").read_text() == "not a folder"


def test_pauses_between_edits_count_up_to_a_limit(scene):
    segmentation, _volumes = make()
    assert history.editorSeconds(segmentation) is None
    last = None
    for now in (50.0, 60.0, 70.0, 4000.0, 4001.0):
        last = history.noteEdit(segmentation, last, now)
    assert history.editorSeconds(segmentation) == 10 + 10 + history.PAUSE_SECONDS + 1
    history.noteEdit(segmentation, None, 9000.0)  # another sitting
    assert history.editorSeconds(segmentation) == 21 + history.PAUSE_SECONDS
