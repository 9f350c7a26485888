"""Damaged files of every kind: each is read rightly or refused with an InputError that names it; nothing else happens.

In processes of their own, for a crash of a library is what some are made for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("fuzz_child.py")
MOST_MB = 4096  # at no moment more
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits as POSIX has them")

KINDS = {".nii": 300, ".nii.gz": 100, ".mha": 300, ".nrrd": 300, "dicom": 100, "tables": 2000}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, tmp_path, many, tell):
    count = many(KINDS[kind])
    command = [sys.executable, str(CHILD), kind, str(count), "1", str(tmp_path / "work")]
    result = subprocess.run(command, capture_output=True, text=True)
    at = tmp_path / "work" / "at"
    assert result.returncode == 0, f"seed {at.read_text() if at.exists() else '-'}: {result.stderr[-3000:]}"
    found = json.loads(result.stdout.splitlines()[-1])
    tell(f"{kind}: {count} inputs, {found['read']} read, {found['refused']} refused, peak {found['peak_mb']} MB")
    assert not found["wrong"], "\n".join(found["wrong"][:20])
    assert found["read"] + found["refused"] == count and found["refused"] > 0.2 * count and found["read"] > 0
    assert found["peak_mb"] < MOST_MB
