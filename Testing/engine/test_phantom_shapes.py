"""Phantoms with tumours of label maps: read strictly, as large and as shaped as in the file, whole inside the brain."""

import nibabel as nib
import numpy as np
import pytest
from segmamba.cli import main
from segmamba.datasets.phantom import Shape, make_phantom, read_shapes
from segmamba.errors import InputError

SPACING = (1.5, 2.0, 3.0)


def tumour(et=3):
    """An ellipsoid of 57 x 38 x 42 mm: dead within, 6 mm of ET around it, oedema on one side."""
    x, y, z = ((np.arange(48) - 23.5)[:, None, None], (np.arange(32) - 15.5)[:, None], np.arange(24) - 11.5)
    radius = np.sqrt((x * 1.5 / 19) ** 2 + (y * 2.0 / 14) ** 2 + (z * 3.0 / 15) ** 2)
    beside = np.sqrt(((x * 1.5 - 10) / 22) ** 2 + (y * 2.0 / 19) ** 2 + (z * 3.0 / 21) ** 2)
    label_map = np.where(beside < 1, 2, 0)
    label_map[radius < 1] = et
    label_map[radius < 0.6] = 1
    return label_map.astype(np.uint8)


def volumes(label_map, voxel):
    return {value: np.count_nonzero(label_map == value) * voxel / 1000 for value in (1, 2, 3)}


def half_axes(mask, affine):
    """mm, ascending: standard deviations along the principal axes, which no turn changes."""
    points = nib.affines.apply_affine(affine, np.argwhere(mask))
    return np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))


def write_npz(path, **changes):
    arrays = {"ids": ["a", "b"], "label": np.stack([tumour(), 0 * tumour()]), "spacing_mm": np.array(SPACING)}
    arrays.update(changes)
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def write_nifti(path, label_map, affine=(-1.5, -2.0, 3.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label_map, np.diag(affine)), path)


def test_files_and_arrays_give_the_same_shapes_cropped_and_in_the_engines_labels(tmp_path):
    write_nifti(tmp_path / "maps" / "one-seg.nii.gz", tumour(et=4))
    write_nifti(tmp_path / "maps" / "two" / "two-seg.nii.gz", 0 * tumour())
    (of_files,) = read_shapes(tmp_path / "maps", "brats2021")
    (of_arrays,) = read_shapes(write_npz(tmp_path / "maps.npz"), "brats2023")
    assert (of_files.id, of_arrays.id) == ("one", "a")
    filled = np.argwhere(tumour() > 0)
    box = tuple(slice(a, b + 1) for a, b in zip(filled.min(0), filled.max(0)))
    for shape in (of_files, of_arrays):
        assert np.array_equal(shape.label_map, tumour()[box]) and shape.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_mm": None}, "has no spacing_mm; expected ids, label, spacing_mm"),
        ({"label": np.zeros((2, 4, 4, 4), np.uint8)}, "all 2 label maps are empty"),
        ({"label": np.ones((2, 4, 4, 4), np.float32)}, "expected whole numbers"),
        ({"label": np.ones((3, 4, 4, 4), np.uint8)}, r"with ids \(2,\)"),
        ({"label": np.full((2, 4, 4, 4), 300)}, "expected 0 to 255"),
        ({"label": np.full((2, 4, 4, 4), 7, np.uint8)}, r"7.* fit no known convention"),
        ({"spacing_mm": np.array([1.0, 0.0, 1.0])}, "three lengths of 0.1 to 20.0 mm"),
        ({"spacing_mm": np.array([1.0, 1e-9, 1.0])}, "three lengths of 0.1 to 20.0 mm"),
        ({"spacing_mm": np.array(["1", "1", "1"])}, "three lengths of 0.1 to 20.0 mm"),
        ({"spacing_mm": np.array([1, 1j, 1])}, "three lengths of 0.1 to 20.0 mm"),
        ({"ids": np.array(["a", None], object)}, "cannot be read as .npz"),
        ({}, r"fit several conventions .*--labels brats2023\|"),
    ],
)
def test_shapes_that_are_wrong_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_shapes(write_npz(tmp_path / "maps.npz", **changes))


