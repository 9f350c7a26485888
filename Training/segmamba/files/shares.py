"""A folder that several programs write to, on this machine or on a network share, any of which may be killed.

Two tools: a folder appears whole or not at all, and never over another one (`publish_folder`); and one program at a
time does a thing (`exclusive`), with a lock that the system gives back when its holder dies.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmamba.errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_WAIT = 120.0  # seconds
_POLL = 0.02


def write_file(path: Path, data: bytes) -> None:
    """A file in a folder that nobody sees yet, flushed to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish_folder(aside: Path, target: Path) -> bool:
    """Renames `aside`, whose files are on the disk already, to `target`; False where `target` is there.

    The rename is the one step in which a folder appears, and no system lets it replace a folder that holds something:
    of two writers one gets True. Raises OSError where it fails otherwise; `aside` is then still there.
    """
    sync_folder(aside)
    try:
        aside.rename(target)
    except OSError:
        if target.is_dir() and aside.is_dir():
            return False
        raise
    sync_folder(target.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can."""
    if sys.platform == "win32":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:  # some network file systems cannot; they write through
        pass
    finally:
        os.close(number)


@contextmanager
def exclusive(path: Path, wait: float = _WAIT) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; it stays behind, empty, and means nothing when nobody holds it.

    Raises InputError where another program still holds it after `wait` seconds.
    """
    with path.open("a+b") as file:
        until = time.monotonic() + wait
        while not _take(file):
            if time.monotonic() > until:
                raise InputError(f"another program has been at work in {path.parent} for {wait:g} s; try again later")
            time.sleep(_POLL)
        try:
            yield
        finally:
            _give_back(file)


def is_held(path: Path) -> bool:
    """Whether a program holds the lock file `path` now; False where there is none, or it cannot be opened."""
    try:
        with path.open("r+b") as file:
            if not _take(file, shared=True):  # of two that look at once neither sees the other
                return True
            _give_back(file)
    except OSError:
        pass
    return False


def _take(file, shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":  # knows no shared locks
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:  # over NFS and SMB Linux makes it a lock of the server
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _give_back(file) -> None:
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_UN)
