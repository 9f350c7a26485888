"""Interpreters, packages and installation: what Setup offers, without installing anything."""

import dataclasses
import html
import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest
import qt
import slicer
from SegMambaSlicerLib.engine import dependencies, interpreter
from SegMambaSlicerLib.engine.client import EngineError
from SegMambaSlicerLib.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
PYTHON = interpreter.Interpreter(sys.executable, "slicer", {"PATH": "/usr/bin"})


def probe(wanted, monkeypatch, pump, python=PYTHON):
    monkeypatch.setattr(dependencies, "requirements", lambda: wanted)
    asked = dependencies.Probe(python)
    pump(asked.poll)
    return asked


# --- which Python


def test_the_chosen_python_comes_first(app, python):
    program = python()
    qt.QSettings().setValue(interpreter.SETTING, f"  {program} ")
    found = interpreter.findInterpreter()
    assert (found.path, found.kind) == (str(program), "override")


def test_the_folder_of_an_environment_will_do(app, tmp_path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python3").write_text("")
    assert interpreter.findInterpreter(str(tmp_path / "env")).path == str(tmp_path / "env" / "bin" / "python3")


def test_a_text_that_is_too_long_for_a_path_is_no_python(app):
    with pytest.raises(InputError, match="is not a Python program"):
        interpreter.findInterpreter("/opt/" + "x" * 5000)


def test_slicers_real_python_is_preferred_to_its_launcher(app, tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "ownEnvironments", lambda: [tmp_path / "none"])
    monkeypatch.setattr(interpreter.shutil, "which", lambda name: str(tmp_path / name))
    assert interpreter.findInterpreter().path == str(tmp_path / "PythonSlicer")
    (tmp_path / "python-real").write_text("")
    found = interpreter.findInterpreter()
    assert (found.path, found.kind) == (str(tmp_path / "python-real"), "slicer")


def test_no_python_at_all_is_said(app, tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "ownEnvironments", list)
    monkeypatch.setattr(interpreter.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="Choose a Python"):
        interpreter.findInterpreter()


def test_an_own_python_does_not_inherit_slicers_variables(app, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/slicer/lib/Python")
    monkeypatch.setenv("PYTHONPATH", "/slicer/packages")
    own, slicers = interpreter.childEnvironment(inSlicer=False), interpreter.childEnvironment(inSlicer=True)
    assert "PYTHONHOME" not in own
    assert own["PYTHONPATH"] == str(ROOT / "Training")
    assert slicers["PYTHONHOME"] == "/slicer/lib/Python"
    assert slicers["PYTHONPATH"].endswith("/slicer/packages")


def test_the_engine_is_found_in_an_installed_tree(app, tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "_HERE", tmp_path / "modules" / "SegMambaSlicerLib")
    with pytest.raises(InputError, match="Install the extension again"):
        interpreter.trainingFolder()
    package = tmp_path / "modules" / interpreter.INSTALLED_FOLDER / "Training" / "segmamba"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert interpreter.trainingFolder() == package.parent


# --- which packages


def test_what_is_there_and_what_is_not(app, monkeypatch, pump):
    import numpy

    wanted = ["numpy>=1.24", "numpy<1", "no-such-package-at-all>=2", "tomli; python_version < '3'"]
    found = probe(wanted, monkeypatch, pump)
    assert [package.met for package in found.packages] == [True, False, False]
    assert [package.installed for package in found.packages] == [numpy.__version__, numpy.__version__, None]
    assert found.prefix


def test_requirements_are_those_of_the_engine(app):
    names = {text.partition(">")[0] for text in dependencies.requirements()}
    assert {"torch", "monai", "numpy", "nibabel"} <= names
    assert not any("mamba" in text for text in dependencies.requirements())


def test_requirements_are_read_by_a_python_without_a_reader_of_its_own(app, monkeypatch):
    """3.9, as in Slicer up to 5.8; pip has the same reader then, here the one that it is a copy of."""
    listed = dependencies.requirements()
    monkeypatch.setitem(sys.modules, "tomllib", None)
    try:
        import pip._vendor.tomli  # noqa: F401
    except ImportError:
        import tomllib as theirs

        monkeypatch.setitem(sys.modules, "pip._vendor.tomli", theirs)
    assert dependencies.requirements() == listed


def test_a_program_that_is_no_python_is_reported(app, tmp_path, pump):
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\necho 'a shell' >&2\nexit 1\n")
    false.chmod(0o755)
    asked = dependencies.Probe(interpreter.Interpreter(str(false), "override", {}))
    with pytest.raises(EngineError, match="a shell"):
        pump(asked.poll)


def test_the_question_says_what_how_much_and_where(app, monkeypatch, pump):
    planned = dependencies.plan(probe(["torch>=99", "monai>=99", "numpy>=1"], monkeypatch, pump))
    assert planned.torch == "torch>=99"
    assert planned.others == ("monai>=99",)
    assert planned.python == platform.python_version()
    for part in ("torch>=99", "monai>=99", "2.5 GB", sys.prefix, "Slicer's Python"):
        assert part in planned.question
    assert not planned.isEmpty


def test_the_question_says_which_versions_of_others_are_replaced(app, module, monkeypatch, pump):
    """Another extension has put them there, and may need them; a Python of one's own leaves them alone."""
    import numpy

    planned = dependencies.plan(probe(["numpy<1", "no-such-package>=1"], monkeypatch, pump))
    assert (planned.packages[0].name, planned.packages[0].installed) == ("numpy", numpy.__version__)
    assert f"numpy<1 (replaces {numpy.__version__}, which other extensions may use)\n" in planned.question
    assert "  no-such-package>=1\n" in planned.question
    ui = module.widget.panel.ui
    assert f"as {ui.pythonLabel.text} in {ui.setupSection.text}." in planned.question
    assert planned.question.endswith("Install them now?")
    harmless = dependencies.plan(probe(["no-such-package>=1"], monkeypatch, pump)).question
    assert "replaces" not in harmless and ui.pythonLabel.text not in harmless


# --- installing


def package(requirement, installed=None):
    return dependencies.Package(requirement, requirement.partition(">")[0], installed, False)


@pytest.fixture
def planned():
    return dependencies.Plan(PYTHON, (package("torch>=2.8,!=2.9.*"), package("monai>=1.6")), "/slicer", "3.12.10")


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the PyTorch extension and of Slicer's pip; nothing is installed."""
    made = []

    class Logic:
        def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
            made.append(("torch", askConfirmation, torchVersionRequirement))
            return types

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=Logic))
    packaging = types.SimpleNamespace(pip_install=lambda arguments: made.append(("pip", arguments)))
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    return made


