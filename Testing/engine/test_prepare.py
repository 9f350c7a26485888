"""Raw input: images that were moved by a known amount, cut to thick slices, stored in any order, and put back.

The heads are phantoms with a skull and a scalp put around them; what moves them is scipy, not the code under test.
"""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation
from segmamba.case import Source, read_images, save_image
from segmamba.errors import Cancelled, InputError
from segmamba.image_io import Image
from segmamba.package import load_package
from segmamba.phantom import make_phantom
from segmamba.predict import PredictOptions, predict_case
from segmamba.prepare import Grid, Prepared, make_plan, prepare
from segmamba.prepare.grids import resample, to_itk, to_matrix, to_transform
from segmamba.prepare.pyramid import make_levels
from segmamba.prepare.register import register
from segmamba.worker.job import _STAGES
from segmamba.worker.requests import ProtocolError, parse

SPACING = (3.0, 3.5, 4.0)
SCALP = {"t1n": 1.6, "t1c": 1.5, "t2w": 0.9, "t2f": 1.2}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(4, spacing=SPACING, enhancing=True)


@pytest.fixture(scope="module")
def brain(phantom):
    return phantom.images["t1c"] > 0


@pytest.fixture(scope="module")
def heads(phantom, brain):
    """The four images with 8 mm of bone and 7 mm of scalp around the brain, and some noise in the air."""
    rng = np.random.default_rng(0)
    distance = ndimage.distance_transform_edt(~brain, sampling=SPACING)
    scalp, air = (distance > 8) & (distance <= 15), distance > 15
    made = {}
    for modality, image in phantom.images.items():
        level = float(np.median(image[brain]))
        values = np.where(brain, image / level, 0.1)
        values[scalp], values[air] = SCALP[modality], 0
        made[modality] = np.abs(values + 0.03 * rng.standard_normal(values.shape)).astype(np.float32)
    return made


def turned(centre, degrees, mm, seed=0):
    """A rigid move (4, 4) about `centre`, RAS mm."""
    rng = np.random.default_rng(seed)
    axis, way = rng.standard_normal((2, 3))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    move[:3, 3] = centre - move[:3, :3] @ centre + mm * way / np.linalg.norm(way)
    return move


def sampled(image, affine, move, grid):
    """What a scanner sees of the moved image on `grid`."""
    index = np.linalg.inv(move @ affine) @ grid.affine
    return ndimage.affine_transform(image, index[:3, :3], index[:3, 3], grid.shape, order=1, output=np.float32)


def grid_of(spacing, codes="RAS", degrees=0.0, middle=(0, 120, 77), mm=(190, 220, 170)):
    """A grid of that spacing whose axes run along `codes`, turned by some degrees."""
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = turned(np.zeros(3), degrees, 0, 5)[:3, :3] @ axes @ np.diag(spacing)
    shape = np.ceil(np.abs(axes.T @ np.array(mm)) / spacing).astype(int)
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(int(n) for n in shape), affine)


def middle_of(mask, affine):
    return apply_affine(affine, np.argwhere(mask)).mean(0)


def off(found, truth, mask, affine):
    """Mean distance in mm, over a mask, between where two transforms take a point."""
    points = apply_affine(affine, np.argwhere(mask)[::7])
    return np.linalg.norm(apply_affine(found, points) - apply_affine(truth, points), axis=1).mean()


def fov_of(phantom, brain):
    return middle_of(brain, phantom.affine)


# --- registration


@pytest.mark.parametrize(
    ("modality", "degrees", "mm", "spacing", "codes", "tilt"),
    [
        ("t1n", 25, 25, (2.0, 2.0, 6.0), "LAS", 12),  # left-handed, oblique, thick
        ("t2f", 15, 30, (5.0, 1.8, 1.8), "RAS", 0),
        ("t2w", 30, 10, (1.8, 1.8, 5.0), "PIR", 8),
    ],
)
def test_a_known_move_is_found(phantom, brain, heads, modality, degrees, mm, spacing, codes, tilt):
    middle = fov_of(phantom, brain)
    move = turned(middle, degrees, mm, seed=mm)
    grid = grid_of(np.array(spacing), codes, tilt, middle + np.array([6, -5, 4]))
    moving = sampled(heads[modality], phantom.affine, move, grid)
    found = register(make_levels(heads["t1c"], phantom.affine), make_levels(moving, grid.affine))
    assert found.problem is None and found.agreeing >= 3
    # voxels of 3 to 4 mm, slices of 5 and 6, and a phantom whose images are up to 0.6 mm off one another
    assert off(np.linalg.inv(found.transform), move, brain, phantom.affine) < 1.5
    np.testing.assert_allclose(found.transform[:3, :3] @ found.transform[:3, :3].T, np.eye(3), atol=1e-9)


