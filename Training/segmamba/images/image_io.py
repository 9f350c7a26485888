"""Image files: one 3-D image and its geometry, from and to disk, with a clear error for what is not one.

Every format comes out the same: an array indexed (X, Y, Z) as stored, and a 4x4 affine from voxel
indices (voxel centres) to RAS millimetres.
"""

from __future__ import annotations

import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError

from segmamba import limits
from segmamba.errors import InputError, blame
from segmamba.files.atomic import aside, check_regular, naming, share
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance, describe_shape, describe_spacing
from segmamba.images.itk_header import NO_ORIENTATION, NO_SIZE
from segmamba.images.itk_io import read_itk

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
SUFFIXES = NIFTI + ITK
_PLAUSIBLE_SPACING_MM = (0.1, 10.0)
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_BROKEN = "cut off, damaged or no NIfTI file"
_HEADER = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # bytes of it -> what it is of
_BLOCK, _SLACK = 1 << 22, 1 << 22


@dataclass(frozen=True)
class Source:
    """Where an image is: a file, a DICOM folder, or the volume (from 0) of a 4-D NIfTI file."""

    path: Path
    """A file, or a folder of DICOM slices."""
    volume: int | None = None
    """Of a 4-D NIfTI file, counted from 0."""
    notes: tuple[str, ...] = ()
    """What was odd about the image where this file was made from another, plain sentences for a person."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def __str__(self) -> str:
        return str(self.path) if self.volume is None else f"{self.path} (volume {self.volume})"


@dataclass(frozen=True, eq=False)
class Image:
    """One volume as it was read."""

    array: np.ndarray
    """(X, Y, Z) in its stored type, or float where the file rescales."""
    affine: np.ndarray
    """(4, 4), voxel indices (of voxel centres) to RAS mm."""
    notes: tuple[str, ...] = ()
    """What is odd about it, plain sentences for a person."""


def image_suffix(path: Path) -> str | None:
    """The image suffix that the name ends with, in lower case, or None."""
    return next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)


def name_without_suffix(path: Path) -> str:
    """'a/x_t1c.nii.gz' -> 'x_t1c'; a suffix that is none of an image stays."""
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def read_image(source: Path | str | Source) -> Image:
    """One 3-D image from a file. Raises InputError for what is missing, empty, cut off, no image, or not 3-D scalar.

    Folders of DICOM slices are read by segmamba.images.sources.read_source.
    """
    source = source if isinstance(source, Source) else Source(Path(source))
    path, suffix = source.path, image_suffix(source.path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if source.volume is not None and not (path.is_file() and suffix in NIFTI):
        raise InputError(f"{source}: a volume can be picked from a 4-D NIfTI file only")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or export it again")
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected an image file")
    check_regular(path)
    if suffix in NIFTI:
        with blame(path, _BROKEN):
            return check_image(_read_nifti(source), path)
    if suffix in ITK:
        return check_image(Image(*read_itk(path)), path)
    raise InputError(f"{path}: {_stranger(path)}")


def _stranger(path: Path) -> str:
    """What a file is that no reader here takes, and what to do with it."""
    expected = f"expected {', '.join(SUFFIXES)}, or the folder of a DICOM series"
    if path.name.lower().endswith((".hdr", ".img", ".img.gz")):
        return f"one file of a pair (.hdr with .img), an older form; export it as one .nii.gz file: {expected}"
    with path.open("rb") as file:
        if file.read(132)[128:] == b"DICM":
            return "a DICOM file; give the folder of its series, or the examination with --dicom FOLDER"
    return f"not an image; {expected}"


def check_image(image: Image, path: Path) -> Image:
    """Refuses a volume that is none, and notes what is odd about its geometry.

    Raises InputError where it has one slice only, as `check_affine`, and for voxels or a field of view that no scanner
    makes (segmamba.limits); `path` is where it was read from.
    """
    if min(image.array.shape) < 2:
        raise InputError(f"{path}: one slice, {describe_shape(image.array.shape)}; expected a 3-D image")
    check_affine(image.affine, path)
    spacing, (low, high) = voxel_sizes(image.affine), limits.SPACING_MM
    extent = spacing * image.array.shape
    if spacing.min() < low or spacing.max() > high or extent.max() > limits.EXTENT_MM or extent.prod() > limits.VOXELS:
        raise InputError(
            f"{path}: {describe_shape(image.array.shape)} voxels of {describe_spacing(image.affine)} mm; expected "
            f"{low:g} to {high:g} mm each, and at most {limits.EXTENT_MM:g} mm and "
            f"{limits.VOXELS / 1e6:.0f} litres in all: check the header, it may be in other units"
        )
    return Image(image.array, image.affine, image.notes + _geometry_notes(image.affine))


def save_image(array: np.ndarray, affine: np.ndarray, path: Path | str, dtype: np.dtype | type) -> None:
    """Writes an image as NIfTI, with sform and qform, in mm; aside and renamed, so that `path` is whole or untouched.

    Args:
        array: (X, Y, Z), or (X, Y, Z, K).
        affine: (4, 4) voxel indices to RAS mm.
        path: ends in .nii or .nii.gz.
        dtype: in which voxels are stored.

    Raises:
        InputError: for another suffix, a missing folder, a bad affine, and values that `dtype` cannot hold.
    """
    half = save_aside(array, affine, path, dtype)
    try:
        with naming(Path(path)):
            half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def save_aside(array: np.ndarray, affine: np.ndarray, path: Path | str, dtype: np.dtype | type) -> Path:
    """As `save_image`, but the whole file still lies beside `path`, under the name that is returned."""
    path = Path(path)
    array = np.asarray(array)
    dtype = np.dtype(dtype)
    affine = np.asarray(affine, float)
    suffix = image_suffix(path)
    if suffix not in NIFTI:
        raise InputError(f"{path}: images are written as NIfTI; expected a name that ends in .nii.gz or .nii")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    if array.ndim not in (3, 4):
        raise InputError(f"{path}: an array of shape {array.shape}; expected (X, Y, Z) or (X, Y, Z, K)")
    check_affine(affine, path)
    with np.errstate(invalid="ignore", over="ignore"):
        stored = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(stored, array):
        raise InputError(f"{path}: {dtype} cannot hold the values {array.min()} to {array.max()} without loss")
    try:
        image = nib.Nifti1Image(stored, affine, dtype=dtype)
    except HeaderDataError as error:
        raise InputError(f"{path}: NIfTI has no voxels of type {dtype}; use uint8 or float32") from error
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")  # a sheared affine gets the nearest qform; the sform is exact
    half = aside(path, f"{suffix}")
    try:
        with naming(path):
            nib.save(image, half)
            share(half)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    return half


def count_volumes(path: Path) -> int:
    """Number of volumes in a NIfTI file, from its header alone: 1 for a 3-D image."""
    check_regular(path)
    with blame(path, _BROKEN):
        return _volumes(_peek(path)[1])


def check_affine(affine: np.ndarray, path: Path) -> None:
    """Refuses an affine that is not finite, or whose axes do not span three dimensions. Raises InputError."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError(f"{path}: the affine is not a 4 x 4 matrix of finite numbers; export the image again")
    spacing = voxel_sizes(affine)
    # determinant of the axes' unit vectors: 1 where they are at right angles, 0 where they share a plane
    if spacing.min() < 1e-9 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError(
            f"{path}: the geometry is singular, with a spacing of {describe_spacing(affine)} mm; expected "
            "three independent axes: export the image again"
        )


