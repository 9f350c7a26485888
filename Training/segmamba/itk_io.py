"""What SimpleITK reads: NRRD, MetaImage, and folders of DICOM slices; LPS geometry turned into RAS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmamba.errors import InputError

_UNEVEN_MM = 0.05  # positions in DICOM are text, often rounded to 0.01 mm


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """NRRD or MetaImage file -> array (X, Y, Z), affine to RAS mm. Raises InputError where it is none."""
    return _to_ras(path, lambda: sitk.ReadImage(str(path)))


def read_dicom(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Folder with the slices of one DICOM series -> array (X, Y, Z), affine to RAS mm.

    Raises InputError for no series, several, and slices that do not make up one evenly spaced, upright block:
    ITK would stack them all the same.
    """
    with _quiet():
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if not series:
            raise InputError(
                f"{folder}: a folder without a DICOM series; give an image file, or the folder of the slices"
            )
        names = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), s) for s in series]
        if len(series) > 1:
            listing = ", ".join(f"{_describe_series(n[0])} with {len(n)} files" for n in names[:4])
            raise InputError(
                f"{folder}: holds {len(series)} DICOM series ({listing}); expected one: put each into "
                "a folder of its own"
            )
        names = names[0]
        if len(names) == 1:  # several slices in one file, or one slice, which the caller refuses
            return _to_ras(folder, lambda: sitk.ReadImage(names[0]))
        names = _in_order(folder, names)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return _to_ras(folder, reader.Execute)


def last_line(error: BaseException) -> str:
    """The last line of an error's text: ITK puts what matters there, below its source file and address."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _describe_series(name: str) -> str:
    reader = _header(name)
    key = "0008|103e"  # SeriesDescription
    return repr(reader.GetMetaData(key).strip()) if reader.HasMetaDataKey(key) else "one without a description"


def _header(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{name}: cannot be read as DICOM ({last_line(error)}); export it again") from error
    return reader


def _in_order(folder: Path, names: Sequence[str]) -> list[str]:
    """The files by place along the slices' common normal, after checking that they make up one block."""
    headers = [_header(name) for name in names]
    directions = np.array([header.GetDirection() for header in headers])
    if np.abs(directions - directions[0]).max() > 1e-3:
        raise InputError(f"{folder}: the slices are not parallel; expected the slices of one volume")
    origins = np.array([header.GetOrigin() for header in headers])
    normal = directions[0].reshape(3, 3)[:, 2]
    order = np.argsort(origins @ normal)
    moves = np.diff(origins[order], axis=0)
    steps = moves @ normal
    if steps.min() < 1e-3:
        raise InputError(
            f"{folder}: several slices at one place; expected one volume, not several echoes or time points"
        )
    if np.ptp(steps) > _UNEVEN_MM:
        raise InputError(
            f"{folder}: the distance between slices goes from {steps.min():.3f} to {steps.max():.3f} mm over "
            f"{len(names)} slices; expected even steps: look for missing slices"
        )
    aside = np.linalg.norm(moves - np.outer(steps, normal), axis=1).max()
    if aside > _UNEVEN_MM:
        raise InputError(
            f"{folder}: slices are shifted sideways by {aside:.3f} mm, each from the last (a tilted gantry); "
            "resample the series to an upright grid first"
        )
    return [names[i] for i in order]


def _to_ras(path: Path, read: Callable[[], sitk.Image]) -> tuple[np.ndarray, np.ndarray]:
    try:
        with _quiet():
            image = read()
    except RuntimeError as error:
        raise InputError(f"{path}: the file is cut off, damaged or no image ({last_line(error)})") from error
    components = image.GetNumberOfComponentsPerPixel()
    if components > 1:
        raise InputError(f"{path}: {components} numbers per voxel (colours, complex, or several volumes); expected one")
    if image.GetDimension() != 3:
        size = " x ".join(str(n) for n in image.GetSize())
        raise InputError(f"{path}: a {image.GetDimension()}-D image, {size}; expected a 3-D image")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@contextmanager
def _quiet() -> Iterator[None]:
    """ITK writes its warnings to the terminal; what matters in them is checked here and told in an error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
