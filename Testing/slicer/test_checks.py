"""Whether volumes fit together, and whether two look exchanged."""

import json
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import slicer
import synth
import vtk
from SegMambaSlicerLib.engine.shared import loadShared
from SegMambaSlicerLib.volumes import checks, swaps
from SegMambaSlicerLib.volumes.checks import referenceOf
from SegMambaSlicerLib.volumes.incomplete import knownIncomplete
from SegMambaSlicerLib.volumes.modalities import MODALITIES, checkVolumes, swapWarnings
from SegMambaSlicerLib.volumes.scene import exportVolume, readImage
from SegMambaSlicerLib.volumes.swaps import sampleNodes


@pytest.fixture
def volumes(scene):
    return {modality: synth.addVolume(modality.upper(), seed=i) for i, modality in enumerate(MODALITIES)}


def _only(volumes, **options):
    problems = checkVolumes(volumes, **options)
    assert len(problems) == 1, problems
    return problems[0]


def test_what_fits(volumes):
    assert checkVolumes(volumes) == []


def test_same_voxels_in_another_order_fit(volumes):
    image = nib.Nifti1Image(slicer.util.arrayFromVolume(volumes["t2w"]).T, synth.matrixFor("oblique"))
    image = image.as_reoriented([[2, -1], [1, 1], [0, -1]])
    turned = np.asarray(image.dataobj).T.copy()
    volumes["t2w"] = slicer.util.addVolumeFromArray(turned, ijkToRAS=image.affine, name="Turned")
    assert checkVolumes(volumes) == []


def test_missing(volumes):
    volumes["t2f"] = None
    problem = _only(volumes)
    assert (problem.kind, problem.text) == ("missing", "FLAIR is missing. Choose a volume.")
    del volumes["t2f"]
    assert _only(volumes) == problem


def test_same_volume_twice(volumes):
    volumes["t1c"] = volumes["t1n"]
    problem = _only(volumes)
    assert problem.kind == "duplicate"
    assert problem.text.startswith("T1 (T1N) and T1c (T1N) are the same image.")


def test_copy_of_a_volume(volumes):
    array = slicer.util.arrayFromVolume(volumes["t1n"])
    volumes["t1c"] = synth.addVolume("Copy", array=array.copy())
    assert _only(volumes).kind == "duplicate"


def test_four_dimensional(volumes):
    array = np.zeros((*synth.SHAPE, 3), np.int16)
    node = slicer.util.addVolumeFromArray(array, name="4D", nodeClassName="vtkMRMLVectorVolumeNode")
    volumes["t2w"] = node
    problem = _only(volumes)
    assert problem.kind == "components"
    assert "T2 (4D) has 3 values per voxel" in problem.text


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.full(synth.SHAPE, 7, np.int16), "constant"),
        (np.full(synth.SHAPE, np.nan, np.float32), "empty"),
        (np.ones((1, 17, 23), np.int16), "empty"),
    ],
    ids=["constant", "not a number", "slice"],
)
def test_no_image(volumes, array, kind):
    volumes["t2w"] = synth.addVolume("Nothing", array=array)
    assert _only(volumes).kind == kind


def test_all_values_that_16_bits_hold(volumes):
    array = slicer.util.arrayFromVolume(volumes["t2w"])
    array[0, 0, :2] = -32768, 32767
    with np.errstate(all="raise"):
        assert checkVolumes(volumes) == []


def test_without_voxels(volumes, scene):
    volumes["t2w"] = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert _only(volumes).kind == "empty"


