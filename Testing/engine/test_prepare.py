"""Raw input: images that were moved by a known amount, cut to thick slices, stored in any order, and put back.

Orders of the stored axes have a file of their own.
"""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from raw_heads import grid_of, make_heads, make_raw, middle_of, off, register_once, sampled, turned
from scipy import ndimage
from segmamba.cases.case import Source, read_images, save_image
from segmamba.errors import Cancelled, InputError
from segmamba.images.image_io import Image
from segmamba.models.package import load_package
from segmamba.prediction.predict import PredictOptions, predict_case
from segmamba.preparation import run
from segmamba.preparation.grids import Grid, resample, to_itk, to_matrix, to_transform
from segmamba.preparation.plan import make_plan
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.register import register
from segmamba.preparation.run import Prepared, prepare
from segmamba.worker.job import _STAGES
from segmamba.worker.requests import ProtocolError, parse


@pytest.fixture(scope="module")
def heads():
    return make_heads()


@pytest.fixture(scope="module")
def phantom(heads):
    return heads.phantom


# --- registration


@pytest.mark.parametrize(
    ("modality", "degrees", "mm", "spacing", "codes", "tilt"),
    [
        ("t1n", 25, 25, (2.0, 2.0, 6.0), "LAS", 12),  # left-handed, oblique, thick
        ("t2f", 15, 30, (5.0, 1.8, 1.8), "RAS", 0),
        ("t2w", 30, 10, (1.8, 1.8, 5.0), "PIR", 8),
    ],
)
def test_a_known_move_is_found(heads, modality, degrees, mm, spacing, codes, tilt):
    move = turned(heads.middle, degrees, mm, seed=mm)
    grid = grid_of(spacing, codes, tilt, heads.middle + np.array([6, -5, 4]), mm=(190, 220, 170))
    moving = sampled(heads.images[modality], heads.affine, move, grid)
    found = register(make_levels(heads.images["t1c"], heads.affine), make_levels(moving, grid.affine))
    assert found.problem is None and found.agreeing >= 3
    # slices of 5 and 6 mm, and a phantom whose images are up to 0.4 mm off one another
    assert off(np.linalg.inv(found.transform), move, heads.brain, heads.affine) < 1.5
    np.testing.assert_allclose(found.transform[:3, :3] @ found.transform[:3, :3].T, np.eye(3), atol=1e-9)


def test_registration_is_the_same_every_time_and_keeps_to_the_mask(heads):
    grid = grid_of((2.7, 2.0, 3.3), "RAS", 5, heads.middle)
    moving = make_levels(sampled(heads.images["t1n"], heads.affine, np.eye(4), grid), grid.affine)
    fixed = make_levels(heads.images["t1c"], heads.affine)
    within = [resample(heads.brain, heads.affine, level.grid) > 0.5 for level in fixed]
    one, other = (register(fixed, moving, within=within) for _ in range(2))
    np.testing.assert_array_equal(one.transform, other.transform)
    assert off(one.transform, np.eye(4), heads.brain, heads.affine) < 1.5


def test_noise_and_another_kind_of_object_are_refused(heads):
    fixed = make_levels(heads.images["t1c"], heads.affine)
    rng = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(rng.standard_normal((40, 42, 38)), 2).astype(np.float32)
    ball = 0.1 * rng.random((60, 60, 45)) + (np.linalg.norm(np.indices((60, 60, 45)).T - 28, axis=-1).T < 18)
    for strange in (noise - noise.min(), ball):
        found = register(fixed, make_levels(strange.astype(np.float32), heads.affine))
        assert found.problem
        with pytest.raises(InputError, match=r"FLAIR could not be registered onto T1c.*by hand"):
            found.check("FLAIR", "T1c")


def test_an_image_of_a_few_slices_beside_the_head_is_refused(heads):
    slab = heads.images["t2f"][:, :, :6]
    found = register(make_levels(heads.images["t1c"], heads.affine), make_levels(slab, heads.affine))
    assert found.problem


# --- grids


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIL"])
def test_to_itk_and_resample_agree_with_nibabel_and_scipy(codes):
    rng = np.random.default_rng(2)
    grid = grid_of((2.0, 3.0, 4.0), codes, 14, mm=(60, 80, 70))
    image = rng.random(grid.shape).astype(np.float32)
    here = apply_affine(grid.affine, (3, 5, 2)) * [-1, -1, 1]
    assert to_itk(image, grid.affine).TransformPhysicalPointToIndex(here.tolist()) == (3, 5, 2)
    move = turned(grid.centre, 20, 9)
    np.testing.assert_allclose(to_matrix(to_transform(move)), move, atol=1e-9)
    fine = grid_of((1.5, 1.9, 2.5), "RAS", 30, grid.centre, (30, 30, 30))
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


