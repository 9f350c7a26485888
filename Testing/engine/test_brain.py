"""Brain extraction: the brain of a simulated head is found however it is stored, what is no head is refused, and
programs that the user has installed are run as they ask to be."""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from segmamba.datasets.phantom import make_phantom
from segmamba.datasets.phantom.head import add_head
from segmamba.errors import Cancelled, InputError
from segmamba.preparation.brain import atlas, brain_mask, external
from segmamba.preparation.brain.lattice import back_in_order, in_order

STEP = 3.0
PROGRAMS = ("hd-bet", "mri_synthstrip")


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def turn(degrees, axis):
    angle, axis = np.deg2rad(degrees), np.asarray(axis) / np.linalg.norm(axis)
    cross = -np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.fixture(scope="module")
def phantom():
    """T1c, T2 and label map of a phantom with an enhancing tumour, axes R, A, S."""
    case = make_phantom(3, spacing=(STEP,) * 3, enhancing=True)
    maps = (case.images["t1c"], case.images["t2w"], case.label_map)
    return [np.asarray(nib.as_closest_canonical(nib.Nifti1Image(m, case.affine)).dataobj) for m in maps]


@pytest.fixture(scope="module")
def head(phantom):
    """T1c with its skull on, the brain's mask, the tumour's, and an affine that tilts it."""
    image, mask, before = add_head(phantom[0], STEP, np.random.default_rng(1), "t1c")
    tumour = np.zeros_like(mask)
    tumour[tuple(slice(b, b + n) for b, n in zip(before, phantom[2].shape))] = phantom[2] > 0
    affine = np.eye(4)
    affine[:3, :3] = turn(9, (1, 0.4, -0.3)) * STEP
    affine[:3, 3] = (-100, -131, -70)
    return image, mask, tumour, affine


@pytest.fixture(scope="module")
def found(head):
    told = []
    result = brain_mask(head[0], head[3], method="atlas", progress=told.append)
    return result, told


