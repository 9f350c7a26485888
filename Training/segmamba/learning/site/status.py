"""status.json of a run: how it stands, written by the run alone, read by anybody; and whether the run is still alive.

Alive is who holds the lock of the run folder, which the system gives back when the process dies: no process number
that another program has got since, and the same on Windows. Not every network share shows the locks of other machines:
a run of another one is over once its status is old and its lock is not seen to be held.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segmamba import settings
from segmamba.errors import InputError
from segmamba.files.atomic import check_regular, write_aside
from segmamba.files.shares import is_held
from segmamba.learning.site.layout import LOCK, STATUS, Site
from segmamba.training.stop_signals import STOP

log = logging.getLogger(__name__)

SCHEMA = 1
WORKING = ("preparing", "training", "judging")
_EVERY = 5.0  # seconds between two writings
_SILENT = 600.0  # since the last one; then a run of another machine is over: twice what Kerberos lets clocks differ
_TRIES, _PAUSE = 20, 0.05  # Windows lets nobody replace a file while somebody reads it


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What SITE.md says of status.json."""

    schema: int = SCHEMA
    """Of the file."""
    run: str
    """Name of the run."""
    way: str
    """"finetune" or "retrain"."""
    state: str
    """"preparing", "training", "judging"; then "done", "stopped" or "failed"."""
    text: str
    """How it stands, for a person."""
    step: int = 0
    """Of training: done."""
    steps: int = 0
    """Of training: in all; 0: not known yet."""
    seconds_left: float | None = None
    """Seconds until the end of this state."""
    loss: float | None = None
    """Of the last step."""
    candidate: str | None = None
    """Name in the registry, once it is there."""
    verdict: str | None = None
    """Of the gate: "promote", "confirm" or "refuse"; None before."""
    pid: int
    """Of the process; for people."""
    host: str
    """Name of its machine."""
    started: float
    """Seconds since 1970; stays when a run goes on."""
    updated: float
    """Seconds since 1970."""
    gate: str | None = None
    """Folder of its report."""


class StatusWriter:
    """A run's status.json while the run works: written at every change of state, and every 5 s as it then stands.

    A context: at its end, or when the block raises, the newest is on the disk. A process that was asleep for long
    may find that its run was resumed elsewhere: then nothing is written any more, and what it says next raises.
    """

    def __init__(self, folder: Path, way: str):
        old = read_status(folder)
        now = round(time.time(), 1)
        begun = {"pid": os.getpid(), "host": socket.gethostname(), "started": old.started if old else now}
        fresh = RunStatus(run=folder.name, way=way, state="preparing", text="starting", updated=now, **begun)
        self.folder = folder
        self._lock, self._end = threading.RLock(), threading.Event()
        self.status = fresh
        if old:
            self.status = replace(fresh, step=old.step, steps=old.steps, candidate=old.candidate)
        self._pace: tuple[float, float] | None = None
        self._taken_by = ""  # the machine where the run was resumed meanwhile
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> StatusWriter:
        self._put()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._write()

    def begin(self, state: str, text: str, **changes: Any) -> None:
        """Another state, or another part of it; what was known of the time left is forgotten.

        Args:
            state: as of RunStatus.
            text: how it stands, for a person.
            **changes: further fields of the status.

        Raises:
            InputError: where the run was resumed elsewhere.
        """
        with self._lock:
            self._check_ours()
            self._pace = None
            self.status = replace(self.status, state=state, text=text, **{"seconds_left": None, **changes})
            self._write()
        log.info("%s", text)

    def go_on(self, done: float, total: float, text: str, **changes: Any) -> None:
        """Notes how far the present state is; from the first call on the time left is reckoned. Writes nothing itself.

        Args:
            done: of `total`, in any unit.
            total: in the same unit.
            text: how it stands, for a person; the time left is added.
            **changes: further fields of the status.

        Raises:
            InputError: where the run was resumed elsewhere, as the last writing found.
        """
        now = time.monotonic()
        with self._lock:
            self._check_ours()
            if self._pace is None:
                self._pace = (now, done)
            since, first = self._pace
            left = (now - since) / (done - first) * (total - done) if done > first else None
            text = text if left is None else f"{text}, {in_words(left)} left"
            self.status = replace(self.status, text=text, seconds_left=left and round(left, 1), **changes)

    def _beat(self) -> None:
        while not self._end.wait(_EVERY):
            try:
                self._write()
            except OSError as error:  # a share that is away for a moment must not end the training
                log.warning("%s cannot be written: %s", self.folder / STATUS, error)

    def _check_ours(self) -> None:
        if self._taken_by:
            raise InputError(
                f"run {self.folder.name} was resumed on {self._taken_by} while this computer was silent; it goes on "
                "there, and ends here"
            )

    def _write(self) -> None:
        """Once it was written by another process, the run is that one's."""
        with self._lock:
            now = read_status(self.folder)
            if now is not None and (now.host, now.pid) != (self.status.host, self.status.pid):
                self._taken_by = now.host
            if not self._taken_by:
                self._put()

    def _put(self) -> None:
        with self._lock:
            self.status = replace(self.status, updated=round(time.time(), 1))
            values = {key: _plain(value) for key, value in vars(self.status).items()}
            data = (json.dumps(values, indent=1) + "\n").encode()
            for attempt in range(_TRIES):
                try:
                    return write_aside(self.folder / STATUS, data)
                except PermissionError:
                    if attempt == _TRIES - 1:
                        raise
                    time.sleep(_PAUSE)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_status(folder: Path) -> RunStatus | None:
    """None where the run has none that can be read."""
    for _ in range(_TRIES):
        try:
            check_regular(folder / STATUS)
            values = settings.parse_json((folder / STATUS).read_text(encoding="utf-8"), STATUS)
            return settings.build(RunStatus, values, str(folder / STATUS))
        except PermissionError:
            time.sleep(_PAUSE)
        except (OSError, ValueError):  # InputError is a ValueError
            break
    return None


def is_alive(folder: Path, status: RunStatus) -> bool | None:
    """Whether a process works on the run; None where one of another machine may."""
    if status.host == socket.gethostname():
        return is_held(folder / LOCK)
    return False if time.time() - status.updated > _SILENT and not is_held(folder / LOCK) else None


def as_json(folder: Path, status: RunStatus) -> dict:
    """The status as `segmamba status` says it: with "alive", and "lost" where the process is gone without a word."""
    alive = is_alive(folder, status)
    if status.state in WORKING and alive is False:
        newer = read_status(folder)  # it may have ended between the two looks
        status = newer or status
        if status.state in WORKING:
            status = replace(status, state="lost", text="was ended from outside; resume it", seconds_left=None)
    return {**asdict(status), "alive": alive}


def ask_to_stop(site: Site, name: str) -> Path:
    """The run saves its state and ends within a step; returns its folder. Raises InputError where it is not at work."""
    folder = site.old_run(name)
    status = read_status(folder)
    if status is None or status.state not in WORKING or is_alive(folder, status) is False:
        raise InputError(f"run {name} is not at work: there is nothing to stop")
    (folder / STOP).touch()
    return folder


def at_work(site: Site) -> str | None:
    """The run that holds the site, as far as can be seen."""
    return next((path.name for path in site.run_folders() if is_held(path / LOCK)), None)


def in_words(seconds: float) -> str:
    """A span of time as people say it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} h"
