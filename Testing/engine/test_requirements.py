"""Training/pyproject.toml asks for what the engine imports: else a fresh machine lacks it, and the panel is silent."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "Training" / "segmamba"
PROJECT = tomllib.loads((ROOT / "Training" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = {"skimage": "scikit-image", "mamba_ssm": "mamba-ssm", "causal_conv1d": "causal-conv1d", "llvmlite": "numba"}
PACKAGES |= {"PIL": "pillow"}
OPTIONAL = {"mamba-ssm", "causal-conv1d", "triton"}  # in extras; the engine says what goes without them


def names(requirements):
    return {re.match(r"[\w.-]+", text)[0] for text in requirements}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_all_that_is_imported_is_asked_for():
    found = {name.partition(".")[0] for path in ENGINE.rglob("*.py") for name in imported(path)}
    others = {PACKAGES.get(name, name) for name in found - {"segmamba", *sys.stdlib_module_names}}
    asked = names(PROJECT["dependencies"])
    assert others - OPTIONAL == asked
    extras = names(text for extra in ("cuda", "triton") for text in PROJECT["optional-dependencies"][extra])
    assert others & OPTIONAL == extras


def test_the_readme_installs_this_folder_and_not_a_package_of_that_name():
    """A bare word is looked for in a registry; and without -e models, configurations and cases stay behind."""
    lines = (ROOT / "Training" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"pip install [^`]*Training\b", lines) == ["pip install -e ./Training"]


@pytest.mark.parametrize("name", sorted(names(PROJECT["dependencies"]) - {"tomli"}))
def test_the_versions_that_the_tests_run_with_are_noted(name):
    noted = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert name.lower() in noted


def test_the_tutorial_fills_a_folder_of_wheels_with_all_that_is_asked_for():
    """On a computer without Slicer, where only the tutorial can say what is needed."""
    (command,) = re.findall(r"`python -m pip download ([^`]+)`", (ROOT / "TUTORIAL.md").read_text(encoding="utf-8"))
    options, written = command.split(" WHEELS ")
    assert options == "--only-binary=:all: -d"
    asked = {text for text in PROJECT["dependencies"] if ";" not in text}  # what older Pythons need, Slicer's does not
    assert set(shlex.split(written)) == asked
