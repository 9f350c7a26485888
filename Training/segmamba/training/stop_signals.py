"""SIGTERM, SIGINT and a file as something a loop can ask about, so that it ends where its state is whole."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

STOP = "stop"  # the file's name in a run folder
_SAME = 10.0  # seconds
_LOOK = 1.0  # seconds between two looks for the file


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT become entries of the list.

    One that comes 10 s or more after another of its kind ends the process as always; sooner it is the same: a terminal
    or Slurm tells every process, and torchrun tells them again.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    last: dict[int, float] = {}
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def catch(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - last.get(number, now) >= _SAME:
            signal.signal(number, usual[number])
            signal.raise_signal(number)
        last.setdefault(number, now)
        caught.append(number)

    for number in usual:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening(folder: Path, stop: StopRequests | None) -> Iterator[StopRequests]:
    """What signals and the file folder/stop ask for while the block runs; `stop` itself where somebody listens."""
    if stop is not None:
        yield stop
        return
    with stop_signals() as caught:
        yield StopRequests(caught, folder)


def ignore_stop_signals(worker: int) -> None:
    """For processes that help a training: a terminal and Slurm tell them too, but they end when the training does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class StopRequests:
    """True once a signal of `caught` (stop_signals) or the file folder/stop asks for an end.

    The file is for where signals do not reach, from another machine or on Windows; it is looked for once a second, and
    counts as SIGTERM.
    """

    def __init__(self, caught: list[int], folder: Path):
        self._caught = caught
        self._file = folder / STOP
        self._looked = -math.inf

    def __bool__(self) -> bool:
        now = time.monotonic()
        if not self._caught and now - self._looked >= _LOOK:
            self._looked = now
            if self._file.exists():
                self._caught.append(signal.SIGTERM)
        return bool(self._caught)

    @property
    def number(self) -> int:
        """Of the first signal; SIGTERM where it was another process that was asked."""
        return self._caught[0] if self._caught else signal.SIGTERM
