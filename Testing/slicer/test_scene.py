"""Volumes out of the scene and images back: nibabel is the oracle for what lies where."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import slicer
import synth
import vtk
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.volumes import scene as exchange

KINDS = ("RAS", "LPS", "LAS", "PIR", "oblique", "oblique-left")


def _stateOf(mrmlScene):
    """What a user would notice: the nodes, and when each last changed."""
    nodes = [mrmlScene.GetNthNode(i) for i in range(mrmlScene.GetNumberOfNodes())]
    return [(node.GetID(), node.GetMTime()) for node in nodes]


def _assertSameImage(one: nib.Nifti1Image, other: nib.Nifti1Image, count=200):
    """At random voxels of `one`, the other holds the same value at the same place, whatever its order of voxels."""
    rng = np.random.default_rng(3)
    assert sorted(one.shape) == sorted(other.shape)
    ijk = np.stack([rng.integers(0, n, count) for n in one.shape])
    ras = one.affine @ np.vstack([ijk, np.ones(count)])
    there = (np.linalg.inv(other.affine) @ ras)[:3]
    assert np.abs(there - np.rint(there)).max() < 1e-3
    found = np.asarray(other.dataobj)[tuple(np.rint(there).astype(int))]
    np.testing.assert_array_equal(found, np.asarray(one.dataobj)[tuple(ijk)])


@pytest.mark.parametrize("moved", [False, True], ids=["still", "transformed"])
@pytest.mark.parametrize("kind", KINDS)
def test_export_keeps_geometry_and_voxels(scene, tmp_path, kind, moved):
    node = synth.addVolume("T1c", kind)
    expected = synth.matrixFor(kind)
    if moved:
        transform = synth.addTransform(scale=1.25)
        node.SetAndObserveTransformNodeID(transform.GetID())
        expected = slicer.util.arrayFromVTKMatrix(transform.GetMatrixTransformToParent()) @ expected
    before = _stateOf(scene)
    path = exchange.exportVolume(node, tmp_path / "t1c.nii.gz")
    written = nib.load(path)
    np.testing.assert_allclose(written.affine, expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, slicer.util.arrayFromVolume(node))
    assert _stateOf(scene) == before
    assert [file.name for file in tmp_path.iterdir()] == ["t1c.nii.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_label_map_comes_back_in_place(scene, tmp_path, kind):
    """The engine's file has the order of the file it was given, which Slicer does not keep when it reads it."""
    node = synth.addVolume("T1c", kind)
    node.SetAndObserveTransformNodeID(synth.addTransform().GetID())
    affine = nib.load(exchange.exportVolume(node, tmp_path / "t1c.nii")).affine
    labels = synth.labelMap()
    result = nib.Nifti1Image(labels.T, affine)
    nib.save(result, tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(exchange.readLabelMap(tmp_path / "labels.nii.gz", node), labels)
    nib.save(nib.as_closest_canonical(result), tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(exchange.readLabelMap(tmp_path / "turned.nii.gz", node), labels)


def test_slicer_reads_left_handed_files_in_another_order(scene, tmp_path):
    """The trap itself: should this ever fail, Slicer reads such files as others do."""
    labels = synth.labelMap()
    nib.save(nib.Nifti1Image(labels.T, synth.matrixFor("LAS")), tmp_path / "labels.nii")
    array, matrix = exchange.readImage(tmp_path / "labels.nii")
    assert not np.array_equal(array, labels)
    assert not np.allclose(matrix, synth.matrixFor("LAS"))


@pytest.mark.parametrize("kind", KINDS)
def test_file_through_slicer_and_out_again(scene, tmp_path, kind):
    voxels = np.random.default_rng(1).integers(0, 999, synth.SHAPE).astype(np.int16)
    original = nib.Nifti1Image(voxels.T, synth.matrixFor(kind))
    nib.save(original, tmp_path / "in.nii")
    array, matrix = exchange.readImage(tmp_path / "in.nii")
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name="in")
    _assertSameImage(original, nib.load(exchange.exportVolume(node, tmp_path / "out.nii")))


def test_case_is_exported_in_one_order(scene, tmp_path):
    volumes = {"t1c": synth.addVolume("T1c", "oblique")}
    voxels = slicer.util.arrayFromVolume(volumes["t1c"])
    turned = nib.as_closest_canonical(nib.Nifti1Image(voxels.T + 1, synth.matrixFor("oblique")))
    turned = turned.as_reoriented([[0, -1], [1, 1], [2, -1]])
    volumes["t2w"] = slicer.util.addVolumeFromArray(
        np.asarray(turned.dataobj).T.copy(), ijkToRAS=turned.affine, name="T2"
    )
    paths = exchange.exportCase(volumes, tmp_path)
    images = {modality: nib.load(path) for modality, path in paths.items()}
    np.testing.assert_array_equal(images["t1c"].affine, images["t2w"].affine)
    np.testing.assert_array_equal(np.asarray(images["t2w"].dataobj), np.asarray(images["t1c"].dataobj) + 1)


@pytest.mark.parametrize("kind", ["oblique", "oblique-left"])
@pytest.mark.parametrize(
    ("name", "values", "written"),
    [
        ("CHAR", (-128, 127), "int16"),
        ("SIGNED_CHAR", (-128, 127), "int16"),
        ("UNSIGNED_CHAR", (0, 255), "uint8"),
        ("SHORT", (-(1 << 15), (1 << 15) - 1), "int16"),
        ("UNSIGNED_SHORT", (0, (1 << 16) - 1), "uint16"),
        ("INT", (-(1 << 31), (1 << 31) - 1), "int32"),
        ("UNSIGNED_INT", (0, (1 << 32) - 1), "uint32"),
        ("LONG_LONG", (-(1 << 31), (1 << 31) - 1), "int32"),
        ("LONG_LONG", (0, (1 << 32) - 1), "uint32"),
        ("LONG_LONG", (-1, 1 << 52), "float64"),
        ("UNSIGNED_LONG_LONG", (0, (1 << 31) - 1), "int32"),
        ("UNSIGNED_LONG_LONG", (0, (1 << 32) - 1), "uint32"),
        ("UNSIGNED_LONG_LONG", (0, 1 << 52), "float64"),
        ("LONG", (-1, 1000), "int32"),
        ("UNSIGNED_LONG", (0, 1000), "int32"),
        ("ID_TYPE", (-1, 1000), "int32"),
    ],
)
def test_integers_of_every_type_go_out_with_their_values(scene, tmp_path, kind, name, values, written):
    """Slicer reads more types than it writes."""
    image = vtk.vtkImageData()
    image.SetDimensions(synth.SHAPE[::-1])
    image.AllocateScalars(getattr(vtk, f"VTK_{name}"), 1)
    node = synth.addVolume("T1c", kind)
    node.SetAndObserveImageData(image)
    array = slicer.util.arrayFromVolume(node)
    array[:] = np.random.default_rng(4).integers(0, 100, synth.SHAPE)
    array[2, 3, :2] = values
    expected = nib.Nifti1Image(array.T.astype(float), synth.matrixFor(kind))
    files = [exchange.exportCase({"t1c": node}, tmp_path, ownGrids=ownGrids)["t1c"] for ownGrids in (False, True)]
    files.append(exchange.exportVolume(node, tmp_path / "direct.nii"))
    files.append(exchange.exportVolume(exchange.rightHanded(node), tmp_path / "right.nii"))
    for file in files:
        found = nib.load(file)
        assert found.get_data_dtype() == written
        _assertSameImage(expected, found, count=2000)
        assert (np.asarray(found.dataobj).min(), np.asarray(found.dataobj).max()) == (array.min(), array.max())


def test_volumes_on_other_grids_go_out_as_they_stand(scene, tmp_path):
    volumes = {"t1c": synth.addVolume("T1c", "oblique-left"), "t2w": synth.addVolume("T2", "PIR", synth.labelMap()[:7])}
    transform = synth.addTransform()
    volumes["t2w"].SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="T2 is not on the grid of T1c"):
        exchange.exportCase(volumes, tmp_path)
    images = {m: nib.load(path) for m, path in exchange.exportCase(volumes, tmp_path, ownGrids=True).items()}
    world = slicer.util.arrayFromTransformMatrix(transform) @ synth.matrixFor("PIR")
    _assertSameImage(nib.Nifti1Image(synth.labelMap()[:7].T, world), images["t2w"])
    expected = nib.Nifti1Image(slicer.util.arrayFromVolume(volumes["t1c"]).T, synth.matrixFor("oblique-left"))
    _assertSameImage(expected, images["t1c"])


