"""Series written with pydicom, in every geometry and pixel type, against the arrays they were written from."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import head, pydicom, write_enhanced, write_series
from nibabel.orientations import apply_orientation, inv_ornt_aff
from segmamba.errors import InputError
from segmamba.images.dicom import find_series, read_series

ORIENTATIONS = [np.column_stack([p, s]) for p in permutations(range(3)) for s in product((1, -1), repeat=3)]


def only(folder):
    (series,) = find_series(folder)
    return series


def same_image(image, array, affine):
    """The same voxel values at the same places, whatever the order of the axes."""
    ours = nib.as_closest_canonical(nib.Nifti1Image(image.array.astype(np.float64), image.affine))
    truth = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float64), affine))
    np.testing.assert_allclose(ours.affine, truth.affine, atol=1e-4)
    np.testing.assert_array_equal(ours.get_fdata(), truth.get_fdata())


def turn_id(turn):
    return "".join(f"{axis}{'+' if sign > 0 else '-'}" for axis, sign in turn)


@pytest.mark.parametrize("turn", ORIENTATIONS, ids=turn_id)
def test_every_order_and_direction_of_the_axes(tmp_path, turn):
    array, affine = head((5, 7, 6))
    turned, turned_affine = apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)
    write_series(tmp_path / "classic", turned, turned_affine)
    same_image(read_series(only(tmp_path / "classic")), array, affine)
    order = np.random.default_rng(1).permutation(turned.shape[2])
    write_enhanced(tmp_path / "enhanced" / "e.dcm", turned, turned_affine, order)
    image = read_series(only(tmp_path / "enhanced"))
    same_image(image, array, affine)
    assert np.linalg.det(image.affine[:3, :3]) > 0


def test_the_thickness_of_slices_is_not_their_distance(tmp_path):
    array, affine = head()
    write_series(tmp_path, array, affine, SliceThickness="4.0", SpacingBetweenSlices="1.0")
    series = only(tmp_path)
    assert series.geometry.spacing == pytest.approx((6.0, 5.5, 5.0))
    assert series.geometry.notes == ("slices are 4 mm thick, one every 5 mm",)
    same_image(read_series(series), array, affine)


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high"),
    [
        (8, False, 0, 255),
        (16, False, 0, 65535),
        (16, True, -32768, 32767),
        (32, False, 0, 2**32 - 1),
        (32, True, -(2**31), 2**31 - 1),
    ],
)
def test_pixels_of_every_type(tmp_path, bits, signed, low, high):
    array, affine = head((6, 5, 4))
    array = array.astype(np.int64) % 100
    array[0, 0, 0], array[1, 0, 0], array[0, 0, 2] = low, high, high
    write_series(tmp_path, array, affine, bits=bits, signed=signed)
    same_image(read_series(only(tmp_path)), array, affine)


def test_each_slice_has_its_own_rescaling(tmp_path):
    """The first has whole numbers: a reader that takes its type for all cuts the others off."""
    array, affine = head((6, 5, 4))
    slopes = (1, 0.25, 0.5, 1.5)
    each = lambda k: {"RescaleSlope": str(slopes[k]), "RescaleIntercept": str(-k)}  # noqa: E731
    write_series(tmp_path, array, affine, each=each)
    same_image(read_series(only(tmp_path)), array * np.array(slopes) - np.arange(4), affine)


@pytest.mark.parametrize("slopes", [(1, 2, 3, 4), (0.5, 2, 0.25, 4), (4, 0.5, 1, 2)])
def test_each_frame_has_its_own_rescaling(tmp_path, slopes):
    array, affine = head((6, 5, 4))
    write_enhanced(tmp_path / "e.dcm", array, affine, [2, 0, 3, 1], rescale=lambda k: (slopes[k], 3 - k))
    same_image(read_series(only(tmp_path)), array * np.array(slopes) + 3 - np.arange(4), affine)


def rle(data):
    data.compress(pydicom.uid.RLELossless)


def deflated(data):
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


def jpeg_ls(data):
    data.compress(pydicom.uid.JPEGLSLossless)


def by_itk(compressor):
    """SimpleITK encodes; the rest of the file stays as pydicom has it."""
    import SimpleITK as sitk

    def compress(data):
        path = Path(f"{data.filename}.itk.dcm")
        image = sitk.GetImageFromArray(data.pixel_array[None])
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(path))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(image)
        encoded = pydicom.dcmread(path)
        assert encoded.file_meta.TransferSyntaxUID.is_compressed
        data.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
        data["PixelData"] = encoded["PixelData"]
        path.unlink()

    return compress


@pytest.mark.parametrize(
    "compress",
    [rle, deflated, jpeg_ls, by_itk("JPEG"), by_itk("JPEG2000")],
    ids=["rle", "deflated", "jpegls", "jpeg", "j2k"],
)
def test_compressed_files(tmp_path, compress):
    array, affine = head((16, 12, 4))
    write_series(tmp_path, array, affine, compress=compress, signed=False)
    series = only(tmp_path)
    same_image(read_series(series), array, affine)


def test_missing_slices_are_counted_and_refused(tmp_path):
    array, affine = head()
    write_series(tmp_path, array, affine)
    for name in ("s001-896.dcm", "s001-895.dcm", "s001-890.dcm"):  # the 4th, 5th and 10th of 15
        (tmp_path / name).unlink()
    series = only(tmp_path)
    assert series.geometry.fault == "3 slices missing, after slice 3, 7 of 12"
    with pytest.raises(InputError, match="is not a volume: 3 slices missing"):
        read_series(series)


def test_a_sheared_stack_is_refused(tmp_path):
    array, affine = head()
    affine[1, 2] += 0.4
    write_series(tmp_path, array, affine)
    with pytest.raises(InputError, match=r"5\.\d+ mm sideways of the first \(a tilted gantry or a sheared stack\)"):
        read_series(only(tmp_path))


def test_rounded_cosines_and_positions_do_no_harm(tmp_path):
    array, affine = head()

    def rounded(k):
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        axes = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
        return {
            "ImagePositionPatient": [f"{v:.2f}" for v in lps[:3] @ [0, 0, k, 1]],
            "ImageOrientationPatient": [f"{v:.4f}" for v in (*axes[:, 0], *axes[:, 1])],
        }

    write_series(tmp_path, array, affine, each=rounded)
    image = read_series(only(tmp_path))
    corner = np.array([*(n - 1 for n in array.shape), 1])
    assert np.linalg.norm((image.affine - affine) @ corner) < 0.05
    np.testing.assert_array_equal(image.array, array)


def test_colours_and_inverted_pixels_are_refused(tmp_path):
    array, affine = head((6, 5, 4))
    write_series(tmp_path, array, affine, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(InputError, match="pixels are MONOCHROME1, expected MONOCHROME2"):
        read_series(only(tmp_path))


def test_slices_without_a_place_are_refused(tmp_path):
    array, affine = head((6, 5, 4))
    write_series(tmp_path, array, affine, ImagePositionPatient=None)
    with pytest.raises(InputError, match="no position or orientation in space"):
        read_series(only(tmp_path))


def test_a_file_that_is_cut_off(tmp_path):
    array, affine = head((60, 50, 4))
    write_series(tmp_path, array, affine)
    path = tmp_path / "s001-898.dcm"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"s001-898.dcm: the file ends after 4000 bytes.*copy it again"):
        read_series(only(tmp_path))


@pytest.mark.parametrize("maker", ["ge", "philips", "siemens"])
def test_real_series_become_their_nifti(real_dicom, maker):
    folder = real_dicom / maker / "anatomical" / "001"
    truth = nib.load(folder.with_name("001_ground_truth.nii.gz"))
    image = read_series(only(folder))
    ours = nib.as_closest_canonical(nib.Nifti1Image(image.array, image.affine))
    truth = nib.as_closest_canonical(truth)
    np.testing.assert_allclose(ours.affine, truth.affine, atol=1e-3)
    np.testing.assert_allclose(ours.get_fdata(), truth.get_fdata(), rtol=1e-5)
