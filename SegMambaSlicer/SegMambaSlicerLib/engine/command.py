"""One command of the engine's command line as a child process, without waiting; its answer is JSON on standard output.

What a moment takes and needs no model kept in memory is asked in this way: `segmamba correct`, `status`, `models`. The
session polls it; nothing here blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from ..errors import InputError
from ..i18n import _
from .childprocess import ChildProcess
from .client import EngineError, explain
from .interpreter import childEnvironment, findInterpreter, trainingFolder

_ERROR = "error: "  # with which the engine's last line begins where something asked was wrong


class Command:
    """arguments: those of `segmamba`. program: instead of this machine's Python and `-m segmamba`, e.g. ssh and more.
    variables: of the environment, beside the interpreter's; not with `program`.

    onDone gets what was printed, read as JSON (None where nothing was); onError an EngineError, of kind "input" where
    the engine said what is wrong with what it was given. Raises EngineError (kind "start") where nothing starts.
    """

    def __init__(
        self,
        arguments: list[str],
        onDone: Callable[[object], None] | None = None,
        onError: Callable[[EngineError], None] | None = None,
        program: list[str] | None = None,
        variables: dict[str, str] | None = None,
    ):
        self._onDone, self._onError = onDone, onError
        self._isDetaching = "--detach" in arguments
        self._lines: list[str] = []
        self.answer: object = None
        self.error: EngineError | None = None
        self.isDone = False
        try:
            if program is None:
                python = findInterpreter()
                line = [python.path, "-m", "segmamba", *arguments]
                environment = {**python.environment, **(variables or {})}
                self._process = ChildProcess(line, environment, str(trainingFolder()))
            else:
                # without Slicer's library path, in which the system's programs would find Slicer's OpenSSL
                self._process = ChildProcess([*program, *arguments], childEnvironment(inSlicer=False))
            self._process.closeInput()
        except (OSError, InputError) as error:
            raise EngineError("start", _("The engine did not start: {reason}").format(reason=error)) from error

    def poll(self) -> bool:
        """Takes what was written and, at the end, calls back; True when it has ended."""
        if self.isDone:
            return True
        self._lines += self._process.lines()
        if not self._process.hasEnded():
            return False
        self._finish()
        return True

    def wait(self) -> object:
        """Blocks until the end; returns the answer. Raises EngineError."""
        while not self.poll():
            time.sleep(0.02)
        if self.error is not None:
            raise self.error
        return self.answer

    def cancel(self) -> None:
        """Ends it; nothing is called back. What it has detached, as a training, goes on."""
        self.isDone = True
        self._process.kill(sparing=self._isDetaching)

    def _finish(self) -> None:
        self.isDone = True
        code, tail = self._process.exitCode(), [line for line in self._process.tail if line.strip()]
        self._process.kill()
        text = "\n".join(self._lines).strip()
        try:
            self.answer = json.loads(text) if text else None
        except (ValueError, RecursionError):
            tail.append(text[-500:])
            code = code or 1
        if not code:
            if self._onDone:
                self._onDone(self.answer)
            return
        last = tail[-1] if tail else _("no reason was given (exit code {code})").format(code=code)
        if last.startswith(_ERROR):
            self.error = EngineError("input", last.removeprefix(_ERROR))
        else:
            self.error = EngineError("internal", explain(tail) or last, "\n".join(tail))
        if self._onError:
            self._onError(self.error)