def test_registration_is_the_same_every_time_and_keeps_to_the_mask(phantom, brain, heads):
    grid = grid_of(np.array((4.0, 3.0, 5.0)), "RAS", 5, fov_of(phantom, brain))
    moving = make_levels(sampled(heads["t1n"], phantom.affine, np.eye(4), grid), grid.affine)
    fixed = make_levels(heads["t1c"], phantom.affine)
    within = [resample(brain, phantom.affine, level.grid) > 0.5 for level in fixed]
    one, other = (register(fixed, moving, within=within) for _ in range(2))
    np.testing.assert_array_equal(one.transform, other.transform)
    assert off(one.transform, np.eye(4), brain, phantom.affine) < 1.5


def test_noise_and_another_kind_of_object_are_refused(phantom, heads):
    fixed = make_levels(heads["t1c"], phantom.affine)
    rng = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(rng.standard_normal((40, 42, 38)), 2).astype(np.float32)
    ball = 0.1 * rng.random((60, 60, 45)) + (np.linalg.norm(np.indices((60, 60, 45)).T - 28, axis=-1).T < 18)
    for strange in (noise - noise.min(), ball):
        found = register(fixed, make_levels(strange.astype(np.float32), phantom.affine))
        assert found.problem
        with pytest.raises(InputError, match=r"FLAIR could not be registered onto T1c.*by hand"):
            found.check("FLAIR", "T1c")


def test_an_image_of_a_few_slices_beside_the_head_is_refused(phantom, brain, heads):
    slab = heads["t2f"][:, :, :6]
    found = register(make_levels(heads["t1c"], phantom.affine), make_levels(slab, phantom.affine))
    assert found.problem


def test_all_48_orders_of_the_axes_make_the_same_pyramid(phantom, heads):
    affine = grid_of(np.array((6.0, 7.0, 12.0)), "LAS", 9).affine
    image = heads["t2f"][::2, ::2, ::3]
    expected = make_levels(image, affine)
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        order = np.stack([axes, flips], 1).astype(float)
        stored = nib.orientations.apply_orientation(image, order)
        for one, other in zip(
            expected, make_levels(stored, affine @ nib.orientations.inv_ornt_aff(order, image.shape))
        ):
            assert one.grid.is_on(other.grid)
            np.testing.assert_allclose(one.array, other.array, atol=1e-4)


# --- grids


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIL"])
def test_to_itk_and_resample_agree_with_nibabel_and_scipy(codes):
    rng = np.random.default_rng(2)
    grid = grid_of(np.array((2.0, 3.0, 4.0)), codes, 14, mm=(60, 80, 70))
    image = rng.random(grid.shape).astype(np.float32)
    here = apply_affine(grid.affine, (3, 5, 2)) * [-1, -1, 1]
    assert to_itk(image, grid.affine).TransformPhysicalPointToIndex(here.tolist()) == (3, 5, 2)
    move = turned(grid.centre, 20, 9)
    np.testing.assert_allclose(to_matrix(to_transform(move)), move, atol=1e-9)
    fine = grid_of(np.array((1.5, 1.9, 2.5)), "RAS", 30, grid.centre, (30, 30, 30))
    expected = sampled(image, grid.affine, move, fine)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(resample(image, grid.affine, fine, move)[inner], expected[inner], atol=2e-3)


def test_large_voxels_are_means_of_what_lies_in_them():
    ramp = np.arange(40, dtype=np.float32) ** 2 * np.ones((6, 6, 1), np.float32)
    grid = Grid((6, 6, 40), np.eye(4))
    coarse = resample(ramp, grid.affine, grid.with_spacing(np.array([1, 1, 5.0])))
    np.testing.assert_allclose(coarse[3, 3], (np.arange(40) ** 2).reshape(8, 5).mean(1), atol=0.01)


# --- plan


