"""Single image files: what is read from each format, noticed and refused, and what is written."""

import gzip
import re
import shutil
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import AFFINE, RIGHT_HANDED, SHAPE, noise, write
from segmamba.cases.case import Source, load_case, save_image
from segmamba.errors import InputError
from segmamba.images.image_io import read_image


def load(path):
    return load_case({"t2w": path}, modalities=("t2w",))


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SLA", "IPL"])
def test_arrays_and_geometry_stay_as_stored(tmp_path, codes):
    """No reader may turn or flip: the value stored at an index lies where the header puts that index."""
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = nib.orientations.inv_ornt_aff(ornt, SHAPE) @ np.diag([1, 2, 3, 1.0])
    path = write(tmp_path / "a.nii.gz", noise(3), affine)
    case = load_case({"t1c": path}, modalities=("t1c",))
    np.testing.assert_array_equal(case.images["t1c"], noise(3))
    np.testing.assert_allclose(case.affine, affine, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_stored_types(tmp_path, dtype):
    path = write(tmp_path / "a.nii.gz", noise(4).astype(dtype))
    case = load_case({"x": path}, modalities=("x",))
    np.testing.assert_array_equal(case.images["x"], noise(4).astype(dtype).astype(np.float32))


def test_rescaling_in_the_header_is_applied(tmp_path):
    path = tmp_path / "a.nii.gz"
    image = nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), AFFINE)
    image.header.set_slope_inter(0.5, -20)
    nib.save(image, path)
    # nibabel divides on saving where it is told a slope; so read the raw numbers as another program would
    raw = np.frombuffer(gzip.decompress(path.read_bytes())[352:], np.int16).reshape(SHAPE, order="F")
    slope, intercept = struct.unpack("<2f", gzip.decompress(path.read_bytes())[112:120])
    case = load_case({"x": path}, modalities=("x",))
    np.testing.assert_allclose(case.images["x"], raw * slope + intercept)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".NRRD"])
def test_itk_formats(tmp_path, suffix):
    """SimpleITK writes the same image in the other format; array and place must be as in the NIfTI file."""
    image = sitk.ReadImage(str(write(tmp_path / "a.nii.gz", noise(2))))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path))
    case = load(path)
    np.testing.assert_array_equal(case.images["t2w"], noise(2))
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-5)


# ---------------------------------------------------------------- what is noticed


def notes_of(path):
    return " | ".join(load_case({"x": path}, modalities=("x",)).notes)


def test_forms_that_differ_are_told_and_the_sform_used(tmp_path):
    image = nib.Nifti1Image(noise(0), AFFINE)
    image.set_sform(AFFINE, code=1)
    other = AFFINE.copy()
    other[:3, 3] += (0, 0, 2.5)
    image.set_qform(other, code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    case = load_case({"x": tmp_path / "a.nii.gz"}, modalities=("x",))
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-5)
    assert "x: sform and qform differ by up to 2.5 mm; the sform is used" in case.notes


def test_a_qform_alone_is_used(tmp_path):
    image = nib.Nifti1Image(noise(0), AFFINE)
    image.set_sform(None, code=0)
    image.set_qform(AFFINE, code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    case = load_case({"x": tmp_path / "a.nii.gz"}, modalities=("x",))
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-4)
    assert case.notes == ()


def test_no_orientation_is_told(tmp_path):
    image = nib.Nifti1Image(noise(0), None)
    image.header.set_zooms((1, 1, 2))
    nib.save(image, tmp_path / "a.nii.gz")
    assert "x: the file says nothing about orientation: left and right may be swapped" in notes_of(
        tmp_path / "a.nii.gz"
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", ["sform", "qform", ""])
@pytest.mark.parametrize("zeros", [1, 3])
def test_no_size_is_told(tmp_path, zeros, form, order):
    """Volumes are then of no use. An sform says it by itself."""
    image = nib.Nifti1Image(noise(0), None, nib.Nifti1Header(endianness=order))
    image.set_sform(AFFINE, code=int(form == "sform"))
    image.set_qform(AFFINE, code=int(form == "qform"))
    data = bytearray(image.to_bytes())
    data[92 - 4 * zeros : 92] = bytes(4 * zeros)  # the last of pixdim[1], [2], [3]
    (tmp_path / "a.nii").write_bytes(data)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data))
    for name in ("a.nii", "b.nii.gz"):
        said = "x: the file says nothing about the size of its voxels: 1 mm is assumed" in notes_of(tmp_path / name)
        assert said == (form != "sform")


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3)])
def test_other_units_are_turned_into_mm(tmp_path, unit, scale):
    image = nib.Nifti1Image(noise(0), np.diag([scale, scale, scale, 1]) @ AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    case = load_case({"x": tmp_path / "a.nii.gz"}, modalities=("x",))
    np.testing.assert_allclose(case.affine, AFFINE, rtol=1e-4, atol=1e-4)
    assert f"x: lengths are in {unit}s; turned into mm" in case.notes


@pytest.mark.parametrize("spacing", [(1, 1, 10.5), (0.05, 1, 1)])
def test_odd_spacing_is_told(tmp_path, spacing):
    path = write(tmp_path / "a.nii.gz", noise(0), np.diag([*spacing, 1]))
    assert re.search(r"x: a spacing of .* mm is unusual \(expected 0.1 to 10\): check the header", notes_of(path))


def test_slanted_axes_are_told(tmp_path):
    affine = np.eye(4)
    affine[1, 2] = 0.3
    assert "x: the axes are 16.7 degrees off the right angle" in notes_of(
        write(tmp_path / "a.nii.gz", noise(0), affine)
    )


# ---------------------------------------------------------------- files that are refused


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def damaged(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    path.write_bytes(data)
    return path


def text_file(path):
    path.write_text("not an image")
    return path


def empty_file(path):
    path.touch()
    return path


def colours(path):
    rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return write(path, rgb)


def uncompressed(path):
    plain = write(path.with_name("plain.nii"), noise(0))
    shutil.move(plain, path)
    return path


def singular(path):
    """A header whose third column is zero; nibabel will not write one, so it is set in the bytes."""
    write(path, noise(0))
    data = bytearray(path.read_bytes())
    for row in range(3):
        struct.pack_into("<f", data, 280 + 16 * row + 8, 0.0)
    path.write_bytes(data)
    return path


def endless(path):
    write(path, noise(0))
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 280, float("nan"))
    path.write_bytes(data)
    return path


def no_offset(path):
    """A header that says that the voxels begin with it."""
    write(path, noise(0))
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 108, 0.0)
    path.write_bytes(data)
    return path


