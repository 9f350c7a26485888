"""Slicer's self test, as Slicer runs it."""

import ast
import sys
from pathlib import Path

import SegMambaSlicerLib.selftest as selftest

import SegMambaSlicer

ROOT = Path(__file__).resolve().parents[3]


def test_the_self_test_passes_without_torch(app, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # whoever imports it fails
    case = SegMambaSlicer.SegMambaSlicerTest()
    case.setUp()
    case.runTest()


def test_the_self_test_fails_where_the_module_does(app, monkeypatch):
    monkeypatch.setattr(selftest, "updateTable", lambda node: (_ for _ in ()).throw(RuntimeError("broken")))
    case = SegMambaSlicer.SegMambaSlicerTest()
    case.setUp()
    try:
        case.runTest()
    except AssertionError:
        return
    raise AssertionError("it did not notice")


def test_texts_for_the_user_are_translatable():
    """No plain text is put on a widget or into an error, and none is put together before it is translated.

    Nor does one stand in an f-string, into which the tools that collect texts do not look.
    """
    found = []
    for path in (ROOT / "SegMambaSlicer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
                isInside = any(getattr(call, "id", "") == "_" for call in calls)
                found += [f"{path.name}:{node.lineno}: inside an f-string"] if isInside else []
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            texts = [arg for arg in node.args if isinstance(arg, (ast.Constant, ast.JoinedStr))]
            texts = [arg for arg in texts if isinstance(arg, ast.JoinedStr) or isinstance(arg.value, str)]
            where = f"{path.name}:{node.lineno}"
            if name == "_":
                found += [f"{where}: put together first" for arg in node.args if not isinstance(arg, ast.Constant)]
            elif name in ("setText", "setToolTip", "InputError", "Problem", "setWindowTitle"):
                plain = [arg for arg in texts if isinstance(arg, ast.Constant) and " " in arg.value]
                found += [f"{where}: {arg.value}" for arg in plain]
    assert not found