def test_prepared_images_need_nothing(phantom, heads):
    plan = make_plan(images_of(phantom.images, heads.affine))
    assert not plan.needed and plan.as_json()["actions"] == []


def test_the_plan_says_what_is_to_be_done_and_why(phantom, heads):
    images = images_of(heads.images, phantom.affine)
    grid = grid_of((5.0, 2.0, 2.0), "RAS", 0, middle_of(heads.brain, phantom.affine), (190, 220, 170))
    images["t2f"] = Image(sampled(heads.images["t2f"], phantom.affine, np.eye(4), grid), grid.affine)
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


def test_an_image_that_slipped_on_its_grid_is_registered(phantom, heads):
    images = images_of(phantom.images, heads.affine)
    slipped = np.zeros_like(phantom.images["t2f"])
    slipped[6:] = phantom.images["t2f"][:-6]  # 11.9 mm
    images["t2f"] = Image(slipped, heads.affine)
    plan = make_plan(images)
    assert plan.to_register == ("t2f",) and not plan.has("brain") and plan.has("grid")
    assert "12 mm away" in plan.actions[-1].why or "11 mm away" in plan.actions[-1].why


def test_images_of_another_kind_are_left_alone(heads, phantom):
    plan = make_plan({"ct": Image(heads.images["t1c"] * 1000 - 1000, phantom.affine)})
    assert not plan.needed


# --- the whole


@pytest.fixture(scope="module")
def raw():
    return make_raw()


@pytest.fixture(scope="module")
def registered():
    """What the images of `raw` were registered to, of use to those that give the very same ones again."""
    return {}


@pytest.fixture(scope="module")
def prepared(heads, raw, registered):
    images, _ = raw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "register", register_once(registered))
        return prepare(images, {m: Source(f"{m}.nii") for m in images}, "case", mask=heads.mask)


def test_raw_images_become_a_case_on_one_grid(heads, raw, prepared):
    _, moves = raw
    case = prepared.case
    assert [step.kind for step in prepared.steps] == ["grid", "brain", "register", "register", "register"]
    assert all(step.seconds >= 0 and step.text for step in prepared.steps)
    json.dumps([step.as_json() for step in prepared.steps])
    for modality, move in moves.items():
        assert off(prepared.transforms[modality], np.linalg.inv(move), heads.brain, heads.affine) < 1.0, modality
        assert case.images[modality].dtype == np.float32
        assert not case.images[modality][~prepared.mask].any()
    there = sampled(heads.brain.astype(np.float32), heads.affine, np.eye(4), Grid(case.shape, case.affine)) > 0.5
    assert 2 * np.count_nonzero(there & prepared.mask) / (there.sum() + prepared.mask.sum()) > 0.98
    for modality in moves:  # each image is where T1c is: the phantom on the working grid, apart from its blur
        ideal = sampled(heads.phantom.images[modality], heads.affine, np.eye(4), Grid(case.shape, case.affine))
        inner = ndimage.binary_erosion(there, iterations=6)
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


def test_the_rim_of_brains_in_thick_slices_is_not_taken_for_tissue(phantom, heads):
    """What a voxel half outside of a brain shows is darker than any tissue; z-scores are over what is not 0."""
    images = {}
    for first, modality in enumerate(("t1c", "t2f")):
        array = phantom.images[modality][:, :, first:]
        count = array.shape[2] // 3
        slices = array[:, :, : 3 * count].reshape(*array.shape[:2], count, 3).mean(-1)
        affine = heads.affine @ np.diag([1, 1, 3, 1])
        affine[:3, 3] = apply_affine(heads.affine, [0, 0, first + 1])
        images[modality] = Image(slices.astype(np.float32), affine)
    plan = make_plan(images)
    assert plan.needed and not plan.has("brain")
    case = prepare(images, {m: Source(f"{m}.nii") for m in images}, "case", plan).case
    for modality, array in case.images.items():
        found, true = (a[a != 0] for a in (array, phantom.images[modality]))
        size = len(found) * np.linalg.det(case.affine) / (len(true) * np.linalg.det(heads.affine))
        assert found.mean() == pytest.approx(true.mean(), rel=0.05), modality
        assert found.std() < 1.1 * true.std() and 0.8 < size < 1.05, modality


