"""The one volume in a folder of DICOM slices that was given as an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segmamba.errors import InputError
from segmamba.images.dicom.find import Series, describe_broken, series_of
from segmamba.images.dicom.headers import read_headers
from segmamba.images.dicom.read import read_series
from segmamba.images.image_io import Image

_MOST_LISTED = 8


def read_folder(folder: Path | str) -> Image:
    """The volume in the DICOM files that lie in `folder` itself: voxels (X, Y, Z) and affine as `read_series` gives.

    A folder with one volume is that volume, whatever it looks like. Of several it is the one that could be of a case
    (see Series.left_out), and the notes say what else there is: localizers, maps, projections. They are written into
    reports, and call no series by its description, which is free text. Raises InputError for no DICOM, for files that
    look like it and cannot be read, for several volumes that could be meant, and where `read_series` does.
    """
    folder = Path(folder)
    series, found = find_in_folder(folder)
    if series.geometry.fault:
        raise InputError(
            f"{folder}: {_named(series)} is not a volume: {series.geometry.fault}; look for missing slices and for "
            "slices of something else, or resample the series to an upright grid first"
        )
    image = read_series(series)
    left = "; ".join(f"series {s.name} ({s.left_out})" for s in found if s is not series)
    told = (f"read from series {series.name}; left aside: {left}",) if left else ()
    return replace(image, notes=image.notes + told)


def find_in_folder(folder: Path | str) -> tuple[Series, list[Series]]:
    """The series that `read_folder` reads, and all that lie in the folder. Raises InputError as it does."""
    folder = Path(folder)
    frames, broken = read_headers(folder, deep=False)
    if broken:
        raise InputError(describe_broken(broken))
    if not frames:
        raise InputError(f"{folder}: a folder without a DICOM series; give an image file, or the folder of the slices")
    found = series_of(frames)
    return _pick(folder, found), found


def _pick(folder: Path, found: Sequence[Series]) -> Series:
    usable = [series for series in found if not series.left_out]
    if len(found) == 1:
        return found[0]
    if len(usable) != 1:
        listed = "; ".join(f"{_named(s)}: {_described(s)}" for s in (usable or found)[:_MOST_LISTED])
        what = f"{len(usable)} DICOM volumes that could be meant" if usable else "several DICOM volumes and no head"
        raise InputError(
            f"{folder}: holds {what} ({listed}); expected one: put the files of each into a folder of its own, or give "
            "the examination with `segmamba predict --dicom FOLDER`"
        )
    (series,) = usable
    strays = [s for s in found if s is not series and s.uid == series.uid and _kind(s) == _kind(series)]
    if strays:  # not another kind of image, but slices of this one that do not fit the others
        odd = sum(len(s.frames) for s in strays)
        raise InputError(
            f"{folder}: {_named(series)}: {odd} of its {odd + len(series.frames)} slices are not parallel to the "
            "others or differ in size or timing; expected the slices of one volume: take them out"
        )
    return series


def _described(series: Series) -> str:
    return ", but ".join(filter(None, (series.geometry.describe(), series.left_out or series.geometry.fault)))


def _kind(series: Series) -> tuple[str, ...]:
    return series.frames[0].image_type


def _named(series: Series) -> str:
    return f"series {series.name} {series.description!r}" if series.description else f"series {series.name}"
