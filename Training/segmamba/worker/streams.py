"""The standard streams: taken away from everybody at the start, so that nothing but events gets into the protocol.

File descriptors 1 and 2 then lead to a file without a name that is read now and then (`Captured`): a pipe could fill
up while a C library that prints holds Python's lock, and all would stand still.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)
_TEMPORARY = getattr(os, "O_TEMPORARY", 0)  # Windows: removed with its last handle
_MOST_A_LOOK = 1 << 16
_LONGEST = 2000


@dataclass(frozen=True)
class Streams:
    """The worker's own streams, once the standard ones were taken over."""

    requests: int
    """File descriptor to read from."""
    events: int
    """To write to."""
    captured: Captured
    """What libraries print."""


class Captured:
    """Lines that were written to file descriptors 1 and 2, at the level of C."""

    def __init__(self, file: int | None):
        self._file = file
        self._rest = b""

    def new_lines(self) -> list[str]:
        """The whole lines since the last call; a carriage return ends a line too."""
        data = os.read(self._file, _MOST_A_LOOK) if self._file is not None else b""
        *lines, self._rest = re.split(rb"[\r\n]+", self._rest + data)
        return [text for line in lines if (text := line.decode("utf-8", "replace").strip()[:_LONGEST])]


class LineWriter:
    """A text stream that hands each line on; what sys.stdout and sys.stderr become."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    closed = False
    line_buffering = True

    def __init__(self, number: int, log: Callable[[str], None]):
        self._number, self._log = number, log
        self._rest, self._lock = "", threading.RLock()

    def write(self, text: str) -> int:
        """Logs whole lines; keeps the rest until its end comes."""
        with self._lock:
            *lines, self._rest = re.split(r"[\r\n]+", self._rest + text)
        for line in lines:
            if line.strip():
                self._log(line.strip()[:_LONGEST])
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Does nothing: whole lines are sent at once."""
        pass

    def fileno(self) -> int:
        """Of the stream that is written to."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal: never."""
        return False

    def readable(self) -> bool:
        """Whether it can be read from: never."""
        return False

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    seekable = readable


def take_over() -> Streams:
    """Moves the three streams away and puts a silent input and captured outputs into their place."""
    requests = os.dup(0)
    events = os.dup(1)
    last_words = os.dup(2)
    if sys.platform == "win32":
        import msvcrt

        for number in (requests, events):
            msvcrt.setmode(number, os.O_BINARY)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    try:
        write_to, read_from = _nameless_file()
    except OSError:  # no room for temporary files: what C libraries print is lost, the rest works
        write_to, read_from = os.dup(silence), None
    for number in (1, 2):
        os.dup2(write_to, number)
    os.close(write_to)
    os.close(silence)
    faulthandler.enable(last_words)
    write_all(events, b"\n")
    return Streams(requests, events, Captured(read_from))


def write_all(number: int, data: bytes) -> None:
    """Writes all bytes to a file descriptor. Raises OSError where nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def _nameless_file() -> tuple[int, int]:
    """-> (to append to, to read from), two file descriptors of one temporary file."""
    handle, name = tempfile.mkstemp(prefix="segmamba-")
    os.close(handle)
    write_to = os.open(name, os.O_WRONLY | os.O_APPEND | _BINARY | _TEMPORARY)
    read_from = os.open(name, os.O_RDONLY | _BINARY | _TEMPORARY)
    if not _TEMPORARY:
        Path(name).unlink()
    return write_to, read_from
