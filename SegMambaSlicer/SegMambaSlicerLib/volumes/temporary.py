"""Private folders for the exchange with the engine, and what was left of them where Slicer was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import slicer

from ..errors import InputError
from ..i18n import _

_TEMPORARY = "SegMamba-"
_LEFT_SECONDS = 3600.0
_ASK_SECONDS = 3.0
_IS_WINDOWS = os.name == "nt"
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # there on Windows alone


def temporaryFolder() -> Path:
    """A new private folder in Slicer's temporary directory, for the exchange with the engine.

    Raises InputError where it cannot be created.
    """
    parent = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    _removeLeft(Path(parent or tempfile.gettempdir()))
    try:
        return Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{os.getpid()}-", dir=parent))
    except OSError as error:
        text = _("A temporary folder could not be created ({error}). Check free space and permissions.")
        raise InputError(text.format(error=error)) from error


def _removeLeft(parent: Path) -> None:
    """What a Slicer that was killed left behind: of this account, an hour old, of no process that lives."""
    for path in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or time.time() - path.stat().st_mtime < _LEFT_SECONDS or not _isMine(path):
                continue
            owner = path.name.removeprefix(_TEMPORARY).partition("-")[0]
            if not (owner.isdigit() and _lives(int(owner))):
                shutil.rmtree(path, ignore_errors=True)


def _isMine(path: Path) -> bool:
    return os.name != "posix" or path.stat().st_uid == os.getuid()


def _lives(process: int) -> bool:
    """Where it cannot be asked it counts as alive."""
    if _IS_WINDOWS:  # there os.kill ends whatever it asks
        return _isListed(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _isListed(process: int) -> bool:
    """Whether Windows has such a process; what it says where it has none is in the user's language."""
    try:
        answer = subprocess.run(
            ["tasklist", "/FI", f"PID eq {process}", "/FO", "CSV", "/NH"],
            capture_output=True,
            creationflags=_NO_WINDOW,
            timeout=_ASK_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return True
    return f'"{process}"'.encode() in answer.stdout