@pytest.mark.parametrize(("noise", "own_grid"), [(True, False), (False, False), (False, True)])
def test_fluid_that_is_0_in_one_image_stays_in_the_others(phantom, heads, noise, own_grid):
    """As in images windowed to 0..1. T1c says what is brain where others have noise around it or another grid."""
    middle = (slice(28, 33), slice(30, 35), slice(18, 22))
    images = {m: phantom.images[m].copy() for m in ("t1c", "t2f")}
    assert images["t1c"][middle].all() and images["t2f"][middle].all()
    images["t1c"][middle] = 0
    affine = heads.affine.copy()
    if noise:
        air = np.abs(np.random.default_rng(0).standard_normal(images["t2f"].shape)) * 0.05 * images["t2f"].max()
        images["t2f"] = np.where(images["t2f"] == 0, air, images["t2f"]).astype(np.float32)
    else:
        affine[:3, 3] += 1.5  # mm, off the grid
    images = {"t1c": Image(images["t1c"], heads.affine), "t2f": Image(images["t2f"], affine)}
    plan = make_plan(images)
    assert [a.kind for a in plan.actions] == (["outside"] if noise else ["grid", "register"])
    case = prepare(images, {m: Source(f"{m}.nii") for m in images}, "case", plan, own_grid=own_grid).case
    hole = np.zeros(phantom.label_map.shape, np.float32)
    hole[middle] = 1
    there = resample(hole, heads.affine, Grid(case.shape, case.affine)) > 0.9
    assert there.any() and not case.images["t1c"][there].any() and case.images["t2f"][there].all()
    assert not case.images["t2f"][0, 0].any()


def test_a_brain_of_which_one_image_shows_a_part_keeps_the_rest(phantom, heads):
    """Where an image is 0 altogether the others stay as they are; all of them lose a rim."""
    images = images_of({m: phantom.images[m] for m in ("t1c", "t2f")}, heads.affine)
    part = phantom.images["t2f"].copy()
    part[:, :, np.flatnonzero(part.any((0, 1)))[-12:]] = 0
    moved = heads.affine.copy()
    moved[:3, 3] += 1.5  # mm, off the grid
    images["t2f"] = Image(part, moved)
    case = prepare(images, {m: Source(f"{m}.nii") for m in images}, "case").case
    whole = np.count_nonzero(phantom.images["t1c"]) * np.linalg.det(heads.affine) / np.linalg.det(case.affine)
    shown = {modality: np.count_nonzero(array) / whole for modality, array in case.images.items()}
    assert shown["t2f"] < 0.7 and shown["t1c"] > 0.8


def test_nothing_moves_where_the_grid_is_the_same(prepared):
    grid = Grid(prepared.case.shape, prepared.case.affine)
    same = Prepared(prepared.case, {"t1c": np.eye(4)}, None, (), {"t1c": grid}, "t1c")
    values = np.random.default_rng(0).random((2, *grid.shape), np.float32)
    assert same.back(values) is values
    with pytest.raises(InputError, match="no image t2f"):
        same.back(values, "t2f")


@pytest.mark.parametrize("calls", [0, 3, 8])
def test_it_can_be_cancelled(heads, raw, calls):
    images, _ = raw
    count = itertools.count()
    with pytest.raises(Cancelled):
        prepare(
            images,
            {},
            "case",
            mask=heads.mask,
            cancelled=lambda: next(count) >= calls,
        )


def test_a_mask_that_is_no_brain_of_this_head_is_refused(heads, raw):
    images, _ = raw
    few, elsewhere = np.zeros_like(heads.brain, np.uint8), heads.affine.copy()
    few[20:24, 20:24, 20:24] = 1
    elsewhere[:3, 3] += 400
    for mask, affine in ((few, heads.affine), (heads.mask.array, elsewhere), (few * 0, heads.affine)):
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


def test_prepared_input_comes_out_as_it_ever_did(phantom, heads, tiny_model, tmp_path):
    model = load_package(tiny_model)
    sources = write(phantom.images, heads.affine, tmp_path / "in")
    images = read_images(sources)
    assert not make_plan(images).needed
    for choice in ("auto", "never"):
        options = PredictOptions(prepare=choice, probabilities=True, uncertainty=True, onto=("t2f",), compressed=False)
        summary = predict_case(model, sources, tmp_path / choice, "a", options)
        assert summary["steps"] == []
    for name in ("a-seg.nii", "a-probabilities.nii", "a-uncertainty.nii", "a-seg-t2f.nii"):
        assert (tmp_path / "auto" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()


def test_raw_files_are_segmented_on_their_own_grids(raw, heads, registered, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "register", register_once(registered))
    images, _ = raw
    affines = {m: image.affine for m, image in images.items()}
    sources = write({m: image.array for m, image in images.items()}, affines, tmp_path / "in")
    save_image(heads.mask.array, heads.affine, tmp_path / "brain.nii", np.uint8)
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
