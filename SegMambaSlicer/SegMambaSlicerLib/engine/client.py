"""The client of the engine's worker: starts it, asks it, hears it, cancels it, and survives its end.

The line protocol is written down in Training/segmamba/worker/PROTOCOL.md. Nothing here waits: `poll` takes what has
come and calls back; the logic calls it from a timer, `wait` from a loop where blocking is what was asked for.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import InputError
from ..i18n import _
from .childprocess import ChildProcess
from .interpreter import Interpreter, findInterpreter, trainingFolder

PROTOCOL = 1
CANCEL_SECONDS = 1.5  # then the worker is killed
_LOG_LINES = 500


class EngineError(RuntimeError):
    """The engine could not do what was asked. kind: as in the protocol, or "died" or "start"; detail: for a report."""

    def __init__(self, kind: str, message: str, detail: str = ""):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.detail = detail


def asEngineError(error: Exception) -> EngineError:
    """Whatever went wrong as what users are told; what nobody thought of says where it happened, for a report."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, InputError):
        return EngineError("input", str(error))
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return EngineError("internal", str(error) or repr(error), trace)


@dataclass
class Request:
    """A question that is under way, or has its `result` or `error`."""

    id: str
    command: str
    onResult: Callable[[dict], None] | None = None
    onError: Callable[[EngineError], None] | None = None
    onProgress: Callable[[dict], None] | None = None
    result: dict | None = None
    error: EngineError | None = None
    killAt: float | None = field(default=None, repr=False)

    @property
    def isDone(self) -> bool:
        return self.result is not None or self.error is not None


