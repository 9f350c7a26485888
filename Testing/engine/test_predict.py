"""Files in, files out: one case, and a folder of cases of which some are bad."""

import errno
import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from segmamba.cases.case import find_case, load_case
from segmamba.errors import Cancelled, InputError
from segmamba.models.package import load_package
from segmamba.models.specs import PostprocessSpec
from segmamba.prediction.batch import format_batch, predict_batch
from segmamba.prediction.demo import remove_earlier
from segmamba.prediction.options import digest_images, output_files
from segmamba.prediction.predict import PredictOptions, predict_case
from segmamba.prediction.result import begin
from segmamba.prediction.segment import segment


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_package(tiny_model)


def test_everything_lies_on_the_grid_of_the_case(model, phantom_cases, tmp_path):
    folder = phantom_cases / "phantom-0"
    options = PredictOptions(probabilities=True, uncertainty=True)
    stages = []
    summary = predict_case(
        model,
        find_case(folder),
        tmp_path / "out",
        "a",
        options,
        lambda stage, fraction: stages.append((stage, fraction)),
    )
    image = nib.load(folder / "phantom-0-t1c.nii.gz")
    label_map, probabilities, uncertainty = (
        nib.load(tmp_path / "out" / summary["files"][kind]) for kind in ("label_map", "probabilities", "uncertainty")
    )
    for written in (label_map, probabilities, uncertainty):
        assert written.shape[:3] == image.shape
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    assert label_map.get_data_dtype() == np.uint8
    shares = probabilities.get_fdata()
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares.argmax(-1), np.asarray(label_map.dataobj))
    assert uncertainty.get_fdata().min() >= 0 and uncertainty.get_fdata().max() <= 1
    assert stages[0] == ("read", 0.0) and stages[-1] == ("write", 1.0)


def test_the_summary_says_what_was_done(model, phantom_cases, tmp_path):
    summary = predict_case(model, find_case(phantom_cases / "phantom-0"), tmp_path, "a", PredictOptions(mirrorings=1))
    assert summary == json.loads((tmp_path / "a-summary.json").read_text())
    assert summary["model"] == "tiny" and summary["settings"]["mirrorings"] == 1
    assert summary["passes"] == 2 and summary["device"] == "cpu"
    assert set(summary["seconds"]) == {"read", "check", "prepare", "preprocess", "network", "restore", "write", "total"}
    label_map = nib.load(tmp_path / "a-seg.nii.gz")
    voxel_ml = abs(np.linalg.det(label_map.affine[:3, :3])) / 1000
    counted = np.count_nonzero(np.asarray(label_map.dataobj)) * voxel_ml
    assert summary["volumes_ml"]["WT"] == pytest.approx(counted, abs=2e-3)


def test_labels_of_two_sides_are_not_segmented_on_mirror_images(model, phantom_cases, tmp_path):
    """In a mirror image the left one is on the right: the mean would be half of each."""
    labels = {"left_kidney": 1, "right_kidney": 2, "liver": 3}
    manifest = replace(model.manifest, label_map=labels, regions={name: (name,) for name in labels})
    sided, folder = replace(model, manifest=manifest), phantom_cases / "phantom-0"
    with pytest.raises(InputError, match=r"left_kidney and right_kidney .*without mirrorings"):
        predict_case(sided, find_case(folder), tmp_path, "a", PredictOptions(mirrorings=1))
    with pytest.raises(InputError, match=r"left_kidney and right_kidney .*without mirrorings"):
        predict_batch(sided, phantom_cases, tmp_path, PredictOptions(mirrorings=1))
    case, specs = load_case(find_case(folder)), (manifest.preprocess, manifest.inference)
    with pytest.raises(InputError, match=r"left_kidney and right_kidney .*without mirrorings"):
        segment(case, model.network, *specs, mirrorings=7, scheme=manifest.scheme)
    summary = predict_case(sided, find_case(folder), tmp_path, "a", PredictOptions())
    assert summary["settings"]["mirrorings"] == 0


