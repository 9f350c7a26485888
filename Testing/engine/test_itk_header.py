"""What the headers of NRRD and MetaImage files leave out of the geometry is told, and other units than mm refused.

Compressed data that are damaged or cut off are seen.
"""

import gzip
import re
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import noise
from segmamba.cases.case import load_case
from segmamba.errors import InputError


def notes_of(path):
    return " | ".join(load_case({"x": path}, modalities=("x",)).notes)


def edited(path, *changes):
    """An image that ITK wrote, with other words in its header."""
    image = sitk.GetImageFromArray(noise(0).T)
    image.SetSpacing((1.5, 2.0, 2.5))
    sitk.WriteImage(image, str(path))
    data = path.read_bytes()
    for old, new in changes:
        assert data.count(old) == 1
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


NRRD_DIRECTIONS = b"space directions: (1.5,0,0) (0,2,0) (0,0,2.5)\n"
NRRD_SPACE, NRRD_ORIGIN = b"space: left-posterior-superior\n", b"space origin: (0,0,0)\n"
NO_SPACE = [(NRRD_SPACE, b""), (NRRD_ORIGIN, b"")]
META_MATRIX, META_SPACING = b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"ElementSpacing = 1.5 2 2.5\n"
ORIENTATION, SIZE = "says nothing about orientation", "says nothing about the size of its voxels: 1 mm is assumed"


@pytest.mark.parametrize(
    ("name", "changes", "told", "spacing"),
    [
        ("a.nrrd", [], (), (1.5, 2, 2.5)),
        ("a.nrrd", [*NO_SPACE, (NRRD_DIRECTIONS, b"spacings: 1.5 2 2.5\n")], (ORIENTATION,), (1.5, 2, 2.5)),
        ("a.nrrd", [*NO_SPACE, (NRRD_DIRECTIONS, b"")], (ORIENTATION, SIZE), (1, 1, 1)),
        ("a.nrrd", [*NO_SPACE, (NRRD_DIRECTIONS, b"spacings: nan nan nan\n")], (ORIENTATION, SIZE), (1, 1, 1)),
        ("a.nrrd", [(NRRD_SPACE, b"space: RAS\n")], (), (1.5, 2, 2.5)),
        ("a.nrrd", [(NRRD_SPACE, b"space: Left-Anterior-Superior\n")], (), (1.5, 2, 2.5)),
        ("a.nrrd", [(NRRD_SPACE, b"space: 3D-right-handed\n")], (ORIENTATION,), (1.5, 2, 2.5)),
        ("a.nrrd", [(NRRD_SPACE, b"space: 3D-left-handed\n")], (ORIENTATION,), (1.5, 2, 2.5)),
        ("a.nrrd", [(NRRD_SPACE, b"space: scanner-xyz\n")], (ORIENTATION,), (1.5, 2, 2.5)),
        ("a.mha", [], (), (1.5, 2, 2.5)),
        ("a.mha", [(META_MATRIX, b"")], (ORIENTATION,), (1.5, 2, 2.5)),
        ("a.mha", [(META_MATRIX, b""), (META_SPACING, b"")], (ORIENTATION, SIZE), (1, 1, 1)),
    ],
)
def test_what_the_header_of_an_itk_file_leaves_out_is_told(tmp_path, name, changes, told, spacing):
    path = edited(tmp_path / name, *changes)
    notes = notes_of(path)
    assert [text in notes for text in (ORIENTATION, SIZE)] == [text in told for text in (ORIENTATION, SIZE)]
    np.testing.assert_allclose(nib.affines.voxel_sizes(load_case({"x": path}, modalities=("x",)).affine), spacing)


@pytest.mark.parametrize(
    ("name", "line", "more"),
    [
        ("a.nrrd", NRRD_SPACE, b'space units: "cm" "cm" "cm"\n'),
        ("a.mha", META_MATRIX, b"DistanceUnits = um\n"),
    ],
)
def test_other_units_than_mm_are_refused_in_itk_files(tmp_path, name, line, more):
    path = edited(tmp_path / name, (line, line + more))
    with pytest.raises(InputError, match=rf"{name}: lengths are in '(cm|um)'; expected mm"):
        load_case({"x": path}, modalities=("x",))
    same = edited(tmp_path / name, (line, line + more.replace(b"cm", b"mm").replace(b"um", b"mm")))
    assert notes_of(same) == ""