def images_of(arrays, affine):
    return {modality: Image(array, affine) for modality, array in arrays.items()}


def test_prepared_images_need_nothing(phantom):
    plan = make_plan(images_of(phantom.images, phantom.affine))
    assert not plan.needed and plan.as_json()["actions"] == []


def test_the_plan_says_what_is_to_be_done_and_why(phantom, brain, heads):
    images = images_of(heads, phantom.affine)
    grid = grid_of(np.array((5.0, 2.0, 2.0)), "RAS", 0, fov_of(phantom, brain))
    images["t2f"] = Image(sampled(heads["t2f"], phantom.affine, np.eye(4), grid), grid.affine)
    plan = make_plan(images)
    why = {(action.kind, action.modality): action.why for action in plan.actions}
    assert list(why) == [("grid", ""), ("brain", ""), *(("register", m) for m in ("t1n", "t2w", "t2f"))]
    assert "3 x 3.5 x 4 mm: works at 1 mm" in why["grid", ""]
    assert "skull is on" in why["brain", ""]
    assert "another grid than T1c" in why["register", "t2f"]
    assert "whether the head moved" in why["register", "t2w"]
    assert json.loads(json.dumps(plan.as_json()))["grid"]["shape"] == list(plan.grid.shape)
    np.testing.assert_allclose(plan.grid.spacing, 1)
    corners = [np.zeros(3), np.array(phantom.label_map.shape) - 1.0]
    at = apply_affine(np.linalg.inv(plan.grid.affine) @ phantom.affine, corners)
    assert (np.sort(at, 0)[0] > 0).all() and (np.sort(at, 0)[1] < np.array(plan.grid.shape) - 1).all()


def test_an_image_that_slipped_on_its_grid_is_registered(phantom):
    images = images_of(phantom.images, phantom.affine)
    slipped = np.zeros_like(phantom.images["t2f"])
    slipped[4:] = phantom.images["t2f"][:-4]  # 12 mm
    images["t2f"] = Image(slipped, phantom.affine)
    plan = make_plan(images)
    assert plan.to_register == ("t2f",) and not plan.has("brain") and plan.has("grid")
    assert "12 mm away" in plan.actions[-1].why or "11 mm away" in plan.actions[-1].why


def test_images_of_another_kind_are_left_alone(heads, phantom):
    plan = make_plan({"ct": Image(heads["t1c"] * 1000 - 1000, phantom.affine)})
    assert not plan.needed


# --- the whole


@pytest.fixture(scope="module")
def raw(phantom, brain, heads):
    """Four images as from a scanner, on four grids, and how each was moved."""
    middle = fov_of(phantom, brain)
    grids = {
        "t1n": grid_of(np.array((4.0, 2.0, 2.0)), "RAS", 4, middle + 3),
        "t1c": grid_of(np.array((2.0, 2.0, 5.0)), "LAS", 10, middle),
        "t2w": grid_of(np.array((2.0, 2.0, 5.0)), "LPS", 0, middle - 4),
        "t2f": grid_of(np.array((2.0, 5.0, 2.0)), "PSR", 7, middle),
    }
    moves = {m: turned(middle, 8, 9, seed) if m != "t1c" else np.eye(4) for seed, m in enumerate(grids)}
    images = {m: Image(sampled(heads[m], phantom.affine, moves[m], g), g.affine) for m, g in grids.items()}
    return images, moves


@pytest.fixture(scope="module")
def prepared(phantom, brain, raw):
    images, _ = raw
    mask = Image(brain.astype(np.uint8), phantom.affine)
    return prepare(images, {m: Source(f"{m}.nii") for m in images}, "case", mask=mask)


def test_raw_images_become_a_case_on_one_grid(phantom, brain, raw, prepared):
    _, moves = raw
    case = prepared.case
    assert [step.kind for step in prepared.steps] == ["grid", "brain", "register", "register", "register"]
    assert all(step.seconds >= 0 and step.text for step in prepared.steps)
    json.dumps([step.as_json() for step in prepared.steps])
    for modality, move in moves.items():
        assert off(prepared.transforms[modality], np.linalg.inv(move), brain, phantom.affine) < 1.6, modality
        assert case.images[modality].dtype == np.float32
        assert not case.images[modality][~prepared.mask].any()
    there = sampled(brain.astype(np.float32), phantom.affine, np.eye(4), Grid(case.shape, case.affine)) > 0.5
    assert 2 * np.count_nonzero(there & prepared.mask) / (there.sum() + prepared.mask.sum()) > 0.98
    for modality in moves:  # each image is where T1c is: the phantom on the working grid, apart from its blur
        ideal = sampled(phantom.images[modality], phantom.affine, np.eye(4), Grid(case.shape, case.affine))
        inner = ndimage.binary_erosion(there, iterations=8)
        assert np.corrcoef(ideal[inner], case.images[modality][inner])[0, 1] > 0.75, modality


