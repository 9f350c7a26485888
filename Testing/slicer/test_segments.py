"""Labels and regions as segments, edited by Slicer's own editor, switched, undone, saved and loaded."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import slicer
import synth
import vtk
from editor import Editor
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.results import history, masks, segments, statistics, succession
from SegMambaSlicerLib.results.vocabulary import LABELS, MODES, structure
from SegMambaSlicerLib.volumes.scene import ijkToRas

KINDS = ("RAS", "LAS", "PIR", "oblique", "oblique-left")
LABEL_MAP = synth.labelMap()
REGION_MASKS = {"WT": LABEL_MAP > 0, "TC": (LABEL_MAP == 1) | (LABEL_MAP == 3), "ET": LABEL_MAP == 3}


def _masks(node, volume):
    """The segments as Slicer's own utility gives them, on the volume's grid."""
    ids = node.GetSegmentation().GetSegmentIDs()
    return {i: slicer.util.arrayFromSegmentBinaryLabelmap(node, i, volume) > 0 for i in ids}


def _box(*parts):
    mask = np.zeros(synth.SHAPE, bool)
    mask[tuple(slice(*part) for part in parts)] = True
    return mask


@pytest.fixture
def t1c(scene):
    volume = synth.addVolume("Post", "oblique-left")
    volume.SetAndObserveTransformNodeID(synth.addTransform().GetID())
    return volume


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_regions_on_awkward_grids(scene, kind):
    volume = synth.addVolume("T1c", kind)
    volume.SetAndObserveTransformNodeID(synth.addTransform().GetID())
    node = segments.createSegmentation(LABEL_MAP, volume)
    masks = _masks(node, volume)
    assert list(masks) == ["NCR", "ED", "ET"]
    for name, value in LABELS.items():
        np.testing.assert_array_equal(masks[name], value == LABEL_MAP)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    assert segments.switchRepresentation(node, "regions") == []
    masks = _masks(node, volume)
    assert list(masks) == ["WT", "TC", "ET"]
    for name, expected in REGION_MASKS.items():
        np.testing.assert_array_equal(masks[name], expected)
    assert segments.switchRepresentation(node, "labels") == []
    np.testing.assert_array_equal(segments.labelArray(node)[0], LABEL_MAP)
    np.testing.assert_array_equal(history.originalLabels(node), LABEL_MAP)


def test_segments_stand_where_the_image_stands(t1c):
    """The enhancing rim's centre in the world, from the surface and from the voxels with the matrices."""
    node = segments.createSegmentation(LABEL_MAP, t1c)
    segments.show3D(node)
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation("ET", surface)
    bounds = np.array(surface.GetBounds()).reshape(3, 2)
    to_parent = slicer.util.arrayFromVTKMatrix(t1c.GetParentTransformNode().GetMatrixTransformToParent())
    own = np.argwhere(LABEL_MAP == 3)[:, ::-1]
    points = synth.matrixFor("oblique-left") @ np.vstack([own.T, np.ones(len(own))])
    np.testing.assert_allclose(bounds.mean(1), (points.max(1) + points.min(1))[:3] / 2, atol=1.0)
    assert node.GetParentTransformNode() is t1c.GetParentTransformNode()
    world = np.zeros(6)
    node.GetRASBounds(world)
    everything = np.argwhere(LABEL_MAP > 0)[:, ::-1]
    points = (to_parent @ synth.matrixFor("oblique-left") @ np.vstack([everything.T, np.ones(len(everything))]))[:3]
    assert (world[::2] <= points.min(1) + 3).all() and (world[1::2] >= points.max(1) - 3).all()


@pytest.mark.parametrize("kind", ["oblique", "oblique-left"])
@pytest.mark.parametrize("moved", ["before", "after", "not"])
def test_a_transform_that_is_hardened_leaves_the_models_answer_under_the_segments(scene, tmp_path, moved, kind):
    """The copy of it is hidden, so nobody hardens the transform on that; also after saving and loading."""
    volume = synth.addVolume("T1c", kind)
    transform = synth.addTransform()
    if moved == "before":
        volume.SetAndObserveTransformNodeID(transform.GetID())
    node = segments.createSegmentation(LABEL_MAP, volume)
    if moved == "after":
        for each in (volume, node):
            each.SetAndObserveTransformNodeID(transform.GetID())
    for each in (volume, node):
        each.HardenTransform()
    np.testing.assert_array_equal(segments.labelArray(node, volume)[0], LABEL_MAP)
    np.testing.assert_array_equal(history.originalLabels(node), LABEL_MAP)
    assert [row.changed for row in statistics.measure(node)] == [0] * 5
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert [row.changed for row in statistics.measure(node)] == [0] * 5


