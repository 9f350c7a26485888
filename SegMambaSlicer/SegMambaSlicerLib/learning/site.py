"""The site folder, where improvements of the model run, and the engine's commands about both.

A clinic has one folder for its corrected cases, models and runs, on a disk or a share. The command lines are made
here, for this computer or, through the system's own ssh, for a server. Nothing is copied there: the server has to see
the same folder, or a person copies it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import qt
import slicer

from ..engine.interpreter import findInterpreter, trainingFolder
from ..errors import InputError
from ..i18n import _

SETTING = "SegMamba/Site"
WHERE_SETTING = "SegMamba/Improve"  # "here" or "server"
SERVER_SETTINGS = {name: f"SegMamba/Server/{name}" for name in ("host", "python", "folder")}
WAYS = ("finetune", "retrain")
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]


@dataclass(frozen=True)
class Call:
    """What Session.command is given. program: None for this computer's Python and `-m segmamba`."""

    arguments: list[str]
    program: list[str] | None = None


@dataclass(frozen=True)
class Server:
    """host: as ssh takes it ("gpu1", "anna@gpu1"). python: what starts Python there. folder: the site's path there."""

    host: str
    python: str
    folder: str

    def check(self) -> None:
        """Raises InputError where a command line with these would not be what it looks like."""
        if not self.host:
            raise InputError(_("Enter the name of the server as ssh knows it, such as gpu1 or anna@gpu1."))
        if self.host.startswith("-") or not self.host.isprintable() or " " in self.host:
            raise InputError(
                _("{host} is not the name of a server: expected one word that does not begin with a hyphen.").format(
                    host=repr(self.host)
                )
            )
        if not _absolute(self.folder):
            raise InputError(
                _("{folder} is not a full path on the server: expected a path that begins with / or ~/.").format(
                    folder=repr(self.folder)
                )
            )
        self.start()

    def start(self) -> list[str]:
        """The words that start Python there. Raises InputError."""
        try:
            words = shlex.split(self.python)
        except ValueError as error:
            raise InputError(
                _("Python on the server: {text} has an open quotation mark ({reason}).").format(
                    text=self.python, reason=error
                )
            ) from error
        if not words:
            raise InputError(_("Enter the command that starts Python on the server, such as ~/segmamba/bin/python."))
        return words

    def command(self, arguments: list[str]) -> str:
        """One line for the shell of the server. Raises InputError."""
        self.check()
        return " ".join(_quoted(word) for word in [*self.start(), "-m", "segmamba", *arguments])


