"""The Python packages that the engine needs: which are there, what installing the others means, and doing it.

Nothing is installed without one clear question. torch comes through the extension PyTorch, which knows the graphics
card; the rest through Slicer's own installer, into Slicer's Python. Another Python (Setup, "Own Python") is the user's:
for it the command is shown, and not run. mamba-ssm is never installed; the engine uses it where it can be imported.
"""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
from dataclasses import dataclass

import slicer

from ..errors import InputError
from ..i18n import _
from .childprocess import ChildProcess
from .client import EngineError, explain
from .interpreter import Interpreter, isThere, trainingFolder

WHEELS_SETTING = "SegMamba/Wheels"
# Size of the download in MB, wheels for Linux of 2026, what they draw in included; torch is that for a graphics card.
_MEGABYTES = {
    "torch": 2500, "monai": 2, "numpy": 17, "numba": 61, "nibabel": 4, "scipy": 35, "scikit-image": 20, "tqdm": 1,
    "safetensors": 1, "matplotlib": 15, "pillow": 7, "SimpleITK": 53, "pydicom": 3, "highdicom": 4, "nilearn": 35,
}  # fmt: skip
_OTHER_SIZE = 10
# Asked in the engine's Python: which requirements it meets. Nothing is imported, for a broken torch crashes on import.
_PROBE = """
import importlib.metadata, importlib.util, json, platform, subprocess, sys, sysconfig, tempfile
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
modules = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
found = []
for text in json.loads(sys.argv[1]):
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        continue
    try:
        version = importlib.metadata.version(requirement.name)
    except Exception:
        version = None
    try:
        there = importlib.util.find_spec(modules.get(requirement.name, requirement.name.replace("-", "_"))) is not None
    except Exception:
        there = False
    met = there and (version is None or requirement.specifier.contains(version, prereleases=True))
    found.append({"requirement": text, "name": requirement.name, "installed": version if there else None, "met": met})
facts = {"python": sys.version.split()[0], "prefix": sys.prefix, "packages": found}
facts["intel_mac"] = sys.platform == "darwin" and platform.machine() == "x86_64"
if facts["intel_mac"]:
    asked = subprocess.run(["/usr/sbin/sysctl", "-n", "sysctl.proc_translated"], capture_output=True, text=True)
    facts["rosetta"] = asked.stdout.strip() == "1"
try:  # rights alone do not tell: on Windows and on network drives a file can be refused all the same
    with tempfile.TemporaryFile(dir=sysconfig.get_paths()["purelib"]):
        facts["writable"] = True
except OSError:
    facts["writable"] = False
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Package:
    """requirement: as pip takes it. installed: the version, or None. met: whether that is one that is asked for."""

    requirement: str
    name: str
    installed: str | None
    met: bool

    @property
    def megabytes(self) -> int:
        return _MEGABYTES.get(self.name, _OTHER_SIZE)

    @property
    def isReplaced(self) -> bool:
        """Whether installing takes another version away, on which others may rely."""
        return self.installed is not None and not self.met


def requirements() -> list[str]:
    """What the engine asks for in Training/pyproject.toml. Raises InputError where that is missing."""
    path = trainingFolder() / "pyproject.toml"
    try:
        return _readToml(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, KeyError, ValueError, RecursionError) as error:
        raise InputError(
            _("The list of packages {path} cannot be read ({error}). Install the extension again.").format(
                path=path, error=error
            )
        ) from error


def _readToml(text: str) -> dict:
    """Python has a reader since 3.11; before, the one inside pip is the same."""
    try:
        from tomllib import loads
    except ImportError:
        from pip._vendor.tomli import loads
    return loads(text)


class Probe:
    """Asks an interpreter which packages it has; `poll` until `packages` is a list. Raises EngineError."""

    def __init__(self, interpreter: Interpreter):
        self.interpreter = interpreter
        self.packages: list[Package] | None = None
        self.python = self.prefix = ""
        self.isIntelMac = self.isRosetta = False
        self.isWritable = True  # the folder that packages go into
        arguments = [interpreter.path, "-c", _PROBE, json.dumps(requirements())]
        try:
            self._process = ChildProcess(arguments, interpreter.environment)
        except OSError as error:
            raise EngineError(
                "start", _("{path} did not start: {reason}").format(path=interpreter.path, reason=error)
            ) from error
        self._text = ""

    def poll(self) -> bool:
        """True when the answer is there. Raises EngineError where the interpreter gave none."""
        self._text += "".join(self._process.lines())
        if self.packages is not None or not self._process.hasEnded():
            return self.packages is not None
        tail = [line for line in self._process.tail if line.strip()]
        try:
            answer = json.loads(self._text)
            self.packages = [Package(**entry) for entry in answer["packages"]]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            reason = explain(tail) or (tail[-1] if tail else str(error))
            text = _("{path} does not work as Python: {reason}").format(path=self.interpreter.path, reason=reason)
            raise EngineError("start", text, "\n".join(tail)) from error
        self.python, self.prefix = answer["python"], answer["prefix"]
        self.isIntelMac, self.isRosetta = bool(answer.get("intel_mac")), bool(answer.get("rosetta"))
        self.isWritable = bool(answer.get("writable", True))
        return True

    def stop(self) -> None:
        self._process.kill()


@dataclass(frozen=True)
class Plan:
    """What would be installed: packages that are missing or there in another version, into `folder` of an interpreter.

    python: its version. obstacle: why that cannot be installed there, with what to do instead; "" where it can.
    """

    interpreter: Interpreter
    packages: tuple[Package, ...]
    folder: str
    python: str
    obstacle: str = ""

    @property
    def isEmpty(self) -> bool:
        return not self.packages

    @property
    def torch(self) -> str | None:
        """The requirement, where torch is to be installed."""
        return next((package.requirement for package in self.packages if package.name == "torch"), None)

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(package.requirement for package in self.packages if package.name != "torch")

    @property
    def megabytes(self) -> int:
        return sum(package.megabytes for package in self.packages)

    @property
    def _requirements(self) -> list[str]:
        return [*([self.torch] if self.torch else []), *self.others]

    @property
    def question(self) -> str:
        """The one question before anything happens."""
        wanted = _(
            "The engine needs these Python packages:\n\n{packages}\n\nAbout {size} to download, into\n{folder}\n"
            "({python}). This can take some minutes."
        ).format(
            packages="\n".join(f"  {self.describe(package)}" for package in self.packages),
            size=sizeText(self.megabytes),
            folder=self.folder,
            python=self.interpreter.title,
        )
        parts = [wanted, _("Install them now?")]
        if any(package.isReplaced for package in self.packages):
            instead = _(
                "To leave Slicer's packages as they are, create a Python environment, install the packages there, and "
                "choose it as Own Python in Setup."
            )
            parts.insert(1, instead)
        return "\n\n".join(parts)

    def describe(self, package: Package, *notes: str) -> str:
        """Its requirement, with the notes and what it replaces in brackets."""
        said = list(notes)
        if package.isReplaced:
            slicers = _("replaces {version}, which other extensions may use")
            text = slicers if self.interpreter.kind == "slicer" else _("replaces {version}")
            said.append(text.format(version=package.installed))
        return f"{package.requirement} ({'; '.join(said)})" if said else package.requirement

    @property
    def command(self) -> str:
        """For a terminal: how to install the same by hand."""
        quoted = " ".join(f'"{name}"' for name in self._requirements)
        return f'"{self.interpreter.path}" -m pip install {quoted}'


def plan(probe: Probe) -> Plan:
    unmet = tuple(package for package in probe.packages or [] if not package.met)
    needsTorch = any(package.name == "torch" for package in unmet)
    obstacle = _obstacle(probe, needsTorch) if unmet else ""
    return Plan(probe.interpreter, unmet, probe.prefix, probe.python, obstacle)


def _obstacle(probe: Probe, needsTorch: bool) -> str:
    """Slicer for all accounts of a computer lies where one of them may not write; pip says so after the download.

    torch for Intel processors on macOS ended with 2.2, and Slicer's Python is of that kind there.
    """
    if probe.interpreter.kind == "slicer" and not probe.isWritable:
        return _(
            "Nothing can be installed into {folder}: you may not write there. Install Slicer into a folder of your own "
            "account, or start it once as administrator. Or create a Python environment, install the packages there, "
            "and choose it as Own Python."
        ).format(folder=probe.prefix)
    if not needsTorch:
        return ""
    if probe.isRosetta:
        return _(
            "This Python is for Intel processors and runs here in Rosetta; torch is no longer available for it. Create "
            "an environment with a Python for Apple processors (arm64), install the packages there, and choose it as "
            "Own Python."
        )
    if probe.isIntelMac:
        return _("torch is no longer available for Macs with an Intel processor. Use another computer.")
    return ""


def install(planned: Plan, wheels: str = "") -> None:
    """Installs what was asked for. To be called from the main thread; Slicer shows its own progress.

    wheels: a folder with wheel files to install from, without the network. Raises InputError: with what went wrong and
    what to do; what was installed by then stays, and a repetition goes on from there.
    """
    if planned.interpreter.kind != "slicer":
        raise InputError(
            _("{python} is not Slicer's Python. Install the packages there yourself:\n{command}").format(
                python=planned.interpreter.path, command=planned.command
            )
        )
    options = []
    if wheels.strip():
        if not isThere(wheels):
            raise InputError(_("The folder of wheels {folder} does not exist.").format(folder=wheels))
        options = ["--no-index", "--find-links", wheels]
    try:
        if planned.torch and not options:
            _installTorch(planned.torch)
        rest = [*([planned.torch] if planned.torch and options else []), *planned.others]
        if rest:
            _pipInstall([*options, *rest])
    except InputError:
        raise
    except Exception as error:  # pip, the network and the extension PyTorch raise what they like
        logging.debug("Installation failed", exc_info=True)
        raise InputError(_failure(planned, wheels if options else "", error)) from error


def _failure(planned: Plan, wheels: str, error: Exception) -> str:
    if wheels:
        advice = _(
            "The Wheels folder {folder} may lack a wheel that fits this system and Python {version}. The tutorial says "
            "how to fill it; then press Install again."
        ).format(folder=wheels, version=planned.python)
    else:
        advice = _(
            "Check the network and the disk, then press Install again; it goes on from where it was. Behind a proxy "
            "set HTTPS_PROXY before Slicer starts; without a network choose a Wheels folder or an Own Python."
        )
    inUse = _(
        "If a package was in use (Windows cannot replace loaded files), restart Slicer and install before anything "
        "else."
    )
    stopped = _("The installation stopped: {reason}").format(reason=_reasonOf(error))
    return f"{stopped}\n{advice} {inUse}"


def _reasonOf(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):  # its own text is the command line
        return _("pip ended with exit code {code}; what it said is in Slicer's Python console.").format(
            code=error.returncode
        )
    return str(error).strip()[-600:] or repr(error)


def _installTorch(requirement: str) -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InputError(
            _(
                "torch is installed by the extension PyTorch, which is missing. Install that in the Extensions "
                "Manager, restart Slicer, and press Install again."
            )
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    wanted = {"askConfirmation": False, "torchVersionRequirement": requirement.removeprefix("torch").strip()}
    known = inspect.signature(logic.installTorch).parameters  # its arguments change from release to release
    if logic.installTorch(**{name: value for name, value in wanted.items() if name in known}) is None:
        raise InputError(_("The extension PyTorch did not install torch. Its module PyTorch Utils says why."))


def _pipInstall(arguments: list[str]) -> None:
    try:
        from slicer.packaging import pip_install  # Slicer 5.12 and later
    except ImportError:
        pip_install = slicer.util.pip_install
    pip_install(arguments)


def sizeText(megabytes: int) -> str:
    """As in "60 MB" or "2.5 GB"."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
