"""One odd image or device: refused by name. A table a kind."""

import gzip
import json
import os

import nibabel as nib
import numpy as np
import pytest
from correction_runs import small_case
from image_files import AFFINE, noise, write
from odd_files import posix, put
from segmamba.cases.case import find_case, find_label
from segmamba.cases.case_folder import holds_results_only
from segmamba.errors import InputError
from segmamba.images.image_io import read_image
from segmamba.images.sources import read_source


def nifti(field, value, name="a.nii"):
    def make(folder):
        data = bytearray(nib.load(write(folder / "sound.nii", noise(0))).to_bytes())
        path = folder / name
        path.write_bytes(bytes(put(data, field, value)))
        return path

    return make


def meta(**fields):
    def make(folder):
        values = {"ObjectType": "Image", "NDims": "3", "DimSize": "4 4 4", "ElementType": "MET_SHORT"}
        values |= {**fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
        text = "".join(f"{name} = {value}\n" for name, value in values.items())
        path = folder / "a.mha"
        path.write_bytes(text.encode() + bytes(128))
        return path

    return make


def fifo(name):
    def make(folder):
        os.mkfifo(folder / name)
        return folder / name

    return make


def bomb(folder):
    path = folder / "a.nii.gz"
    path.write_bytes(gzip.compress(nib.load(write(folder / "sound.nii", noise(0))).to_bytes() + bytes(1 << 27), 1))
    return path


def spaced(mm):
    return lambda folder: write(folder / "a.nii.gz", noise(0), np.diag([mm, 1, 1, 1]))


def plain(name, data=b"x"):
    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


ODD_IMAGES = {
    "unit 72": (nifti("xyzt_units", 72), "unit of no meaning"),
    "dim -1": (nifti("dim1", -1), "damaged|voxels"),
    "vox_offset inf": (nifti("vox_offset", float("inf")), "damaged"),
    "vox_offset nan": (nifti("vox_offset", float("nan")), "damaged"),
    "datatype": (nifti("datatype", 9999), "damaged"),
    "a header of a pair": (nifti("magic", 0x0031696E), "of a pair"),
    "claims": (nifti("dim1", 32767), "damaged|declares"),
    "a bomb": (bomb, "holds more than"),
    "500 mm": (spaced(500), "other units"),
    "1e-6 mm": (spaced(1e-6), "singular|other units"),
    "100 dimensions": (meta(NDims="100", DimSize=" ".join(["2"] * 100)), "NDims"),
    "40000 dimensions": (meta(NDims="40000"), "NDims"),
    "-1 dimensions": (meta(NDims="-1"), "NDims"),
    "claims of MetaImage": (meta(DimSize="99999 99999 99999"), "declares"),
    "data elsewhere": (meta(ElementDataFile="/dev/zero"), "beside it"),
    "few data": (meta(DimSize="400 400 400"), "bytes of data"),
    "a pipe": (fifo("a.nii.gz"), "a pipe, a device or a socket"),
    "a pipe of ITK": (fifo("a.nrrd"), "a pipe, a device or a socket"),
    "img": (plain("a.img"), "a pair"),
    "DICOMDIR": (plain("DICOMDIR", bytes(128) + b"DICM"), "a DICOM file; give the folder"),
    "no gzip": (plain("a.nii.gz", nib.Nifti1Image(noise(0), AFFINE).to_bytes()), "is it .*a.nii"),
    "gzip without its name": (plain("a.nii", gzip.compress(bytes(400))), "rename it"),
}


@posix
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_odd_image_is_refused_by_name(tmp_path, name):
    make, text = ODD_IMAGES[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=text) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@posix
def test_a_pipe_in_a_folder_of_slices_is_passed_by(tmp_path):
    pytest.importorskip("pydicom")
    from image_files import write_dicom

    folder = write_dicom(tmp_path / "series", noise(1), AFFINE)
    os.mkfifo(folder / "000.dcm")
    assert read_source(folder).array.shape == noise(1).shape


@pytest.mark.parametrize(("noise_mm", "same"), [(5e-6, True), (5e-3, True), (0.05, False)])
def test_what_headers_are_rounded_to_makes_no_other_grid(tmp_path, noise_mm, same):
    from segmamba.cases.case import load_case

    moved = AFFINE.copy()
    moved[0, 3] += noise_mm
    files = {"t1c": write(tmp_path / "a.nii.gz", noise(1)), "t2f": write(tmp_path / "b.nii.gz", noise(2), moved)}
    if same:
        assert load_case(files, modalities=tuple(files)).shape == noise(1).shape
    else:
        with pytest.raises(InputError, match="not on one grid"):
            load_case(files, modalities=tuple(files))


@pytest.mark.parametrize("name", ["meta", "xla", "cuda:x", "", "CPU", "cpu; rm", "cuda:999", "fpga"])
def test_devices_are_those_of_a_list(name):
    from segmamba.prediction.devices import choose_device

    with pytest.raises(InputError, match="device"):
        choose_device(name)


def test_own_results_are_no_images_and_no_truth(tmp_path):
    case = small_case(tmp_path / "case")
    before = find_case(case)
    for name in ("case-seg-t2f.nii.gz", "case-uncertainty.nii.gz", "case-probabilities.nii.gz", "case-seg.nii.gz"):
        write(case / name, np.zeros((9, 11, 7), np.uint8))
    files = {"label_map": "case-seg.nii.gz", "uncertainty": "case-uncertainty.nii.gz"}
    (case / "case-summary.json").write_text(json.dumps({"files": files}))
    assert find_case(case) == before and find_label(case).name == "x-seg.nii.gz"
    results = tmp_path / "results"
    results.mkdir()
    write(results / "a-seg.nii.gz", np.zeros((9, 11, 7), np.uint8))
    assert not holds_results_only(results)  # nobody says that it is one
    (results / "a-summary.json").write_text(json.dumps({"files": {"label_map": "a-seg.nii.gz"}}))
    assert holds_results_only(results) and not holds_results_only(case)
