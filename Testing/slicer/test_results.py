"""Volumes, diameters and places to check, against numpy and plain search."""

from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import slicer
import synth
from editor import Editor
from scipy import ndimage
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.results import lesions, places, segments, uncertainty
from SegMambaSlicerLib.results import statistics as results
from SegMambaSlicerLib.volumes.scene import exportLabels

LABEL_MAP = synth.labelMap()
VOXEL_ML = float(np.prod(synth.SPACING)) / 1000


@pytest.fixture
def t1c(scene):
    return synth.addVolume("Post", "oblique-left")


@pytest.mark.parametrize("mode", ["labels", "regions"])
def test_volumes_are_voxels_times_their_size(t1c, mode):
    node = segments.createSegmentation(LABEL_MAP, t1c, mode=mode)
    counts = np.bincount(LABEL_MAP.ravel(), minlength=4)
    expected = {"WT": counts[1:].sum(), "TC": counts[1] + counts[3], "ET": counts[3], "NCR": counts[1], "ED": counts[2]}
    found = {row.id: row.volume for row in results.measure(node)}
    assert found == pytest.approx({name: count * VOXEL_ML for name, count in expected.items()})
    assert all(row.changed == 0 for row in results.measure(node))


def test_edits_are_counted(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    stroke = np.zeros(synth.SHAPE, bool)
    stroke[3:6, 6:12, 8:20] = True
    Editor(node, t1c).paint("ET", stroke)
    rows = {row.id: row for row in results.measure(node)}
    assert rows["ET"].changed == pytest.approx((stroke & (LABEL_MAP != 3)).sum() * VOXEL_ML)
    assert rows["ED"].changed == pytest.approx((stroke & (LABEL_MAP == 2)).sum() * VOXEL_ML)


def test_table_follows_edits(t1c, scene):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    table = results.updateTable(node)
    stroke = np.ones(synth.SHAPE, bool)
    Editor(node, t1c).erase("ED", stroke)
    assert results.updateTable(node) is table
    assert len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == 1
    columns = [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    assert columns == ["Structure", "Volume (mL)", "Longest diameter (mm)", "Perpendicular (mm)", "Edited (mL)"]
    text = {
        table.GetCellText(row, 0): [table.GetCellText(row, column) for column in range(1, 5)]
        for row in range(table.GetNumberOfRows())
    }
    lost = (LABEL_MAP == 2).sum() * VOXEL_ML
    assert [float(value) for value in text["Edema (ED)"]] == [0, 0, 0, round(lost, 2)]
    assert float(text["Whole tumor (WT)"][0]) == pytest.approx((LABEL_MAP % 2 == 1).sum() * VOXEL_ML, abs=0.005)


def _diameters(mask, spacing, axis):
    """Of all pairs of voxels in a slice the farthest, and all widths at right angles to pairs that are as far."""
    best, widths = 0.0, []
    for image in np.moveaxis(mask, axis, 0):
        points = np.argwhere(image) * spacing
        for a, b in combinations(points, 2):
            length = np.linalg.norm(a - b)
            if length > best - 1e-9:
                across = np.array([[0, -1], [1, 0]]) @ (a - b) / length
                widths = [*(widths if length < best + 1e-9 else []), np.ptp(points @ across)]
                best = max(best, length)
    return best, widths


@pytest.mark.parametrize(("kind", "axis"), [("LPS", 0), ("oblique", 0), ("PIR", 1)])
def test_diameters_by_searching_all_pairs(kind, axis):
    """The axial slices of PIR are those of its rows (J runs down), of the others those of K."""
    spacing = np.array(synth.SPACING)[::-1]
    mask = (LABEL_MAP == 3) | (LABEL_MAP == 1)
    expected = _diameters(mask, np.delete(spacing, axis), axis)
    assert expected[0] > 7 and min(expected[1]) > 3
    longest, perpendicular = results.diameters(mask, synth.matrixFor(kind))
    assert longest == pytest.approx(expected[0])
    assert any(perpendicular == pytest.approx(width) for width in expected[1])  # several pairs can be the longest


def test_diameters_of_little():
    mask = np.zeros((4, 5, 6), bool)
    assert results.diameters(mask, np.eye(4)) == (0, 0)
    mask[1, 2, 3] = True
    assert results.diameters(mask, np.eye(4)) == (0, 0)
    mask[1, 2, 5] = True
    assert results.diameters(mask, np.eye(4)) == (2, 0)


def _unsure(*spots, shape=(40, 44, 48)):
    """A map on a 2 mm grid with a thin shell as every outline has, and balls (centre K, J, I, radius, value)."""
    k, j, i = np.indices(shape)
    distance = np.sqrt((k - 20) ** 2 + (j - 22) ** 2 + (i - 24) ** 2)
    array = np.where(np.abs(distance - 12) < 0.6, 0.4, 0.0)
    for *centre, radius, value in spots:
        ball = (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 < radius**2
        array[ball] = value
    return array.astype(np.float32)


SPOTS = ((20, 34, 24, 3, 0.7), (9, 22, 24, 3, 0.9), (36, 40, 44, 2.5, 0.95))
GRID = np.diag([-2.0, 2.0, 2.0, 1.0])


def _mapVolume(array):
    return slicer.util.addVolumeFromArray(np.zeros_like(array), ijkToRAS=GRID, name="Post")


def test_thick_spots_come_before_thin_outlines(scene):
    array = _unsure(*SPOTS)
    volume = _mapVolume(array)
    transform = synth.addTransform()
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = uncertainty.addUncertainty(array, volume)
    found = places.placesToCheck(node)
    world = slicer.util.arrayFromVTKMatrix(transform.GetMatrixTransformToParent()) @ GRID
    expected = [(world @ [i, j, k, 1])[:3] for k, j, i, _radius, _value in (SPOTS[1], SPOTS[2], SPOTS[0])]
    for place, centre in zip(found, expected):
        np.testing.assert_allclose(place.ras, centre, atol=3)
    distances = [np.linalg.norm(np.subtract(a.ras, b.ras)) for a, b in combinations(found, 2)]
    assert min(distances) >= places.APART_MM
    assert found[0].volume > 0.5


def test_places_say_what_is_there(scene):
    array = _unsure(*SPOTS)
    volume = _mapVolume(array)
    labels = np.zeros(array.shape, np.uint8)
    labels[:, :34] = 2
    labels[:14, 16:30] = 3
    segmentation = segments.createSegmentation(labels, volume)
    node = uncertainty.addUncertainty(array, volume, segmentation)
    assert uncertainty.uncertaintyOf(segmentation) is node
    texts = [place.text for place in places.placesToCheck(node, segmentation)]
    assert texts[:3] == ["is all of this enhancing tumor?", "is there tumor here?", "edema or no tumor?"]


def test_places_are_found_in_steps_and_follow_edits(scene):
    """What is there is told from the segments of the moment; another map has other places."""
    array = _unsure(*SPOTS)
    volume = _mapVolume(array)
    segmentation = segments.createSegmentation(np.zeros(array.shape, np.uint8), volume)
    node = uncertainty.addUncertainty(array, volume, segmentation)
    found = places.Places(node)
    steps = found.steps()
    next(steps)
    assert found.count is None
    assert len(list(steps)) > 3
    assert found.count == len(places.placesToCheck(node))
    assert found.place(0, segmentation).text == "is there tumor here?"
    segments.setLabels(segmentation, np.full(array.shape, 3, np.uint8))
    assert found.place(0, segmentation).text == "is all of this enhancing tumor?"
    assert found.isOf(node)
    transform = synth.addTransform()
    before = np.array(found.place(0).ras)
    for part in (node, segmentation):
        part.SetAndObserveTransformNodeID(transform.GetID())
    world = slicer.util.arrayFromVTKMatrix(transform.GetMatrixTransformToParent())
    np.testing.assert_allclose(found.place(0).ras, (world @ [*before, 1])[:3])
    assert found.place(0, segmentation).text == "is all of this enhancing tumor?"
    slicer.util.updateVolumeFromArray(node, np.zeros_like(array))
    assert not found.isOf(node)


def test_smoothing_in_slabs_is_smoothing(monkeypatch):
    """Axis after axis and slab after slab, as scipy does it at once."""
    monkeypatch.setattr(places, "STEP_VOXELS", 500)
    array = np.zeros((14, 19, 23), np.float32)
    array[6:8, 8:11, 10:14] = 1
    spacing = np.array([3.0, 1.5, 2.0])
    steps = places._smoothed(array, spacing)
    count = 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as end:
            smooth = end.value
            break
    assert count > 12
    radius = (places.RADII * places.SMOOTHING_MM / spacing).astype(int)
    expected = ndimage.gaussian_filter(array, places.SMOOTHING_MM / spacing, radius=radius, mode="constant")
    np.testing.assert_allclose(smooth, expected, atol=1e-6)


def test_nothing_uncertain(scene):
    array = np.zeros((10, 11, 12), np.float32)
    node = uncertainty.addUncertainty(array, _mapVolume(array))
    assert places.placesToCheck(node) == []


def test_few_large_slices_are_smoothed_too(scene, monkeypatch):
    """Of fewer slices than there are steps' worth of voxels."""
    monkeypatch.setattr(places, "STEP_VOXELS", 10)
    array = np.zeros((2, 21, 22), np.float32)
    array[:, 7:12, 10:15] = 0.9
    (place,) = places.placesToCheck(uncertainty.addUncertainty(array, _mapVolume(array)))
    ijk = np.linalg.inv(GRID) @ [*place.ras, 1]
    assert ijk[:2] == pytest.approx([12, 9], abs=1)


def test_jump_moves_all_slices(scene):
    for name in ("Red", "Yellow", "Green"):
        node = scene.AddNewNodeByClass("vtkMRMLSliceNode", name)
        node.SetOrientation({"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}[name])
    uncertainty.jumpTo((12.0, -7.5, 31.0))
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    assert len(nodes) == 3
    for node in nodes:
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 3], (12.0, -7.5, 31.0), atol=1e-6)
    crosshair = slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0]
    np.testing.assert_allclose(crosshair.GetCrosshairRAS(), (12.0, -7.5, 31.0))


def test_map_from_the_engines_file(t1c, tmp_path):
    array = np.random.default_rng(4).random(synth.SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(array.T, synth.matrixFor("oblique-left")), tmp_path / "uncertainty.nii.gz")
    node = uncertainty.addUncertainty(tmp_path / "uncertainty.nii.gz", t1c)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
    other = synth.addVolume("Other", "RAS")
    with pytest.raises(InputError, match=r"uncertainty\.nii\.gz is not on the grid of Other"):
        uncertainty.addUncertainty(tmp_path / "uncertainty.nii.gz", other)


def test_map_is_saved_with_its_colors(scene, tmp_path):
    array = _unsure(*SPOTS)
    volume = _mapVolume(array)
    segmentation = segments.createSegmentation(np.zeros(array.shape, np.uint8), volume)
    node = uncertainty.addUncertainty(array, volume, segmentation)
    results.updateTable(segmentation)
    name = segmentation.GetName()
    before = places.placesToCheck(node, segmentation)
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    segmentation = slicer.util.getNode(name)
    node = uncertainty.uncertaintyOf(segmentation)
    display = node.GetDisplayNode()
    assert display.GetColorNode().GetName() == uncertainty.COLOR_NAME
    color = np.zeros(4)
    display.GetColorNode().GetColor(255, color)
    np.testing.assert_allclose(color[:3], (1, 0, 0), atol=0.01)
    assert (display.GetApplyThreshold(), display.GetLowerThreshold()) == (1, pytest.approx(uncertainty.SHOWN_FROM))
    after = places.placesToCheck(node, segmentation)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.ras, other.ras, atol=1e-3)
        assert one.text == other.text
    assert results.updateTable(segmentation) is slicer.util.getNodesByClass("vtkMRMLTableNode")[0]
    assert len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == 1


@pytest.mark.parametrize("isHardened", [False, True], ids=["under", "hardened"])
def test_what_is_measured_is_what_the_world_and_an_exported_file_hold(t1c, tmp_path, isHardened):
    """A transform that scales, as from a phantom or an atlas, makes a tumor larger in the scene, and for the engine."""
    transform = synth.addTransform(scale=2.0)
    transform.SetMatrixTransformToParent(
        slicer.util.vtkMatrixFromArray(slicer.util.arrayFromTransformMatrix(transform) @ np.diag([1, 1.5, 0.9, 1]))
    )
    upright = synth.addVolume("Upright", "RAS")
    upright.SetAndObserveTransformNodeID(transform.GetID())
    node = segments.createSegmentation(LABEL_MAP, upright)
    if isHardened:
        node.HardenTransform()
        upright.HardenTransform()
    affine = nib.load(exportLabels(LABEL_MAP, upright, tmp_path / "labels.nii")).affine
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    assert voxel == pytest.approx(8 * 1.35 * VOXEL_ML, rel=1e-5)
    rows = {row.id: row for row in results.measure(node)}
    for name, mask in {"WT": LABEL_MAP > 0, "NCR": LABEL_MAP == 1, "ED": LABEL_MAP == 2}.items():
        assert rows[name].volume == pytest.approx(mask.sum() * voxel, rel=1e-5)
        expected = results.diameters(mask, affine)
        assert (rows[name].longest, rows[name].perpendicular) == pytest.approx(expected, rel=1e-5)
    (lesion,) = lesions.lesionsOf(node)
    part = LABEL_MAP.copy()
    part[1, 2, 3] = 0  # one voxel is no lesion
    assert lesion.volume == pytest.approx((part > 0).sum() * voxel, rel=1e-5)
    assert (lesion.longest, lesion.perpendicular) == pytest.approx(results.diameters(part > 0, affine), rel=1e-5)


def test_of_what_is_warped_nothing_is_measured(t1c, scene):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    node.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp").GetID())
    for function in (results.measure, lesions.lesionsOf):
        with pytest.raises(InputError, match=r"is warped by the transform Warp.*Harden"):
            function(node)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
def test_parts_are_those_of_scipy(share):
    random = np.random.default_rng(int(100 * share))
    for _ in range(12):
        mask = random.random(random.integers(1, 9, 3)) < share
        labelled, count = ndimage.label(mask, np.ones((3, 3, 3)))
        expected = {frozenset(map(tuple, np.argwhere(labelled == n))) for n in range(1, count + 1)}
        found = lesions.components(mask)
        assert len(found) == count and {frozenset(map(tuple, part)) for part in found} == expected


def test_lesions_are_measured_where_they_lie(t1c):
    """The largest first; two voxels are none. A place lies inside its lesion, also of one that is bent around."""
    labels = np.zeros(synth.SHAPE, np.uint8)
    labels[2:6, 3:9, 4:12] = 2
    labels[3:5, 4:8, 5:11] = 0  # a shell: its middle is not in it
    labels[8, 12, 14:17] = 3
    labels[9, 2, 2:4] = 2
    node = segments.createSegmentation(labels, t1c)
    found = lesions.lesionsOf(node)
    shell = np.count_nonzero(labels[2:6, 3:9, 4:12])
    assert [lesion.volume for lesion in found] == pytest.approx([shell * VOXEL_ML, 3 * VOXEL_ML])
    inverse = np.linalg.inv(synth.matrixFor("oblique-left"))
    for lesion, value in zip(found, (2, 3)):
        i, j, k = np.rint(inverse @ [*lesion.ras, 1])[:3].astype(int)
        assert labels[k, j, i] == value