def test_nonlinear_transform_is_refused(scene, tmp_path):
    node = synth.addVolume("T1c")
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(InputError, match=r"T1c is warped by the transform Warp.*Harden"):
        exchange.exportVolume(node, tmp_path / "t1c.nii")


def test_shear_is_refused(scene, tmp_path):
    node = synth.addVolume("T1c", "RAS")
    node.SetAndObserveTransformNodeID(synth.addShear(0.1).GetID())
    with pytest.raises(InputError, match="T1c has axes that are not at right angles"):
        exchange.exportVolume(node, tmp_path / "t1c.nii")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shear", [2e-5, 1e-4, 9e-4])
def test_what_a_case_is_computed_on_comes_back_or_is_refused_before(scene, tmp_path, shear):
    """However slight: what is written has axes at right angles, and the far corner of a full-size grid is elsewhere."""
    node = slicer.util.addVolumeFromArray(synth.fullSize(), name="T1c")
    node.SetAndObserveTransformNodeID(synth.addShear(shear).GetID())
    exchange.exportCase({"t1c": synth.addVolume("T1c"), "t2w": node}, tmp_path, ownGrids=True)  # registered, no more
    if shear > 5e-5:
        with pytest.raises(InputError, match="T1c has axes that are not at right angles"):
            exchange.exportCase({"t1c": node}, tmp_path)
    else:
        exchange.readScalarMap(exchange.exportCase({"t1c": node}, tmp_path)["t1c"], node)


