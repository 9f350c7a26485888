"""What files are known by, whatever they are called. Of an image that may be several: segmamba.images.digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_BLOCK = 1 << 20


def hash_file(path: Path) -> str:
    """sha256 of a file."""
    return hash_files([path])


def hash_files(paths: Iterable[Path], first: str = "") -> str:
    """sha256 of `first` and files, one after the other."""
    digest = hashlib.sha256(first.encode())
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