@pytest.mark.parametrize("modality", ["t1c", "t2f"])
def test_a_ball_comes_back_to_where_it_was_taken(raw, prepared, modality):
    images, _ = raw
    case = prepared.case
    middle = middle_of(prepared.mask, case.affine)
    away = np.linalg.norm(apply_affine(case.affine, np.indices(case.shape).reshape(3, -1).T) - middle, axis=1)
    ball = np.clip(20.5 - away, 0, 1).reshape(case.shape).astype(np.float32)
    back = prepared.back(np.stack([1 - ball, ball]), modality)
    image = images[modality]
    assert back.shape == (2, *image.array.shape)
    np.testing.assert_allclose(back.sum(0), 1, atol=1e-4)
    found = back.argmax(0).astype(bool)
    volume = np.count_nonzero(found) * abs(np.linalg.det(image.affine[:3, :3]))
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.04)
    expected = apply_affine(np.linalg.inv(prepared.transforms[modality]), middle)
    assert np.linalg.norm(middle_of(found, image.affine) - expected) < 0.7
    # and not where it would be without the transform
    if modality != "t1c":
        assert np.linalg.norm(expected - middle) > 3
    one_map = prepared.back(ball, modality)
    np.testing.assert_allclose(one_map, back[1], atol=1e-6)


def test_nothing_moves_where_the_grid_is_the_same(phantom, prepared):
    grid = Grid(prepared.case.shape, prepared.case.affine)
    same = Prepared(prepared.case, {"t1c": np.eye(4)}, None, (), {"t1c": grid}, "t1c")
    values = np.random.default_rng(0).random((2, *grid.shape), np.float32)
    assert same.back(values) is values
    with pytest.raises(InputError, match="no image t2f"):
        same.back(values, "t2f")


def test_an_order_of_axes_changes_nothing(phantom, brain, raw, prepared):
    """Of the case and of the way back."""
    images = {m: raw[0][m] for m in ("t1c", "t2f")}
    order = np.array([[2, -1], [0, 1], [1, -1]], float)
    stored = {
        m: Image(
            np.ascontiguousarray(nib.orientations.apply_orientation(image.array, order)),
            image.affine @ nib.orientations.inv_ornt_aff(order, image.array.shape),
        )
        for m, image in images.items()
    }
    mask = Image(brain.astype(np.uint8), phantom.affine)
    other = prepare(stored, prepared.case.sources, "case", mask=mask)
    for modality in images:
        assert off(other.transforms[modality], prepared.transforms[modality], brain, phantom.affine) < 0.05
    np.testing.assert_allclose(
        nib.orientations.apply_orientation(prepared.case.images["t1c"], order), other.case.images["t1c"], atol=0.02
    )
    back = nib.orientations.apply_orientation(prepared.back(prepared.case.images["t1c"]), order)
    np.testing.assert_allclose(back, other.back(other.case.images["t1c"]), atol=0.02)


@pytest.mark.parametrize("calls", [0, 3, 8])
def test_it_can_be_cancelled(phantom, brain, raw, calls):
    images, _ = raw
    count = itertools.count()
    with pytest.raises(Cancelled):
        prepare(
            images,
            {},
            "case",
            mask=Image(brain.astype(np.uint8), phantom.affine),
            cancelled=lambda: next(count) >= calls,
        )


def test_a_mask_that_is_no_brain_of_this_head_is_refused(phantom, brain, raw):
    images, _ = raw
    few, elsewhere = np.zeros_like(brain, np.uint8), phantom.affine.copy()
    few[20:24, 20:24, 20:24] = 1
    elsewhere[:3, 3] += 400
    for mask, affine in ((few, phantom.affine), (brain.astype(np.uint8), elsewhere), (few * 0, phantom.affine)):
        with pytest.raises(InputError, match="brain mask"):
            prepare(images, {}, "case", mask=Image(mask, affine))


