"""A child process that is read without ever waiting for it: no threads, no event loop, complete lines only.

Slicer's main thread may not block, and Python threads do not run while Slicer's event loop does. So the pipes are set
to return at once and whoever has a timer asks for what has come.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections import deque

from ..i18n import _

TAIL_LINES = 50
_CHUNK = 1 << 16
_KILL_SECONDS = 3.0
_IS_WINDOWS = os.name == "nt"
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # there on Windows alone


class ChildProcess:
    """A process with a line reader on its standard output; the last lines of its standard error are kept.

    Raises OSError where the program cannot be started, and on Windows before Python 3.12, whose pipes cannot but wait.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str] | None = None, folder: str | None = None):
        if not hasattr(os, "set_blocking"):
            raise OSError(_("on Windows it needs Slicer 5.10 or later"))
        options = {"creationflags": _NO_WINDOW} if _IS_WINDOWS else {"start_new_session": True}
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd=folder,
            **options,
        )
        for pipe in (self._process.stdout, self._process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._partial = {"out": b"", "err": b""}
        self._open = {"out": self._process.stdout, "err": self._process.stderr}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, text: str) -> None:
        """Writes a line. Raises OSError where the process has gone."""
        self._process.stdin.write(text.encode("utf-8") + b"\n")

    def lines(self) -> list[str]:
        """Complete lines of standard output since the last call; at the end also one without its line break."""
        found = self._read("out")
        self.tail.extend(self._read("err"))
        return found

    def hasEnded(self) -> bool:
        """True when the process is gone and all that it wrote has been read."""
        return self._process.poll() is not None and not self._open

    def exitCode(self) -> int | None:
        return self._process.poll()

    def closeInput(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self, sparing: bool = False) -> None:
        """Ends it at once, and what it started: Slicer's own Python may be behind a launcher.

        sparing: not what it has detached, which Windows counts among what it started.
        """
        if self._process.poll() is None:
            if not _IS_WINDOWS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, 9)
            elif sparing:
                self._process.kill()
            else:
                self._killTree()
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
        self._close()

    def _killTree(self) -> None:
        """The way of Windows; it may be missing, or wait for something: `kill` then kills the process itself."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(self.pid)],
                capture_output=True,
                creationflags=_NO_WINDOW,
                timeout=_KILL_SECONDS,
                check=False,
            )

    def end(self, seconds: float = 1.0) -> None:
        """Closes its input, on which a worker ends by itself, and kills it if it takes longer than `seconds`."""
        self.closeInput()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def _read(self, name: str) -> list[str]:
        pipe = self._open.get(name)
        if pipe is None:
            return []
        data = self._partial[name]
        while True:
            try:
                chunk = os.read(pipe.fileno(), _CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                del self._open[name]
                pipe.close()
                if data and not data.endswith(b"\n"):
                    data += b"\n"
                break
            data += chunk
        *complete, self._partial[name] = data.split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in complete]

    def _close(self) -> None:
        self.closeInput()
        for pipe in self._open.values():
            pipe.close()
        self._open = {}
