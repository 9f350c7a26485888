"""Windows and macOS, as far as another system can play them: names, pipes, process trees, paths, processors."""

import ast
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import packaging
import pytest
from SegMambaSlicerLib.engine import childprocess, client, dependencies, interpreter
from SegMambaSlicerLib.engine.childprocess import ChildProcess
from SegMambaSlicerLib.errors import InputError
from SegMambaSlicerLib.session import Session

ROOT = Path(__file__).resolve().parents[3]
NAME = "Übung ä ß 脳 with spaces"
MOST_LETTERS = 130  # of a path in the installed module; Windows ends at 260, and Slicer's own folder needs some 110


def outcome(process, seconds=20):
    """Its lines until it has ended."""
    lines, end = [], time.monotonic() + seconds
    while not process.hasEnded():
        assert time.monotonic() < end
        lines += process.lines()
        time.sleep(0.005)
    return lines + process.lines()


@pytest.mark.parametrize("code_page", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_texts_of_any_alphabet_go_through_the_pipes_whatever_the_code_page(app, monkeypatch, code_page):
    monkeypatch.setenv("LC_ALL", code_page)
    environment = {**interpreter.childEnvironment(inSlicer=True), "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code = "import sys; asked = sys.stdin.readline(); print(asked, end=''); print(asked, end='', file=sys.stderr)"
    process = ChildProcess([sys.executable, "-c", code], environment)
    process.send(NAME)
    assert outcome(process) == [NAME]
    assert list(process.tail) == [NAME]


def test_programs_and_folders_of_any_name_are_started(app, tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    program = folder / f"{NAME}.py"
    program.write_text("import pathlib, sys; print(pathlib.Path.cwd().name, sys.argv[1])", encoding="utf-8")
    environment = interpreter.childEnvironment(inSlicer=True)
    process = ChildProcess([sys.executable, str(program), NAME], environment, str(folder))
    assert outcome(process) == [f"{NAME} {NAME}"]


@pytest.mark.parametrize("written", ["one\\ntwo\\n", "one\\ntwo"])
def test_a_process_that_has_ended_before_it_is_read_gives_its_lines_alone(app, written):
    """What it wrote and the end of its pipe are then read at once."""
    process = ChildProcess(
        [sys.executable, "-c", f"print('{written}', end='')"], interpreter.childEnvironment(inSlicer=True)
    )
    end = time.monotonic() + 20
    while process.exitCode() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert process.lines() == ["one", "two"]
    assert process.hasEnded()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def windows(monkeypatch, tmp_path):
    """The way of Windows to end a process: taskkill, played by a script that ends a process group."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks for processes in /proc")
    program = tmp_path / "taskkill"
    program.write_text('#!/bin/sh\necho "$@" > "$0.asked"\nkill -9 "-$4"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(childprocess, "_IS_WINDOWS", True)
    popen = subprocess.Popen  # in a group of its own, as a tree of processes is one for the real program
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **more: popen(*a, **{**more, "start_new_session": True}))
    return program


PARENT = "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"


def started(code):
    process = ChildProcess([sys.executable, "-c", code])
    return process, firstNumber(process)


def firstNumber(process):
    lines, end = [], time.monotonic() + 20
    while not lines:
        assert time.monotonic() < end
        lines = process.lines()
        time.sleep(0.005)
    return int(lines[0])


def gone(pid):
    end = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
    return True


def test_on_windows_the_whole_tree_is_ended(windows):
    process, child = started(PARENT)
    process.kill()
    assert gone(child)
    assert process.exitCode() is not None
    assert Path(f"{windows}.asked").read_text().split() == ["/F", "/T", "/PID", str(process.pid)]


@pytest.mark.parametrize("end", ["command", "session"])
@pytest.mark.parametrize("option", ["--detach", "--stop=finetune-0001"])
def test_on_windows_a_training_that_was_just_started_outlives_slicer(windows, app, option, end):
    """`improve --detach` waits for the first word of the training, which is below it in the tree of processes."""
    session = Session()
    command = session.command(["improve", "site", option], program=[sys.executable, "-c", PARENT])
    child = firstNumber(command._process)
    command.cancel() if end == "command" else session.stop()
    assert command._process.exitCode() is not None
    if option == "--detach":
        time.sleep(0.2)
        assert alive(child)
        os.kill(child, 9)
    assert gone(child)


@pytest.mark.parametrize("fault", ["missing", "hangs"])
def test_on_windows_the_process_is_ended_also_where_taskkill_does_not(windows, monkeypatch, fault):
    monkeypatch.setattr(childprocess, "_KILL_SECONDS", 0.2)
    process, child = started(PARENT)
    if fault == "missing":
        windows.unlink()
        monkeypatch.setenv("PATH", str(windows.parent))
    else:
        windows.write_text("#!/bin/sh\nexec sleep 30\n")
    process.kill()
    assert process.exitCode() is not None
    os.kill(child, 9)


def test_a_windows_whose_pipes_cannot_but_wait_is_told_at_once(monkeypatch):
    monkeypatch.delattr(os, "set_blocking")
    with pytest.raises(OSError, match=r"Slicer 5\.10 or later"):
        ChildProcess([sys.executable, "-c", ""])


def test_paths_of_the_installed_module_leave_room_for_windows():
    """As laid out by the two CMakeLists: the module beside SegMambaEngine, which has the engine and its models."""
    inside = [path.relative_to(ROOT) for path in (ROOT / "SegMambaSlicer").rglob("*.*")]
    installed = [str(path.relative_to("SegMambaSlicer")) for path in inside]
    for folder in ("Training/segmamba", "Training/configs", "Resources/models"):
        for path in (ROOT / folder).rglob("*.*"):
            installed.append(str(Path(interpreter.INSTALLED_FOLDER) / path.relative_to(ROOT)))
    assert max(map(len, installed)) < MOST_LETTERS


def test_text_is_read_and_written_in_utf_8_by_name():
    """Else Windows takes the code page of its country."""
    silent = []
    for folder in ("SegMambaSlicer", "Training/segmamba"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                    told = {keyword.arg for keyword in node.keywords}
                    method = name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
                    mode = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    text = isinstance(node.func, ast.Name) and name == "open" and not any("b" in m for m in mode)
                    if (method or text) and "encoding" not in told:
                        silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "/nowhere/python"])
def test_what_can_be_no_path_is_no_python(app, path):
    with pytest.raises(InputError, match="is not a Python program"):
        interpreter.findInterpreter(path)


def answering(tmp_path, **facts):
    """A Python that says of itself what one on a Mac would."""
    answer = {"python": "3.12.10", "prefix": "/Applications/Slicer.app", "packages": [], **facts}
    answer["packages"] = [{"requirement": "torch>=2.8", "name": "torch", "installed": None, "met": False}]
    program = tmp_path / "python3"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    program.chmod(0o755)
    return interpreter.Interpreter(str(program), "slicer", dict(os.environ))


@pytest.mark.parametrize(
    "facts, obstacle",
    [
        ({"intel_mac": False}, ""),
        ({"intel_mac": True, "rosetta": True}, "choose it as Own Python"),
        ({"intel_mac": True, "rosetta": False}, "Use another computer"),
        ({"writable": False}, "Nothing can be installed into /Applications/Slicer.app: you may not write there."),
    ],
)
def test_what_cannot_be_installed_is_said_before(module, tmp_path, pump, monkeypatch, facts, obstacle):
    """On a Mac, or where Slicer is installed for all accounts."""
    panel = module.widget.panel
    monkeypatch.setattr("SegMambaSlicerLib.panel.setup.findInterpreter", lambda: answering(tmp_path, **facts))
    panel.setup.onCheck()
    pump(lambda: panel.setup.plan is not None)
    assert obstacle in panel.setup.plan.obstacle
    assert bool(panel.setup.plan.obstacle) == bool(obstacle)
    assert panel.ui.installButton.isEnabled() != bool(obstacle)
    assert obstacle in panel.ui.setupLabel.text
    assert obstacle in panel.ui.installButton.toolTip


def probed(program):
    asked = dependencies.Probe(interpreter.Interpreter(str(program), "slicer", dict(os.environ)))
    end = time.monotonic() + 60
    while not asked.poll():
        assert time.monotonic() < end
        time.sleep(0.01)
    return asked


def test_the_probe_knows_whether_packages_can_be_written(app, tmp_path, monkeypatch):
    """Tried with an environment whose folder of packages is there, and then is not: no rights hold back root."""
    venv.create(tmp_path / "environment", with_pip=False)
    program = interpreter.programIn(tmp_path / "environment")
    monkeypatch.setenv("PYTHONPATH", str(Path(packaging.__file__).parents[1]))  # which pip would bring along
    assert probed(program).isWritable
    (folder,) = (tmp_path / "environment").rglob("site-packages")
    folder.rename(folder.with_name("elsewhere"))
    assert not probed(program).isWritable


def test_the_probe_knows_its_own_processor(app):
    asked = probed(sys.executable)
    assert asked.isIntelMac == (sys.platform == "darwin" and os.uname().machine == "x86_64")


@pytest.mark.parametrize("system, said", [("darwin", True), ("linux", False)])
def test_what_gatekeeper_ends_without_a_word_is_explained(app, python, monkeypatch, system, said):
    """Quarantine: macOS kills a program that was downloaded and that nobody has allowed."""
    program = python("well").with_name("python killed")
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(client.sys, "platform", system)
    engine = client.Engine(lambda: interpreter.Interpreter(str(program), "override", dict(os.environ)))
    with pytest.raises(client.EngineError) as raised:
        engine.wait(engine.hello(), 20)
    assert raised.value.kind == "died"
    assert ("open this Python in Finder" in raised.value.message) == said