def test_shapes_of_another_convention_or_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"maps.npz: .*3.* in convention 'brats2021'"):
        read_shapes(write_npz(tmp_path / "maps.npz"), "brats2021")
    with pytest.raises(InputError, match="no such file or folder"):
        read_shapes(tmp_path / "absent")
    (tmp_path / "none.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_shapes(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InputError, match="cannot be read"):
        read_shapes(tmp_path / "one.npz")
    damaged = bytearray(write_npz(tmp_path / "maps.npz").read_bytes())
    damaged[60:400] = bytes(340)
    (tmp_path / "maps.npz").write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read_shapes(tmp_path / "maps.npz")


def test_label_maps_of_two_conventions_are_not_read_as_that_of_the_first(tmp_path):
    write_nifti(tmp_path / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-seg.nii.gz", tumour())
    write_nifti(tmp_path / "Other_001" / "Other_001-seg.nii.gz", tumour())  # the second: its name tells nothing
    with pytest.raises(InputError, match="--labels"):
        read_shapes(tmp_path)


def test_a_phantom_has_the_tumour_of_the_file_turned_and_whole():
    shape = Shape("one", tumour(), np.array(SPACING))
    phantom = make_phantom(1, spacing=(2.5, 2.5, 2.5), shapes=[shape])
    wanted, found = volumes(tumour(), 9.0), volumes(phantom.label_map, 2.5**3)
    assert found[1] == pytest.approx(wanted[1], rel=0.08) and found[3] == pytest.approx(wanted[3], rel=0.08)
    assert 0.5 * wanted[2] < found[2] < 1.05 * wanted[2]  # there is no oedema in fluid
    for values, axes in (((1,), 0.06), ((1, 3), 0.04)):
        expected = half_axes(np.isin(tumour(), values), np.diag((*SPACING, 1.0)))
        assert half_axes(np.isin(phantom.label_map, values), phantom.affine) == pytest.approx(expected, rel=axes)
    assert (phantom.description["kind"], phantom.description["shape"]) == ("shape", "one")
    t1c = phantom.images["t1c"]
    assert np.median(t1c[phantom.label_map == 3]) > np.median(t1c[phantom.label_map == 1])
    again = make_phantom(1, spacing=(2.5, 2.5, 2.5), shapes=[shape])
    assert np.array_equal(again.label_map, phantom.label_map) and np.array_equal(again.images["t1c"], t1c)


def test_what_does_not_fit_is_left_for_another_and_refused_where_there_is_none():
    rod = Shape("rod", np.full((250, 1, 1), 3, np.uint8), np.ones(3))
    with pytest.raises(InputError, match="none of 40 tumour shapes tried fits into this head, such as rod"):
        make_phantom(1, spacing=(6, 6, 6), shapes=[rod])
    phantom = make_phantom(1, spacing=(6, 6, 6), shapes=[rod, Shape("one", tumour(), np.array(SPACING))])
    assert phantom.description["shape"] == "one"
    for setting in ({"enhancing": True}, {"shrunk_mm": 2.0}):
        with pytest.raises(InputError, match="has its own size and enhancement"):
            make_phantom(1, shapes=[rod], **setting)


def test_the_command_line_takes_shapes(tmp_path, capsys):
    write_nifti(tmp_path / "maps" / "BraTS2021_00006_seg.nii.gz", tumour(et=4))
    common = ["phantom", "--spacing", "6", "--output", str(tmp_path / "out")]
    assert main([*common, "--labels", "brats2021"]) == 1
    assert "give --shapes" in capsys.readouterr().err
    assert main([*common, "--shapes", str(tmp_path / "maps")]) == 0
    written = nib.load(tmp_path / "out" / "phantom-0001-shape" / "phantom-0001-shape-seg.nii.gz")
    assert set(np.unique(np.asarray(written.dataobj))) == {0, 1, 2, 3}
