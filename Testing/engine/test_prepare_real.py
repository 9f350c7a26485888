"""Raw input as it comes: one patient's native series, and what is skull-stripped already."""

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import MODALITIES, Source, read_images
from segmamba.preparation.grids import Grid, resample
from segmamba.preparation.plan import make_plan
from segmamba.preparation.pyramid import make_levels
from segmamba.preparation.run import prepare
from segmamba.preparation.stripped import find_skull

# RAS mm, from each series to T1c. The prepared pair of the patient was registered by another program and says where
# each series lies on T1c: each native series was registered onto its prepared self, which is the same image, once.
ONTO_T1C = {
    "t1n": ((0.9892, -0.1378, -0.0497, 1.2754), (0.1335, 0.9877, -0.0811, 1.4773), (0.0603, 0.0736, 0.9955, -2.7603)),
    "t2w": ((0.9907, 0.1157, -0.0719, -4.6565), (-0.1153, 0.9933, 0.0102, -1.3855), (0.0725, -0.0018, 0.9974, 15.628)),
    "t2f": ((0.9744, -0.191, -0.1186, -3.1887), (0.1829, 0.9802, -0.0758, -1.9364), (0.1307, 0.0522, 0.9901, 12.6418)),
}


def level_of(path):
    image = nib.load(path)
    return make_levels(image.get_fdata(dtype=np.float32), image.affine)[1]


def test_brains_are_told_from_heads(brats, raw_case):
    for folder in sorted(path for path in brats.iterdir() if path.is_dir())[:3]:
        assert find_skull(level_of(folder / "t1c.nii.gz"), bright_scalp=True) is None
    for modality in MODALITIES:
        assert "more than a brain has" in find_skull(level_of(raw_case / f"{modality}.nii.gz"), bright_scalp=False)


def test_a_slab_of_a_head_is_no_brain_though_it_is_small(raw_case):
    image = nib.load(raw_case / "t1c.nii.gz")
    values = image.get_fdata(dtype=np.float32)[:, :, 8:20]
    values[values < 0.08 * values.max()] = 0  # as of a scanner that blanks the air
    assert "scalp" in find_skull(make_levels(values, image.affine)[1], bright_scalp=True)


def test_native_series_become_a_stripped_case_that_lies_where_its_prepared_pair_lies(raw_case):
    pytest.importorskip("nilearn", reason="the brain is found by the template inside nilearn")
    sources = {m: Source(raw_case / f"{m}.nii.gz") for m in MODALITIES}
    images = read_images(sources)
    plan = make_plan(images)
    assert plan.has("grid") and plan.has("brain") and plan.to_register == ("t1n", "t2w", "t2f")
    done = prepare(images, sources, "raw", plan)
    given = nib.load(raw_case / "t1c_brainmask.nii.gz")
    grid = Grid(done.case.shape, done.case.affine)
    expected = resample(given.get_fdata(dtype=np.float32), given.affine, grid) > 0.5
    both = np.count_nonzero(expected & done.mask)
    assert 2 * both / (np.count_nonzero(expected) + np.count_nonzero(done.mask)) > 0.9

    points = np.argwhere(done.mask)[::500] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for modality, rows in ONTO_T1C.items():
        apart = [
            points @ np.linalg.inv(transform)[:3, :3].T + np.linalg.inv(transform)[:3, 3]
            for transform in (np.vstack([rows, (0, 0, 0, 1)]), done.transforms[modality])
        ]
        assert np.linalg.norm(apart[0] - apart[1], axis=1).mean() < 1.5, modality  # without registration 8 to 18 mm
