"""What the headers of NRRD and MetaImage files leave out of the geometry is told, and other units than mm refused."""

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