def test_the_images_are_gone_while_the_network_runs(model, phantom_cases, tmp_path):
    """numpy tells tracemalloc of its arrays; torch's tensors are not counted."""
    shape = nib.load(phantom_cases / "phantom-0" / "phantom-0-t1c.nii.gz").shape
    held = []
    hook = model.network.register_forward_pre_hook(lambda *_: held.append(tracemalloc.get_traced_memory()[0]))
    tracemalloc.start()
    try:
        predict_case(model, find_case(phantom_cases / "phantom-0"), tmp_path, "a", PredictOptions())
    finally:
        tracemalloc.stop()
        hook.remove()
    assert held and max(held) < 4 * np.prod(shape)  # one of the four, of float32


def test_one_output_file_may_be_named(model, phantom_cases, tmp_path):
    predict_case(model, find_case(phantom_cases / "phantom-0"), tmp_path / "mine.nii.gz", "a", PredictOptions())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine-summary.json", "mine.nii.gz"]


def test_channels_go_by_name_not_by_place(model, phantom_cases, tmp_path):
    sources = find_case(phantom_cases / "phantom-0")
    turned = {m: sources[m] for m in reversed(list(sources))}
    for name, given in (("a", sources), ("b", turned)):
        predict_case(model, given, tmp_path, name, PredictOptions())
    a, b = (np.asarray(nib.load(tmp_path / f"{name}-seg.nii.gz").dataobj) for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_small_components_are_removed_on_request_and_reported(model, phantom_cases, tmp_path):
    options = PredictOptions(remove_small_mm3={"WT": 1e9})
    summary = predict_case(model, find_case(phantom_cases / "phantom-0"), tmp_path, "a", options)
    assert summary["volumes_ml"]["WT"] == 0
    assert summary["removed"]["WT"]["components"] >= 1


def test_what_the_manifest_calls_too_small_is_left_out_told_and_kept_beside(model, phantom_cases, tmp_path):
    """By default; "never" keeps it, and a smallest component that is asked for takes the place of the manifest's."""
    sources = find_case(phantom_cases / "phantom-0")
    limited = replace(model, manifest=replace(model.manifest, postprocess=PostprocessSpec(min_total_mm3={"WT": 1e9})))
    whole = predict_case(model, sources, tmp_path, "whole", PredictOptions())
    label_maps = {}
    for name, options in {
        "auto": PredictOptions(left_out=True),
        "never": PredictOptions(postprocess="never", left_out=True),
    }.items():
        summary = predict_case(limited, sources, tmp_path, name, options)
        label_maps[name] = [
            np.asarray(nib.load(tmp_path / summary["files"][kind]).dataobj) for kind in ("label_map", "left_out")
        ]
        told = [note for note in summary["notes"] if note.startswith("Too small, left out: ")]
        assert len(told) == (name == "auto")
        assert (summary["removed"] == {}) == (name == "never")
        if name == "auto":
            pieces = ndimage.label(label_maps[name][1], np.ones((3, 3, 3)))[1]
            assert (summary["left_out"]["spots"], summary["left_out"]["text"]) == (pieces, *told)
            assert summary["left_out"]["ml"] == pytest.approx(whole["volumes_ml"]["WT"], abs=2e-3)
        else:
            assert summary["left_out"] is None
    before = np.asarray(nib.load(tmp_path / whole["files"]["label_map"]).dataobj)
    assert before.any() and not label_maps["auto"][0].any()
    np.testing.assert_array_equal(label_maps["auto"][1], before)
    np.testing.assert_array_equal(label_maps["never"][0], before)
    assert not label_maps["never"][1].any()
    limited = replace(
        model, manifest=replace(model.manifest, postprocess=PostprocessSpec(min_component_mm3={"WT": 1e9}))
    )
    summary = predict_case(limited, sources, tmp_path, "asked", PredictOptions(remove_small_mm3={"WT": 0}))
    assert summary["volumes_ml"] == whole["volumes_ml"]


def test_a_cancelled_case_leaves_nothing(model, phantom_cases, tmp_path):
    with pytest.raises(Cancelled):
        predict_case(
            model,
            find_case(phantom_cases / "phantom-0"),
            tmp_path / "out",
            "a",
            PredictOptions(),
            cancelled=lambda: True,
        )
    assert not (tmp_path / "out").exists()


def test_a_batch_goes_on_after_a_bad_case_and_skips_what_is_finished(model, phantom_cases, tmp_path):
    cases, output = tmp_path / "cases", tmp_path / "out"
    shutil.copytree(phantom_cases, cases)
    shutil.copytree(phantom_cases / "phantom-2", cases / "#recycle")  # a case that was deleted on a file server
    truncated = cases / "phantom-1" / "phantom-1-t2w.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:500])
    rows = predict_batch(model, cases, output, PredictOptions())
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "phantom-1-t2w" in rows[1]["error"]
    assert "2 done, 0 skipped, 1 failed" in format_batch(rows)
    unsure = {row["case"]: row["summary"]["unsure"] for row in rows if row["status"] == "done"}
    first, second = sorted(unsure, key=lambda case: -unsure[case])
    assert format_batch(rows).endswith(f"most worth correcting, the least sure first: {first}, {second}")

    truncated.write_bytes((phantom_cases / "phantom-1" / truncated.name).read_bytes())
    finished = (output / "phantom-0-seg.nii.gz").stat().st_mtime_ns
    rows = predict_batch(model, cases, output, PredictOptions())
    assert [row["status"] for row in rows] == ["skipped", "done", "skipped"]
    assert (output / "phantom-0-seg.nii.gz").stat().st_mtime_ns == finished


def test_a_folder_that_cannot_be_looked_into_stops_none_of_the_others(model, phantom_cases, tmp_path, monkeypatch):
    cases = tmp_path / "cases"
    for number in "01":
        shutil.copytree(phantom_cases / f"phantom-{number}", cases / f"phantom-{number}")
    iterdir = Path.iterdir

    def refuse(path):
        if path.name == "phantom-0":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    rows = predict_batch(model, cases, tmp_path / "out", PredictOptions())
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert str(cases / "phantom-0") in rows[0]["error"]


@pytest.mark.parametrize("change", ["settings", "manifest", "network", "image replaced", "label map gone"])
def test_a_case_is_not_skipped_when_something_differs(model, phantom_cases, tmp_path, change):
    cases = tmp_path / "cases"
    shutil.copytree(phantom_cases / "phantom-0", cases / "phantom-0")
    predict_batch(model, cases, tmp_path / "out", PredictOptions())
    options = PredictOptions(mirrorings=1) if change == "settings" else PredictOptions()
    if change == "image replaced":
        image = nib.load(phantom_cases / "phantom-0" / "phantom-0-t2f.nii.gz")
        brighter = nib.Nifti1Image(image.get_fdata(dtype=np.float32) * 2 + (image.get_fdata() > 500), image.affine)
        nib.save(brighter, cases / "phantom-0" / "phantom-0-t2f.nii.gz")
    if change == "label map gone":
        (tmp_path / "out" / "phantom-0-seg.nii.gz").unlink()
    if change == "manifest":
        inference = replace(model.manifest.inference, overlap=0.25)
        model = replace(model, manifest=replace(model.manifest, inference=inference))
    if change == "network":  # imported again: of the same weights
        network = replace(model.manifest.network, mamba_residual=not model.manifest.network.mamba_residual)
        model = replace(model, manifest=replace(model.manifest, network=network))
    assert predict_batch(model, cases, tmp_path / "out", options)[0]["status"] == "done"


def test_a_result_of_a_version_that_did_not_name_the_network_is_finished(model, phantom_cases, tmp_path):
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "cases" / "phantom-0")
    (row,) = predict_batch(model, tmp_path / "cases", tmp_path / "out", PredictOptions())
    del row["summary"]["settings"]["manifest"]["network"]
    (tmp_path / "out" / "phantom-0-summary.json").write_text(json.dumps(row["summary"]))
    assert predict_batch(model, tmp_path / "cases", tmp_path / "out", PredictOptions())[0]["status"] == "skipped"


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_patient_is_not_written_over_the_first(model, phantom_cases, tmp_path):
    """Whatever names the two alike: images given by name, folders of one name, one file, and a batch."""
    first, second = (find_case(phantom_cases / f"phantom-{n}") for n in "01")
    for output in (tmp_path / "folder", tmp_path / "file" / "mine.nii.gz"):
        predict_case(model, first, output, "case", PredictOptions())
        folder = output if output.suffix == "" else output.parent
        before = _bytes(folder)
        with pytest.raises(
            InputError, match=r"(case-seg|mine)\.nii\.gz: already exists, and is a result of other images"
        ):
            predict_case(model, second, output, "case", PredictOptions())
        assert _bytes(folder) == before
        predict_case(model, first, output, "case", PredictOptions(mirrorings=1))  # the same examination may be run anew
    for hospital, number in (("a", 0), ("b", 1)):
        shutil.copytree(phantom_cases / f"phantom-{number}", tmp_path / hospital / "001")
    (one,) = predict_batch(model, tmp_path / "a", tmp_path / "out", PredictOptions())
    before = _bytes(tmp_path / "out")
    (other,) = predict_batch(model, tmp_path / "b", tmp_path / "out", PredictOptions())
    assert (one["status"], other["status"]) == ("done", "failed")
    assert "001-seg.nii.gz: already exists" in other["error"] and _bytes(tmp_path / "out") == before


