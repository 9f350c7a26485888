"""What a file or a DICOM series is known by, whatever it is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def hash_file(path: Path, first: str = "") -> str:
    """sha256 of `first` and a file, or the files of a folder of DICOM slices in order of their names."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256(first.encode())
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and ns since 1970 of the last change; of a folder, of all the files in it."""
    stats = [p.stat() for p in ([path] if path.is_file() else path.iterdir())]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
