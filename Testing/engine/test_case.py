"""Cases from real files: what is put together, what is noticed, and what is refused with which words."""

import time

import numpy as np
import pytest
from image_files import AFFINE, SHAPE, noise, write
from segmamba.cases.case import MODALITIES, Source, find_case, find_label, load_case, load_label_map
from segmamba.errors import InputError
from segmamba.images.grid import describe_grid
from segmamba.images.parallel import for_each


@pytest.fixture
def files(tmp_path):
    """Four good images of one case, by modality."""
    folder = tmp_path / "patient"
    folder.mkdir()
    return {m: write(folder / f"{m}.nii.gz", noise(i)) for i, m in enumerate(MODALITIES)}


def load_with(files, path):
    return load_case({**files, "t2w": path})


# ---------------------------------------------------------------- good cases


def test_a_good_case(files):
    case = load_case(files)
    assert case.id == "patient"
    assert list(case.images) == list(MODALITIES)
    assert case.shape == SHAPE
    for i, m in enumerate(MODALITIES):
        assert case.images[m].dtype == np.float32
        np.testing.assert_array_equal(case.images[m], noise(i))
        assert case.sources[m] == Source(files[m])
    assert case.affine.dtype == np.float64
    np.testing.assert_allclose(case.affine, AFFINE, atol=1e-5)
    assert case.notes == ()
    grid = describe_grid(case.shape, case.affine)
    assert "11 x 14 x 9 voxels of 0.9 x 1.2 x 2.5 mm, orientation LAS" in grid
    assert "oblique by" in grid
    assert "left-handed" in grid


def test_a_name_and_text_paths(files):
    assert load_case({m: str(p) for m, p in files.items()}, case_id="name").id == "name"


def test_any_number_of_modalities(tmp_path):
    path = write(tmp_path / "scan.nii", noise(0) - 1000)
    case = load_case({"ct": path}, modalities=("ct",))
    np.testing.assert_allclose(case.images["ct"], noise(0) - 1000)


def test_a_fourth_axis_of_one_is_no_matter(files, tmp_path):
    case = load_with(files, write(tmp_path / "a.nii.gz", noise(7)[..., None]))
    np.testing.assert_array_equal(case.images["t2w"], noise(7))


def test_small_differences_of_geometry_pass(files, tmp_path):
    affine = AFFINE.copy()
    affine[:3, 3] += 5e-4
    load_with(files, write(tmp_path / "a.nii.gz", noise(7), affine))


# ---------------------------------------------------------------- what is noticed


def test_broken_voxels_become_zero_and_are_told(files, tmp_path):
    array = noise(8)
    array[2, 3, 4:7] = np.nan
    array[0, 0, 0], array[1, 1, 1] = np.inf, -np.inf
    case = load_with(files, write(tmp_path / "a.nii.gz", array))
    assert "t2w: 5 NaN or infinite voxels set to 0" in case.notes
    expected = noise(8)
    expected[2, 3, 4:7] = expected[0, 0, 0] = expected[1, 1, 1] = 0
    np.testing.assert_array_equal(case.images["t2w"], expected)


def test_numbers_beyond_float32_count_as_infinite(tmp_path):
    array = noise(8).astype(np.float64)
    array[3, 3, 3] = 1e300
    case = load_case({"x": write(tmp_path / "a.nii", array)}, modalities=("x",))
    assert "x: 1 NaN or infinite voxels set to 0" in case.notes


# ---------------------------------------------------------------- cases that are refused


def test_a_missing_modality(files):
    del files["t2f"]
    with pytest.raises(InputError, match="expected the modalities t1n, t1c, t2w, t2f; got t1n, t1c, t2w; missing: t2f"):
        load_case(files)


def test_an_unknown_modality(files):
    files["t1ce"] = files.pop("t1c")
    with pytest.raises(InputError, match=r"missing: t1c; unknown: t1ce \(did you mean t1c\?\)"):
        load_case(files)


def test_no_files():
    with pytest.raises(InputError, match="got none; missing: t1n, t1c, t2w, t2f"):
        load_case({})


def test_the_same_file_twice(files, tmp_path):
    with pytest.raises(InputError, match=r"t1n.nii.gz was given as t1n and as t2w; give each modality its own"):
        load_with(files, files["t1n"])
    link = tmp_path / "link.nii.gz"
    link.symlink_to(files["t1n"])
    with pytest.raises(InputError, match="was given as t1n and as t2w"):
        load_with(files, link)


def test_the_same_voxels_twice(files, tmp_path):
    path = write(tmp_path / "copy.nii", noise(0))
    with pytest.raises(InputError, match=r"t1n.nii.gz \(t1n\) and .*copy.nii \(t2w\) hold the same voxels"):
        load_with(files, path)


@pytest.mark.parametrize("values", [(0, 1), (1, 255), (0, 1, 2, 4), (0, 1, 2, 3, 4)])
def test_a_mask_or_a_label_map_is_no_image(files, tmp_path, values):
    mask = np.random.default_rng(0).choice(np.array(values, np.float32), noise(0).shape)
    with pytest.raises(InputError, match=rf"mask.nii.gz \(t2w\) holds {len(values)} values only .*a mask or labels"):
        load_case({**files, "t2w": write(tmp_path / "mask.nii.gz", mask)})