def test_what_a_person_drew_and_the_images_themselves_are_not_written_over(model, phantom_cases, tmp_path):
    """The reference of a BraTS case has the very name that a result in its folder would get."""
    folder = tmp_path / "phantom-0"
    shutil.copytree(phantom_cases / "phantom-0", folder)
    before, images = _bytes(folder), find_case(folder)
    assert "phantom-0-seg.nii.gz" in before
    for output in (folder, images["t1c"].path):
        with pytest.raises(InputError, match=r"already exists, and is not known to be a result of these images"):
            predict_case(model, images, output, "phantom-0", PredictOptions())
    (folder / "phantom-0-seg.nii.gz").unlink()
    (folder / "phantom-0-summary.json").write_text("{")
    with pytest.raises(InputError, match="not known to be a result of these images"):
        predict_case(model, images, folder, "phantom-0", PredictOptions())
    (folder / "phantom-0-summary.json").unlink()
    assert {name: content for name, content in before.items() if name in _bytes(folder)} == _bytes(folder)


@pytest.mark.parametrize("kind", ["label_map", "label_map_t2w", "left_out"])
def test_a_label_map_that_somebody_corrected_in_its_place_is_not_written_over(model, phantom_cases, tmp_path, kind):
    cases, output = tmp_path / "cases", tmp_path / "out"
    shutil.copytree(phantom_cases / "phantom-0", cases / "phantom-0")
    options = PredictOptions(left_out=True, onto=("t2w",))
    (row,) = predict_batch(model, cases, output, options)
    corrected = output / row["summary"]["files"][kind]
    image = nib.load(corrected)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0) | 1, image.affine), corrected)
    before = _bytes(output)
    assert predict_batch(model, cases, output, options)[0]["status"] == "skipped"
    (again,) = predict_batch(model, cases, output, replace(options, mirrorings=1))
    assert again["status"] == "failed" and _bytes(output) == before
    assert f"{corrected}: was changed since it was written here; move it" in again["error"]
    corrected.unlink()
    assert predict_batch(model, cases, output, replace(options, mirrorings=1))[0]["status"] == "done"


