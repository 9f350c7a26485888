"""Which Python runs the engine, with which environment, and where the engine's files are.

The engine never runs inside Slicer's own process: torch beside Slicer's libraries crashes, and would freeze the panel.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import slicer

from ..errors import InputError
from ..i18n import _

SETTING = "SegMamba/Python"
INSTALLED_FOLDER = "SegMambaEngine"  # as Training/CMakeLists.txt calls it
_HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Interpreter:
    """path: the program. kind: "override", "own" or "slicer". environment: of the child process."""

    path: str
    kind: str
    environment: dict[str, str] = field(repr=False)

    @property
    def title(self) -> str:
        return {
            "override": _("Python chosen in the settings"),
            "own": _("Python environment of this extension"),
            "slicer": _("Slicer's Python"),
        }[self.kind]


def trainingFolder() -> Path:
    """The folder that holds the package `segmamba`: of the source tree, or installed beside the module.

    Raises InputError where it is in neither place.
    """
    module = _HERE.parent
    candidates = (module.parent / "Training", module / INSTALLED_FOLDER / "Training")
    for folder in candidates:
        if (folder / "segmamba" / "__init__.py").is_file():
            return folder
    raise InputError(
        _("The engine is not in {folders}. Install the extension again.").format(
            folders=" / ".join(str(folder) for folder in candidates)
        )
    )


def findInterpreter(override: str | None = None) -> Interpreter:
    """The Python chosen in the settings (or `override`); else this extension's own environment; else Slicer's.

    Raises InputError where the chosen one is no program.
    """
    chosen = override if override is not None else slicer.util.settingsValue(SETTING, "", converter=str)
    if chosen.strip():
        path = programIn(Path(chosen.strip()).expanduser())
        if path is None:
            raise InputError(
                _(
                    "{path} is not a Python program. Choose python (on Windows python.exe) or an environment's folder."
                ).format(path=chosen)
            )
        return Interpreter(str(path), "override", childEnvironment(inSlicer=False))
    for folder in ownEnvironments():
        path = programIn(folder)
        if path is not None:
            return Interpreter(str(path), "own", childEnvironment(inSlicer=False))
    return Interpreter(slicersPython(), "slicer", childEnvironment(inSlicer=True))


def ownEnvironments() -> list[Path]:
    """Virtual environments that are used without being chosen: in the user's settings folder; of the source tree."""
    settings = Path(slicer.app.slicerUserSettingsFilePath).parent
    return [settings / "SegMamba" / "environment", _HERE.parents[1] / ".venv"]


def isThere(path: str | Path, kind=Path.is_dir) -> bool:
    """Whether there is such a folder (Path.is_dir) or file (Path.is_file).

    False also for a text that no path can be, such as one of a thousand letters; there these functions raise.
    """
    try:
        return kind(Path(path))
    except (OSError, ValueError):
        return False


def programIn(path: Path) -> Path | None:
    """The Python program that `path` is or, if it is the folder of an environment, holds; None if there is none."""
    if isThere(path, Path.is_file):
        return path if os.access(path, os.X_OK) else None
    for name in ("bin/python3", "bin/python", "python.exe", "Scripts/python.exe"):
        if isThere(path / name, Path.is_file):
            return path / name
    return None


def slicersPython() -> str:
    """Slicer's real interpreter rather than its launcher: killing the launcher would leave the engine running."""
    launcher = shutil.which("PythonSlicer")
    if launcher is None:
        raise InputError(
            _("Slicer's Python (PythonSlicer) is not found. Choose a Python with the engine's packages in Setup.")
        )
    for name in ("python-real", "python-real.exe"):
        real = Path(launcher).with_name(name)
        if real.is_file():
            return str(real)
    return launcher


def childEnvironment(inSlicer: bool) -> dict[str, str]:
    """Environment variables for the engine: Slicer's own for Slicer's Python, those from before Slicer for others."""
    if inSlicer:
        environment = dict(os.environ)
    else:
        environment = dict(slicer.util.startupEnvironment())
        environment.pop("PYTHONHOME", None)
        environment.pop("PYTHONPATH", None)
        environment["PYTHONNOUSERSITE"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"  # Windows would write its own code page into the pipes
    earlier = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(trainingFolder()), *([earlier] if earlier else [])])
    return environment
