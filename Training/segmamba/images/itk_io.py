"""What SimpleITK reads: NRRD and MetaImage files; LPS geometry turned into RAS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmamba import limits
from segmamba.errors import InputError, blame, last_line
from segmamba.images.itk_header import check_header

__all__ = ["last_line", "quiet_itk", "read_itk"]


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """NRRD or MetaImage file -> array (X, Y, Z), affine to RAS mm, what its header leaves out of that.

    The header is looked at first: of some that are crafted ITK dies, and the process with it. Raises InputError where
    the file is no image.
    """
    with blame(path, "the file is cut off, damaged or no image"):
        notes = check_header(path)
        with quiet_itk():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            _check_size(path, reader)
            image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, notes


def _check_size(path: Path, reader: sitk.ImageFileReader) -> None:
    components, size = reader.GetNumberOfComponents(), reader.GetSize()
    if components > 1:
        raise InputError(f"{path}: {components} numbers per voxel (colours, complex, or several volumes); expected one")
    text = " x ".join(str(n) for n in size)
    if len(size) != 3:
        raise InputError(f"{path}: a {len(size)}-D image, {text}; expected a 3-D image")
    if math.prod(size) > limits.VOXELS:
        raise InputError(f"{path}: its header declares {text} voxels; expected at most {limits.VOXELS}: is it damaged?")


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK writes its warnings to the terminal; what matters in them is checked where it reads, and told in an error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