def test_torch_comes_through_its_extension_and_the_rest_through_slicer(app, planned, calls):
    dependencies.install(planned)
    assert calls == [("torch", False, ">=2.8,!=2.9.*"), ("pip", ["monai>=1.6"])]


def test_without_slicer_packaging_slicer_util_installs(app, planned, calls, monkeypatch):
    """Slicer 5.10."""
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", lambda arguments: calls.append(("old pip", arguments)))
    dependencies.install(planned)
    assert calls[-1] == ("old pip", ["monai>=1.6"])


def test_offline_all_comes_from_the_folder_of_wheels(app, planned, calls, tmp_path):
    dependencies.install(planned, str(tmp_path))
    assert calls == [("pip", ["--no-index", "--find-links", str(tmp_path), "torch>=2.8,!=2.9.*", "monai>=1.6"])]
    with pytest.raises(InputError, match="does not exist"):
        dependencies.install(planned, str(tmp_path / "none"))
    with pytest.raises(InputError, match="does not exist"):
        dependencies.install(planned, "/mnt/" + "x" * 5000)


def test_without_the_pytorch_extension_it_is_named(app, planned, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(InputError, match="Extensions Manager"):
        dependencies.install(planned)


def test_a_broken_installation_says_why_and_can_be_repeated(app, planned, calls, monkeypatch):
    def broken(arguments):
        raise RuntimeError("Connection to the index timed out")

    monkeypatch.setitem(sys.modules, "slicer.packaging", types.SimpleNamespace(pip_install=broken))
    with pytest.raises(
        InputError, match=r"timed out\n.*press Install again.*in use.*restart Slicer and install before"
    ):
        dependencies.install(planned)

    def refused(arguments):
        """As Slicer does: with the command line, and with pip's words in the console alone."""
        subprocess.run([sys.executable, "-c", "raise SystemExit(7)"], check=True)

    monkeypatch.setitem(sys.modules, "slicer.packaging", types.SimpleNamespace(pip_install=refused))
    with pytest.raises(InputError, match="pip ended with exit code 7; what it said is in Slicer's Python console"):
        dependencies.install(planned)


def test_a_folder_without_the_right_wheels_is_not_blamed_on_the_network(app, planned, monkeypatch, tmp_path, module):
    def refused(arguments):
        raise RuntimeError("No matching distribution found for torch")

    monkeypatch.setitem(sys.modules, "slicer.packaging", types.SimpleNamespace(pip_install=refused))
    with pytest.raises(InputError) as raised:
        dependencies.install(planned, str(tmp_path))
    said = str(raised.value)
    assert f"{tmp_path} may lack a wheel that fits this system and Python 3.12.10" in said
    assert module.widget.panel.ui.wheelsLabel.text in said and "press Install again" in said
    assert "restart Slicer and install before" in said and "network and the disk" not in said
    with pytest.raises(InputError, match=r"network and the disk.* Wheels folder.* Own Python"):
        dependencies.install(dataclasses.replace(planned, packages=(package("monai"),)))


def test_an_own_python_is_left_to_its_owner(app, calls):
    conda = interpreter.Interpreter("/opt/conda/bin/python", "override", {})
    own = dependencies.Plan(conda, (package("monai"),), "/opt", "3.13.1")
    with pytest.raises(InputError, match='"/opt/conda/bin/python" -m pip install "monai"'):
        dependencies.install(own)
    assert calls == []


# --- in the panel


@pytest.fixture
def lacking(app, module, choose, monkeypatch, pump):
    """The panel where monai is missing, in what passes for Slicer's Python."""
    choose("well")
    panel, answers = module.widget.panel, []
    monkeypatch.setattr(dependencies, "requirements", lambda: ["numpy", "no-such-package>=1"])
    found = interpreter.findInterpreter()
    slicers = interpreter.Interpreter(found.path, "slicer", found.environment)
    monkeypatch.setattr("SegMambaSlicerLib.panel.setup.findInterpreter", lambda: slicers)
    panel.setup._confirm = lambda question: answers.append(question) or False
    module.widget.enter()
    pump(lambda: panel.setup.plan is not None)
    return panel, answers


def test_missing_packages_stand_in_the_way_and_are_named(lacking, volumes, pump):
    panel, _answers = lacking
    pump(lambda: "Python packages are missing" in panel.ui.stateLabel.text)
    assert not panel.ui.applyButton.isEnabled()
    assert "no-such-package" in panel.ui.setupLabel.text
    assert not panel.ui.setupSection.collapsed
    assert not panel.session.engine.isRunning()  # it would only fail


def checked(panel, pump):
    """What the label says of the packages when they were looked at again."""
    panel.setup.plan = None
    panel.ui.checkButton.click()
    pump(lambda: panel.setup.plan is not None)
    return html.unescape(panel.ui.setupLabel.text)


def test_another_version_is_not_called_missing(lacking, monkeypatch, pump):
    import numpy

    panel, _answers = lacking
    monkeypatch.setattr(dependencies, "requirements", lambda: ["numpy<1", "no-such-package>=1"])
    said = checked(panel, pump)
    assert said.startswith(f"Slicer's Python {platform.python_version()}<br>")  # for which the wheels have to be
    assert "Missing: no-such-package>=1 (about 10 MB)<br>" in said
    replaced = f"(about 17 MB; replaces {numpy.__version__}, which other extensions may use)"
    assert said.endswith(f"In another version: numpy<1 {replaced}")
    assert panel.setup.reason.startswith("Python packages are missing")
    monkeypatch.setattr(dependencies, "requirements", lambda: ["numpy<1"])
    assert "Missing" not in checked(panel, pump)
    assert panel.setup.reason.startswith("Python packages are in versions that do not fit")


def test_an_own_python_has_no_other_extensions(lacking, monkeypatch, pump):
    panel, _answers = lacking
    own = interpreter.Interpreter(sys.executable, "override", {"PATH": "/usr/bin"})
    monkeypatch.setattr("SegMambaSlicerLib.panel.setup.findInterpreter", lambda: own)
    monkeypatch.setattr(dependencies, "requirements", lambda: ["numpy<1"])
    said = checked(panel, pump)
    assert "In another version: numpy<1 (about 17 MB; replaces " in said and "extensions" not in said
    assert said.endswith('-m pip install "numpy<1"')


def test_what_setup_says_can_be_copied(module):
    """Requirements, a command for a terminal, what went wrong: nobody types that."""
    for label in (module.widget.panel.ui.setupLabel, module.widget.panel.ui.testLabel):
        assert label.textInteractionFlags & qt.Qt.TextSelectableByMouse


def test_a_refusal_installs_nothing(lacking, monkeypatch):
    panel, answers = lacking
    monkeypatch.setattr(dependencies, "install", lambda *_: pytest.fail("was not allowed"))
    panel.ui.installButton.click()
    assert len(answers) == 1
    assert "no-such-package>=1" in answers[0]


def test_consent_installs_once_and_looks_again(lacking, monkeypatch, pump):
    panel, _answers = lacking
    done = []
    panel.setup._confirm = lambda question: True

    def install(planned, wheels):
        done.append(planned.others)
        monkeypatch.setattr(dependencies, "requirements", lambda: ["numpy"])

    monkeypatch.setattr(dependencies, "install", install)
    panel.ui.installButton.click()
    pump(lambda: panel.setup.plan.isEmpty and panel.session.machine)
    assert done == [("no-such-package>=1",)]
    assert "All 1 packages" in panel.ui.setupLabel.text
    assert not panel.ui.installButton.isEnabled()


def test_what_is_being_installed_is_not_installed_a_second_time(lacking, monkeypatch, pump):
    """Up to Slicer 5.10 events are handled while pip runs: somebody may press the button again, or Check."""
    panel, _answers = lacking
    asked, begun = [], []
    panel.setup._confirm = lambda question: asked.append(question) or True

    def install(planned, wheels):
        begun.append(planned)
        panel.ui.checkButton.click()
        pump(lambda: not panel.setup.isBusy())
        assert not panel.ui.installButton.isEnabled() and panel.ui.installButton.toolTip == "In progress."
        assert panel.ui.testLabel.text.startswith("Installing...")
        panel.setup.onInstall()

    monkeypatch.setattr(dependencies, "install", install)
    panel.ui.installButton.click()
    assert len(asked) == len(begun) == 1
    pump(panel.ui.installButton.isEnabled)
    assert panel.ui.testLabel.text == ""


def test_a_failed_installation_is_shown(lacking, monkeypatch, pump):
    panel, _answers = lacking
    panel.setup._confirm = lambda question: True

    def install(planned, wheels):
        raise InputError("The installation stopped: no network")

    monkeypatch.setattr(dependencies, "install", install)
    panel.ui.installButton.click()
    pump(lambda: not panel.setup.isBusy())
    assert "no network" in panel.ui.testLabel.text


def test_the_test_button_says_what_an_own_python_has(app, module, python, pump):
    panel = module.widget.panel
    panel.ui.pythonPath.setCurrentPath(str(python("well")))
    panel.ui.testButton.click()
    assert not panel.setup._typed.isActive()
    pump(lambda: "The engine 9.9 starts with Python 3.12.0" in panel.ui.testLabel.text)
    assert "Missing: numpy" in panel.ui.testLabel.text
    panel.ui.pythonPath.setCurrentPath(str(python("missing")))
    panel.ui.testButton.click()
    pump(lambda: "The Python package torch is missing" in panel.ui.testLabel.text)
    panel.ui.pythonPath.setCurrentPath("/nowhere/python")
    panel.ui.testButton.click()
    assert "is not a Python program" in panel.ui.testLabel.text


def test_a_path_that_is_typed_is_tried_when_it_is_there(choose, python, module, pump, monkeypatch):
    panel, restarted = module.widget.panel, []
    monkeypatch.setattr(panel.session, "restart", lambda: restarted.append(1))
    path = str(python("well"))
    for length in range(len(path) - 5, len(path) + 1):
        panel.ui.pythonPath.setCurrentPath(path[:length])
    assert restarted == []
    pump(lambda: restarted)
    assert qt.QSettings().value(interpreter.SETTING) == path
    assert len(restarted) == 1