def itk_image(path, array, vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


def mha_cut_short(path):
    return cut_short(itk_image(path, noise(0)))


CUT = "cut off, damaged or no NIfTI file .*; copy or export it again"
BAD_FILES = {
    "missing": ("a.nii.gz", lambda p: p, "no such file; check the path"),
    "empty": ("a.nii.gz", empty_file, r"the file is empty \(0 bytes\)"),
    "cut gz": ("a.nii.gz", lambda p: cut_short(write(p, noise(0))), CUT),
    "cut nii": ("a.nii", lambda p: cut_short(write(p, noise(0))), CUT),
    "damaged gz": ("a.nii.gz", lambda p: damaged(write(p, noise(0))), CUT),
    "text": ("a.nii", text_file, CUT),
    "text gz": ("a.nii.gz", text_file, CUT),
    "plain named gz": ("a.nii.gz", uncompressed, CUT),
    "suffix": ("a.png", text_file, ".nii, .nrrd, .nhdr, .mha, .mhd, or the folder"),
    "no suffix": ("a", text_file, "not an image; expected .nii.gz"),
    "4-D": ("a.nii.gz", lambda p: write(p, noise(0, (*SHAPE, 3))), r"11 x 14 x 9 x 3, of 3 volumes.*each volume"),
    "vector": ("a.nii.gz", lambda p: write(p, noise(0, (*SHAPE, 1, 3))), "a 5-D image.* of 3 volumes"),
    "2-D": ("a.nii.gz", lambda p: write(p, noise(0, (11, 14))), "a 2-D image, 11 x 14; expected"),
    "one slice": ("a.nii.gz", lambda p: write(p, noise(0, (11, 14, 1))), "one slice, 11 x 14 x 1"),
    "colours": ("a.nii.gz", colours, "voxels are colours .*; expected one number per voxel"),
    "complex": ("a.nii.gz", lambda p: write(p, noise(0).astype(np.complex64)), "voxels are complex numbers"),
    "NaN": ("a.nii.gz", lambda p: write(p, np.full(SHAPE, np.nan, np.float32)), r"\(t2w\): every .* NaN"),
    "zero": ("a.nii.gz", lambda p: write(p, np.zeros(SHAPE, np.int16)), r"\(t2w\) is empty"),
    "constant": ("a.nii.gz", lambda p: write(p, np.full(SHAPE, 7, np.int16)), r"\(t2w\) is constant.* 7"),
    "singular": ("a.nii", singular, "the geometry is singular.* three independent axes"),
    "affine NaN": ("a.nii", endless, "the affine is not a 4 x 4 matrix of finite numbers"),
    "no offset": ("a.nii", no_offset, r"voxels begin at byte 0, inside its header; export"),
    "mha cut": ("a.mha", mha_cut_short, "the file is cut off, damaged or no image"),
    "mha text": ("a.mha", text_file, "the file is cut off, damaged or no image"),
    "nrrd text": ("a.nrrd", text_file, "the file is cut off, damaged or no image"),
    "nrrd vector": ("a.nrrd", lambda p: itk_image(p, noise(0, (*SHAPE, 3)), True), "3 numbers per voxel"),
    "nrrd 2-D": ("a.nrrd", lambda p: itk_image(p, noise(0, (11, 14))), "a 2-D image, 14 x 11"),
    "mha 4-D": ("a.mha", lambda p: itk_image(p, noise(0, (2, *SHAPE))), "a 4-D image, 9 x 14 x 11 x 2"),
    "mha complex": ("a.mha", lambda p: itk_image(p, noise(0).astype(np.complex64)), "2 numbers per voxel"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(tmp_path, name):
    file_name, build, text = BAD_FILES[name]
    path = tmp_path / file_name
    build(path)
    with pytest.raises(InputError, match=text) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_folder_that_holds_no_dicom(tmp_path):
    write(tmp_path / "a.nii.gz", noise(0))
    with pytest.raises(InputError, match="a folder without a DICOM series; give an image file"):
        load(tmp_path)


def test_a_folder_where_a_file_is_expected(tmp_path):
    with pytest.raises(InputError, match="a folder; expected an image file"):
        read_image(tmp_path)


@pytest.mark.parametrize("volume", [3, -1])
def test_a_volume_that_is_not_there(tmp_path, volume):
    path = write(tmp_path / "a.nii.gz", noise(0, (*SHAPE, 3)))
    with pytest.raises(InputError, match=f"no volume {volume}; it holds 3, counted from 0"):
        load_case({"x": Source(path, volume)}, modalities=("x",))


def test_volumes_are_those_of_nifti_files(tmp_path):
    path = itk_image(tmp_path / "a.nrrd", noise(0))
    for source in (Source(path, 0), Source(tmp_path, 0)):
        with pytest.raises(InputError, match="a volume can be picked from a 4-D NIfTI file only"):
            load_case({"x": source}, modalities=("x",))


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("affine", [AFFINE, RIGHT_HANDED, np.diag([-1, -1, 1, 1])], ids=["left", "right", "plain"])
@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii"])
def test_what_is_saved_lies_where_it_was(tmp_path, name, affine):
    """Read back by ITK, which uses qform or sform as it likes, each place has the same value."""
    label_map = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    save_image(label_map, affine, tmp_path / name, np.uint8)
    image = sitk.ReadImage(str(tmp_path / name))
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    for index in ((0, 0, 0), (10, 13, 8), (3, 11, 2), (7, 0, 5)):
        place = np.diag([-1, -1, 1, 1]) @ affine @ [*index, 1]
        assert image.GetPixel(image.TransformPhysicalPointToIndex([float(v) for v in place[:3]])) == label_map[index]
    header = nib.load(tmp_path / name).header
    for form, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, affine, atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_saved_images_are_read_as_the_same_case(tmp_path):
    save_image(noise(3), AFFINE, tmp_path / "a.nii.gz", np.float32)
    case = load_case({"x": tmp_path / "a.nii.gz"}, modalities=("x",))
    np.testing.assert_array_equal(case.images["x"], noise(3))
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-5)
    assert case.notes == ()


def test_probabilities_are_saved_as_a_series(tmp_path):
    save_image(noise(3, (*SHAPE, 4)), AFFINE, tmp_path / "p.nii.gz", np.float32)
    assert nib.load(tmp_path / "p.nii.gz").shape == (*SHAPE, 4)


def test_a_slanted_affine_is_kept_by_the_sform(tmp_path):
    affine = AFFINE.copy()
    affine[1, 2] += 0.4
    save_image(noise(3), affine, tmp_path / "a.nii.gz", np.float32)
    np.testing.assert_allclose(nib.load(tmp_path / "a.nii.gz").affine, affine, atol=1e-5)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"before")

    def fail(image, name):
        name.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nib, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_image(noise(0), AFFINE, path, np.float32)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_replaces(tmp_path):
    for seed in (1, 2):
        save_image(noise(seed), AFFINE, tmp_path / "a.nii", np.float32)
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").get_fdata(), noise(2))


@pytest.mark.parametrize(
    ("name", "array", "affine", "dtype", "text"),
    [
        (
            "a.nrrd",
            noise(0),
            AFFINE,
            np.float32,
            "written as NIfTI; expected a name that ends in .nii.gz or .nii",
        ),
        ("x/a.nii", noise(0), AFFINE, np.float32, "there is no folder .*x; create it first"),
        ("a.nii", noise(0, (3, 4)), AFFINE, np.float32, r"shape \(3, 4\); expected \(X, Y, Z\)"),
        ("a.nii", noise(0), np.diag([1, 1, 0, 1]), np.float32, "singular"),
        ("a.nii", noise(0), np.eye(3), np.float32, "not a 4 x 4 matrix"),
        (
            "a.nii",
            np.full(SHAPE, 300),
            AFFINE,
            np.uint8,
            "uint8 cannot hold the values 300 to 300 without loss",
        ),
        ("a.nii", noise(0), AFFINE, np.uint8, "uint8 cannot hold"),
        ("a.nii", np.full(SHAPE, np.nan), AFFINE, np.int16, "int16 cannot hold"),
        ("a.nii", noise(0), AFFINE, np.float16, "NIfTI has no voxels of type float16"),
    ],
)
def test_saving_refuses(tmp_path, name, array, affine, dtype, text):
    with pytest.raises(InputError, match=text):
        save_image(array, affine, tmp_path / name, dtype)
    assert not list(tmp_path.iterdir())
