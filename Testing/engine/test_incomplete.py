"""Cases that lack a modality: what is allowed, what the network then sees, what is said and what is refused."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid
from segmamba.cases.case import find_case
from segmamba.cases.incomplete import Incomplete, find_absent
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.images.dicom import choose_four, find_series
from segmamba.models.package import load_package, read_manifest, save_package
from segmamba.prediction.predict import PredictOptions, predict_case
from test_dicom_find import FLAIR, T1, add, four

KNOWN = Incomplete(
    measured_on="tiny-0",
    cases=9,
    dice={"WT": 0.9, "TC": 0.8, "ET": 0.7},
    without={
        "t2w": {"WT": 0.88, "TC": 0.79, "ET": 0.7},
        "t1c": {"WT": 0.85, "TC": 0.4, "ET": 0.1},
        "t2w+t1n": {"WT": 0.86, "TC": 0.75, "ET": 0.68},
    },
)


@pytest.fixture(scope="module")
def tolerant(tiny_model, tmp_path_factory):
    """tiny_model, of which somebody has measured what it does without."""
    model = load_package(tiny_model)
    folder = tmp_path_factory.mktemp("tolerant") / "tolerant"
    save_package(folder, model.network, replace(model.manifest, incomplete=KNOWN), "# tolerant\n")
    return folder


def without(sources, *absent):
    return {modality: source for modality, source in sources.items() if modality not in absent}


def seen(model, sources, output):
    """What the network is given, and the summary."""
    tensors = []
    hook = model.network.register_forward_pre_hook(lambda _network, given: tensors.append(given[0].clone()))
    try:
        summary = predict_case(model, sources, output, "a", PredictOptions())
    finally:
        hook.remove()
    return tensors[0], summary


def test_what_was_measured_outlives_the_file(tolerant):
    assert read_manifest(tolerant).incomplete == KNOWN


def test_the_missing_channel_is_zero_and_the_others_are_what_they_were(tolerant, phantom_cases, tmp_path):
    model, sources = load_package(tolerant), find_case(phantom_cases / "phantom-0")
    whole, complete = seen(model, sources, tmp_path / "whole")
    part, summary = seen(model, without(sources, "t2w"), tmp_path / "part")
    assert model.manifest.preprocess.modalities[0] == "t2w"
    assert not part[:, 0].any() and whole[:, 0].any()
    assert np.array_equal(part[:, 1:], whole[:, 1:])
    assert complete["absent"] == [] and summary["absent"] == ["t2w"]
    assert not any("missing" in note for note in complete["notes"])
    assert summary["notes"][1] == (
        "t2w is missing: without, tiny-0 reached a mean Dice of WT 0.88, TC 0.79, ET 0.70 on 9 cases that it had not "
        "seen, with all images WT 0.90, TC 0.80, ET 0.70"
    )


def test_without_t1c_the_result_lies_on_the_first_image(tolerant, phantom_cases, tmp_path):
    sources = without(find_case(phantom_cases / "phantom-1"), "t1c")
    summary = predict_case(load_package(tolerant), sources, tmp_path, "a", PredictOptions())
    image = nib.load(phantom_cases / "phantom-1" / "phantom-1-t1n.nii.gz")
    assert nib.load(tmp_path / summary["files"]["label_map"]).shape == image.shape


@pytest.mark.parametrize("absent", [("t1n",), ("t1c", "t1n"), ("t2w", "t2f", "t1n")])
def test_what_nobody_has_measured_is_refused(tolerant, phantom_cases, tmp_path, absent):
    sources = without(find_case(phantom_cases / "phantom-0"), *absent)
    with pytest.raises(InputError, match=r"no image for .*does without t2w or t1c or t2w and t1n alone"):
        predict_case(load_package(tolerant), sources, tmp_path, "a", PredictOptions())
    assert not list(tmp_path.iterdir())


def test_a_model_that_needs_all_says_so(tiny_model, phantom_cases, tmp_path):
    sources = without(find_case(phantom_cases / "phantom-0"), "t2w")
    with pytest.raises(InputError, match="no image for t2w; the model needs t2w, t2f, t1n, t1c; got"):
        predict_case(load_package(tiny_model), sources, tmp_path, "a", PredictOptions())


def test_a_misspelt_modality_is_no_missing_one(tolerant, phantom_cases, tmp_path):
    sources = find_case(phantom_cases / "phantom-0")
    sources["t2"] = sources.pop("t2w")
    with pytest.raises(InputError, match=r"unknown: t2 .did you mean t2w"):
        predict_case(load_package(tolerant), sources, tmp_path, "a", PredictOptions())
    assert find_absent(("t1n", "t1c"), ("t1n", "x"), None) == ()


def test_a_folder_may_lack_an_image_unless_another_could_be_it(phantom_cases, tmp_path):
    folder = tmp_path / "case"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    (folder / "phantom-0-t2w.nii.gz").rename(folder / "phantom-0-space.nii.gz")
    for incomplete in (False, True):
        with pytest.raises(InputError, match=r"no file for t2w; found: .*space"):
            find_case(folder, incomplete=incomplete)
    (folder / "phantom-0-space.nii.gz").rename(folder / "brain_mask.nii.gz")
    assert list(find_case(folder, incomplete=True)) == ["t1n", "t1c", "t2f"]
    with pytest.raises(InputError, match="no file for t2w"):
        find_case(folder)
    for file in (*folder.glob("*-t*"), folder / "brain_mask.nii.gz"):
        file.unlink()
    with pytest.raises(InputError, match="no file for t1n, t1c, t2w, t2f"):
        find_case(folder, incomplete=True)


def test_the_command_segments_and_warns(tolerant, phantom_cases, tmp_path, capsys):
    folder = tmp_path / "case"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    (folder / "phantom-0-t2w.nii.gz").unlink()
    assert main(["predict", str(folder), "-o", str(tmp_path / "out"), "--model", str(tolerant), "--device", "cpu"]) == 0
    assert "note: t2w is missing" in capsys.readouterr().out
    assert main(["predict", "--batch", str(tmp_path), "-o", str(tmp_path / "b"), "--model", str(tolerant)]) == 0
    # "out" and "b" hold results alone, and are passed over
    assert json.loads((tmp_path / "b" / "case-summary.json").read_text())["absent"] == ["t2w"]


def test_folders_beside_the_images_of_an_incomplete_case_may_be_none_of_it(tolerant, phantom_cases, tmp_path):
    """Its own results, what file servers leave, nothing at all; but not one that could be the missing image."""
    folder = tmp_path / "case"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    (folder / "phantom-0-t2w.nii.gz").unlink()
    predict = ["predict", str(folder), "-o", str(folder / "out"), "--model", str(tolerant), "--device", "cpu"]
    assert [main(predict), main(predict)] == [0, 0]
    for name in ("@eaDir", "#recycle", "$RECYCLE.BIN"):
        (folder / name).mkdir()
        (folder / name / "x").touch()
    (folder / "notes").mkdir()
    (folder / "notes" / ".DS_Store").touch()
    (folder / "notes" / "@eaDir").mkdir()
    assert list(find_case(folder, incomplete=True)) == ["t1n", "t1c", "t2f"]
    (folder / "notes" / "IM0001").touch()
    with pytest.raises(InputError, match=r"no file for t2w; found: .*notes"):
        find_case(folder, incomplete=True)


def test_dicom_may_lack_a_series_unless_another_could_be_it(tmp_path):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 5, "FLAIR tra", FLAIR)
    add(tmp_path, 9, "T1 SE tra KM", T1, ContrastBolusAgent="Gadovist")
    with pytest.raises(InputError, match="no series for t2w"):
        choose_four(find_series(tmp_path))
    assert sorted(choose_four(find_series(tmp_path), incomplete=True)) == ["t1c", "t1n", "t2f"]
    add(tmp_path, 11, "SPACE sag", {})  # nothing tells what it is
    with pytest.raises(InputError, match="no series for t2w"):
        choose_four(find_series(tmp_path), incomplete=True)
    (tmp_path / "whole").mkdir()
    four(tmp_path / "whole")
    assert sorted(choose_four(find_series(tmp_path / "whole"), incomplete=True)) == ["t1c", "t1n", "t2f", "t2w"]


def test_studies_are_not_mixed_to_make_up_a_case(tmp_path):
    add(tmp_path, 3, "T1 SE tra", T1)
    add(tmp_path, 9, "T1 SE tra KM", T1, ContrastBolusAgent="Gadovist", StudyInstanceUID=generate_uid())
    with pytest.raises(InputError, match="no series for"):
        choose_four(find_series(tmp_path), incomplete=True)