def test_axes_that_are_no_numbers_are_refused(tmp_path):
    path = edited(tmp_path / "a.nrrd", (NRRD_DIRECTIONS, b"space directions: (nan,nan,nan) (0,2,0) (0,0,2.5)\n"))
    with pytest.raises(InputError, match=r"a.nrrd: .*space directions are \(nan"):
        notes_of(path)


@pytest.fixture(params=[".mha", ".mhd", ".nrrd", ".nhdr"])
def packed(request, tmp_path):
    """(a compressed image, the file that holds its voxels)"""
    path = tmp_path / f"a{request.param}"
    image = sitk.GetImageFromArray(noise(0).astype(np.int16).T)
    sitk.WriteImage(image, str(path), useCompression=True)
    beside = [file for file in tmp_path.iterdir() if file != path]
    return path, (beside or [path])[0]


def test_whole_compressed_data_are_read(packed):
    path, _data = packed
    np.testing.assert_array_equal(
        load_case({"x": path}, modalities=("x",)).images["x"], noise(0).astype(np.int16).astype(np.float32)
    )


@pytest.mark.parametrize("part", [0.6, 0.75, 0.9, 1])
def test_a_flipped_bit_in_compressed_data_is_seen(packed, part):
    """ITK looks at no checksum, and MetaIO takes what it could unpack; part 1: the checksum itself."""
    path, data = packed
    content = bytearray(data.read_bytes())
    content[int(part * len(content)) - 5] ^= 4
    data.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}: the file is cut off, damaged or no image"):
        notes_of(path)


def test_compressed_data_that_end_early_are_seen(packed):
    path, data = packed
    data.write_bytes(data.read_bytes()[:-300])
    if path.suffix == ".mha":  # without it, MetaIO takes what is there
        path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path.name}: the file is cut off, damaged or no image"):
        notes_of(path)


@pytest.mark.parametrize("change", ["fewer", "more", "less of it is read"])
def test_compressed_voxels_are_as_many_as_the_header_declares(tmp_path, change):
    path = tmp_path / "a.mhd"
    voxels = noise(0).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path), useCompression=True)
    size = (tmp_path / "a.zraw").stat().st_size - 100
    if change == "less of it is read":
        path.write_text(re.sub(r"CompressedDataSize = \d+", f"CompressedDataSize = {size}", path.read_text()))
    else:
        content = voxels.tobytes("F") + bytes(1 << 23)
        content = content[: voxels.nbytes + (100 if change == "more" else -100)]
        (tmp_path / "a.zraw").write_bytes(zlib.compress(content))
        path.write_text(re.sub(r"CompressedDataSize = \d+\n", "", path.read_text()))
    with pytest.raises(InputError, match=r"a.mhd: the file is cut off, damaged or no image"):
        notes_of(path)


@pytest.mark.parametrize(
    ("field", "pack"),
    [
        (b"", lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:])),
        (b"", lambda data: gzip.compress(data) + b"\n"),
        (b"line skip: 2\n", lambda data: b"one\ntwo\n" + gzip.compress(data)),
        (b"byte skip: 3\n", lambda data: gzip.compress(b"one" + data)),
    ],
)
def test_what_else_may_be_of_a_compressed_nrrd(tmp_path, field, pack):
    """As ITK reads them: several streams in a row, something behind them, lines before and bytes in them to skip."""
    path = tmp_path / "a.nrrd"
    voxels = noise(0).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path), useCompression=True)
    head, _, _ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head.replace(b"encoding", field + b"encoding") + b"\n\n" + pack(voxels.tobytes("F")))
    np.testing.assert_array_equal(load_case({"x": path}, modalities=("x",)).images["x"], voxels.astype(np.float32))