@pytest.fixture
def no_tools(monkeypatch, tmp_path):
    """A PATH on which neither tool lies, and a folder at its front."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_brain_and_tumour_are_found(head, found):
    _, mask, tumour, _ = head
    result, told = found
    assert result.mask.dtype == bool and result.mask.shape == mask.shape
    assert dice(result.mask, mask) > 0.95
    assert np.count_nonzero(tumour & result.mask) > 0.98 * np.count_nonzero(tumour)
    assert result.method == "atlas" and 0.3 < result.quality <= 1
    assert told == list(result.seconds) and len(told) > 4


def test_a_bright_tumour_at_the_surface_that_is_cut_is_told(head, found, monkeypatch):
    """As bright as fat, it is taken for scalp where it is near the surface; what else is bright there is not told."""
    image, mask, _, affine = head
    depth = ndimage.distance_transform_edt(mask, sampling=STEP)
    rim = np.argwhere((depth > 8.5) & (depth <= 11.5))
    middle = rim[((rim - np.argwhere(mask).mean(0)) @ (-0.5, 0.8, 0.5)).argmax()]
    ball = mask & (np.linalg.norm(np.moveaxis(np.indices(mask.shape), 0, -1) - middle, axis=-1) * STEP < 12)
    bright = np.where(ball, 3 * np.median(image[mask]), image)
    cut = brain_mask(bright, affine, method="atlas")
    assert np.count_nonzero(ball & ~cut.mask) * STEP**3 > 1000
    told = "at the brain's surface are not in the brain mask"
    assert told in " ".join(cut.notes) and told not in " ".join(found[0].notes)
    monkeypatch.setattr(atlas, "extract", lambda *arguments: (cut.mask, 9.0))
    for modality in ("t1c", "t2w"):  # in which fluid is bright too
        notes = brain_mask(bright, affine, method="atlas", modality=modality).notes
        assert (told in " ".join(notes)) == (modality == "t1c")


def test_it_is_one_piece_without_holes(found):
    mask = found[0].mask
    assert ndimage.label(mask)[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(mask), mask)


def test_stored_another_way_it_is_the_same_to_the_voxel(head, found):
    """Axes exchanged and reversed, with a left-handed affine: also a second run."""
    image, _, _, affine = head
    change = np.array([[1, 1], [2, -1], [0, 1]])  # to axis, direction
    stored = nib.apply_orientation(image, change)
    new_affine = affine @ nib.orientations.inv_ornt_aff(change, image.shape)
    assert np.linalg.det(new_affine) < 0
    result = brain_mask(stored, new_affine, method="atlas")
    assert np.array_equal(result.mask, nib.apply_orientation(found[0].mask, change))
    assert result.quality == found[0].quality


def test_thick_slices_of_another_modality_and_another_place(phantom):
    """T2, slices of 6 mm, the head turned and moved in the world."""
    image, mask, _ = add_head(phantom[1], STEP, np.random.default_rng(2), "t2w")
    image, mask = (x[:, :, : x.shape[2] // 2 * 2].astype(np.float32) for x in (image, mask))
    image, mask = ((x[:, :, ::2] + x[:, :, 1::2]) / 2 for x in (image, mask))
    affine = np.eye(4)
    affine[:3, :3] = turn(17, (0.3, -1, 1)) * [STEP, STEP, 2 * STEP]
    affine[:3, 3] = (40, -300, 25)
    result = brain_mask(image, affine, modality="t2w", method="atlas")
    assert dice(result.mask, mask > 0.5) > 0.92


@pytest.mark.parametrize(
    "orientation", [((0, 1), (1, 1), (2, 1)), ((2, -1), (0, 1), (1, -1)), ((1, -1), (2, -1), (0, 1))]
)
def test_order_and_back(orientation):
    image = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    affine = nib.orientations.inv_ornt_aff(np.array(orientation), image.shape) @ np.diag([2.0, 3, 5, 1])
    turned, upright, way = in_order(image, affine)
    assert nib.aff2axcodes(upright) == ("R", "A", "S")
    for value in (0, 7, 23):
        here, there = np.argwhere(image == value)[0], np.argwhere(turned == value)[0]
        assert np.allclose(affine @ [*here, 1], upright @ [*there, 1])
    assert np.array_equal(back_in_order(turned, way), image)


def ball():
    place = np.stack(np.meshgrid(*(np.arange(n) * 4.0 - 2 * n for n in (56, 62, 50)), indexing="ij"))
    noise = np.random.default_rng(0).random(place.shape[1:]).astype(np.float32)
    return np.where((place**2).sum(0) < 85**2, 1 + noise, 0.02 * noise), noise


@pytest.mark.parametrize(
    ("image", "step", "words"),
    [
        (np.zeros((60, 50, 40)), 4, "0 everywhere"),
        (np.full((60, 50, 40), np.nan), 4, "not numbers"),
        (np.ones((60, 50)), 4, r"shape \(60, 50\)"),
        (ball()[1], 1, "field of view is 56 x 62 x 50 mm"),
        (np.pad(ball()[1][:9, :9, :9], 25), 4, "litres"),
        (ball()[1], 4, "the template of a head fits with"),
        (ball()[0], 4, "give a brain mask, or install HD-BET"),
    ],
    ids=["empty", "nan", "flat", "small", "speck", "noise", "ball"],
)
def test_what_is_no_head_is_refused(image, step, words):
    with pytest.raises(InputError, match=words):
        brain_mask(np.asarray(image, np.float32), np.diag([step, step, step, 1.0]), method="atlas")


def test_a_head_that_lies_upside_down_is_refused(head):
    with pytest.raises(InputError, match="upside down; or give a brain mask"):
        brain_mask(head[0], np.diag([1.0, 1, -1, 1]) @ head[3], method="atlas")


def test_a_method_that_is_none(head):
    with pytest.raises(InputError, match=r"'bet'.*auto, atlas, hd-bet, synthstrip"):
        brain_mask(head[0], head[3], method="bet")


def test_cancelled_before_the_next_step(head):
    told = []
    with pytest.raises(Cancelled):
        brain_mask(head[0], head[3], method="atlas", progress=told.append, cancelled=lambda: len(told) >= 2)
    assert len(told) == 2


def install(folder: Path, program: str, mask: np.ndarray | None, *, fails: str = "", sleeps: float = 0) -> Path:
    """A program that takes the command line of HD-BET 2 or of mri_synthstrip, and writes `mask`; -> where it notes
    its arguments."""
    if mask is not None:
        np.save(folder / "mask.npy", mask.astype(np.uint8))
    script = folder / program
    script.write_text(
        f"""#!{sys.executable}