def test_a_correction_is_remembered_by_runs_that_do_not_write_the_map(model, phantom_cases, tmp_path):
    """And by one that did not come to its end; a map that is gone is forgotten."""
    images = find_case(phantom_cases / "phantom-0")
    more = PredictOptions(onto=("t2w",), left_out=True)
    predict_case(model, images, tmp_path, "a", more)
    corrected = tmp_path / "a-seg-t2w.nii.gz"
    image = nib.load(corrected)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0) | 1, image.affine), corrected)
    (tmp_path / "a-left-out.nii.gz").unlink()
    summary = predict_case(model, images, tmp_path, "a", PredictOptions())
    assert set(summary["label_maps_sha256"]) == {"a-seg.nii.gz", "a-seg-t2w.nii.gz"}
    begin(output_files(tmp_path, "a", PredictOptions()), "a", digest_images(images), {})
    before = _bytes(tmp_path)
    with pytest.raises(InputError, match=r"a-seg-t2w\.nii\.gz: was changed since it was written here"):
        predict_case(model, images, tmp_path, "a", more)
    assert _bytes(tmp_path) == before


def test_a_demonstration_of_other_phantoms_gives_way_and_nothing_else_does(phantom_cases, tmp_path):
    """`segmamba demo` after an update: what lies there was made of the phantom beside it."""
    shutil.copytree(phantom_cases / "phantom-0", tmp_path / "case")
    images = find_case(tmp_path / "case")
    files = output_files(tmp_path / "result", "demo", PredictOptions(uncertainty=True))
    (tmp_path / "result").mkdir()
    for owner in (images, find_case(phantom_cases / "phantom-1")):
        files["label_map"].write_bytes(b"of a model")
        files["summary"].write_text(json.dumps({"settings": {"images_sha256": digest_images(owner)}}))
        if owner is images:
            remove_earlier(files, images)
            assert not any((tmp_path / "result").iterdir())
    with pytest.raises(InputError, match="is a result of other images"):
        remove_earlier(files, images)


