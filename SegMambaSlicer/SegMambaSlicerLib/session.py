"""The engine with what is under way in it: one run, one sample, one log, and a timer that keeps them going.

This is what the logic is made of; it has no widgets, and works without an event loop where its caller waits.
"""

from __future__ import annotations

from collections.abc import Callable

import qt

from .engine.client import Engine, EngineError, asEngineError
from .engine.command import Command
from .errors import InputError
from .i18n import _
from .run import Options, Result, Run
from .sample import SampleMaker

POLL_MILLISECONDS = 50


class Session:
    """Listeners are lists of functions: onLog(level, text), onMachine(answer or None), onTick() -> whether it
    wants to be called again."""

    def __init__(self):
        self.onLog: list[Callable] = []
        self.onMachine: list[Callable] = []
        self.onTick: list[Callable] = []
        self.engine = Engine(log=self._log, devicesChanged=self._devicesChanged)
        self.machine: dict | None = None
        self.run: Run | None = None
        self.sample: SampleMaker | None = None
        self._sampleCalls: tuple = ()
        self._commands: list[Command] = []
        self._stale = False  # the worker is to be replaced when it is free
        self._isAsked = False  # the one that takes its place is to be asked what this machine has
        self._isLeft = False  # the worker is to end when it is free
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self.tick)

    def isBusy(self) -> bool:
        return self.run is not None or self.sample is not None

    def queryEngine(self) -> None:
        """Asks the worker, starting it if need be, what this machine has; the answer goes to onMachine.

        One that is to be replaced is not asked any more, but the next one. Raises EngineError where none starts.
        """
        if self._stale:
            self._isAsked = True
            self.keepTicking()
            return

        def failed(error: EngineError):
            if error.kind != "cancelled":
                self._log("error", "\n".join(filter(None, (error.message, error.detail))))
            self._heardMachine(None)

        self.engine.hello(self._heardMachine, failed)
        self.keepTicking()

    def segment(self, volumes, options: Options, previous, wait, onProgress=None, onDone=None, onError=None):
        """See SegMambaSlicerLogic.segment."""
        if self.run is not None:
            raise InputError(_("A segmentation is in progress. Wait for it, or cancel it."))

        def done(result: Result):
            self.run = None
            if onDone:
                onDone(result)

        def failed(error: EngineError):
            self.run = None
            if onError:
                onError(error)

        run = Run(self.engine, volumes, options, previous, onProgress, done, failed)
        self.run = run
        try:
            run.start()
        except BaseException:
            self.run = None
            raise
        self.keepTicking()
        return run.wait() if wait else run

    def makeSample(self, onDone, onError, raw: bool = False) -> None:
        """Begins the sample case, or the raw one; onDone gets its volumes, onError an EngineError."""
        if self.sample is not None:
            return
        self.sample, self._sampleCalls = SampleMaker(raw), (onDone, onError)
        self.keepTicking()

    def command(self, arguments, onDone=None, onError=None, program=None, variables=None) -> Command:
        """Starts a Command (see there); its callbacks come from the timer."""
        command = Command(arguments, onDone, onError, program, variables)
        self._commands.append(command)
        self.keepTicking()
        return command

    def cancel(self) -> None:
        if self.run is not None:
            self.run.cancel()
        if self.sample is not None:
            sample, self.sample = self.sample, None
            sample.cancel()
            self._sampleCalls[1](EngineError("cancelled", _("Cancelled.")))

    def stop(self) -> None:
        """Ends everything, the worker too; what is under way ends as cancelled."""
        self._timer.stop()
        self.cancel()
        for command in self._commands:
            command.cancel()
        self._commands = []
        self.engine.stop()
        self.run = None

    def leave(self) -> None:
        """Nobody will ask anything any more: the worker ends, after what is under way.

        Nothing else would end it, for Slicer's timer keeps this alive, as it does all that is called by a Qt signal.
        """
        self._isLeft = True
        if self.engine.isRunning() and not self._isAtWork():
            self.stop()

    def restart(self) -> None:
        """For another Python or other packages: the worker starts anew, after what is under way."""
        self._stale = self.run is not None
        if not self._stale:
            self.engine.stop()
            self._heardMachine(None)

    def keepTicking(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def tick(self) -> None:
        self.engine.poll()
        if self.run is not None:
            self.run.advance()
        if self._stale and self.run is None:
            self._replace()
        if self.sample is not None and self.sample.poll():
            sample, self.sample = self.sample, None
            done, failed = self._sampleCalls
            try:
                volumes = sample.load()
            except Exception as error:  # whatever it is, it has to reach the user, not the timer
                failed(asEngineError(error))
            else:
                done(volumes)
        for command in list(self._commands):
            if command.poll() and command in self._commands:
                self._commands.remove(command)
        needed = [listener() for listener in list(self.onTick)]
        if self._isLeft and not self._isAtWork():
            self.stop()
        elif not (self._isAtWork() or self.engine.isRunning() or any(needed)):
            self._timer.stop()

    def _replace(self) -> None:
        """What was put off until the run had ended."""
        self.restart()
        isAsked, self._isAsked = self._isAsked, False
        try:
            if isAsked:
                self.queryEngine()
        except EngineError as error:
            self._log("error", error.message)

    def _isAtWork(self) -> bool:
        return self.isBusy() or bool(self._commands)

    def _heardMachine(self, answer: dict | None) -> None:
        self.machine = answer
        for listener in list(self.onMachine):
            listener(answer)

    def _devicesChanged(self, news: dict) -> None:
        if self.machine is not None:
            known = {name: news[name] for name in ("devices", "scan_backend", "models") if name in news}
            self._heardMachine({**self.machine, **known, "complete": True})

    def _log(self, level: str, text: str) -> None:
        for listener in list(self.onLog):
            listener(level, text)
