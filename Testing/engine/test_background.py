"""Outsides that are not 0: each way in which files have them, in one image and in all, against the image as it was."""

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import MODALITIES, Source, as_case, find_case, read_images
from segmamba.datasets.phantom import make_phantom
from segmamba.images.background import clear_background
from segmamba.images.image_io import Image
from segmamba.models.specs import PreprocessSpec
from segmamba.prediction.preprocess import preprocess
from segmamba.preparation.plan import make_plan
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.run import prepare as cut
from segmamba.preparation.stripped import find_skull


@cache  # when a test asks, not when the file is read
def phantom():
    return make_phantom(4, spacing=(5.0, 5.0, 5.0), enhancing=True)


def rng():
    return np.random.default_rng(3)


def zscored(array, over):
    return (array - array[over].mean()) / array[over].std()


def within(array, values):
    return np.where(array != 0, values, 0)


# name -> what is done to a brain with an outside of 0
ODD = {
    "-1024 outside": lambda a: np.where(a == 0, -1024, a),
    "-1 outside": lambda a: np.where(a == 0, -1, a),
    "moved by -1024": lambda a: a - 1024,
    "moved by 5": lambda a: a + 5,
    "moved by 1000": lambda a: a + 1000,
    "filled with more than there is": lambda a: np.where(a == 0, 2 * a.max(), a),
    "z-scored over the volume": lambda a: zscored(a, np.ones(a.shape, bool)),
    "z-scored over the brain, outside and all": lambda a: zscored(a, a != 0),
    "z-scored over the brain": lambda a: within(a, zscored(a, a != 0)),
    "z-scored over the brain, outside -1024": lambda a: np.where(a == 0, -1024, zscored(a, a != 0)),
    "z-scored over the brain, outside -10": lambda a: np.where(a == 0, -10, zscored(a, a != 0)),
    "scaled to -1 ... 1": lambda a: 2 * a / a.max() - 1,
    "scaled to 0 ... 1": lambda a: a / a.max(),
    "faint normal noise": lambda a: a + within(a == 0, 0.002 * np.median(a[a > 0]) * rng().standard_normal(a.shape)),
    "faint noise of magnitudes": lambda a: np.abs(
        a + within(a == 0, 0.002 * np.median(a[a > 0]) * rng().standard_normal(a.shape))
    ),
    "faint even noise": lambda a: a + within(a == 0, 0.004 * np.median(a[a > 0]) * rng().random(a.shape)),
    "faint noise, moved by -3": lambda a: (
        a - 3 + within(a == 0, 0.001 * np.median(a[a > 0]) * rng().standard_normal(a.shape))
    ),
    "almost 0, as after a spline": lambda a: a + within(a == 0, 1e-6 * rng().standard_normal(a.shape)),
    "NaN outside": lambda a: np.where(a == 0, np.nan, a),
    "NaN outside, z-scored": lambda a: np.where(a == 0, np.nan, zscored(a, a != 0)),
}
AS_IT_IS = ("scaled to 0 ... 1",)


def tensor(images, folder):
    """What a network sees of `images`, modality -> array, and what was noted; nothing may look like a skull."""
    folder.mkdir()
    for modality, array in images.items():
        nib.save(nib.Nifti1Image(array.astype(np.float32), phantom().affine), folder / f"x-{modality}.nii.gz")
    sources = find_case(folder)
    read = read_images(sources)
    changed = [m for m in read if images[m] is not phantom().images[m]] or read
    levels = {m: make_levels(read[m].array, read[m].affine)[1] for m in changed}
    assert all(find_skull(level, bright_scalp=m[1] == "1") is None for m, level in levels.items())
    case = as_case(read, sources)
    return preprocess(case, PreprocessSpec(MODALITIES, spacing=(5.0, 5.0, 5.0))).tensor.numpy(), case.notes


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    found, notes = tensor(phantom().images, tmp_path_factory.mktemp("usual") / "x")
    assert not notes
    return found


