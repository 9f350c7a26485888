"""What SimpleITK reads: NRRD and MetaImage files; LPS geometry turned into RAS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmamba.errors import InputError


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """NRRD or MetaImage file -> array (X, Y, Z), affine to RAS mm. Raises InputError where it is none."""
    try:
        with quiet_itk():
            image = sitk.ReadImage(str(path))
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


def last_line(error: BaseException) -> str:
    """The last line of an error's text: ITK puts what matters there, below its source file and address."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK writes its warnings to the terminal; what matters in them is checked where it reads, and told in an error."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
