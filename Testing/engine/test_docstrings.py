"""The form of docstrings that no linter knows: arguments and results of functions of several, each field of a record.

Ruff sees to the rest (Makefile): a summary sentence, sections as the convention has them, every argument in them.
"""

import ast
import re
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[2] / "Training" / "segmamba"
SEVERAL = 3  # arguments from which each is explained
# Triton compiles these: their arguments are pointers and constants of its own, which the module's head explains
COMPILED = {"triton_conv.py", "triton_kernels.py"}


def faults_of(text):
    """What public functions and dataclasses of a module leave out, in words."""
    return [fault for node, name in public(ast.parse(text), "") for fault in faults(node, name)]


def public(parent, prefix):
    """Functions and classes that others may use, with their names; not those inside functions."""
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node, prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


def faults(node, name):
    if isinstance(node, ast.ClassDef):
        yield from (f"{name}.{field}: no line under it" for field in bare_fields(node))
        return
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
    text = ast.get_docstring(node) or ""
    if len(names) < SEVERAL or re.match("(See|As) `", text) or names_all(text, names):
        return
    if not re.search("^Args:$", text, re.M):
        yield f"{name}: no Args"
    returns = node.returns is not None and ast.unparse(node.returns) != "None"
    if returns and not re.search("^(Returns|Yields):$", text, re.M):
        yield f"{name}: no Returns"


def names_all(text, names):
    """A summary that is the whole of it, as of `a b + c`, and leaves no argument out."""
    return "\n" not in text and all(re.search(rf"\b{name}\b", text) for name in names)


def bare_fields(node):
    """Fields of a dataclass or a named tuple without a text of their own under them."""
    if not any(re.search("dataclass|NamedTuple", ast.unparse(part)) for part in [*node.decorator_list, *node.bases]):
        return
    for statement, after in zip(node.body, [*node.body[1:], None]):
        if isinstance(statement, ast.AnnAssign) and not statement.target.id.startswith("_"):
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not (text and isinstance(after.value.value, str)):
                yield statement.target.id


FILES = [path.relative_to(ENGINE).as_posix() for path in sorted(ENGINE.rglob("*.py")) if path.name not in COMPILED]


@pytest.mark.parametrize("file", FILES)
def test_arguments_results_and_fields_are_explained(file):
    assert faults_of((ENGINE / file).read_text(encoding="utf-8")) == []


def test_what_is_left_out_is_found():
    text = '''
def few(a, b): ...
def many(a, b, c) -> int: ...
def told(a, b, c) -> int:
    """Adds.

    Args:
        a: one.
        b: another.
        c: a third.
    """
def whole(a, b, c) -> None:
    """Adds.

    Args:
        a: one.
    """
def like(a, b, c) -> int:
    """As `told`, in threads."""
def short(a, b, c) -> int:
    """a b + c."""
def shorter(a, b, c) -> int:
    """a b."""
def _private(a, b, c) -> int: ...
@dataclass(frozen=True)
class Record:
    """Kept."""
    said: int
    """How many."""
    unsaid: int
    beside: int  # how many
    _own: int
    def method(self, a, b): ...
    def longer(self, a, b, c): ...
class Pair(NamedTuple):
    one: int
class Plain:
    field: int
'''
    assert faults_of(text) == [
        "many: no Args",
        "many: no Returns",
        "told: no Returns",
        "shorter: no Args",
        "shorter: no Returns",
        "Record.unsaid: no line under it",
        "Record.beside: no line under it",
        "Record.longer: no Args",
        "Pair.one: no line under it",
    ]
