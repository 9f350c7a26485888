"""The phantom: seeded, exact in the world, ordered in contrast, and written as BraTS files are."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.errors import InputError

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
SEEDS = (1, 5, 10)


@pytest.fixture(scope="module")
def phantoms():
    return {seed: make_phantom(seed, spacing=(3, 3, 3), enhancing=True) for seed in SEEDS}


def centroid(phantom):
    """World position in mm of the middle of the whole tumour."""
    voxels = np.argwhere(phantom.label_map > 0).mean(0)
    return nibabel.affines.apply_affine(phantom.affine, voxels)


def volume(phantom, label):
    return np.count_nonzero(phantom.label_map == label) * abs(np.linalg.det(phantom.affine[:3, :3])) / 1000


def test_same_seed_same_case_and_no_global_random_state(phantoms):
    np.random.seed(7)  # noqa: NPY002 - the global state is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = make_phantom(5, spacing=(3, 3, 3), enhancing=True)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    first = phantoms[5]
    assert np.array_equal(first.label_map, again.label_map)
    assert np.array_equal(first.affine, again.affine)
    for m in MODALITIES:
        assert np.array_equal(first.images[m], again.images[m])
    assert json.dumps(first.description) == json.dumps(again.description)


def test_other_seed_other_case(phantoms):
    a, b = phantoms[1], phantoms[5]
    assert not np.array_equal(a.label_map, b.label_map)
    assert all(np.mean(a.images[m] != b.images[m]) > 0.1 for m in MODALITIES)


def test_shape_types_and_labels(phantoms):
    for phantom in phantoms.values():
        assert tuple(phantom.images) == MODALITIES
        assert phantom.label_map.shape == (80, 80, 52)
        assert phantom.label_map.dtype == np.uint8
        assert set(np.unique(phantom.label_map)) == {0, 1, 2, 3}
        brain = phantom.images["t1n"] > 0
        assert 1000 < np.count_nonzero(brain) * 0.027 < 1800
        for image in phantom.images.values():
            assert image.shape == phantom.label_map.shape
            assert image.dtype == np.float32
            assert np.isfinite(image).all()
            assert np.array_equal(image > 0, brain)  # skull-stripped alike, 0 outside
        assert not phantom.label_map[~brain].any()
        for name, label in (("NCR", 1), ("ED", 2), ("ET", 3)):
            assert phantom.description["volumes_ml"][name] == pytest.approx(volume(phantom, label), abs=1e-3)


def mean_medians(phantoms, masks):
    """{modality: {tissue: its median over the median of its image, averaged over the phantoms}}.

    A bias field, or an odd sequence, may turn a faint contrast round in one phantom: the mean is what must hold.
    """
    rows = [
        {m: {t: np.median(image[mask]) / np.median(image[image > 0]) for t, mask in masks(phantom).items()}}
        for phantom in phantoms.values()
        for m, image in phantom.images.items()
    ]
    tissues = rows[0]["t1n"]
    return {m: {t: np.mean([row[m][t] for row in rows if m in row]) for t in tissues} for m in MODALITIES}


def test_normal_tissue_has_the_contrasts_of_its_modality(phantoms):
    """White matter is what is bright on T1, fluid what is brightest on T2: an oracle from images alone."""

    def tissues(phantom):
        t1n, t2w = phantom.images["t1n"], phantom.images["t2w"]
        normal = binary_erosion(t1n > 0, iterations=4) & (phantom.label_map == 0)  # without what stripping left
        white = normal & (t1n > np.quantile(t1n[normal], 0.75))
        fluid = normal & (t2w > np.quantile(t2w[normal], 0.985))
        return {"white": white, "fluid": fluid, "rest": normal & ~white & ~fluid}

    mean = mean_medians(phantoms, tissues)
    assert max(mean["t2w"]["white"], mean["t2w"]["rest"]) < mean["t2w"]["fluid"]
    assert mean["t1n"]["fluid"] < mean["t1n"]["rest"] < mean["t1n"]["white"]
    assert mean["t1c"]["fluid"] < mean["t1c"]["white"]
    assert mean["t2f"]["fluid"] < mean["t2f"]["white"]


def test_tumour_has_the_contrasts_of_its_parts(phantoms):
    mean = mean_medians(phantoms, lambda p: {name: p.label_map == v for name, v in (("NCR", 1), ("ED", 2), ("ET", 3))})
    assert mean["t1c"]["ET"] > mean["t1n"]["ET"] + 0.2
    assert mean["t2f"]["ED"] > 1.05
    assert mean["t2w"]["ED"] > 1.05
    for phantom in phantoms.values():  # whatever the sequence: the tumour stays visible
        t1c, label = phantom.images["t1c"], phantom.label_map
        assert np.median(t1c[label == 3]) > np.median(t1c[label == 1])


def test_without_enhancement_no_et_and_the_same_core():
    with_et, without = (make_phantom(10, spacing=(4, 4, 4), enhancing=e) for e in (True, False))
    assert (with_et.label_map == 3).any()
    assert not (without.label_map == 3).any()
    assert without.description["enhancing"] is False
    assert np.array_equal(np.isin(with_et.label_map, (1, 3)), without.label_map == 1)


@pytest.mark.parametrize("spacing, shape", [((4, 4, 4), (60, 60, 39)), ((2, 3, 5), (120, 80, 31))])
def test_other_spacing_same_tumour_in_the_world(phantoms, spacing, shape):
    reference = phantoms[5]
    other = make_phantom(5, spacing=spacing, enhancing=True)
    assert other.label_map.shape == shape
    assert nibabel.aff2axcodes(other.affine) == ("L", "P", "S")
    assert nibabel.affines.voxel_sizes(other.affine) == pytest.approx(spacing)
    assert centroid(other) == pytest.approx(centroid(reference), abs=1.5)
    for label in (1, 2, 3):
        assert volume(other, label) == pytest.approx(volume(reference, label), rel=0.12, abs=0.5)


def test_oblique_grid_same_tumour_in_the_world(phantoms):
    reference = phantoms[5]
    tilted = make_phantom(5, spacing=(3, 3, 4), oblique_degrees=17, enhancing=True)
    turn = tilted.affine[:3, :3] @ np.diag([-1 / 3, -1 / 3, 1 / 4])
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(17)
    assert centroid(tilted) == pytest.approx(centroid(reference), abs=1.5)
    assert volume(tilted, 1) == pytest.approx(volume(reference, 1), rel=0.12)


def test_the_grid_of_brats():
    """Shape and affine of the published files, at a multiple of their spacing: the same middle."""
    phantom = make_phantom(2, spacing=(5, 5, 5))
    assert phantom.label_map.shape == (48, 48, 31)
    brats = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    middle = nibabel.affines.apply_affine(brats, (np.array([240, 240, 155]) - 1) / 2)
    assert nibabel.affines.apply_affine(phantom.affine, (np.array([48, 48, 31]) - 1) / 2) == pytest.approx(middle)


def test_save_and_load(phantoms, tmp_path):
    phantom = make_phantom(5, spacing=(4, 5, 6), oblique_degrees=9)
    paths = save_phantom(phantom, tmp_path / "new" / "folder", "Phantom-00005-000")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(
        f"Phantom-00005-000-{n}.nii.gz" for n in (*MODALITIES, "seg")
    )
    for name, path in paths.items():
        image = nibabel.load(path)
        expected = phantom.label_map if name == "seg" else phantom.images[name]
        assert image.get_data_dtype() == (np.uint8 if name == "seg" else np.int16)
        assert np.array_equal(np.asarray(image.dataobj), expected)
        assert image.affine == pytest.approx(phantom.affine, abs=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"seed": 1, "spacing": (1, 1)},
        {"seed": 1, "spacing": (0, 1, 1)},
        {"seed": 1, "spacing": (1, np.nan, 1)},
        {"seed": 1, "oblique_degrees": np.inf},
    ],
)
def test_bad_input_is_refused(arguments):
    with pytest.raises(InputError):
        make_phantom(**arguments)


@pytest.mark.parametrize("case_id", ["", "a/b", "..", "/x"])
def test_bad_case_id_is_refused(phantoms, tmp_path, case_id):
    with pytest.raises(InputError):
        save_phantom(phantoms[1], tmp_path, case_id)
    assert not list(tmp_path.iterdir())