def test_a_part_whose_voxels_are_not_counted_from_0(volumes, tmp_path):
    """As vtkExtractVOI leaves it; both ways out that are named lead out, to the same place."""
    cut = vtk.vtkExtractVOI()
    cut.SetInputData(volumes["t2w"].GetImageData())
    cut.SetVOI(5, 20, 3, 12, 2, 9)
    cut.Update()
    volumes["t2w"].SetAndObserveImageData(cut.GetOutput())
    for prepare in checks.PREPARE:
        problem = _only(volumes, prepare=prepare)
        assert (problem.kind, problem.blocking) == ("extent", True)
        assert problem.text == (
            "T2 (T2W) is a part of an image whose voxels are not counted from 0. Save it as NIfTI and load that or, in "
            "Python, call its ShiftImageDataExtentToZeroStart()."
        )
    array, matrix = readImage(exportVolume(volumes["t2w"], tmp_path / "t2w.nii"))
    loaded = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="loaded")
    assert checkVolumes({**volumes, "t2w": loaded}, prepare="auto") == []
    volumes["t2w"].ShiftImageDataExtentToZeroStart()
    assert checkVolumes(volumes, prepare="auto") == []
    expected = synth.matrixFor("oblique") @ [5, 3, 2, 1]
    for node in (loaded, volumes["t2w"]):
        np.testing.assert_allclose(node.GetOrigin(), expected[:3], atol=1e-4)


def test_sheared(volumes):
    transform = synth.addShear(np.tan(np.radians(5)))
    volumes["t2w"] = synth.addVolume("T2", "RAS", seed=9)
    volumes["t2w"].SetAndObserveTransformNodeID(transform.GetID())
    problem = _only(volumes)
    assert problem.kind == "sheared"
    assert "sheared by 5 degrees" in problem.text


def test_a_reference_is_sheared_where_its_result_would_not_lie_on_it(scene):
    """Slicer writes and reads NIfTI with axes at right angles: what that moves depends on the size of the volume."""
    shear = synth.addShear(1e-4)
    node, other = (slicer.util.addVolumeFromArray(synth.fullSize(seed), name=name) for seed, name in enumerate("AB"))
    node.SetAndObserveTransformNodeID(shear.GetID())
    problem = _only({"t1c": node, "t2w": other}, required=("t1c", "t2w"), prepare="auto")
    assert (problem.kind, problem.blocking) == ("sheared", True)
    assert problem.text.startswith("T1c (A) is sheared by 0.0057 degrees. Resample it first")
    assert checkVolumes({"t1c": other, "t2w": node}, ("t1c", "t2w"), prepare="auto") == []  # it is registered
    small = synth.addVolume("C", "RAS")
    small.SetAndObserveTransformNodeID(shear.GetID())
    assert checkVolumes({"t1c": small}, ("t1c",)) == []


def test_warped(volumes, scene):
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    volumes["t2w"].SetAndObserveTransformNodeID(warp.GetID())
    problem = _only(volumes)
    assert problem.kind == "transform"
    assert "T2W is warped by the transform Warp" in problem.text


@pytest.mark.parametrize("isOwn", [True, False], ids=["own", "transform"])
@pytest.mark.parametrize("value", [0.0, float("nan")], ids=["flat", "not a number"])
def test_flattened(volumes, scene, isOwn, value):
    """A scale of 0 is typed, or stands in a transform that was read."""
    matrix = np.eye(4)
    matrix[0, 0] = value
    if isOwn:
        volumes["t2w"].SetIJKToRASDirections(*matrix[:3, :3].ravel())
    else:
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Flat")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
        volumes["t2w"].SetAndObserveTransformNodeID(transform.GetID())
    for prepare in checks.PREPARE:
        problem = _only(volumes, prepare=prepare)
        assert (problem.kind, problem.blocking) == ("transform", True)
        where = "T2W has" if isOwn else "The transform Flat, in which T2W lies, has"
        assert problem.text.startswith(f"{where} axes without length or direction.")


def test_shifted(volumes):
    matrix = synth.matrixFor("oblique")
    matrix[:3, 3] += (0, 3, 4)
    volumes["t2w"].SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    problem = _only(volumes)
    assert problem.kind == "grid"
    assert "T2 (T2W) is not on the grid of T1c (T1C): shifted or rotated by up to 5.0 mm" in problem.text


