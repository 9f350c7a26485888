"""Whether a NIfTI file is whole: Slicer's reader fills up what is cut off, and its writer overlooks a full disk."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from ..i18n import _

_HEADER_BYTES = 348  # of NIfTI-1, https://nifti.nimh.nih.gov/nifti-1
_CHUNK_BYTES = 1 << 20


def whatIsMissing(path: Path) -> str:
    """ "" for a whole NIfTI-1 file, else what is wrong with it; files of other formats are not looked into."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return ""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                return _("{count} bytes, no header").format(count=len(header))
            order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
            if struct.unpack(f"{order}i", header[:4])[0] != _HEADER_BYTES:
                return _("no NIfTI-1 header")
            sizes = struct.unpack(f"{order}8h", header[40:56])
            bits = struct.unpack(f"{order}h", header[72:74])[0]
            start = struct.unpack(f"{order}f", header[108:112])[0]
            expected = int(start) + math.prod(sizes[1 : 1 + sizes[0]]) * bits // 8
            found = _HEADER_BYTES
            while chunk := file.read(_CHUNK_BYTES):
                found += len(chunk)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        return f"{error or type(error).__name__}"
    return _("{found} of {expected} bytes").format(found=found, expected=expected) if found < expected else ""
