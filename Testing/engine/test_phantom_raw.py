"""The phantom as a scanner sees it: where the series lie, what is on them, and where the labels are."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from segmamba.cli import main
from segmamba.datasets.phantom import make_phantom, make_raw
from segmamba.errors import InputError


@pytest.fixture(scope="module")
def raw():
    """The raw series of a phantom whose tumour is ten times as bright as anything else, in every modality."""
    phantom = make_phantom(3, spacing=(4, 4, 4))
    brain = phantom.images["t1c"] > 0
    images = {m: np.where(phantom.label_map > 0, 1000, 100 * brain).astype(np.float32) for m in phantom.images}
    return replace(phantom, images=images), make_raw(replace(phantom, images=images))


def centre(mask, affine):
    return (affine @ [*np.argwhere(mask).mean(0), 1])[:3]


def test_raw_series_have_grids_of_their_own_and_a_skull(raw):
    phantom, made = raw
    axes = {m: "".join(nibabel.aff2axcodes(affine)) for m, (_array, affine) in made.images.items()}
    assert axes == {"t1n": "LPS", "t1c": "LAS", "t2w": "RAS", "t2f": "PSR"}
    for array, affine in made.images.values():
        head = np.count_nonzero(array > 30) * abs(np.linalg.det(affine[:3, :3]))
        brain = np.count_nonzero(phantom.images["t1c"]) * 4.0**3
        assert 1.8 * brain < head < 5 * brain


def test_raw_labels_lie_on_t1c_and_are_the_phantoms(raw):
    phantom, made = raw
    array, affine = made.images["t1c"]
    assert made.label_map.shape == array.shape
    for value in (1, 2, 3):
        own = np.count_nonzero(phantom.label_map == value) * 4.0**3
        there = np.count_nonzero(made.label_map == value) * abs(np.linalg.det(affine[:3, :3]))
        assert there == pytest.approx(own, rel=0.1)
    there = centre(phantom.label_map > 0, phantom.affine)
    np.testing.assert_allclose(centre(made.label_map > 0, affine), there, atol=0.6)
    np.testing.assert_allclose(centre(array > 600, affine), there, atol=1.5)


def test_the_patient_moved_between_the_series(raw):
    """By some millimetres, and by what turning about the middle of the head adds."""
    phantom, made = raw
    there = centre(phantom.label_map > 0, phantom.affine)
    for modality, way in {"t1n": (4, -3, 2), "t2w": (-5, 4, 6), "t2f": (3, 5, -4)}.items():
        array, affine = made.images[modality]
        moved = centre(array > 600, affine) - there
        assert moved[2] == pytest.approx(way[2], abs=1.5), modality
        assert np.linalg.norm(moved[:2] - way[:2]) < 10, modality


def test_raw_needs_an_upright_grid():
    with pytest.raises(InputError, match="leave out --oblique"):
        make_raw(make_phantom(1, spacing=(6, 6, 6), oblique_degrees=10))


def test_the_command_writes_a_raw_case(tmp_path, capsys):
    assert main(["phantom", "--output", str(tmp_path), "--seed", "5", "--spacing", "6", "--raw"]) == 0
    folder = tmp_path / "phantom-0005-raw"
    assert capsys.readouterr().out.strip() == str(folder)
    images = {path.name.split("-")[-1]: nibabel.load(path) for path in folder.glob("*.nii.gz")}
    assert images["seg.nii.gz"].shape == images["t1c.nii.gz"].shape
    assert len({images[f"{m}.nii.gz"].affine.tobytes() for m in ("t1n", "t1c", "t2w", "t2f")}) == 4
