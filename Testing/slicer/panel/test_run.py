"""A run of the panel between the click and the segments: what may happen to the scene meanwhile, and what may not."""

import pytest
import slicer
import synth
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.results.history import warningsOf
from SegMambaSlicerLib.volumes.checks import checkVolumes
from SegMambaSlicerLib.volumes.incomplete import knownIncomplete


def nodesOf(scene):
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


def writeOver(node):
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)


def writeInto(node):
    slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(node)


@pytest.mark.parametrize("modality", ["t1c", "t2w"])
@pytest.mark.parametrize("change", [writeOver, writeInto])
def test_a_volume_with_other_voxels_than_the_engine_was_given(ready, pump, volumes, modality, change):
    """As where the next patient's image is written into the same node."""
    before = nodesOf(slicer.mrmlScene)
    ready.ui.applyButton.click()
    change(volumes[modality])
    pump(lambda: not ready.session.isBusy())
    name = volumes[modality].GetName()
    expected = f"The voxels of {name} have changed since; the result was dropped. Run it again."
    assert ready.ui.progressLabel.text == expected
    assert nodesOf(slicer.mrmlScene) == before


def test_what_does_not_change_the_voxels_is_no_reason_to_drop_the_result(ready, pump, volumes, tmp_path):
    """Another window and level, a file, another name, another place of what is registered; or that one is gone."""
    ready.ui.applyButton.click()
    for node in volumes.values():
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(300, 150)
        node.GetImageData().GetScalarRange()
        node.SetName(f"{node.GetName()} again")
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(str(tmp_path / f"{node.GetID()}.nrrd"))
        node.SetAndObserveStorageNodeID(storage.GetID())
        assert storage.WriteData(node)
    volumes["t2w"].SetAndObserveTransformNodeID(synth.addTransform().GetID())
    slicer.mrmlScene.RemoveNode(volumes["t1n"])
    pump(lambda: not ready.session.isBusy())
    assert ready.parameters.result("Segmentation") is not None, ready.ui.progressLabel.text


def test_what_can_be_known_to_be_wrong_is_refused_before_anything_starts(module, volumes, choose, temporaryFiles):
    choose("well")
    outside = slicer.vtkMRMLScalarVolumeNode()
    outside.Copy(volumes["t2w"])
    removed = synth.addVolume("Removed", "oblique-left", seed=9)
    slicer.mrmlScene.RemoveNode(removed)
    before = nodesOf(slicer.mrmlScene)
    for given, options, text in (
        (volumes, {"mode": "label"}, "Unknown representation 'label'; expected labels or regions."),
        ({**volumes, "t2w": outside}, {}, "AX T2 is not in the scene. Add it first (slicer.mrmlScene.AddNode)."),
        ({**volumes, "t2f": removed}, {}, "Removed is not in the scene. Add it first (slicer.mrmlScene.AddNode)."),
    ):
        with pytest.raises(InputError) as raised:
            module.logic.segment(given, **options)
        assert str(raised.value) == text
    assert not module.logic.session.engine.isRunning() and not module.logic.session.isBusy()
    assert nodesOf(slicer.mrmlScene) == before and temporaryFiles() == []


def test_a_misspelt_modality_is_refused_and_not_left_out(module, volumes, choose):
    """The model does without one volume, and would have done so without a word."""
    choose("well")
    given = {name: node for name, node in volumes.items() if name != "t2f"}
    with pytest.raises(InputError) as raised:
        module.logic.segment({**given, "flair": volumes["t2f"]})
    assert str(raised.value) == "flair is no modality; expected t1n, t1c, t2w or t2f."
    assert not module.logic.session.engine.isRunning()


def test_what_is_said_of_the_volumes_goes_with_the_result(module, volumes, choose):
    choose("well")
    for place, node in enumerate(list(volumes.values())):
        other = synth.addVolume(f"Second {node.GetName()}", "oblique-left", seed=20 + place)
        volumes = {**volumes, "t2w": other} if node is volumes["t2w"] else volumes
    (problem,) = checkVolumes(volumes)
    assert problem.kind == "examination"
    result = module.logic.segment(volumes)
    assert result.warnings == [problem.text, "It was only a test."]
    assert warningsOf(result.segmentation) == result.warnings
    volumes["t1n"] = volumes["t2w"] = None  # of which the engine speaks itself
    assert [problem.kind for problem in checkVolumes(volumes, incomplete=knownIncomplete(""))] == ["incomplete"]
    assert module.logic.segment(volumes).warnings == ["It was only a test."]