def _geometry_notes(affine: np.ndarray) -> tuple[str, ...]:
    notes, spacing = [], voxel_sizes(affine)
    low, high = _PLAUSIBLE_SPACING_MM
    if spacing.min() < low or spacing.max() > high:
        notes.append(
            f"a spacing of {describe_spacing(affine)} mm is unusual (expected {low:g} to {high:g}): check the header"
        )
    axes = affine[:3, :3] / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > 0.01:
        notes.append(f"the axes are {np.degrees(np.arcsin(min(shear, 1))):.1f} degrees off the right angle")
    return tuple(notes)


def _is_packed(path: Path) -> bool:
    """Raises InputError where the name and the file say different things."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    named = path.name.lower().endswith(".gz")
    if packed and not named:
        raise InputError(f"{path}: compressed, although its name does not end in .gz: rename it to {path.name}.gz")
    if named and not packed:
        raise ValueError(f"not compressed, although its name ends in .gz; is it {path.name[:-3]}?")
    return packed


def _header_of(path: Path) -> tuple[type[nib.Nifti1Image], bytes]:
    """-> the class of a NIfTI file, and its header as it stands there. Raises ValueError where it has none."""
    with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
        start = file.read(max(_HEADER))
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")} & set(_HEADER)
    if not sizes:
        raise ValueError("it does not begin as one")
    form = _HEADER[sizes.pop()]
    return form, start[: form.header_class.template_dtype.itemsize]


def _says_size(path: Path) -> bool:
    """Whether a NIfTI file says how large its voxels are: nibabel takes 1 mm where it says 0."""
    form, start = _header_of(path)
    header = form.header_class(start, check=False)
    return int(header["sform_code"]) > 0 or bool(header["pixdim"][1:4].all())


def _peek(path: Path) -> tuple[type[nib.Nifti1Image], tuple[int, ...], int]:
    """-> the class of a NIfTI file, its shape, the bytes that it should have unpacked, from its header alone.

    Raises InputError for more than segmamba.limits allow, and whatever nibabel does.
    """
    form, start = _header_of(path)
    header = form.header_class(start)
    magic = bytes(header["magic"]).rstrip(b"\0\r\n\x1a")
    if magic not in (b"n+1", b"n+2"):
        kind = "of a pair (.hdr with .img)" if magic in (b"ni1", b"ni2") else "of Analyze, which knows no orientation"
        raise InputError(f"{path}: its header is that {kind}; export it as one .nii.gz file")
    offset = int(header.get_data_offset())
    if offset < form.header_class.single_vox_offset:  # nibabel takes 0, and the header for voxels
        raise InputError(f"{path}: its voxels begin at byte {offset}, inside its header; export it again")
    shape = tuple(int(n) for n in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise InputError(f"{path}: an image of {describe_shape(shape) or 'no'} voxels; copy or export it again")
    one = math.prod(shape[:3])
    many = math.prod(shape[3:])
    size = header.get_data_dtype().itemsize
    size = offset + one * many * size
    if one > limits.VOXELS or many > limits.VOLUMES or size > limits.FILE_BYTES:
        raise InputError(
            f"{path}: its header declares {describe_shape(shape)} voxels, {size / 2**20:.0f} MiB; expected at most "
            f"{limits.VOXELS} voxels, {limits.VOLUMES} volumes and {limits.FILE_BYTES >> 20} MiB: is it damaged?"
        )
    return form, shape, size


def _open_nifti(path: Path) -> nib.Nifti1Image:
    """Raises InputError, and whatever nibabel and gzip do."""
    form, _, size = _peek(path)
    if not path.name.lower().endswith(".gz"):
        if path.stat().st_size < size:
            raise EOFError(f"it has {path.stat().st_size} bytes, and its header declares {size}")
        return form.from_filename(path)
    # whole, because nibabel stops reading before the checksum at the end, and damage would go unseen
    data = io.BytesIO()
    with gzip.open(path) as file:
        while block := file.read(_BLOCK):
            data.write(block)
            if data.tell() > size + _SLACK:
                raise InputError(f"{path}: holds more than the {size} bytes that its header declares; export it again")
    if data.tell() < size:
        raise EOFError(f"it has {data.tell()} bytes, and its header declares {size}")
    data.seek(0)
    return form.from_stream(data)


def _volumes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[3:], dtype=int))


def _read_nifti(source: Source) -> Image:
    path, volume = source.path, source.volume
    image = _open_nifti(path)
    dtype = np.dtype(image.get_data_dtype())
    shape = image.shape
    volumes = _volumes(image.shape)
    if dtype.fields or dtype.kind == "c":
        kind = "colours" if dtype.fields else "complex numbers"
        raise InputError(f"{path}: voxels are {kind} ({dtype}); expected one number per voxel")
    if len(shape) < 3:
        raise InputError(f"{path}: a {len(shape)}-D image, {describe_shape(shape)}; expected a 3-D image")
    if volume is None and volumes != 1:
        raise InputError(
            f"{path}: a {len(shape)}-D image, {describe_shape(shape)}, of {volumes} volumes; expected one "
            "3-D image: write each volume to a file of its own, and give that of the right one"
        )
    if volume is not None and not 0 <= volume < volumes:
        raise InputError(f"{path}: no volume {volume}; it holds {volumes}, counted from 0")
    if volume is not None and volumes > 1:
        array = np.asanyarray(image.dataobj[(..., *np.unravel_index(volume, shape[3:], order="F"))])
    else:
        array = np.asanyarray(image.dataobj).reshape(shape[:3], order="F")
    affine, notes = _nifti_geometry(image)
    return Image(array, affine, notes if _says_size(path) else (*notes, NO_SIZE))


def _nifti_geometry(image: nib.Nifti1Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """nibabel's choice, sform before qform before bare spacing, in mm, and what is odd about it."""
    affine = np.array(image.affine, float)
    header = image.header
    notes = []
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and qform is None:
        notes.append(NO_ORIENTATION)
    elif sform is not None and qform is not None:
        distance = corner_distance(image.shape, sform, qform)
        if distance > GRID_TOLERANCE_MM:
            notes.append(f"sform and qform differ by up to {distance:.3g} mm; the sform is used")
    affine, changed = in_mm(affine, header)
    return affine, (*notes, *changed)


def in_mm(affine: np.ndarray, header: nib.Nifti1Header) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine of a NIfTI file, (4, 4), in mm where its header has another unit of length, and a note of that.

    Raises ValueError for a unit of no meaning.
    """
    try:
        unit = str(header.get_xyzt_units()[0])
    except KeyError:
        raise ValueError(f"its lengths are in a unit of no meaning, {int(header['xyzt_units'])}") from None
    if unit not in _MM_PER_UNIT:
        return affine, ()
    scale = np.array([_MM_PER_UNIT[unit]] * 3 + [1.0])
    return affine * scale[:, None], (f"lengths are in {unit}s; turned into mm",)


def _qform(header: nib.Nifti1Header) -> np.ndarray | None:
    try:
        return header.get_qform(coded=True)[0]
    except (ValueError, np.linalg.LinAlgError):  # no rotation: of no use, and the sform is there instead
        return None