@pytest.mark.parametrize(
    ("mm", "said"), [(4, None), (2, "less than a brain has"), (1, "less than"), (12, "more than a head has")]
)
def test_a_header_with_voxels_of_the_wrong_size_is_noted(tmp_path, mm, said):
    """A brain of 1.4 litres in voxels of 4 mm: a ball with an outside of 0."""
    ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 17.4
    image = np.where(ball, noise(0, ball.shape), 0)
    path = write(tmp_path / "t1c.nii.gz", image, np.diag([mm, mm, mm, 1.0]))
    notes = load_case({"t1c": path}, modalities=("t1c",)).notes
    assert [said in note for note in notes if "mL" in note] == ([] if said is None else [True])


def test_another_shape(files, tmp_path):
    path = write(tmp_path / "other.nii.gz", noise(0, (11, 14, 10)))
    with pytest.raises(
        InputError, match=r"other.nii.gz and .*t1c.nii.gz are not on one grid: 11 x 14 x 10.*11 x 14 x 9.*"
    ):
        load_with(files, path)


def test_another_place(files, tmp_path):
    affine = AFFINE.copy()
    affine[:3, 3] += (0, 0.3, 0.4)
    path = write(tmp_path / "other.nii.gz", noise(9), affine)
    with pytest.raises(
        InputError, match=r"corners lie up to 0.5 mm apart \(allowed: 0.01 mm\); co-register and resample"
    ):
        load_with(files, path)


def test_a_small_turn_counts_at_the_far_corner(files, tmp_path):
    """The first voxel lies right, and each entry of the affine differs by less than 1e-2."""
    affine = AFFINE.copy()
    affine[0, 1] += 2e-3
    path = write(tmp_path / "other.nii.gz", noise(9), affine)
    with pytest.raises(InputError, match=r"corners lie up to 0.026 mm apart"):
        load_with(files, path)


def test_a_flipped_copy_of_the_grid(files, tmp_path):
    path = write(tmp_path / "other.nii.gz", noise(9), AFFINE @ np.diag([-1, 1, 1, 1]))
    with pytest.raises(InputError, match="not on one grid: their corners lie"):
        load_with(files, path)


def test_a_real_unregistered_patient_is_refused(raw_case):
    with pytest.raises(InputError, match=r"not on one grid: .* mm.*co-register and resample"):
        load_case(find_case(raw_case))


# ---------------------------------------------------------------- label maps


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_label_map(files, tmp_path, dtype):
    values = np.random.default_rng(1).choice([0, 1, 2, 4], SHAPE)
    path = write(tmp_path / "BraTS2021_00006_seg.nii.gz", values.astype(dtype))
    case = load_case(files)
    for convention in (None, "brats2021"):
        label_map = load_label_map(path, convention, case)
        assert label_map.dtype == np.uint8
        np.testing.assert_array_equal(label_map, np.where(values == 4, 3, values))


@pytest.mark.parametrize("convention", [None, "brats2023", "msd"])
def test_a_label_map_without_tumour(tmp_path, convention):
    path = write(tmp_path / "seg.nii.gz", np.zeros(SHAPE, np.int16))
    np.testing.assert_array_equal(load_label_map(path, convention, None), np.zeros(SHAPE, np.uint8))


@pytest.mark.parametrize(
    ("values", "convention", "text"),
    [
        ([0, 1, 2, 3], None, "seg.nii.gz: .*fit several conventions"),
        ([0, 1, 2, 3], "brats2021", r"seg.nii.gz: label values \[3.*\] are not among .* in convention"),
        ([0, 0.5, 1], None, "seg.nii.gz: label values 0.5 are not whole numbers"),
        ([0, np.nan], "msd", r"seg.nii.gz: label values \[nan\]"),
        ([0, 1], "x", "seg.nii.gz: unknown label convention 'x'"),
    ],
)
def test_label_values_are_checked(tmp_path, values, convention, text):
    path = write(tmp_path / "seg.nii.gz", np.resize(np.array(values, np.float32), SHAPE))
    with pytest.raises(InputError, match=text):
        load_label_map(path, convention, None)


def test_a_label_map_on_another_grid(files, tmp_path):
    case = load_case(files)
    path = write(tmp_path / "seg.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE @ np.diag([1, 1, -1, 1]))
    with pytest.raises(InputError, match=r"seg.nii.gz and .*t1c.nii.gz are not on one grid"):
        load_label_map(path, None, case)


@pytest.mark.parametrize(
    ("name", "voxels"),
    [
        ("BraTS2021_00006", (25506, 85957, 26448)),
        ("BraTS2021_01476", (23189, 27760, 224)),
        ("BraTS2021_01477", (77985, 117448, 0)),
    ],
)
def test_a_real_case(brats, name, voxels):
    case = load_case(find_case(brats / name))
    assert case.id == name
    assert describe_grid(case.shape, case.affine) == "240 x 240 x 155 voxels of 1 x 1 x 1 mm, orientation LPS"
    assert case.notes == ()
    label_map = load_label_map(find_label(brats / name), "brats2021", case)
    assert tuple(np.bincount(label_map.ravel(), minlength=4)[1:]) == voxels


def test_images_side_by_side_keep_their_order_and_the_first_error_is_the_one_that_is_raised():
    def work(name, pause):
        time.sleep(pause)
        if name.startswith("bad"):
            raise InputError(name)
        return name.upper()

    assert for_each({"b": 0.05, "a": 0.0, "c": 0.01}, work) == {"b": "B", "a": "A", "c": "C"}
    assert list(for_each({"b": 0.05, "a": 0.0}, work)) == ["b", "a"]
    assert for_each({}, work) == {}
    with pytest.raises(InputError, match="bad-1"):
        for_each({"good": 0.0, "bad-1": 0.05, "bad-2": 0.0}, work)
