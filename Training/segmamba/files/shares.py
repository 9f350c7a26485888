"""A folder that several programs write to, on this machine or on a network share, any of which may be killed.

Two tools: a folder appears whole or not at all, and never over another one (`publish_folder`); and one program at a
time does a thing (`exclusive`), with a lock that the system gives back when its holder dies.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from segmamba import limits
from segmamba.errors import InputError, explain
from segmamba.files.atomic import is_mine, naming, share, sweep

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_WAIT = 120.0  # seconds
_POLL = 0.02
_WORKED_IN = ".in-use"


def write_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file in a folder that nobody sees yet, and flushes it to the disk.

    Args:
        path: of the file; one that exists is overwritten.
        data: all of its content.
        mode: permissions of the file, from its first moment on; None: as usual.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with naming(path), os.fdopen(os.open(path, flags, mode or 0o666), "wb") as file:
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
        share(target)
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
    with _open_lock(path) as file:
        until = time.monotonic() + wait
        while not _take(file):
            if time.monotonic() >= until:
                raise InputError(
                    f"another program is at work in {path.parent}"
                    + (f", since {wait:g} s or more" if wait else "")
                    + "; wait for its end and try again, or name another folder"
                )
            time.sleep(_POLL)
        try:
            yield
        finally:
            _give_back(file)


def _open_lock(path: Path) -> IO[bytes]:
    """Raises InputError where another account made the file, and the folder's group may not write to it."""
    try:
        fresh = not path.exists()
        file = path.open("a+b")
        if fresh:
            share(path)
        return file
    except OSError as error:
        raise InputError(
            f"{explain(error)}. In a folder that several accounts share, whoever made its files lets the "
            f"group write to them: chmod -R g+w {path.parent}"
        ) from None


@contextmanager
def work_folder(prefix: str) -> Iterator[Path]:
    """A folder of its own for files that are gone when the block ends, which nobody else may read.

    Those of this account that a kill left behind are taken away first: nobody holds the lock that each has in it.
    """
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if is_mine(left) and left.is_dir() and not left.is_symlink() and not _is_worked_in(left):
                shutil.rmtree(left, ignore_errors=True)
    sweep(root)
    # it gets its name once its lock is held: who sees it sees the lock
    making = Path(tempfile.mkdtemp(prefix=".segmamba-", suffix=".tmp"))
    folder = root / f"{prefix}{secrets.token_hex(8)}"
    try:
        with exclusive(making / _WORKED_IN, 0):
            if sys.platform == "win32":  # which renames no folder with an open file in it
                yield making
            else:
                making.rename(folder)
                yield folder
    finally:
        for unwanted in (making, folder):
            shutil.rmtree(unwanted, ignore_errors=True)


def _is_worked_in(folder: Path) -> bool:
    lock = folder / _WORKED_IN
    if lock.exists():
        return is_held(lock)
    return time.time() - folder.stat().st_mtime < limits.LEFTOVER_SECONDS  # of a version that had no locks


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


def _take(file: IO[bytes], shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":  # knows no shared locks
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:  # over NFS and SMB Linux makes it a lock of the server
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _give_back(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_UN)