def test_folder_with_spaces_and_other_letters(scene, tmp_path):
    folder = tmp_path / "Übung Größe 脳"
    folder.mkdir()
    node = synth.addVolume("T1c")
    exchange.exportVolume(node, folder / "tête.nii.gz")
    array, _matrix = exchange.readImage(folder / "tête.nii.gz")
    np.testing.assert_array_equal(array, slicer.util.arrayFromVolume(node))


def test_folder_that_is_a_file(scene, tmp_path, vtk_errors):
    (tmp_path / "nowhere").write_text("")
    with pytest.raises(InputError, match=r"could not be written to .*nowhere"):
        exchange.exportVolume(synth.addVolume("T1c"), tmp_path / "nowhere" / "t1c.nii")
    vtk_errors.clear()


def test_full_disk_leaves_no_file(scene, tmp_path, vtk_errors):
    """A file may not grow beyond 4 KiB here, which is what a full disk looks like to the writer."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    node = synth.addVolume("T1c")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputError, match="T1c could not be written"):
            exchange.exportVolume(node, tmp_path / "t1c.nii")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())
    vtk_errors.clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: nib.Nifti1Image(np.asarray(image.dataobj) + 3, image.affine), r"labels 4, 5, 6 are unknown"),
        (lambda image: nib.Nifti1Image(np.asarray(image.dataobj)[1:], image.affine), "not on the grid of T1c"),
        (lambda image: nib.Nifti1Image(image.dataobj, _shifted(image.affine, 0.5)), "not on the grid of T1c"),
    ],
    ids=["values", "shape", "shifted"],
)
def test_label_maps_that_do_not_fit(scene, tmp_path, change, message):
    node = synth.addVolume("T1c")
    image = change(nib.Nifti1Image(synth.labelMap().T, synth.matrixFor("oblique")))
    nib.save(image, tmp_path / "labels.nii")
    with pytest.raises(InputError, match=message):
        exchange.readLabelMap(tmp_path / "labels.nii", node)


def _shifted(affine, distance):
    moved = affine.copy()
    moved[0, 3] += distance
    return moved


def test_broken_files_are_named(scene, tmp_path, vtk_errors):
    node = synth.addVolume("T1c")
    with pytest.raises(InputError, match=r"labels\.nii\.gz: no such file"):
        exchange.readLabelMap(tmp_path / "labels.nii.gz", node)
    nib.save(nib.Nifti1Image(synth.labelMap().T, synth.matrixFor("oblique")), tmp_path / "whole.nii.gz")
    whole = (tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-30])
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(whole)[:-100])
    (tmp_path / "empty.nii").touch()
    (tmp_path / "text.nii.gz").write_text("no image")
    for name in ("cut.nii.gz", "cut.nii", "empty.nii", "text.nii.gz"):
        with pytest.raises(InputError, match=rf"{name}: truncated or damaged"):
            exchange.readLabelMap(tmp_path / name, node)
    (tmp_path / "text.nrrd").write_text("no image")
    with pytest.raises(InputError, match=r"text\.nrrd: not an image"):
        exchange.readLabelMap(tmp_path / "text.nrrd", node)
    vtk_errors.clear()


def test_reading_leaves_the_scene_alone(scene, tmp_path):
    node = synth.addVolume("T1c")
    nib.save(nib.Nifti1Image(synth.labelMap().T, synth.matrixFor("oblique")), tmp_path / "labels.nii")
    before = _stateOf(scene)
    exchange.readLabelMap(tmp_path / "labels.nii", node)
    assert _stateOf(scene) == before


@pytest.mark.parametrize("modality", ["t1c", "t2f"])
def test_real_series_through_slicer_and_out_again(scene, tmp_path, raw_case, modality):
    """Native clinical series, with the grid of a scanner."""
    file = raw_case / f"{modality}.nii.gz"
    array, matrix = exchange.readImage(file)
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=modality)
    _assertSameImage(nib.load(file), nib.load(exchange.exportVolume(node, tmp_path / "out.nii")), count=2000)


def test_results_go_where_their_volume_is_in_the_subject_hierarchy(scene):
    """The application makes the items; here they are made by hand, and without them nothing happens."""
    volume, result = synth.addVolume("T1c", "oblique-left"), synth.addVolume("result", "oblique-left")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    exchange.putBeside(result, volume)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient"), "study")
    hierarchy.CreateItem(study, volume)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), result)
    exchange.putBeside(result, volume)
    assert hierarchy.GetItemParent(item) == study