class Engine:
    """One worker process at most, started when first asked and again after it has died or failed as nobody foresaw.

    log: called with (level, text) for each line worth showing; devicesChanged: called with the worker's news of
    devices. interpreter: a function that returns an Interpreter, for a new process each time.
    """

    def __init__(
        self,
        interpreter: Callable[[], Interpreter] = findInterpreter,
        log: Callable[[str, str], None] | None = None,
        devicesChanged: Callable[[dict], None] | None = None,
    ):
        self._interpreter = interpreter
        self._log = log
        self._devicesChanged = devicesChanged
        self._process: ChildProcess | None = None
        self._spent: ChildProcess | None = None  # one that is to be replaced when nobody waits for it
        self._pending: dict[str, Request] = {}
        self._count = 0
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)

    def isRunning(self) -> bool:
        return self._process is not None

    def isBusy(self) -> bool:
        return bool(self._pending)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def request(self, command: str, onResult=None, onError=None, onProgress=None, **keys) -> Request:
        """Sends a request, starting the worker if need be; the callbacks run inside `poll`.

        Raises EngineError (kind "start") where there is no worker to be had.
        """
        self._start()
        self._count += 1
        request = Request(str(self._count), command, onResult, onError, onProgress)
        self._pending[request.id] = request
        try:
            self._process.send(json.dumps({"id": request.id, "command": command, **keys}))
        except OSError:
            self._note("warning", _("The engine ended; the log will say why."))
        return request

    def hello(self, onResult=None, onError=None) -> Request:
        return self.request("hello", onResult, onError, protocol=PROTOCOL)

    def segment(self, images: dict[str, str], output: str, onResult=None, onError=None, onProgress=None, **options):
        """options: model, mirrorings, device. See the protocol for what the result holds."""
        images = {name: str(path) for name, path in images.items()}
        return self.request("segment", onResult, onError, onProgress, images=images, output=str(output), **options)

    def cancel(self, request: Request) -> None:
        """Asks the worker to stop; kills it if `request` has not ended after CANCEL_SECONDS."""
        if request.isDone or request.killAt is not None:
            return
        request.killAt = time.monotonic() + CANCEL_SECONDS
        try:
            self.request("cancel", target=request.id)
        except EngineError as error:
            self._note("warning", error.message)

    def poll(self) -> None:
        """Takes what the worker has said since the last call, and calls back. Returns at once."""
        process = self._process
        if process is None:
            return
        for line in process.lines():
            self._handleMessage(line)
            if self._process is not process:
                return  # a callback stopped the worker
        now = time.monotonic()
        late = [request for request in self._pending.values() if request.killAt is not None and request.killAt < now]
        if late:
            self._note("warning", _("The engine did not stop in time and was ended."))
            process.kill()
            self._died(process)
        elif process.hasEnded():
            self._died(process)
        self._retire()

    def wait(self, request: Request, seconds: float | None = None) -> dict:
        """Blocks until `request` has ended; returns its result. Raises EngineError, kind "late" after `seconds`."""
        end = None if seconds is None else time.monotonic() + seconds
        while not request.isDone:
            self.poll()
            if end is not None and time.monotonic() > end and not request.isDone:
                raise EngineError("late", _("The engine has not answered for {seconds} s.").format(seconds=seconds))
            if not request.isDone:
                time.sleep(0.02)
        if request.error is not None:
            raise request.error
        return request.result

    def stop(self) -> None:
        """Ends the worker; what is under way ends as cancelled."""
        process, self._process = self._process, None
        if process is not None:
            process.end(0.3)
        self._failAll(EngineError("cancelled", _("Stopped.")))

    def _start(self) -> None:
        if self._process is not None and self._process.exitCode() is not None:
            self.poll()  # says how it died, and makes room for another
            if self._process is not None:
                dead, self._process = self._process, None
                self._died(dead)
        self._retire()
        if self._process is not None:
            return
        try:
            interpreter = self._interpreter()
            folder = str(trainingFolder())
            self._process = ChildProcess([interpreter.path, "-m", "segmamba.worker"], interpreter.environment, folder)
        except (OSError, InputError) as error:
            raise EngineError("start", _("The engine did not start: {reason}").format(reason=error)) from error
        self._note("debug", _("Engine started with {python}.").format(python=interpreter.title))

    def _handleMessage(self, line: str) -> None:
        if not line.strip():
            return
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._note("debug", line)  # something printed before the worker was ready
            return
        request = self._pending.get(event.get("id") or "")
        kind = event.get("event")
        if kind == "log":
            self._note(str(event.get("level", "info")), str(event.get("message", "")))
        elif kind == "devices" and self._devicesChanged:
            self._devicesChanged(event)
        elif kind == "progress" and request is not None:
            if request.onProgress:
                request.onProgress(event)
        elif kind == "result" and request is not None:
            self._finish(request, result=event)
        elif kind == "error":
            error = EngineError(
                str(event.get("kind", "internal")), str(event.get("message", "")), str(event.get("detail") or "")
            )
            if request is not None:
                if error.kind == "internal":
                    self._spent = self._process
                self._finish(request, error=error)
            else:
                self._note("error", error.message)

    def _finish(self, request: Request, result: dict | None = None, error: EngineError | None = None) -> None:
        del self._pending[request.id]
        cancelled = request.killAt is not None
        if cancelled and error is not None and error.kind in ("died", "internal"):
            error = EngineError("cancelled", _("Cancelled."), error.detail)
        request.result, request.error = result, error
        callback, value = (request.onResult, result) if error is None else (request.onError, error)
        if callback:
            callback(value)

    def _died(self, process: ChildProcess) -> None:
        """The worker has gone: every request under way ends with its last words."""
        if self._process is process:
            self._process = None
        tail = [line for line in process.tail if line.strip()]
        last = tail or list(self.lines)[-8:]  # what it said before, where it had no last words
        code = process.exitCode()
        process.kill()
        why = explain(tail) or (tail[-1] if tail else "")
        if not why and code is not None and code < 0:
            why = _("It was ended by another program, or memory ran out.")
            if sys.platform == "darwin":  # Gatekeeper says nothing to the process it ends
                why += " " + _("macOS also ends programs that were downloaded: open this Python in Finder once.")
        text = _("The engine ended unexpectedly (exit code {code}). {why}\nRun it again: the engine restarts.")
        text = text.format(code=code, why=why)
        if not self._pending:  # else those hear of it who wait for an answer
            self._note("error", "\n".join([text, *tail]))
        self._failAll(EngineError("died", text, "\n".join(last)))

    def _retire(self) -> None:
        """Ends a worker after what nobody foresaw: an error of CUDA lasts as long as the process, whatever is asked."""
        isAwaited = any(request.command != "cancel" for request in self._pending.values())
        if self._process is not None and self._process is self._spent and not isAwaited:
            self._note("info", _("The engine was ended after this failure; the next run starts it again."))
            self.stop()

    def _failAll(self, error: EngineError) -> None:
        for request in list(self._pending.values()):
            if request.id in self._pending:
                self._finish(request, error=error)

    def _note(self, level: str, text: str) -> None:
        if level != "debug":
            self.lines.append(text)
        if self._log:
            self._log(level, text)


def explain(lines: list[str]) -> str:
    """What the last lines of a Python that failed mean, in plain words; "" for what is not known."""
    text = "\n".join(lines)
    if "No module named" in text:
        name = text.rpartition("No module named ")[2].splitlines()[0].strip("'\" ")
        return _("The Python package {name} is missing; see Setup.").format(name=name)
    if "MemoryError" in text or "Cannot allocate memory" in text:
        return _("There was not enough memory.")
    if "DLL load failed" in text:
        return _("A library of a Python package could not be loaded; install the packages again (see Setup).")
    if "No space left on device" in text:
        return _("The disk is full.")
    found = re.findall(
        r"^(?:Permission|FileExists|NotADirectory|IsADirectory|OS)Error: \[\w+ \d+\] (.+)$", text, re.MULTILINE
    )
    if found:
        return _("Writing failed: {reason}. Check that you may write there and that the drive is connected.").format(
            reason=found[-1]
        )
    return ""
