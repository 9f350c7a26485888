"""The voxels of a series: decoded by GDCM (in SimpleITK), placed by the positions of the slices.

What GDCM does wrongly for us (measured with SimpleITK 2.5.7): of an enhanced multi-frame file it takes the frames in
the order of the file, whatever their positions, with a spacing of 1 mm then; it applies the first frame's rescaling
to all; and a stack whose first slice has whole numbers has those of the others cut off.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmamba import limits
from segmamba.errors import InputError
from segmamba.images.dicom.find import Series
from segmamba.images.dicom.headers import Frame, quiet
from segmamba.images.grid import describe_shape
from segmamba.images.image_io import Image
from segmamba.images.itk_io import last_line, quiet_itk

_UNDEFINED = 0xFFFFFFFF  # length of an element that ends with a mark


def read_series(series: Series) -> Image:
    """Voxels (X, Y, Z) of columns, rows and slices, float32 (float64 for pixels of 32 bits), rescaled; affine to RAS.

    Raises InputError for slices that make up no volume, and pixels that are cut off or cannot be decoded.
    """
    geometry = series.geometry
    if geometry.fault or geometry.affine is None:
        raise InputError(f"series {series.name} ({series.description!r}) is not a volume: {geometry.fault}")
    if math.prod(geometry.shape) > limits.VOXELS:
        raise InputError(
            f"series {series.name} ({series.description!r}) has {describe_shape(geometry.shape)} voxels; expected at "
            f"most {limits.VOXELS}"
        )
    dtype = np.float64 if series.frames[0].header.bits > 16 else np.float32
    array = np.empty(geometry.shape, dtype)
    path: Path | None = None
    pixels = np.empty(0)
    for k in sorted(range(len(series.frames)), key=lambda k: str(series.frames[k].header.path)):
        frame = series.frames[k]
        if frame.header.path != path:
            path, pixels = frame.header.path, _decode(frame)
        array[:, :, k] = _rescaled(pixels[frame.index], frame).T
    return Image(array, geometry.affine, geometry.notes)


def _decode(frame: Frame) -> np.ndarray:
    """(frames, rows, columns) float64 of a file, as GDCM rescales it."""
    path, header = frame.header.path, frame.header
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.SetOutputPixelType(sitk.sitkFloat64)
    _check_length(path, frame)
    _check_elements(path)
    try:
        with quiet_itk():
            pixels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(
            f"{path}: the pixels are cut off, damaged, or compressed in a way that is not known ({last_line(error)}); "
            "export the series again, uncompressed"
        ) from error
    expected = (header.frames, header.rows, header.columns)
    if pixels.size != np.prod(expected):
        raise InputError(f"{path}: pixels of shape {pixels.shape}, expected {expected}; export the series again")
    return pixels.reshape(expected)


def _check_length(path: Path, frame: Frame) -> None:
    """Raises InputError for a file that ends before its uncompressed pixels do: GDCM may fill them with anything."""
    header = frame.header
    voxels = header.frames * header.rows * header.columns
    if voxels > limits.VOXELS * 4:  # several volumes in one file are one series
        raise InputError(f"{path}: {voxels} voxels in one file; expected at most {limits.VOXELS * 4}")
    least = voxels * header.bits // 8
    if not header.compressed and path.stat().st_size < least:
        raise InputError(
            f"{path}: the file ends after {path.stat().st_size} bytes and should hold {least} bytes of pixels; "
            "copy it again"
        )


def _check_elements(path: Path) -> None:
    """Raises InputError for an element that declares more bytes than there are: GDCM makes room for as many."""
    import pydicom

    with quiet():
        data = pydicom.dcmread(path, force=True)
        parts = [data, data.file_meta]
        elements = [part.get_item(tag) for part in parts for tag in part.keys()]  # noqa: SIM118  as read, not decoded
    for element in elements:
        length, value = getattr(element, "length", 0), element.value
        if length != _UNDEFINED and length > (len(value) if isinstance(value, bytes) else path.stat().st_size):
            raise InputError(f"{path}: element {element.tag} is cut off; copy or export the series again")


def _rescaled(pixels: np.ndarray, frame: Frame) -> np.ndarray:
    """`pixels` (rows, columns), rescaled as the file's first frame, with the frame's own slope and intercept."""
    if frame.rescale == frame.header.rescale:
        return pixels
    slope, intercept = frame.header.rescale
    stored = np.rint((pixels - intercept) / slope)
    return stored * frame.rescale[0] + frame.rescale[1]
