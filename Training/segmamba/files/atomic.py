"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_aside(path: Path, data: bytes) -> None:
    """Writes `data` beside `path`, flushes it to disk, and renames it: readers see the old file or the new one."""
    # a token too: two machines that share a folder may have the same process number
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