def test_a_geometry_of_another_volume_leaves_the_models_answer_where_it_was(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    other = synth.addVolume("T2", "LPS")  # as many voxels, elsewhere
    node.SetReferenceImageGeometryParameterFromVolumeNode(other)
    kept = node.GetNodeReference(history.ORIGINAL_ROLE)
    np.testing.assert_allclose(masks.matrixOf(history.keptImage(node)), ijkToRas(kept), atol=1e-6)


def test_from_the_engines_file(t1c, tmp_path):
    affine = slicer.util.arrayFromVTKMatrix(t1c.GetParentTransformNode().GetMatrixTransformToParent())
    nib.save(nib.Nifti1Image(LABEL_MAP.T, affine @ synth.matrixFor("oblique-left")), tmp_path / "label map.nii.gz")
    node = segments.createSegmentation(tmp_path / "label map.nii.gz", t1c, mode="regions")
    for name, mask in _masks(node, t1c).items():
        np.testing.assert_array_equal(mask, REGION_MASKS[name])


def test_edited_labels_become_regions_and_back(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    editor = Editor(node, t1c)
    expected = LABEL_MAP.copy()
    stroke = _box((3, 6), (6, 12), (8, 20))
    editor.paint("ET", stroke)
    expected[stroke] = 3
    wiped = _box((4, 5), (8, 16), (2, 15))
    editor.erase("ED", wiped)
    expected[wiped & (expected == 2)] = 0
    assert (expected != LABEL_MAP).sum() > 50
    np.testing.assert_array_equal(segments.labelArray(node)[0], expected)
    assert segments.switchRepresentation(node, "regions") == []
    masks = _masks(node, t1c)
    np.testing.assert_array_equal(masks["WT"], expected > 0)
    np.testing.assert_array_equal(masks["TC"], np.isin(expected, (1, 3)))
    assert segments.switchRepresentation(node, "labels") == []
    np.testing.assert_array_equal(segments.labelArray(node)[0], expected)
    np.testing.assert_array_equal(history.originalLabels(node), LABEL_MAP)  # as the model made it


def test_regions_that_no_longer_nest(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c, mode="regions")
    editor = Editor(node, t1c, overwrite="none")
    stroke = _box((0, 2), (0, 5), (0, 4))
    editor.paint("ET", stroke)
    assert node.GetSegmentation().GetNumberOfLayers() == 3
    outsideTC = int((stroke & ~REGION_MASKS["TC"]).sum())
    notes = segments.switchRepresentation(node, "labels")
    assert notes == [f"{outsideTC} voxels of ET lay outside TC and were added to it."]
    expected = LABEL_MAP.copy()
    expected[stroke] = 3
    np.testing.assert_array_equal(segments.labelArray(node)[0], expected)


def test_labels_made_to_overlap(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    stroke = _box((4, 8), (7, 12), (8, 14))
    Editor(node, t1c, overwrite="none").paint("ED", stroke)
    twice = int((stroke & REGION_MASKS["TC"]).sum())
    assert twice > 20
    notes = segments.switchRepresentation(node, "regions")
    assert notes == [f"{twice} voxels belonged to more than one label; the inner one was kept."]
    expected = np.where(stroke & (LABEL_MAP == 0), 2, LABEL_MAP)
    np.testing.assert_array_equal(segments.labelArray(node)[0], expected)


def test_segments_of_the_clinicians_own_stay(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    node.GetSegmentation().AddEmptySegment("cavity", "Resection cavity")
    stroke = _box((3, 6), (6, 12), (8, 20))
    Editor(node, t1c).paint("cavity", stroke)  # takes the voxels from the others, on one layer with them
    segments.switchRepresentation(node, "regions")
    masks = _masks(node, t1c)
    assert list(masks) == ["WT", "TC", "ET", "cavity"]
    np.testing.assert_array_equal(masks["cavity"], stroke)
    np.testing.assert_array_equal(masks["WT"], (LABEL_MAP > 0) & ~stroke)


def test_segments_that_were_deleted(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    node.GetSegmentation().RemoveSegment("NCR")
    segments.switchRepresentation(node, "regions")
    np.testing.assert_array_equal(_masks(node, t1c)["TC"], LABEL_MAP == 3)


def test_undo_in_the_editor_across_a_switch(t1c):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    editor = Editor(node, t1c)
    editor.paint("ET", _box((0, 4), (0, 5), (0, 6)))
    segments.switchRepresentation(node, "regions")
    editor.undo()
    assert segments.representation(node) == "labels"
    np.testing.assert_array_equal(segments.labelArray(node)[0], LABEL_MAP)
    segments.switchRepresentation(node, "regions")
    np.testing.assert_array_equal(_masks(node, t1c)["WT"], LABEL_MAP > 0)


def test_nothing_found_is_still_editable(t1c, tmp_path):
    node = segments.createSegmentation(np.zeros_like(LABEL_MAP), t1c)
    stroke = _box((3, 6), (6, 12), (8, 20))
    Editor(node, t1c).paint("ET", stroke)
    np.testing.assert_array_equal(segments.labelArray(node)[0], np.where(stroke, 3, 0))
    assert not history.originalLabels(node).any()
    segments.switchRepresentation(node, "regions")
    segments.show3D(node)


def test_names_colors_and_codes(t1c):
    """Codes are those of Slicer's DICOM master list, of which Testing/support/share has an extract."""
    logic = slicer.modules.terminologies.logic()
    share = Path(logic.GetModuleShareDirectory())
    master = json.loads((share / "SegmentationCategoryTypeModifier-DICOM-Master.term.json").read_text())
    known = {kind["CodeValue"]: kind["CodeMeaning"] for kind in master["SegmentationCodes"]["Category"][0]["Type"]}
    meanings = {}
    for mode in MODES:
        node = segments.createSegmentation(LABEL_MAP, t1c, mode=mode)
        for name in MODES[mode]:
            segment = node.GetSegmentation().GetSegment(name)
            assert (segment.GetName(), segment.GetColor()) == (structure(name).name, structure(name).color)
            tag = vtk.mutable("")
            assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
            entry = slicer.vtkSlicerTerminologyEntry()
            assert logic.DeserializeTerminologyEntry(str(tag), entry)
            assert entry.GetCategoryObject().GetCodeValue() == "49755003"
            assert known[entry.GetTypeObject().GetCodeValue()] == entry.GetTypeObject().GetCodeMeaning()
            assert entry.GetRegionObject().GetCodeMeaning() == "Brain"
            meanings[name] = entry.GetTypeObject().GetCodeMeaning()
    assert len(set(meanings.values())) == len(meanings) == 5


def test_results_of_volumes_of_one_name_are_told_apart(scene):
    """As of two dates, of which the scanner calls each series the same."""
    nodes = [segments.createSegmentation(LABEL_MAP, synth.addVolume("T1c")) for _date in range(2)]
    again = segments.createSegmentation(LABEL_MAP, slicer.util.getNode("T1c"), previous=nodes[1])
    names = [node.GetName() for node in (nodes[0], again)]
    assert len(set(names)) == 2 and all(name.startswith("T1c tumor") for name in names)
    companions = [node.GetNodeReference(history.ORIGINAL_ROLE).GetName() for node in (nodes[0], again)]
    assert companions == [f"{name} as the model made it" for name in names]


def test_of_a_result_and_its_copies_the_result_is_found(t1c):
    """The copy is a backup, as Clone in the module Data makes it; what is corrected is the result."""
    volumes = {"t1c": t1c}
    for result in [segments.createSegmentation(LABEL_MAP, t1c) for _result in range(2)]:
        history.keepOrigin(result, volumes, {})
        copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        copy.Copy(result)
        assert succession.resultOf(volumes) is result
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode").Copy(slicer.util.getNode("Post tumor"))
    assert succession.resultOf(volumes) is result  # the later one
    slicer.mrmlScene.RemoveNode(result)
    assert succession.resultOf(volumes) is copy


def test_new_result_keeps_the_previous(t1c):
    first = segments.createSegmentation(LABEL_MAP, t1c)
    name = first.GetName()
    Editor(first, t1c).paint("ET", _box((0, 4), (0, 5), (0, 6)))
    edited, _notes = segments.labelArray(first)
    second = segments.createSegmentation(np.zeros_like(LABEL_MAP), t1c, previous=first)
    assert second.GetName() == name and first.GetName() != name
    assert not first.GetDisplayNode().GetVisibility() and second.GetDisplayNode().GetVisibility()
    third = segments.createSegmentation(LABEL_MAP, t1c, previous=second)
    assert len({first.GetName(), second.GetName(), third.GetName()}) == 3

    shown = succession.restorePrevious(succession.restorePrevious(third))
    assert shown is first and first.GetName() == name and first.GetDisplayNode().GetVisibility()
    np.testing.assert_array_equal(segments.labelArray(first)[0], edited)
    assert not second.GetDisplayNode().GetVisibility() and not third.GetDisplayNode().GetVisibility()
    with pytest.raises(InputError, match="no earlier result"):
        succession.restorePrevious(first)
    assert succession.restoreNext(succession.restoreNext(first)) is third
    assert third.GetName() == name and third.GetDisplayNode().GetVisibility()


@pytest.mark.parametrize("kind", ["oblique", "LAS"])
@pytest.mark.parametrize("mode", list(MODES))
def test_saved_and_loaded(scene, tmp_path, kind, mode):
    """Everything through Slicer's bundle: edits, representation, original, result before, reference geometry."""
    volume = synth.addVolume("Post", kind)
    volume.SetAndObserveTransformNodeID(synth.addTransform().GetID())
    first = segments.createSegmentation(LABEL_MAP, volume)
    node = segments.createSegmentation(LABEL_MAP, volume, previous=first, mode=mode)
    Editor(node, volume, overwrite="none" if mode == "regions" else "all").paint("ET", _box((3, 5), (6, 9), (8, 12)))
    before, _notes = segments.labelArray(node)
    name = node.GetName()
    bundle = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(bundle))

    scene.Clear(0)
    assert scene.ReadFromMRB(str(bundle))
    node = slicer.util.getNode(name)
    assert segments.representation(node) == mode
    np.testing.assert_array_equal(segments.labelArray(node)[0], before)
    np.testing.assert_array_equal(history.originalLabels(node), LABEL_MAP)
    volume = slicer.util.getNode("Post")
    turned = segments.labelArray(node, volume)[0]  # a left-handed volume comes back with its slices in reverse
    np.testing.assert_array_equal(turned, before[::-1] if kind == "LAS" else before)
    np.testing.assert_array_equal(_masks(node, volume)["ET"], turned == 3)
    segment = node.GetSegmentation().GetSegment("ET")
    assert segment.GetName() == structure("ET").name
    np.testing.assert_allclose(segment.GetColor(), structure("ET").color, atol=1e-5)
    assert history.originalLabels(succession.restorePrevious(node)).sum() == LABEL_MAP.sum()


def test_without_its_volume(t1c, scene):
    node = segments.createSegmentation(LABEL_MAP, t1c)
    scene.RemoveNode(t1c)
    np.testing.assert_array_equal(segments.labelArray(node)[0], LABEL_MAP)
    segments.switchRepresentation(node, "regions")


def test_what_is_refused_leaves_the_scene_alone(t1c, scene):
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="Labels \\[4\\] are unknown"):
        segments.createSegmentation(np.full(synth.SHAPE, 4), t1c)
    with pytest.raises(InputError, match=r"label map is .*Post is"):
        segments.createSegmentation(LABEL_MAP[1:], t1c)
    with pytest.raises(InputError, match="Unknown representation 'colors'"):
        segments.createSegmentation(LABEL_MAP, t1c, mode="colors")
    assert scene.GetNumberOfNodes() == before
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    with pytest.raises(InputError, match="Mine is not a result of SegMamba"):
        segments.switchRepresentation(other, "regions")
    with pytest.raises(InputError, match="Mine has no copy"):
        history.originalLabels(other)


@pytest.mark.parametrize("mode", list(MODES))
def test_the_order_stands_after_every_observer(t1c, mode):
    """Whoever orders segments anew while they are exchanged does not have the last word; others' segments come last."""
    node = segments.createSegmentation(LABEL_MAP, t1c, mode="labels" if mode == "regions" else "regions")
    node.GetSegmentation().AddEmptySegment("mine", "mine")

    def turn(caller, event):
        caller.GetSegmentation().ReorderSegments(list(caller.GetSegmentation().GetSegmentIDs())[::-1])

    tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, turn)
    segments.switchRepresentation(node, mode)
    node.RemoveObserver(tag)
    assert list(node.GetSegmentation().GetSegmentIDs()) == [*MODES[mode], "mine"]


def test_surfaces_in_steps_are_those_that_slicer_makes(t1c):
    """Nothing is shown before the end; a segment that is edited meanwhile gets the surface of its new voxels."""
    one, other = (segments.createSegmentation(LABEL_MAP, t1c) for _ in range(2))
    segments.show3D(one)
    steps = segments.surfaceSteps(other)
    next(steps)
    assert not other.GetSegmentation().ContainsRepresentation("Closed surface")
    list(steps)
    counts = [
        [
            node.GetSegmentation().GetSegment(name).GetRepresentation("Closed surface").GetNumberOfPoints()
            for name in LABELS
        ]
        for node in (one, other)
    ]
    assert counts[0] == counts[1] and min(counts[0]) > 0
