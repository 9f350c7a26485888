"""An improvement in a process that outlives whoever starts it: 3D Slicer, a terminal, an ssh session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, share
from segmamba.learning.site.improvement import run_folder
from segmamba.learning.site.layout import OUTPUT, STATUS, Site

_PACKAGE = Path(__file__).resolve().parents[3]  # in which `-m segmamba` finds this very package
_PATIENCE = 60.0  # seconds until its first word, which comes before its libraries are loaded
_ERROR = "error: "  # begins the last line of a command that found something wrong


def detach(site: Site, run: str | None, way: str | None, options: Sequence[str]) -> Path:
    """Starts `segmamba improve SITE --run ... OPTIONS` as a process of its own.

    What it prints is added to RUN/output.txt.

    Args:
        site: that is improved.
        run: name of the run to go on with; None: a new one.
        way: "finetune" or "retrain", in the name of a new run; None: the first of these.
        options: of the command line, way included.

    Returns:
        The folder of the run, as soon as it has begun.

    Raises:
        InputError: as `run_folder`, or where it ends before its first word in status.json, with its reason.
    """
    folder = run_folder(site, run, way)
    make_folder(folder)
    before = _stamp(folder)
    command = [sys.executable, "-m", "segmamba", "improve", str(site.folder), "--run", folder.name, *options]
    fresh = not (folder / OUTPUT).exists()
    with (folder / OUTPUT).open("ab") as output:
        if fresh:
            share(folder / OUTPUT)
        process = _start(command, output)
    until = time.monotonic() + _PATIENCE
    while _stamp(folder) == before and time.monotonic() < until:
        if process.poll() is not None and _stamp(folder) == before:
            if process.returncode == 0:  # done already
                break
            reason = _last_word(folder / OUTPUT)
            if run is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise InputError(reason or f"the improvement ended at once; see {folder / OUTPUT}")
        time.sleep(0.05)
    return folder


def _start(command: list[str], output: IO[bytes]) -> subprocess.Popen:
    shared = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, "cwd": _PACKAGE}
    if os.name != "nt":
        return subprocess.Popen(command, start_new_session=True, **shared)
    # a console that nobody sees, for what it starts itself: git, or a process that prepares cases, would open one else
    alone = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        return subprocess.Popen(command, creationflags=alone | subprocess.CREATE_BREAKAWAY_FROM_JOB, **shared)
    except OSError:  # the job that the caller belongs to lets nobody out
        return subprocess.Popen(command, creationflags=alone, **shared)


def _stamp(folder: Path) -> bytes:
    try:
        return (folder / STATUS).read_bytes()
    except OSError:
        return b""


def _last_word(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix(_ERROR) if lines else ""