@pytest.mark.parametrize("which", ["t1c", "t2f", "all"])
@pytest.mark.parametrize("name", ODD)
def test_a_network_sees_the_same_whatever_the_outside_is(name, which, usual, tmp_path):
    images = {m: ODD[name](a.astype(float)) if which in (m, "all") else a for m, a in phantom().images.items()}
    found, notes = tensor(images, tmp_path / "x")
    assert found.shape == usual.shape
    # noise may hide the darkest voxels at the surface of the brain
    same = np.abs(found - usual) < 0.02
    assert same.mean() > 0.998
    changed = {note.split(":")[0] for note in notes}
    assert changed == (set() if name in AS_IT_IS else {*MODALITIES} if which == "all" else {which})


def test_images_that_are_as_they_should_be_come_back_untouched():
    brain = phantom().images["t1c"].astype(np.float32)
    dented = np.where(rng().random(brain.shape) < 0.01, -np.abs(brain) / 50, brain).astype(np.float32)
    head = np.abs(brain + 0.02 * brain.max() * rng().standard_normal(brain.shape)).astype(np.float32)
    for array in (brain, dented, head):
        found, notes = clear_background(array)
        assert found is array and notes == []


def test_a_head_with_air_far_below_0_is_raised_and_keeps_its_noise():
    brain = phantom().images["t1c"].astype(np.float32)
    head = np.abs(brain + 0.02 * brain.max() * rng().standard_normal(brain.shape)).astype(np.float32)
    found, (note,) = clear_background((head - 1000).astype(np.float32))
    assert found.min() >= -0.05 * head.max() and "raised" in note
    np.testing.assert_allclose(found - found.min(), head - head.min(), atol=0.01)


def test_an_image_cut_close_and_a_slab_are_told_by_their_edges():
    brain = phantom().images["t1c"].astype(np.float32)
    box = tuple(slice(hit.min(), hit.max() + 1) for hit in np.nonzero(brain))
    for array in (brain[box], brain[box][:, :, 12:20]):
        found, notes = clear_background(np.where(array == 0, np.float32(-1024), array))
        np.testing.assert_array_equal(found, array)
        assert notes == ["the outside was -1024 everywhere: set to 0"]


def test_dark_tissue_stays_where_a_brain_was_cut_through():
    """A twentieth of the voxels on the edges is tissue, a twelfth as bright as the rest of it."""
    image = np.zeros((40, 40, 40), np.float32)
    image[:30, :30, 8:32] = 1000 + rng().standard_normal((30, 30, 24))
    image[:10, :10, 8:32] = 80
    same, notes = clear_background(image)
    assert same is image and not notes


def test_specks_on_the_edges_are_noise_however_bright():
    image = np.zeros((40, 40, 40), np.float32)
    image[5:35, 5:35, 8:32] = 1000 + rng().standard_normal((30, 30, 24))
    image[0, 0, ::4] = 80
    cleared, notes = clear_background(image)
    assert not cleared[0].any() and (cleared[5:35, 5:35, 8:32] > 900).all()
    assert notes == ["faint noise around the head (up to 80) set to 0"]


@pytest.mark.parametrize("noisy", [["t2w"], ["t1c"], ["t1c", "t2f"]], ids="+".join)
def test_noise_around_some_images_is_cut_off_by_the_others(noisy):
    images = {m: Image(a.astype(np.float32), phantom().affine) for m, a in phantom().images.items()}
    for modality in noisy:
        clean = images[modality].array
        noise = 0.03 * np.median(clean[clean > 0]) * rng().standard_normal(clean.shape)
        images[modality] = Image(np.abs(clean + noise).astype(np.float32), phantom().affine)
    plan = make_plan(images)
    assert [(a.kind, a.modality) for a in plan.actions] == [("outside", m) for m in images if m in noisy]
    prepared = cut(images, dict.fromkeys(images, Source("x")), "x", plan)
    clean = next(m for m in ("t1c", "t1n") if m not in noisy)
    for modality, array in prepared.case.images.items():
        np.testing.assert_array_equal(array, np.where(images[clean].array == 0, 0, images[modality].array))
    assert [step.modality for step in prepared.steps] == [m for m in images if m in noisy]


def test_other_tasks_keep_their_values(tmp_path):
    """In CT -1024 is air, and means it."""
    array = np.full((20, 20, 20), -1024, np.float32)
    array[5:15, 5:15, 5:15] = 40 + rng().standard_normal((10, 10, 10))
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "ct.nii.gz")
    image = read_images({"ct": Source(tmp_path / "ct.nii.gz")}, ("ct",))["ct"]
    np.testing.assert_array_equal(image.array, array)