@dataclass(frozen=True)
class Site:
    """folder: full path of the site here; "" for none. where: improvements run "here" or on the "server"."""

    folder: str = ""
    where: str = "here"
    server: Server = Server("", "", "")

    @property
    def reason(self) -> str:
        """Why nothing can be asked of it; "" where it can. Looks at no disk."""
        if not self.folder:
            return _("No training folder is chosen yet: choose one under Add to training.")
        if not self.path.is_absolute():
            return _("{folder} is not the full path of a folder.").format(folder=self.folder)
        return ""

    @property
    def workReason(self) -> str:
        """Why nothing can be asked of the place where improvements run; "" where it can."""
        if self.reason or self.where == "here":
            return self.reason
        try:
            self.server.check()
        except InputError as error:
            return str(error)
        return ""

    @property
    def path(self) -> Path:
        try:
            return Path(self.folder).expanduser()
        except RuntimeError:  # ~ of nobody
            return Path(self.folder)

    def runFolder(self, run: str) -> Path:
        return self.path / "runs" / checkedName(run)

    def modelFolder(self, name: str) -> Path:
        return self.path / "models" / "models" / checkedName(name)

    def statusCommand(self, run: str = "", where: str | None = None) -> Call:
        """where: "here" or "server"; None for where improvements run."""
        only = [f"--run={checkedName(run)}"] if run else []
        return self._call(lambda folder: ["status", folder, *only, "--json"], where)

    def improveCommand(
        self, way: str = "finetune", steps: int = 0, run: str = "", detach: bool = True, where: str | None = None
    ) -> Call:
        """steps: 0 leaves them to the engine. run: one that goes on, with its own way and steps."""
        return self._call(lambda folder: self._improve(folder, way, steps, run, detach), where)

    def stopCommand(self, run: str, where: str | None = None) -> Call:
        return self._call(lambda folder: ["improve", folder, f"--stop={checkedName(run)}", "--json"], where)

    def intakeCommand(self, accept: str = "", reason: str = "", withdraw: str = "", where: str | None = None) -> Call:
        """Examines what was sent; a doubtful case is accepted with a reason, or one is withdrawn (deleted)."""
        asked = [f"--accept={checkedName(accept)}", f"--reason={reason}"] if accept else []
        asked += [f"--withdraw={checkedName(withdraw)}"] if withdraw else []
        return self._call(lambda folder: ["intake", _below(folder, "corrections"), *asked, "--json"], where)

    def modelsCommand(
        self, action: str, name: str = "", reason: str = "", where: str | None = "here", againstGate: bool = False
    ) -> Call:
        """action: "promote", "refuse", "adopt" (a model by name; the last two with a reason) or "rollback".

        againstGate: adopt also what the gate found worse.
        """
        if action not in ("promote", "refuse", "adopt", "rollback"):
            raise KeyError(action)
        model = [checkedName(name)] if action != "rollback" else []
        said = [f"--reason={reason}"] if reason else []
        said += ["--against-the-gate"] if againstGate else []
        return self._call(lambda folder: ["models", _below(folder, "models"), action, *model, *said, "--json"], where)

    def byHand(self, way: str = "finetune", steps: int = 0, run: str = "") -> str:
        """The line that improves the model, for a person to type where improvements run. Raises InputError."""
        if self.where == "server":
            return self.server.command(self._improve(self.server.folder, way, steps, run, detach=False))
        words = [findInterpreter().path, "-m", "segmamba", *self._improve(str(self.path), way, steps, run, False)]
        change = ["cd", "/d"] if os.name == "nt" else ["cd"]
        join = subprocess.list2cmdline if os.name == "nt" else shlex.join
        return f"{join([*change, str(trainingFolder())])} && {join(words)}"

    def championFolder(self) -> Path | None:
        """Folder of the model in use, as the registry on disk says at this moment; None where none is in use yet.

        Raises InputError where the folder is out of reach or the registry is broken.
        """
        if self.reason:
            raise InputError(self.reason)
        file = self.path / "models" / "registry.json"
        try:
            name = json.loads(file.read_text(encoding="utf-8")).get("champion")
        except FileNotFoundError:
            if self.path.is_dir():
                return None
            raise InputError(
                _(
                    "The model in use is in {folder}, which cannot be reached. Connect the network drive, or choose "
                    "another model."
                ).format(folder=self.path)
            ) from None
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            raise InputError(
                _("{file} does not say which model is in use ({reason}). Choose another model.").format(
                    file=file, reason=error
                )
            ) from error
        return self.modelFolder(name) if name else None

    def _improve(self, folder: str, way: str, steps: int, run: str, detach: bool) -> list[str]:
        if way not in WAYS:
            raise KeyError(way)
        asked = [f"--run={checkedName(run)}"] if run else [f"--way={way}"]
        if steps and not run:
            asked.append(f"--steps={int(steps)}")
        return ["improve", folder, *asked, *(["--detach", "--json"] if detach else [])]

    def _call(self, arguments, where: str | None) -> Call:
        """arguments: a function of the site's folder. Raises InputError."""
        if self.reason:
            raise InputError(self.reason)
        if (where or self.where) == "here":
            return Call(arguments(str(self.path)))
        line = self.server.command(arguments(self.server.folder))
        return Call([line], [*_SSH, self.server.host])


def readSite() -> Site:
    """What the settings say. The server's folder is, where nothing is said, the one that is used here."""

    def value(name: str, default: str = "") -> str:
        return slicer.util.settingsValue(name, default, converter=str).strip()

    folder = value(SETTING)
    where = "server" if value(WHERE_SETTING) == "server" else "here"
    host, python, there = (value(setting) for setting in SERVER_SETTINGS.values())
    return Site(folder, where, Server(host, python or "python3", there or folder))


def write(setting: str, value: str) -> None:
    qt.QSettings().setValue(setting, value.strip())


def checkedName(name: str) -> str:
    """The name of a run or model, which becomes part of a path or command line. Raises InputError."""
    if not name or name.startswith(("-", ".")) or not name.isprintable() or any(mark in name for mark in "/\\ "):
        raise InputError(_("{name} is not the name of a run or model.").format(name=repr(name)))
    return name


def _absolute(folder: str) -> bool:
    return folder.startswith(("/", "~/")) and folder.isprintable()


def _below(folder: str, name: str) -> str:
    """A folder in the site, with the separators of where it is."""
    return f"{folder.rstrip('/')}/{name}" if folder.startswith(("/", "~/")) else str(Path(folder) / name)


def _quoted(word: str) -> str:
    """For the shell of the server; what begins with ~/ is in the home folder there, which quotes would hide."""
    return f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word)
