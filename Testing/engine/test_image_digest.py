"""An image is known by all of its files: by the voxels beside a header, by the slices of a folder and nothing else."""

import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
from case_files import NAMES
from image_files import RIGHT_HANDED, noise, write, write_dicom
from segmamba.cases.case import Source
from segmamba.datasets.collect import init_dataset, update_dataset
from segmamba.prediction.options import digest_images


def digest(path):
    return digest_images({"x": Source(path)})["x"]


def in_two_files(path, seed):
    """An image with its voxels beside its header -> the file of the voxels."""
    image = sitk.GetImageFromArray(noise(seed).T)
    sitk.WriteImage(image, str(path))
    (data,) = [other for other in path.parent.glob(f"{path.stem}.*") if other != path]
    return data


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_voxels_beside_a_header_count(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for n, name in enumerate("ab"):
        in_two_files(tmp_path / name / f"x{suffix}", n)
    one, other = (tmp_path / name / f"x{suffix}" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert digest(one) != digest(other)
    in_two_files(other, 0)
    assert digest(one) == digest(other)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.nrrd", "x.mha"])
def test_an_image_of_one_file_is_known_by_its_hash(tmp_path, name):
    path = tmp_path / name
    write(path, noise(0)) if ".nii" in name else sitk.WriteImage(sitk.GetImageFromArray(noise(0).T), str(path))
    assert digest(path) == hashlib.sha256(b"None" + path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "text", [b"", b"NDims = 3\n", b"ElementDataFile = ../x.raw\n", b"ElementDataFile = gone.raw\n"]
)
def test_what_has_no_voxels_beside_it_is_known_by_its_header(tmp_path, text):
    """That it is no image is said where it is read."""
    path = tmp_path / "x.mhd"
    path.write_bytes(text)
    assert digest(path) == hashlib.sha256(b"None" + text).hexdigest()


def test_an_update_of_a_data_set_sees_voxels_that_changed_beside_their_header(tmp_path):
    (tmp_path / "p1").mkdir()
    data = {name: in_two_files(tmp_path / "p1" / f"{name}.mhd", seed) for seed, name in enumerate(NAMES)}
    init_dataset(tmp_path)
    assert update_dataset(tmp_path).read == ()
    data["t2w"].write_bytes(np.roll(np.frombuffer(data["t2w"].read_bytes(), np.uint8), 4).tobytes())
    assert update_dataset(tmp_path).read == ("p1",)


def test_what_systems_leave_in_a_folder_of_slices_does_not_count(tmp_path):
    folder = write_dicom(tmp_path / "t1c", noise(0), RIGHT_HANDED)
    before = digest(folder)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._900.dcm"):
        (folder / name).write_bytes(b"of the system")
    assert digest(folder) == before
    (folder / "900.dcm").write_bytes(b"another slice")
    assert digest(folder) != before
