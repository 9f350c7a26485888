"""The way out: events as lines, one at a time, and texts without the folders that name a patient."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path, PurePath

from segmamba.worker.streams import LineWriter, write_all

_IN_LONGER = r"(?P<more>/[\w.-]{1,255})?"  # what makes a path the end of another one
_IN_RELATIVE = r"(?P<more>[\w./\\-])?"
_INSIDE = r"[/\\]+"  # before something in a folder
_WHOLE = r"(?![\w@~+-]|\.\w)"  # after a name that does not go on
_Folders = dict[tuple[str, str], re.Pattern[str]]  # folder as it is written, what stands for it -> where it is found


class Channel:
    """Writes events. After `closed` is set, because nobody reads any more, it writes nothing."""

    def __init__(self, file: int):
        self._file = file
        self._lock = threading.Lock()
        self._hidden = _find([Path.home()], _WHOLE, "~")
        self.closed = False

    def send(self, event: str, id: str | None, **values: object) -> None:
        """Writes one event as one line; id: of the request that it belongs to, or None."""
        line = json.dumps({"event": event, "id": id, **values}).encode() + b"\n"
        with self._lock:
            if not self.closed:
                try:
                    write_all(self._file, line)
                except OSError:
                    self.closed = True

    def log(self, level: str, message: str, source: str = "engine") -> None:
        """Sends a message for the log.

        Args:
            level: "debug", "info", "warning" or "error".
            message: in plain words; paths are shortened where `clean` does so.
            source: "engine", or "library" for what something else has printed.
        """
        self.send("log", None, level=level, message=self.clean(message), source=source)

    def hide(self, paths: Iterable[Path]) -> None:
        """From now on only the last part of these paths is shown in texts."""
        folders = [parent for path in paths for parent in (path.parent, path.resolve().parent)]
        self._hidden = {**self._hidden, **_find(folders, _INSIDE, "")}

    def clean(self, text: str) -> str:
        """The text with the folders of the user replaced by what stands for them."""
        hidden = self._hidden
        for folder, instead in sorted(hidden, key=lambda key: (len(key[0]), key[1] == ""), reverse=True):
            if folder in text:
                text = _replace(hidden[folder, instead], text, instead)
        return text

    def take_logging(self) -> None:
        """Python's logging, warnings and prints become log events."""
        root = logging.getLogger()
        root.handlers[:] = [_Handler(self)]
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        for name, number in (("stdout", 1), ("stderr", 2)):
            writer = LineWriter(number, lambda line: self.log("info", line, "library"))
            setattr(sys, name, writer)
            setattr(sys, f"__{name}__", writer)
        sys.stdin = sys.__stdin__ = None


def _find(folders: Iterable[PurePath], then: str, instead: str) -> _Folders:
    """Where folders stand in a text, with what comes `then`. Not a root, nor ".", which would be found all over it."""
    found = {}
    for folder in folders:
        if folder != folder.parent:
            before = _IN_LONGER if folder.is_absolute() else _IN_RELATIVE
            for text in _spellings(folder):
                found[text, instead] = re.compile(before + re.escape(text) + then)
    return found


def _spellings(folder: PurePath) -> set[str]:
    """As it is, with slashes, as some libraries write it on Windows, and as both are in a repr()."""
    plain = {str(folder), folder.as_posix()}
    return plain | {repr(text)[1:-1] for text in plain}


def _replace(pattern: re.Pattern[str], text: str, instead: str) -> str:
    return pattern.sub(lambda found: found[0] if found["more"] else instead, text)


class _Handler(logging.Handler):
    def __init__(self, channel: Channel):
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}.get(record.levelname, "info")
            own = record.name.split(".")[0] == "segmamba"
            self._channel.log(level, self.format(record)[:2000], "engine" if own else "library")
        except Exception:  # as logging itself: a text that cannot be made must not end a segmentation
            self._channel.send("log", None, level="warning", message=f"unreadable message of {record.name}")