# --- files to files


def write(arrays, affine, folder):
    folder.mkdir()
    for modality, array in arrays.items():
        save_image(
            array, affine[modality] if isinstance(affine, dict) else affine, folder / f"{modality}.nii", np.float32
        )
    return {modality: Source(folder / f"{modality}.nii") for modality in arrays}


def test_prepared_input_comes_out_as_it_ever_did(phantom, tiny_model, tmp_path):
    model = load_package(tiny_model)
    sources = write(phantom.images, phantom.affine, tmp_path / "in")
    images = read_images(sources)
    assert not make_plan(images).needed
    for choice in ("auto", "never"):
        options = PredictOptions(prepare=choice, probabilities=True, uncertainty=True, onto=("t2f",), compressed=False)
        summary = predict_case(model, sources, tmp_path / choice, "a", options)
        assert summary["steps"] == []
    for name in ("a-seg.nii", "a-probabilities.nii", "a-uncertainty.nii", "a-seg-t2f.nii"):
        assert (tmp_path / "auto" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()


def test_raw_files_are_segmented_on_their_own_grids(raw, phantom, brain, tiny_model, tmp_path):
    images, _ = raw
    affines = {m: image.affine for m, image in images.items()}
    sources = write({m: image.array for m, image in images.items()}, affines, tmp_path / "in")
    save_image(brain.astype(np.uint8), phantom.affine, tmp_path / "brain.nii", np.uint8)
    model = load_package(tiny_model)
    with pytest.raises(InputError, match="not on one grid"):
        predict_case(model, sources, tmp_path / "out", "a", PredictOptions(prepare="never"))
    options = PredictOptions(brain_mask=tmp_path / "brain.nii", probabilities=True, uncertainty=True, onto=("t2f",))
    seen = []
    summary = predict_case(model, sources, tmp_path / "out", "a", options, lambda stage, fraction: seen.append(stage))
    assert set(seen) <= set(_STAGES) and "prepare" in seen
    assert [step["kind"] for step in summary["steps"]] == ["grid", "brain", "register", "register", "register"]
    assert summary["settings"]["brain_mask_sha256"] and summary["seconds"]["prepare"] > 0
    for kind, modality in (("label_map", "t1c"), ("probabilities", "t1c"), ("label_map_t2f", "t2f")):
        written = nib.load(tmp_path / "out" / summary["files"][kind])
        assert written.shape[:3] == images[modality].array.shape
        np.testing.assert_allclose(written.affine, images[modality].affine, atol=1e-4)
    shares = nib.load(tmp_path / "out" / summary["files"]["probabilities"]).get_fdata()
    labels = np.asarray(nib.load(tmp_path / "out" / summary["files"]["label_map"]).dataobj)
    np.testing.assert_array_equal(shares.argmax(-1), labels)
    voxel_ml = abs(np.linalg.det(images["t1c"].affine[:3, :3])) / 1000
    assert summary["volumes_ml"]["WT"] == pytest.approx(np.count_nonzero(labels) * voxel_ml, abs=2e-3)


def test_options_that_contradict_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected one of auto, never"):
        PredictOptions(prepare="always")
    with pytest.raises(InputError, match="leave one"):
        PredictOptions(prepare="never", brain_mask=tmp_path / "x.nii")


def request(**more):
    return json.dumps({"id": "1", "command": "segment", "images": {"t1c": "/a.nii"}, "output": "/o", **more}).encode()


def test_the_worker_is_asked_to_prepare_by_an_optional_key():
    assert parse(request()).prepare == "auto" and parse(request()).brain_mask is None
    asked = parse(request(prepare="auto", brain_mask="/m.nii"))
    assert str(asked.brain_mask) == "/m.nii" and parse(request(prepare="never")).prepare == "never"
    for bad in ({"prepare": "always"}, {"prepare": True}, {"brain_mask": "m.nii"}, {"brain_mask": 3}):
        with pytest.raises(ProtocolError):
            parse(request(**bad))
    with pytest.raises(ProtocolError, match="goes with prepare auto"):
        parse(request(prepare="never", brain_mask="/m.nii"))
