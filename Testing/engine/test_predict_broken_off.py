"""A run that breaks off while it writes: the next one goes on, and what somebody corrected meanwhile is not lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.case import find_case
from segmamba.cases.label_files import corrected_results
from segmamba.errors import InputError
from segmamba.models.package import load_package
from segmamba.prediction.options import digest_images, output_files
from segmamba.prediction.predict import PredictOptions, predict_case
from segmamba.prediction.result import check_place

OPTIONS = PredictOptions(mirrorings=1, left_out=True)


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_package(tiny_model)


@pytest.fixture(scope="module")
def images(phantom_cases):
    return find_case(phantom_cases / "phantom-0")


def edit(path):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0) | 1, image.affine), path)


def break_off(monkeypatch, model, images, folder, name, after):
    """A run that ends, as by a kill, when it is to put a file in its place, `after` files of this name."""
    replace, left = Path.replace, [after]

    def interrupted(source, target):
        if Path(target).name == name:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_case(model, images, folder, "a", OPTIONS)
    assert json.loads((folder / "a-summary.json").read_text())["unfinished"]


@pytest.mark.parametrize("edited", [None, "a-seg.nii.gz", "a-left-out.nii.gz"])
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(("name", "after"), [("a-seg.nii.gz", 0), ("a-summary.json", 1)])
def test_a_correction_made_after_a_run_broke_off_is_not_written_over(
    model, images, tmp_path, monkeypatch, name, after, earlier, edited
):
    """Before the label map is put in its place, and between it and the summary; with and without an earlier result."""
    if earlier:
        predict_case(model, images, tmp_path, "a", PredictOptions(left_out=True))
    for _ in range(2):  # a second one that breaks off forgets nothing either
        break_off(monkeypatch, model, images, tmp_path, name, after)
    place = tmp_path / (edited or "")
    if edited is None or not place.is_file():
        assert corrected_results(tmp_path) == []
        summary = predict_case(model, images, tmp_path, "a", OPTIONS)
        assert all(isinstance(value, str) for value in summary["label_maps_sha256"].values())
        check_place(output_files(tmp_path, "a", OPTIONS), digest_images(images))
        return
    edit(place)
    before = place.read_bytes()
    assert corrected_results(tmp_path) == ([place] if edited == "a-seg.nii.gz" else [])
    with pytest.raises(InputError, match=rf"{edited}: was changed since it was written here"):
        predict_case(model, images, tmp_path, "a", OPTIONS)
    assert place.read_bytes() == before
    place.unlink()
    predict_case(model, images, tmp_path, "a", OPTIONS)


@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size as POSIX has them")
def test_a_full_disk_leaves_the_result_that_was_there(phantom_cases, tiny_model, tmp_path):
    import resource

    line = [sys.executable, "-m", "segmamba", "predict", str(phantom_cases / "phantom-0"), "--model", str(tiny_model)]
    line += ["--output", str(tmp_path), "--probabilities"]
    assert subprocess.run(line, capture_output=True).returncode == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full = subprocess.run(
        [*line, "--mirrorings", "1"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert full.returncode == 1
    assert f"{tmp_path / 'phantom-0-probabilities.nii.gz'}: the disk is full, or a quota is reached" in full.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
