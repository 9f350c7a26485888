"""Which files an exported bundle takes for a case, and what it calls the label map of each."""

from pathlib import Path

import pytest
from segmamba.export.bundle_parts import case_namer, find_cases


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
        (["a-t1n.nii.gz"], "0 files for t1c"),
        (["a-t1n.nii.gz", "b-t1n.nii", "a-t1c.nii"], "2 files for t1n"),
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
        ("/x/7/ct.nii.gz", "7"),
        ("/x/liver 3.nii.gz", "liver 3"),
    ],
)
def test_a_label_map_is_named_after_its_case(file, name):
    assert case_namer(["ct", "t1n", "t2f"])({"filename_or_obj": file}, None)["subject"] == name