def test_other_voxels(volumes):
    volumes["t2w"] = synth.addVolume("Thick", array=np.random.default_rng(0).normal(size=(5, 17, 23)))
    problem = _only(volumes)
    assert problem.kind == "grid"
    assert (
        "23 x 17 x 5 voxels of 0.9 x 1.3 x 2.7 mm instead of 23 x 17 x 11 voxels of 0.9 x 1.3 x 2.7 mm" in problem.text
    )


def test_transforms_count(volumes):
    """One transform for all leaves them together, for one it takes that one away."""
    transform = synth.addTransform()
    for node in volumes.values():
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert checkVolumes(volumes) == []
    volumes["t1n"].SetAndObserveTransformNodeID(None)
    assert _only(volumes).kind == "grid"


def test_other_grids_can_be_prepared(volumes, scene):
    """What stands in the way of one grid does not where the engine registers; all the rest does."""
    matrix = synth.matrixFor("RAS")
    matrix[:3, 2] *= 2
    array = np.random.default_rng(0).normal(size=(5, 19, 23))
    volumes["t2w"] = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="Thick")
    volumes["t1n"].SetAndObserveTransformNodeID(synth.addTransform().GetID())
    assert {problem.kind for problem in checkVolumes(volumes)} == {"grid"}
    assert checkVolumes(volumes, prepare="auto") == []
    assert set(checks.offGrid(volumes)) == {"t1n", "t2w"}
    assert checks.preparation(volumes) == [
        "Different grids: T1 and T2 will be registered to T1c; the result is on the grid of T1c.",
        "If the skull is there, the brain is extracted.",
        "Thick slices in T2 (up to 5.4 mm): small parts of a tumor may be missed.",
    ]
    assert len(checks.preparation(volumes, "never")) == 1
    assert [line.endswith("a grid of its own") for line in checks.describeVolumes(volumes)] == [1, 0, 1, 0]
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    volumes["t2w"].SetAndObserveTransformNodeID(warp.GetID())
    volumes["t2f"] = None
    assert {problem.kind for problem in checkVolumes(volumes, prepare="auto")} == {"transform", "missing"}


def test_what_is_prepared_on_one_grid_is_left_to_the_engine(volumes):
    (line,) = checks.preparation(volumes)
    assert line.startswith("Same grid: the engine checks for the skull")
    assert checks.offGrid(volumes) == checks.offGrid({}) == {}


def test_huge(volumes, monkeypatch):
    monkeypatch.setattr(checks, "HUGE_VOXELS", 1000)
    problems = checkVolumes(volumes)
    assert [problem.kind for problem in problems] == ["huge"] * 4
    assert not any(problem.blocking for problem in problems)


def test_other_patient(volumes, monkeypatch):
    monkeypatch.setattr(checks, "dicomTags", lambda node: {"PatientID": node.GetName()[:2]})
    problem = _only(volumes)
    assert (problem.kind, problem.blocking) == ("patient", False)
    assert "T1" not in problem.text.replace("T1c", "")  # no word of who they are


def _tissue(rng):
    """A brain of fluid, grey and white matter with contrasts as in MR, and a spot that enhances."""
    shape = (37, 41, 43)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    distance = np.sqrt(k**2 + j**2 + i**2)
    kind = np.digitize(distance + rng.normal(0, 0.1, shape), [0.3, 0.6, 0.95])  # ventricle, white, grey, air
    values = {"t1n": (30, 110, 80, 0), "t1c": (30, 110, 85, 0), "t2w": (200, 60, 90, 0), "t2f": (20, 70, 95, 0)}
    images = {}
    for modality, means in values.items():
        image = np.array(means, float)[kind] * rng.normal(1, 0.08, shape)
        if modality == "t1c":
            image[(np.abs(k - 0.4) < 0.2) & (np.abs(j) < 0.2) & (np.abs(i) < 0.2)] = 220
        images[modality] = np.where(kind == 3, 0, np.clip(image, 1, None)).astype(np.float32)
    return images


