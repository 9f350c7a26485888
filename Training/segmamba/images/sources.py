"""One image from wherever it is: a file, or the folder of a DICOM series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segmamba.errors import blame
from segmamba.images.dicom import read_folder
from segmamba.images.image_io import Image, Source, check_image, read_image


def read_source(source: Path | str | Source) -> Image:
    """One 3-D image, with what the source itself notes.

    Raises InputError for what is missing, empty, cut off, no image, or not 3-D scalar, and for a folder that holds no
    DICOM volume, or several that could be meant.
    """
    source = source if isinstance(source, Source) else Source(Path(source))
    if source.volume is None and source.path.is_dir():
        with blame(source.path, "its DICOM files cannot be read"):
            return check_image(read_folder(source.path), source.path)
    image = read_image(source)
    return replace(image, notes=source.notes + image.notes)
