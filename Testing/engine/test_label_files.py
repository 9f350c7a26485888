"""Which files of a folder are label maps, of which case, and what they hold."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from segmamba.cases.label_files import find_label_maps, look_at, named_as_brats2023, read_label_map, summary_of
from segmamba.errors import InputError
from segmamba.prediction.options import PredictOptions, output_files

SHAPE = (5, 4, 3)
AFFINE = np.diag([-1.0, -2.0, 1.5, 1.0])


def tumour():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 1, 1] = (2, 1, 3)
    return labels


def save(labels, *path):
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, AFFINE), file)
    return file


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("BraTS-GLI-00003-001.nii.gz", "BraTS-GLI-00003-001"),
        ("BraTS-GLI-00003-001-seg.nii.gz", "BraTS-GLI-00003-001"),
        ("BraTS2021_00006_seg.nii.gz", "BraTS2021_00006"),
        ("x.seg.2.nii", "x.seg.2"),
        ("BraTS2021_00006/seg.nii.gz", "BraTS2021_00006"),
        ("BraTS2021_00006/BraTS2021_00006_seg.nii.gz", "BraTS2021_00006"),
        ("patient 7/answer-seg.nii.gz", "patient 7"),
    ],
)
def test_case_ids(tmp_path, file, case):
    where = tmp_path / "folder"
    path = save(tumour(), where, file)
    assert find_label_maps(where) == {case: path}


def test_images_and_leftovers_are_passed_over(tmp_path):
    expected = save(tumour(), tmp_path, "b", "b-seg.nii.gz")
    other = save(tumour(), tmp_path, "a.nii.gz")
    for name in ("b/b-t1c.nii.gz", "b/b_flair.nii.gz", "a-t2f.nii.gz", "a_t1ce.nii", "t1n.nii.gz"):
        save(tumour(), tmp_path, name)
    (tmp_path / "._a.nii.gz").write_bytes(b"not an image")
    (tmp_path / "b" / "._b-seg.nii.gz").write_bytes(b"not an image")
    save(tumour(), tmp_path, "#recycle", "c-seg.nii.gz")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    assert find_label_maps(tmp_path) == {"a": other, "b": expected}
    assert list(find_label_maps(tmp_path)) == ["a", "b"]


def test_of_all_that_predict_writes_the_label_map_is_one(tmp_path):
    options = PredictOptions(probabilities=True, left_out=True, uncertainty=True, onto=("t1n", "t2f"))
    files = output_files(tmp_path, "a", options)
    for kind, path in files.items():
        save(tumour(), path) if kind != "summary" else path.write_text("{}")
    assert find_label_maps(tmp_path) == {"a": files["label_map"]}


def test_a_case_folder_itself(tmp_path):
    file = save(tumour(), tmp_path, "BraTS2021_00006", "seg.nii.gz")
    save(tumour(), tmp_path, "BraTS2021_00006", "t1c.nii.gz")
    assert find_label_maps(file.parent) == {"BraTS2021_00006": file}


def test_two_label_maps_of_one_case_are_refused(tmp_path):
    save(tumour(), tmp_path, "a.nii.gz")
    save(tumour(), tmp_path, "a", "seg.nii.gz")
    with pytest.raises(InputError, match="case a has two label maps"):
        find_label_maps(tmp_path)


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(InputError, match="no label maps"):
        find_label_maps(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        find_label_maps(tmp_path / "nowhere")


def test_images_of_another_task_are_passed_over(tmp_path):
    expected = save(tumour(), tmp_path, "lung1-seg.nii.gz")
    image = save(tumour(), tmp_path, "lung1-CT.nii.gz")
    assert find_label_maps(tmp_path, ["ct"]) == {"lung1": expected}
    assert find_label_maps(tmp_path) == {"lung1": expected, "lung1-CT": image}


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"BraTS-GLI-00003-001": "BraTS-GLI-00003-001.nii.gz", "BraTS-MEN-RT-1": "x-seg.nii.gz"}, True),
        ({"BraTS-SSA-00003-001": "BraTS-SSA-00003-001/seg.nii.gz"}, True),
        ({"BraTS2021_00006": "BraTS2021_00006_seg.nii.gz"}, False),
        ({"BraTS-GLI-00003-001": "BraTS-GLI-00003-001.nii.gz", "BRATS_001": "BRATS_001.nii.gz"}, False),
        ({"seg": "seg.nii.gz"}, False),
    ],
)
def test_names_of_brats2023(files, named):
    assert named_as_brats2023({case: Path(file) for case, file in files.items()}) is named


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_labels_are_read_as_they_stand(tmp_path, dtype):
    labels, affine = read_label_map(save(tumour().astype(dtype), tmp_path, "a.nii.gz"))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, tumour())
    assert np.array_equal(affine, AFFINE)
    found = look_at(tmp_path / "a.nii.gz")
    assert (found.shape, found.values) == (SHAPE, (1, 2, 3))


def test_other_formats_can_be_named(tmp_path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(tumour().T)
    image.SetSpacing((1.0, 2.0, 1.5))  # ITK's axes point left and back, where AFFINE's do
    sitk.WriteImage(image, tmp_path / "a.nrrd")
    labels, affine = read_label_map(tmp_path / "a.nrrd")
    assert np.array_equal(labels, tumour())
    assert np.allclose(affine, AFFINE)


@pytest.mark.parametrize("output", ["out", "out/a.nii.gz", "out/a-seg.nii"])
@pytest.mark.parametrize("compressed", [True, False])
def test_the_summary_of_a_label_map_is_the_one_that_predict_writes(output, compressed):
    files = output_files(Path(output), "case.1-seg-2", PredictOptions(compressed=compressed, onto=("t1n", "t2f")))
    maps = [path for kind, path in files.items() if kind.startswith("label_map")]
    assert [summary_of(path) for path in maps] == [files["summary"]] * 3
