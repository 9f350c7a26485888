"""What is installed and what would be, an own Python, and the log with its report."""

from __future__ import annotations

import html

import qt
import slicer

from ..engine import dependencies
from ..engine.client import Engine, EngineError
from ..engine.interpreter import SETTING, findInterpreter
from ..errors import InputError
from ..i18n import _
from .widgets import allow

TYPING_MILLISECONDS = 500  # a path says that it has changed with each letter


class SetupPanel:
    """Watches over a probe and a test engine of its own; `poll` from a timer.

    confirm: asked with the plan's question; ready: called when the packages changed; wake: called when it wants to be
    polled again.
    """

    def __init__(self, ui, confirm, ready, wake):
        self._ui = ui
        self._confirm = confirm
        self._ready = ready
        self._wake = wake
        self._probe: dependencies.Probe | None = None
        self._tester: Engine | None = None
        self.plan: dependencies.Plan | None = None
        self._isInstalling = False
        self._problem = ""  # why there is no plan: no such Python, or one that does not answer
        self._typed = qt.QTimer()
        self._typed.setSingleShot(True)
        self._typed.setInterval(TYPING_MILLISECONDS)
        self._typed.timeout.connect(self._ready)
        ui.pythonPath.setCurrentPath(slicer.util.settingsValue(SETTING, "", converter=str))
        ui.wheelsPath.setCurrentPath(slicer.util.settingsValue(dependencies.WHEELS_SETTING, "", converter=str))
        ui.pythonPath.currentPathChanged.connect(self.onPython)
        ui.wheelsPath.currentPathChanged.connect(self.onWheels)
        ui.checkButton.clicked.connect(self.onCheck)
        ui.installButton.clicked.connect(self.onInstall)
        ui.testButton.clicked.connect(self.onTest)
        allow(ui.installButton, False, "", _("Press Check first."))

    def isBusy(self) -> bool:
        return self._probe is not None or self._tester is not None

    @property
    def reason(self) -> str:
        """Why nothing can be segmented for want of a Python or its packages; "" where they are there, or not known."""
        if self._problem:
            return self._problem
        if self.plan is None or self.plan.isEmpty:
            return ""
        text = _("Python packages are missing ({size} to download). See Setup.")
        if all(package.isReplaced for package in self.plan.packages):
            text = _("Python packages are in versions that do not fit ({size} to download). See Setup.")
        return text.format(size=dependencies.sizeText(self.plan.megabytes))

    def onCheck(self, checked=False):
        """Asks the interpreter what it has; the answer comes in `poll`."""
        self.stop()
        self._problem = ""
        try:
            self._probe = dependencies.Probe(findInterpreter())
            self._ui.setupLabel.setText(_("Looking..."))
            self._wake()
        except (InputError, EngineError) as error:
            self._fail(error)

    def onInstall(self, checked=False):
        plan = self.plan
        if self._isInstalling or plan is None or plan.isEmpty or not self._confirm(plan.question):
            return
        if self.plan != plan:  # a check has ended while the question stood
            self.onCheck()
            text = _("Nothing was installed: what is needed has changed meanwhile. See what Check says now.")
            self._ui.testLabel.setText(text)
            return
        wheels = slicer.util.settingsValue(dependencies.WHEELS_SETTING, "", converter=str)
        self._isInstalling = True  # up to Slicer 5.10 the panel can be used meanwhile
        allow(self._ui.installButton, False, "", _("In progress."))
        self._ui.testLabel.setText(_("Installing... What pip says is in Slicer's Python console."))
        problem = ""
        try:
            dependencies.install(plan, wheels)
        except InputError as error:
            problem = str(error)
        finally:
            self._isInstalling = False
        self.onCheck()
        self._ui.testLabel.setText(problem)

    def onPython(self, path=""):
        qt.QSettings().setValue(SETTING, self._ui.pythonPath.currentPath)
        self.stop()  # what the one before would answer is not about this one
        self.plan, self._problem = None, ""
        self._ui.testLabel.setText("")
        self._typed.start()

    def onWheels(self, path=""):
        qt.QSettings().setValue(dependencies.WHEELS_SETTING, self._ui.wheelsPath.currentPath)

    def onTest(self, checked=False):
        """Starts the engine with the chosen Python, apart from the one that segments."""
        if self._typed.isActive():  # else what it sets off would end the test
            self._typed.stop()
            self._ready()
        self.stop()
        self._tester = Engine()
        self._ui.testLabel.setText(_("Starting..."))
        try:
            self._tester.hello(self._tested, self._untested)
            self._wake()
        except EngineError as error:
            self._untested(error)

    def poll(self) -> None:
        if self._tester is not None:
            self._tester.poll()
        if self._probe is None:
            return
        try:
            if not self._probe.poll():
                return
            self._show(self._probe)
            self._probe = None
        except EngineError as error:
            self._fail(error)
            return
        self._ready()

    def release(self) -> None:
        """For the end of the widget."""
        self._typed.stop()
        self.stop()

    def stop(self) -> None:
        if self._probe is not None:
            self._probe.stop()
        if self._tester is not None:
            self._tester.stop()
        self._probe = self._tester = None

    def _fail(self, error: Exception) -> None:
        """There is no Python to ask, or it gives no answer."""
        self._probe, self.plan = None, None
        self._problem = _("{reason} See Setup.").format(reason=str(error))
        self._ui.setupLabel.setText(html.escape(str(error)))
        allow(self._ui.installButton, False, "", _("Press Check first."))
        self._ready()

    def _show(self, probe) -> None:
        self.plan = dependencies.plan(probe)
        ui = self._ui
        where = f"{probe.interpreter.title} {probe.python}<br>{html.escape(probe.prefix)}"
        if self.plan.isEmpty:
            text = _("All {count} packages of the engine are installed.").format(count=len(probe.packages))
        else:
            text = html.escape("\n".join(self._lacking())).replace("\n", "<br>")
        ui.setupLabel.setText(f"{where}<br>{text}")
        can = not self.plan.isEmpty and probe.interpreter.kind == "slicer" and not self.plan.obstacle
        says = _("Shows what would be installed, its size and its folder, and asks first.")
        why = (
            _("Nothing is missing.")
            if self.plan.isEmpty
            else _("This is your own Python: install the packages there yourself.")
        )
        if not self._isInstalling:
            allow(ui.installButton, can, says, self.plan.obstacle or why)

    def _lacking(self) -> list[str]:
        """Line by line what is not there, or not as it should be, and what to do where Install does not."""
        missing = [package for package in self.plan.packages if not package.isReplaced]
        replaced = [package for package in self.plan.packages if package.isReplaced]
        lines = [_("Missing: {names}").format(names=self._named(missing))] if missing else []
        lines += [_("In another version: {names}").format(names=self._named(replaced))] if replaced else []
        if self.plan.interpreter.kind != "slicer":
            lines.append(_("Install there with: {command}").format(command=self.plan.command))
        return [*lines, *([self.plan.obstacle] if self.plan.obstacle else [])]

    def _named(self, packages: list) -> str:
        """With versions: that is what a folder of wheels has to hold."""
        about = _("about {size}")
        sizes = [about.format(size=dependencies.sizeText(package.megabytes)) for package in packages]
        return ", ".join(self.plan.describe(package, size) for package, size in zip(packages, sizes))

    def _tested(self, answer: dict) -> None:
        packages = [f"{name} {version}" for name, version in (answer.get("packages") or {}).items() if version]
        missing = [name for name, version in (answer.get("packages") or {}).items() if not version]
        text = _("The engine {version} starts with Python {python}: {packages}.").format(
            version=answer.get("version", "?"), python=answer.get("python", "?"), packages=", ".join(packages)
        )
        if missing:
            text += " " + _("Missing: {names}").format(names=", ".join(missing))
        self._end(text)

    def _untested(self, error: EngineError) -> None:
        self._end(error.message)

    def _end(self, text: str) -> None:
        self._ui.testLabel.setText(text)
        tester, self._tester = self._tester, None
        if tester is not None:
            tester.stop()
