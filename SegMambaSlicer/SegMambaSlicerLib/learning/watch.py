"""What the panel knows of the site: asked of the engine without waiting, and of the files of the run that is under way.

Nothing here has widgets. A folder that is out of reach, a server that does not answer, an answer in an unknown form:
each becomes a `problem` in plain words, and the rest of the panel goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import qt

from ..engine.client import EngineError
from ..errors import InputError
from ..i18n import _
from .following import ACTIVE, Curve, Follower, number
from .site import Call, Site, readSite

TICK_MILLISECONDS = 1000
SOON_MILLISECONDS = 600
ANSWER_SECONDS = 60  # a dead share never answers
ACT_SECONDS = 180  # a run that is started may take a minute until its first word
EXAMINE_SECONDS = 1800  # some seconds a case, more on a slow share
SERVER_SECONDS = 10  # between two looks at a run on a server
SILENT_SECONDS = 60  # without a word from a run, after which the engine is asked whether it still lives


class SiteWatch:
    """onChange: functions that are called when anything here is another than before."""

    def __init__(self, session):
        self._session = session
        self.onChange: list[Callable[[], None]] = []
        self.site: Site = readSite()
        self.problem = ""  # why the models' folder could not be asked
        self.workProblem = ""  # why the place where improvements run could not be asked
        self.doing = ""  # what was asked for and is under way, in plain words
        self._answers: dict[str, dict] = {}  # of `segmamba status`: "here", "server"
        self._commands: dict[
            str, tuple
        ] = {}  # "here", "server", "act" -> command, when it is given up, then called, after how long
        self._follower: Follower | None = None
        self._followed = ""
        self._nextLook = 0.0
        self.examineProblem = ""  # why new cases could not be examined
        self._examined = 0  # how many submissions there were then: the same ones are not examined again and again
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MILLISECONDS)
        self._timer.timeout.connect(self.tick)
        self._soon = qt.QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MILLISECONDS)
        self._soon.timeout.connect(self.refresh)

    # --- what is known

    @property
    def models(self) -> dict | None:
        """What `segmamba status` says of the models of the site; None while it is not known."""
        models = self._answers.get("here", {}).get("models")
        return models if isinstance(models, dict) else None

    @property
    def corrections(self) -> dict | None:
        """The counts of corrected cases, where improvements run; None while they are not known."""
        found = self._answers.get(self.site.where, {}).get("corrections")
        return found if isinstance(found, dict) else None

    @property
    def run(self) -> dict | None:
        """The status of the run to show: one that is under way, else the newest; None where there is none."""
        run = self._asked()
        if run is None or self._follower is None or self._followed != run.get("run"):
            return run
        read = self._follower.status
        fresher = read is not None and (number(read.get("updated")) or 0) > (number(run.get("updated")) or 0)
        return read if fresher else run

    @property
    def runs(self) -> list[dict]:
        """The status of every run that is known, the newest first."""
        runs = self._answers.get(self.site.where, {}).get("runs")
        return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []

    @property
    def curve(self) -> Curve:
        if self._follower is not None:
            return self._follower.curve
        return Curve.of(self._answers.get(self.site.where, {}).get("log"))

    @property
    def isLooking(self) -> bool:
        return any(place in self._commands for place in ("here", "server"))

    @property
    def isSilent(self) -> bool:
        """Whether nobody knows if the site's folder can be read now: it was asked, or gave no answer.

        A network drive that is gone holds up who reads from it, and Slicer with it.
        """
        return "here" in self._commands or bool(self.problem)

    @property
    def isRunning(self) -> bool:
        run = self.run
        return run is not None and run.get("state") in ACTIVE and run.get("alive") is not False

    # --- asking

    def refresh(self) -> None:
        """Reads the settings again and asks the engine; what is known stays until the answer is there."""
        site = readSite()
        if site != self.site:
            self._forget()
            self.site = site
        self.problem = self.workProblem = ""
        if site.reason:
            self._changed()
            return
        self._ask("here")
        if site.where == "server":
            self.workProblem = site.workReason
            if not self.workProblem:
                self._ask("server")
        self._changed()

    def refreshByHand(self) -> None:
        """As `refresh`, and new cases that could not be examined before are tried again."""
        self._examined = 0
        self.refresh()

    def refreshSoon(self) -> None:
        """When nothing has changed for a moment: a path says that it has changed with each letter."""
        self._soon.start()

    def act(self, call: Call, text: str, onDone=None, onError=None, seconds: float = ACT_SECONDS) -> None:
        """Does what `call` says, with `text` shown meanwhile, and looks again. Nothing else can be asked for then.

        onError: called with a text. seconds: until it is given up. Raises InputError where something is under way.
        """
        if self.doing:
            raise InputError(self.doing)
        self.doing = text

        def end(function, argument):
            self.doing = ""
            if function:
                function(argument)
            self.refresh()

        self._start("act", call, lambda answer: end(onDone, answer), lambda text: end(onError, text), seconds)
        self._changed()

    def tick(self) -> None:
        now = time.monotonic()
        for place, (command, until, failed, seconds) in list(self._commands.items()):
            if now > until:
                del self._commands[place]
                command.cancel()
                failed(_("No answer in {count} s.").format(count=round(seconds)))
        if self.isRunning and now >= self._nextLook:
            self._look(now)
        if not (self._commands or self.isRunning):
            self._timer.stop()

    def release(self) -> None:
        """For the end of the widget. A run that was started goes on."""
        self._timer.stop()
        self._soon.stop()
        self.onChange = []
        self._forget()

    # --- the rest

    def _asked(self) -> dict | None:
        runs = self.runs
        active = [run for run in runs if run.get("state") in ACTIVE]
        return next(iter([*active, *runs]), None)

    def _look(self, now: float) -> None:
        """At the run that is under way: on a server through the engine there, else in its files."""
        run, state = self.run, self.run.get("state")
        self._nextLook = now + SERVER_SECONDS
        if self.site.where == "server":
            self._ask("server", str(run.get("run", "")))
            return
        if self._follower is None:
            self._follow()
        try:
            changed = self._follower is not None and self._follower.poll()
        except OSError as error:
            self.workProblem = _("The folder of the run cannot be reached: {reason}").format(reason=error)
            self._changed()
            return
        seconds = self._follower.seconds if self._follower is not None else 0.0
        self._nextLook = now + max(TICK_MILLISECONDS / 1000, 20 * seconds)  # a slow share may not make Slicer slow
        if changed:
            self.workProblem = ""
        if self.run.get("state") != state:
            self.refresh()  # cases were taken in, or a candidate is there
        elif not changed and time.time() - (number(self.run.get("updated")) or 0) > SILENT_SECONDS:
            self._nextLook = now + SERVER_SECONDS
            self._ask("here")
        if changed:
            self._changed()

    def _ask(self, place: str, run: str = "") -> None:
        if place in self._commands:
            return
        shown = self._asked()
        run = run or (str(shown.get("run", "")) if shown and place == self.site.where else "")
        try:
            call = self.site.statusCommand(run if place == "server" else "", place)
        except InputError as error:
            self._failed(place, str(error))
            return
        self._start(place, call, lambda answer: self._heard(place, answer), lambda text: self._failed(place, text))

    def _start(self, place: str, call: Call, done, failed, seconds: float = ANSWER_SECONDS) -> None:
        def ended(function, argument):
            if self._commands.pop(place, None) is not None:
                function(argument)

        try:
            command = self._session.command(
                call.arguments,
                lambda answer: ended(done, answer),
                lambda error: ended(failed, self._explained(call, error)),
                call.program,
            )
        except EngineError as error:
            failed(self._explained(call, error))
            return
        self._commands[place] = (command, time.monotonic() + seconds, failed, seconds)
        self._timer.start()

    def _explained(self, call: Call, error: EngineError) -> str:
        if call.program is None:
            return error.message
        return _("{host}: {reason}").format(host=self.site.server.host, reason=error.message)

    def _heard(self, place: str, answer: object) -> None:
        if not isinstance(answer, dict) or answer.get("schema") != 1:
            self._failed(
                place,
                _("The engine answered in an unknown format: update the extension or the engine, whichever is older."),
            )
            return
        before = self._asked()
        self._answers[place] = answer
        self._setProblem(place, "")
        run = self._asked()
        if place == self.site.where and run is not None:
            isOther = before is None or before.get("run") != run.get("run")
            if place == "here":
                self._follow()
            elif isOther and not answer.get("log"):
                self._ask("server", str(run.get("run", "")))
        if self.isRunning:
            self._timer.start()
        if place == self.site.where:
            self._examine()
        self._changed()

    def _examine(self) -> None:
        """What was sent and nobody has looked at yet: until then nothing tells whether it can be trained on."""
        found = self.corrections or {}
        sent, new = (int(number(found.get(name)) or 0) for name in ("sent", "new"))
        if not new:
            self._examined = 0  # those that come next may be as many as were examined
        if not new or sent == self._examined or self.doing or self.isRunning:
            return  # the run that is under way examines them itself, at its beginning

        def failed(text):
            self.examineProblem = text

        self._examined, self.examineProblem = sent, ""
        try:
            call = self.site.intakeCommand()
            self.act(call, _("The new cases are being examined..."), None, failed, EXAMINE_SECONDS)
        except InputError as error:
            self.examineProblem = str(error)

    def _follow(self) -> None:
        """Reads the files of the run to show, from their beginning where it is another one than before."""
        name = str((self._asked() or {}).get("run", ""))
        try:
            if self._follower is None or self._followed != name:
                self._follower, self._followed = Follower(self.site.runFolder(name)), name
            self._follower.poll()
        except (InputError, OSError):
            self._follower = None  # what the engine said of it is there all the same

    def _failed(self, place: str, text: str) -> None:
        self._setProblem(place, text)
        self._changed()

    def _setProblem(self, place: str, text: str) -> None:
        if place == "here":
            self.problem = text
        if place == self.site.where:
            self.workProblem = text

    def _forget(self) -> None:
        commands, self._commands = self._commands, {}
        for command, _until, _failed, _seconds in commands.values():
            command.cancel()
        self._answers = {}
        self._follower = None
        self._followed = ""
        self.doing = ""
        self._examined, self.examineProblem = 0, ""

    def _changed(self) -> None:
        for listener in list(self.onChange):
            listener()
