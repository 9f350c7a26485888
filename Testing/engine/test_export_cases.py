"""Which files an exported bundle takes for a case, and what it calls the label map of each."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case_folder import find_case
from segmamba.errors import InputError
from segmamba.export.bundle_parts import case_namer, find_cases
from segmamba.images.modalities import MODALITIES

NAMES = [  # of what lies in a case's folder, that both finders may read, or refuse
    "p_t1n p_t1c p_t2w p_t2f p_seg",
    "t1 t1ce t2 flair",
    "p_T1_FLAIR p_t1ce p_t2",  # a T1, and no FLAIR
    "p_T1_FLAIR p_t1ce p_t2 p_T2_FLAIR",
    "sub-1_ce-gadolinium_T1w sub-1_T1w sub-1_T2w sub-1_FLAIR",
    "sub-1_ce-gadolinium_T1w sub-1_T2w sub-1_FLAIR",
    "p_postcontrast_T1 p_T1 p_T2 p_FLAIR",
    "p_postcontrast_T1 p_T2 p_FLAIR",
    "p_pre-post_T1 p_T1 p_T2 p_FLAIR",
    "p_t1 p_seg_t1ce p_t2 p_flair",
    "p_t1 p_t1ce p_seg_t1ce p_t2 p_flair",
    "p_t1 p_t1ce p_t2 p_flair brainMask_0_ID_T1 p_mask_t2",
    "brainMask_0_ID_T1 p_t1ce p_mask_t2 p_flair",
    "p_t1 p_t1_post p_t2 p_t2flair",
    "p.t1 p.t1c p.t2 p.flair",
    "VSD.Brain.XX.O.MR_T1.54513 VSD.Brain.XX.O.MR_T1c.54514 VSD.Brain.XX.O.MR_T2.54515 VSD.Brain.XX.O.MR_Flair.54512",
    "p_t1 q_t1 p_t1c p_t2 p_flair",
    "p_t1 p_t1c p_t2",
    "one two",
]


def outcome(find):
    """What a finder gives, or that it refuses."""
    try:
        return find()
    except InputError:
        return "refused"


@pytest.mark.parametrize("names", NAMES)
def test_a_bundle_takes_the_files_that_segmamba_takes_and_refuses_what_it_refuses(tmp_path, names):
    folder = tmp_path / "case"
    folder.mkdir()
    for name in names.split():
        (folder / f"{name}.nii.gz").touch()
    expected = outcome(lambda: [str(source.path) for source in find_case(folder, MODALITIES).values()])
    assert outcome(lambda: find_cases(str(tmp_path), MODALITIES)[0]["image"]) == expected
    assert outcome(lambda: find_cases(str(folder), MODALITIES)[0]["image"]) == expected or names == "one two"


def test_files_and_folders_side_by_side_are_all_cases(tmp_path):
    """A folder's case did not use to leave room for the files beside it, which nobody heard of."""
    (tmp_path / "b").mkdir()
    for name in ("b/b-t1n.nii", "b/b-t1c.nii", "a.nii.gz", "a_seg.nii.gz"):
        (tmp_path / name).touch()
    found = [case["image"] for case in find_cases(str(tmp_path), ("t1n", "t1c"))]
    assert found == [str(tmp_path / "a.nii.gz"), [str(tmp_path / "b" / f"b-{name}.nii") for name in ("t1n", "t1c")]]


def test_a_folder_that_is_no_case_is_told(tmp_path):
    for name in ("a/a-t1n.nii.gz", "b/scan.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"b: no file for t1n; found: nothing"):
        find_cases(str(tmp_path), ("t1n",))


def test_what_a_bundle_does_not_read_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a-t1n.nrrd").touch()
    with pytest.raises(InputError, match=r"a-t1n.nrrd: .* reads NIfTI files alone"):
        find_cases(str(tmp_path), ("t1n",))


@pytest.mark.parametrize("inside", ["", "case"])
def test_volumes_in_another_order_than_the_models_are_refused(tmp_path, inside):
    """Of MSD Task01, whose names tell the order: FLAIR, T1, T1c, T2."""
    path = tmp_path / inside / "BRATS_001.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 4), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match=r"BRATS_001.nii.gz: .* t2f, t1n, t1c, t2w; .* t1n, t1c, t2w, t2f"):
        find_cases(str(tmp_path), MODALITIES)
    assert find_cases(str(tmp_path), ("t2f", "t1n", "t1c", "t2w")) == [{"image": str(path)}]


@pytest.mark.parametrize(
    "endings",
    [("-t1n", "-t1c", "-t2w", "-t2f"), ("_t1", "_t1ce", "_t2", "_flair"), ("_T1w", "-T1-Gd", "_T2w", "_FLAIR")],
)
def test_cases_are_found_in_every_naming_in_the_models_order(tmp_path, endings):
    for case in ("b", "a"):
        (tmp_path / case).mkdir()
        for ending in (*endings, "-seg"):
            (tmp_path / case / f"{case}{ending}.nii.gz").touch()
    found = find_cases(str(tmp_path), ("t1c", "t1n", "t2f", "t2w"))
    order = [endings[i] for i in (1, 0, 3, 2)]
    names = [[Path(path).name for path in case["image"]] for case in found]
    assert names == [[f"{case}{ending}.nii.gz" for ending in order] for case in ("a", "b")]


@pytest.mark.parametrize("name", ["#recycle", "$RECYCLE.BIN", "@eaDir", ".Trash-1000"])
def test_what_was_deleted_is_no_case(tmp_path, name):
    for folder in (tmp_path / "a", tmp_path / name):
        folder.mkdir()
        (folder / "image-t1n.nii.gz").touch()
    assert find_cases(str(tmp_path), ("t1n",)) == [{"image": [str(tmp_path / "a" / "image-t1n.nii.gz")]}]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a-t1n.nii.gz"], "no file for t1c"),
        (["a-t1n.nii.gz", "b-t1n.nii", "a-t1c.nii"], "several files could be t1n"),
        ([], "no cases"),
    ],
)
def test_cases_that_are_not_whole_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        find_cases(str(tmp_path), ("t1n", "t1c"))


@pytest.mark.parametrize(
    ("names", "modalities"),
    [
        (("P1/brain_t1n.nii.gz", "P2/Brain-t1n.nii"), ("t1n",)),
        (("brain.nii", "brain.nii.gz"), ("t1n", "t1c")),  # files with a channel each
    ],
)
def test_two_cases_with_label_maps_of_one_name_are_refused(tmp_path, names, modalities):
    """The second would be written over the first, without a word."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"the label maps of both would be (?i:brain)_seg; rename") as error:
        find_cases(str(tmp_path), modalities)
    assert all(str(tmp_path / name) in str(error.value) for name in names)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/x/BraTS-GLI-1/BraTS-GLI-1-t1n.nii.gz", "BraTS-GLI-1"),
        ("/x/BraTS2021_7/t1n.nii.gz", "BraTS2021_7"),  # bare names are the same in every folder
        ("/x/a_FLAIR.nii", "a"),
        ("/x/a.t2flair.nii", "a"),
        ("/x/a_T1w_Post.nii.gz", "a"),
        ("/x/7/ct.nii.gz", "7"),
        ("/x/liver 3.nii.gz", "liver 3"),
        ("/x/liver.3.nii.gz", "liver.3"),
        ("/x/VSD.Brain.MR_Flair.54512.nii", "VSD.Brain.MR"),
    ],
)
def test_a_label_map_is_named_after_its_case(file, name):
    assert case_namer(["ct", "t1n", "t1c", "t2f"])({"filename_or_obj": file}, None)["subject"] == name