def _brain():
    """`_tissue` as volumes of 150 to 160 mm, and their matrix."""
    matrix = synth.matrixFor("oblique")
    matrix[:3, :3] = matrix[:3, :3] @ np.diag([4, 3, 1.5])
    images = _tissue(np.random.default_rng(2))
    nodes = {name: slicer.util.addVolumeFromArray(image, ijkToRAS=matrix, name=name) for name, image in images.items()}
    return images, nodes, matrix


def test_exchanged_volumes_of_a_model(scene):
    _, nodes, _ = _brain()
    assert swapWarnings(nodes) == []
    for pair, word in ((("t1n", "t1c"), "contrast agent"), (("t2w", "t2f"), "T2 and FLAIR")):
        exchanged = nodes | {pair[0]: nodes[pair[1]], pair[1]: nodes[pair[0]]}
        warnings = swapWarnings(exchanged)
        assert any(word in warning for warning in warnings), (pair, warnings)


def test_volumes_on_other_grids_are_compared(scene):
    images, nodes, matrix = _brain()
    thick = np.ascontiguousarray(images["t2w"][::2])
    matrix[:3, 2] *= 2
    nodes["t2w"] = slicer.util.addVolumeFromArray(thick, ijkToRAS=matrix, name="thick")
    assert swapWarnings(nodes) == []
    assert len(swapWarnings(nodes | {"t2w": nodes["t2f"], "t2f": nodes["t2w"]})) > 0


def test_too_little_to_say(volumes):
    assert swapWarnings({}) == []
    assert swapWarnings({"t1n": volumes["t1n"]}) == []
    assert swapWarnings({modality: synth.addVolume("0", array=np.zeros(synth.SHAPE)) for modality in volumes}) == []


def test_exchanged_real_volumes(scene, brats):
    """No alarm where all is in place, and one for each exchange; all nine cases pass, these are the hardest."""
    for name in ("BraTS2021_00006", "BraTS2021_01477", "BraTS2021_01478"):
        folder = brats / name
        scene.Clear(0)
        nodes = {}
        for modality in MODALITIES:
            image = nib.load(folder / f"{modality}.nii.gz")
            array, matrix = np.asarray(image.dataobj)[::4, ::4, ::4].T, image.affine @ np.diag([4, 4, 4, 1])
            nodes[modality] = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=modality)
        assert swapWarnings(nodes) == []
        values = sampleNodes(nodes).values
        for one, other in combinations(MODALITIES, 2):
            found = loadShared("swaps").gains(values | {one: values[other], other: values[one]})
            assert swaps.judge(found, isHead=False), (folder.name, one, other)


KNOWN = {"measured_on": "quick-9", "cases": 9, "dice": {"WT": 0.9, "ET": 0.5}, "without": {"t2w+t1n": {"WT": 0.8}}}


def test_a_missing_volume_that_the_model_does_without_is_spoken_of(volumes):
    volumes["t1n"] = volumes["t2w"] = None
    problem = _only(volumes, incomplete=KNOWN)
    assert (problem.kind, problem.blocking) == ("incomplete", False)
    assert problem.text == (
        "Without T1 and T2: on 9 unseen cases the model then reached a Dice of WT 0.80; with all volumes, WT 0.90, "
        "ET 0.50."
    )
    volumes["t2f"] = None
    kinds = [(problem.kind, problem.blocking) for problem in checkVolumes(volumes, incomplete=KNOWN)]
    assert kinds == [("missing", True)] * 3
    assert referenceOf(volumes) == "t1c"
    assert referenceOf({**volumes, "t1c": None, "t2f": object()}) == "t2f"


def test_what_a_model_does_without_stands_in_its_folder(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"id": "m", "incomplete": KNOWN}), encoding="utf-8")
    assert knownIncomplete(str(tmp_path)) == KNOWN
    for text in ('{"id": "m"}', '{"incomplete": null}', '{"incomplete": {"without": 3}}', "[]", "{", ""):
        (tmp_path / "model.json").write_text(text, encoding="utf-8")
        assert knownIncomplete(str(tmp_path)) == {}
    assert knownIncomplete(str(tmp_path / "gone")) == {}
