"""Slicer's application for tests: `slicer.app`, its modules and settings, on the real scene of `mrml`.

`install` has to come before anything of the extension is imported.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

SUPPORT = Path(__file__).resolve().parent
MODULES = SUPPORT.parents[1] / "SegMambaSlicer"


class Application:
    """What the extension and `slicer.util` ask of `slicer.app`."""

    applicationName = "Slicer"
    applicationVersion = "5.12.4-standin"
    majorVersion, minorVersion = 5, 12
    revision = "0"
    os, arch = sys.platform, "amd64"

    def __init__(self, folder: Path):
        import qt

        self._qt = qt.QApplication.instance() or qt.QApplication(["Slicer"])
        qt.QCoreApplication.setOrganizationName("SegMambaTests")
        qt.QCoreApplication.setApplicationName("Slicer")
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, str(folder))
        self.temporaryPath = str(folder / "temporary")
        Path(self.temporaryPath).mkdir()
        self.slicerHome = str(folder / "home")
        self.slicerUserSettingsFilePath = str(folder / "Slicer.ini")
        self.started, self.selected = [], []

    def connect(self, signal, function):
        if signal != "startupCompleted()":
            raise ValueError(f"unknown signal {signal}")
        self.started.append(function)

    def testingEnabled(self):
        return True

    def settings(self):
        import qt

        return qt.QSettings()

    userSettings = settings

    def startupEnvironment(self):
        import qt

        return qt.QProcessEnvironment.systemEnvironment()

    def processEvents(self, *flags):
        self._qt.processEvents(*flags)

    def setOverrideCursor(self, cursor):
        pass

    def restoreOverrideCursor(self):
        pass

    def layoutManager(self):
        return None  # as without a main window

    def clipboard(self):
        return self._qt.clipboard()

    def applicationLogic(self):
        return self.core.logic


def install() -> Application:
    """Puts the stand-ins where the extension looks for Slicer; once a process."""
    import slicer

    if hasattr(slicer, "app"):
        return slicer.app
    import mrml

    folder = Path(tempfile.mkdtemp(prefix="slicer-standin-"))
    app = Application(folder)
    app.core = mrml.CoreApplication.shared()
    slicer.app = app
    slicer.__path__.append(str(SUPPORT / "scripted"))
    import ctk  # noqa: F401  registers its widgets
    import standin_widgets  # noqa: F401

    if str(MODULES) not in sys.path:
        sys.path.append(str(MODULES))
    slicer.modules.segmambaslicer = SimpleNamespace(path=str(MODULES / "SegMambaSlicer.py"), name="SegMambaSlicer")
    app.reloadModule = lambda name: importlib.reload(sys.modules[name])
    return app


def loadModule():
    """The module, its widget (set up, in a frame) and its logic, as the module factory makes them."""
    import qt
    import slicer

    file = importlib.import_module("SegMambaSlicer")
    module = file.SegMambaSlicer(SimpleNamespace())
    frame = slicer.qMRMLWidget()
    frame.setLayout(qt.QVBoxLayout())
    frame.setMRMLScene(slicer.mrmlScene)
    widget = file.SegMambaSlicerWidget(frame)
    widget.setup()
    return SimpleNamespace(file=file, module=module, widget=widget, logic=widget.logic, frame=frame)
