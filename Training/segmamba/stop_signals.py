"""SIGTERM and SIGINT as something a loop can ask about, so that it ends where its state is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

_SAME = 10.0  # seconds


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT become entries of the list. One that comes 10 s or more after another of its kind ends the
    process as always; sooner it is the same: a terminal or Slurm tells every process, and torchrun tells them again.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    last: dict[int, float] = {}
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def catch(number, frame):
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