import argparse, json, os, sys, time
import nibabel as nib, numpy as np
parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("-i", required=True)
parser.add_argument("-o")
if {program == "hd-bet"}:
    parser.add_argument("-device", default="cuda")
    for flag in ("--disable_tta", "--save_bet_mask", "--no_bet_image", "--verbose"):
        parser.add_argument(flag, action="store_true")
else:
    parser.add_argument("-m")
    parser.add_argument("-g", action="store_true")
given = parser.parse_args()
noted = {str(folder / "given.json")!r}
with open(noted + ".part", "w") as file:
    json.dump({{**vars(given), "process": os.getpid()}}, file)
os.replace(noted + ".part", noted)
time.sleep({sleeps})
if {fails!r}:
    sys.exit({fails!r})
head = nib.load(given.i)
assert given.o.endswith(".nii.gz") and head.ndim == 3
mask = nib.Nifti1Image(np.load({str(folder / "mask.npy")!r}), head.affine)
if {program == "hd-bet"}:
    if given.save_bet_mask:
        nib.save(mask, given.o[: -len(".nii.gz")] + "_bet.nii.gz")
else:
    nib.save(mask, given.m)
"""
    )
    script.chmod(0o755)
    return folder / "given.json"


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program on Windows")
class TestPrograms:
    @pytest.mark.parametrize(("program", "method"), list(zip(PROGRAMS, external.TOOLS)))
    def test_an_installed_program_is_used(self, head, no_tools, program, method):
        image, mask, _, affine = head
        mask = ndimage.binary_erosion(mask)  # not what the atlas would find
        noted = install(no_tools, program, mask)
        result = brain_mask(image, affine)
        assert result.method == method
        assert np.array_equal(result.mask, mask)
        given = json.loads(noted.read_text())
        if program == "hd-bet":
            assert given["save_bet_mask"] and given["no_bet_image"]
            assert (given["device"], given["disable_tta"]) in (("cpu", True), ("cuda", False))
        assert not Path(given["i"]).exists()  # the patient's image is not left behind

    def test_hd_bet_goes_before_synthstrip(self, no_tools):
        for program in reversed(PROGRAMS):
            install(no_tools, program, None)
        assert external.find() == "hd-bet"

    def test_a_program_that_fails_is_named_when_asked_for(self, head, no_tools):
        install(no_tools, "hd-bet", None, fails="no weights")
        with pytest.raises(InputError, match="HD-BET failed with exit code 1 \\(no weights\\)"):
            brain_mask(head[0], head[3], method="hd-bet")

    def test_and_stepped_over_when_not(self, head, found, no_tools):
        install(no_tools, "hd-bet", None, fails="no weights")
        result = brain_mask(head[0], head[3])
        assert result.method == "atlas" and np.array_equal(result.mask, found[0].mask)
        assert any("no weights" in note for note in result.notes)

    def test_a_program_that_is_not_there(self, head, no_tools):
        with pytest.raises(InputError, match="mri_synthstrip is not on the PATH"):
            brain_mask(head[0], head[3], method="synthstrip")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda mask: mask[1:], "gave a mask of"),
            (lambda mask: mask & (np.arange(mask.shape[0]) % 5 > 0)[:, None, None], "pieces"),
            (lambda mask: ndimage.binary_erosion(mask, iterations=9), "mL, expected 700 to 2000"),
        ],
        ids=["another grid", "slabs", "too small"],
    )
    def test_a_programs_mask_is_checked(self, head, no_tools, change, words):
        install(no_tools, "mri_synthstrip", change(head[1]))
        with pytest.raises(InputError, match=words):
            brain_mask(head[0], head[3], method="synthstrip")

    def test_a_program_is_ended_when_cancelled(self, head, no_tools):
        noted = install(no_tools, "hd-bet", head[1], sleeps=600)
        with pytest.raises(Cancelled):
            brain_mask(head[0], head[3], method="hd-bet", cancelled=noted.exists)
        with pytest.raises(ProcessLookupError):
            os.kill(json.loads(noted.read_text())["process"], 0)
