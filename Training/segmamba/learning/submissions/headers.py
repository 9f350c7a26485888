"""What can stand in a NIfTI file besides voxels and geometry: text in its header, before, behind and between them.

A file that `segmamba correct` writes is made anew from voxels and affine, and holds nothing else. What somebody else
wrote is looked through, byte by byte, before it is accepted. What is too small to move the image, in the numbers of a
sound affine, is not told from rounding.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from segmamba import limits
from segmamba.images.grid import corner_distance

_GEOMETRY = {"sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"}
_GEOMETRY |= {"qform_code", "sform_code", "magic", "eol_check", *(f"quatern_{axis}" for axis in "bcd")}
_GEOMETRY |= {f"{name}_{axis}" for name in ("qoffset", "srow") for axis in "xyz"}
_USUAL = {
    "regular": (b"r",),
    "extents": (b"\0\x40", b"\x40"),
    "dim_info": None,
    "slice_code": None,
    "intent_code": None,
}
# qform and sform, and the sides of voxels: numbers that say no place say something else
_FORMS_APART_MM, _SIDES_APART = 1.0, 1e-3


def find_hidden(path: Path) -> list[str]:
    """Sentences about what the file `path` (.nii.gz) holds that is neither voxels nor geometry; none: nothing.

    A file that is no NIfTI gives none: reading it says what is wrong. It has to be a regular file of bounded size.
    """
    data = path.read_bytes()
    unpack = zlib.decompressobj(31)
    try:
        plain = unpack.decompress(data, limits.FILE_BYTES)
    except zlib.error:
        return []
    found = []
    if len(data) > 9 and (data[3] or any(data[4:8])):
        found.append("its compression names a file, a comment or a time")
    if unpack.unused_data:
        found.append("something stands behind its compressed data")
    return [f"{path.name}: {text}" for text in (*found, *_plain(plain))]


def _plain(data: bytes) -> Iterator[str]:
    form = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    size = next((n for order in ("little", "big") if (n := int.from_bytes(data[:4], order)) in form), None)
    if size is None or len(data) < size + 4:
        return
    header = form[size](data[:size], check=False)
    try:
        begins, shape = int(header.get_data_offset()), header.get_data_shape()
        ends = begins + math.prod(int(n) for n in shape) * header.get_data_dtype().itemsize
    except (ValueError, KeyError, OverflowError, HeaderDataError):
        return
    for name in header.structarr.dtype.names:
        value = header[name].tobytes().strip(b"\0")
        usual = _USUAL.get(name, ())
        if name not in _GEOMETRY and value and usual is not None and value not in usual:
            yield f"its header has a text in {name}"
    if header["dim"][0] > 3 or np.any(header["dim"][4:] > 1) or np.any(header["dim"][4:] < 0):
        yield "its header has a text in dim"
    yield from _numbers(header)
    try:
        yield from _forms(header, shape)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, HeaderDataError):
        yield "its header has no place for the image"
    if any(data[size : size + 4]):
        yield "its header has extension(s), which may hold DICOM"
    elif any(data[size + 4 : begins]) or begins > size + 4 + 16:
        yield "something stands between its header and its voxels"
    if len(data) > ends:
        yield "something stands behind its voxels"


def _numbers(header: nib.Nifti1Header) -> Iterator[str]:
    """Numbers of which few have a meaning here."""
    meant = {
        "pixdim": set(header["pixdim"][4:].tolist()) <= {0.0, 1.0} and float(header["pixdim"][0]) in (-1, 0, 1),
        "bitpix": int(header["bitpix"]) == 8 * header.get_data_dtype().itemsize,
        "xyzt_units": int(header["xyzt_units"]) < 32,
        "qform_code": 0 <= int(header["qform_code"]) <= 5,
        "sform_code": 0 <= int(header["sform_code"]) <= 5,
        # of voxels as they are: whole numbers, or those of float
        "scl_slope": np.isnan(header["scl_slope"]) or float(header["scl_slope"]) in (0, 1),
        "scl_inter": np.isnan(header["scl_inter"]) or float(header["scl_inter"]) == 0,
    }
    yield from (f"its header has a text in {name}" for name, sound in meant.items() if not sound)


def _forms(header: nib.Nifti1Header, shape: tuple[int, ...]) -> Iterator[str]:
    """Two forms and the sides of voxels say one place three times: what says another place may say anything."""
    quaternion = [header[name] for name in ("quatern_b", "quatern_c", "quatern_d", *(f"qoffset_{a}" for a in "xyz"))]
    rows = [header[f"srow_{axis}"] for axis in "xyz"]
    if not header["qform_code"] and np.any(np.array(quaternion) != 0):
        yield "its header has a text in quatern"
    if not header["sform_code"] and np.any(np.array(rows) != 0):
        yield "its header has a text in srow"
    if header["sform_code"]:
        again = type(header)()  # what the rest would be, were the file made from the affine
        again.set_data_shape(shape)
        again.set_qform(header.get_sform(), 1)
        try:
            apart = corner_distance(shape, np.asarray(again.get_qform()), np.asarray(header.get_qform()))
        except (ValueError, np.linalg.LinAlgError):
            apart = math.inf
        if header["qform_code"] and not apart <= _FORMS_APART_MM:
            yield "its header has two places for the image"
        if not np.allclose(header["pixdim"][1:4], again["pixdim"][1:4], rtol=_SIDES_APART, atol=0):
            yield "its header has a text in pixdim"