def test_another_process_that_began_with_another_case_meanwhile_is_seen(model, phantom_cases, tmp_path):
    """It has written its name there, and no label map yet, while this one was at work."""
    first, second = (find_case(phantom_cases / f"phantom-{n}") for n in "01")

    def between(stage, fraction):
        if stage == "network" and not (tmp_path / "out").exists():
            predict_case(model, second, tmp_path / "out", "case", PredictOptions())
            (tmp_path / "out" / "case-seg.nii.gz").unlink()

    with pytest.raises(InputError, match=r"case-summary\.json: already exists, and is a result of other images"):
        predict_case(model, first, tmp_path / "out", "case", PredictOptions(), between)


def test_a_map_that_another_run_left_there_is_not_taken_for_this_ones(model, phantom_cases, tmp_path):
    """The uncertainty of the plain pass lies beside a label map of two passes, whose run was not asked for one."""
    folder = phantom_cases / "phantom-0"
    shutil.copytree(folder, tmp_path / "in" / folder.name)
    wanted = PredictOptions(mirrorings=1, uncertainty=True)
    for options in (PredictOptions(uncertainty=True), PredictOptions(mirrorings=1), wanted):
        (row,) = predict_batch(model, tmp_path / "in", tmp_path / "out", options)
        assert row["status"] == "done"
    assert predict_batch(model, tmp_path / "in", tmp_path / "out", wanted)[0]["status"] == "skipped"
    fewer = PredictOptions(mirrorings=1)
    assert predict_batch(model, tmp_path / "in", tmp_path / "out", fewer)[0]["status"] == "skipped"


def test_a_case_that_is_being_written_anew_is_not_finished(model, phantom_cases, tmp_path):
    images = find_case(phantom_cases / "phantom-0")
    predict_case(model, images, tmp_path, "a", PredictOptions(uncertainty=True))
    (tmp_path / "a-seg.nii.gz").unlink()
    (tmp_path / "a-seg.nii.gz").mkdir()  # so that the label map, which comes last, cannot be written
    with pytest.raises(OSError):
        predict_case(model, images, tmp_path, "a", PredictOptions(mirrorings=1, uncertainty=True))
    said = json.loads((tmp_path / "a-summary.json").read_text())
    assert said["unfinished"] and "volumes_ml" not in said
    (tmp_path / "a-seg.nii.gz").rmdir()
    predict_case(model, images, tmp_path, "a", PredictOptions())  # and what it left may be written over
    assert "unfinished" not in json.loads((tmp_path / "a-summary.json").read_text())


@pytest.mark.parametrize("wrong", ({"XX": 3.0}, {"WT": float("nan")}, {"WT": -1.0}))
def test_a_wrong_limit_is_refused_before_anything_is_read(model, phantom_cases, tmp_path, wrong):
    stages = []
    options = PredictOptions(remove_small_mm3=wrong)
    with pytest.raises(InputError, match=r"XX; known are WT, TC, ET|smallest WT of"):
        predict_case(model, find_case(phantom_cases / "phantom-0"), tmp_path, "a", options, lambda *s: stages.append(s))
    with pytest.raises(InputError, match=r"XX; known are WT, TC, ET|smallest WT of"):
        predict_batch(model, phantom_cases, tmp_path, options)
    assert not stages


def test_a_folder_without_cases_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="has no case folders"):
        predict_batch(model, tmp_path, tmp_path / "out", PredictOptions())
