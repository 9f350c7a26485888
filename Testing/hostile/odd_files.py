"""Files of submissions and images spoiled in one place."""

import gzip
import json
import os
import struct

import pytest
from mutations import NIFTI_FIELDS

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, modes and links as POSIX has them")


def respoil(place, name, change):
    """A file of a submission with its unpacked bytes changed, and case.json told of it."""
    import hashlib

    packed = change(bytearray(gzip.decompress((place / name).read_bytes())))
    packed = packed if isinstance(packed, bytes) else gzip.compress(bytes(packed), mtime=0)
    (place / name).write_bytes(packed)
    values = json.loads((place / "case.json").read_text())
    files = [*values["images"].values(), values["segmentation"], values["proposal"]]
    next(file for file in files if file["file"] == name)["sha256"] = hashlib.sha256(packed).hexdigest()
    (place / "case.json").write_text(json.dumps(values))


def put(data, field, value):
    offset, form = NIFTI_FIELDS[field]
    struct.pack_into(f"<{form}", data, offset, value)
    return data
