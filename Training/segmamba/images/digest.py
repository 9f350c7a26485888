"""What an image is known by, whatever it is called: the content of every file that it is read from."""

from __future__ import annotations

from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import is_clutter
from segmamba.files.digest import hash_files
from segmamba.images.image_io import ITK, image_suffix
from segmamba.images.itk_header import find_data


def hash_image(path: Path, first: str = "") -> str:
    """sha256 of `first` and the files of an image, or of the slices of a folder in order of their names."""
    return hash_files(_files(path), first)


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and ns since 1970 of the last change, of all the files of an image."""
    stats = [file.stat() for file in _files(path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not is_clutter(file.name))
    if image_suffix(path) not in ITK:
        return [path]
    try:
        return list(dict.fromkeys([path, find_data(path)]))  # the header, and the voxels beside it
    except InputError:  # no image: reading it says why
        return [path]
