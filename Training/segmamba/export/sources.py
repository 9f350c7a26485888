"""The source files that a bundle needs to work without segmamba: some modules, and all of ours that they import."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

OURS, THEIRS = "segmamba", "scripts"
_ROOT = Path(__file__).resolve().parents[1]


def collect(modules: Iterable[str]) -> dict[str, str]:
    """Modules by full name -> {path below `scripts`: source}, with whatever of segmamba they import, at any depth.

    Absolute imports of segmamba become imports of scripts. Raises ValueError for a module that is not there, and for
    an import that cannot be moved.
    """
    waiting, files = list(modules), {}
    while waiting:
        name = waiting.pop()
        path = _find(name)
        if path is None:
            raise ValueError(f"there is no module {name} to copy")
        relative = path.relative_to(_ROOT).as_posix()
        if relative in files:
            continue
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import) and any(_is_ours(alias.name) for alias in node.names):
                raise ValueError(
                    f"{path}, line {node.lineno}: `import {OURS}...` cannot be moved; use `from ... import`"
                )
            if not isinstance(node, ast.ImportFrom):
                continue
            base = _base(name, path, node)
            if not _is_ours(base):
                continue
            waiting += _modules(base, node, path)
            if not node.level:
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = line.replace(f"from {OURS}", f"from {THEIRS}", 1)
        files[relative] = "".join(lines)
        if "." in (parent := name.rpartition(".")[0]):
            waiting.append(parent)
    return dict(sorted(files.items()))


def _find(name: str) -> Path | None:
    target = _ROOT.joinpath(*name.split(".")[1:])
    candidates = (target.with_suffix(".py"), target / "__init__.py")
    return next((path for path in candidates if path.is_file()), None) if target != _ROOT else None


def _base(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that `from ... import` names, in full."""
    if not node.level:
        return node.module or ""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    here = here[: len(here) + 1 - node.level]
    return ".".join([*here, *([node.module] if node.module else [])])


def _modules(base: str, node: ast.ImportFrom, path: Path) -> list[str]:
    """What `from base import names` loads of ours: base, and those of the names that are modules."""
    found = [name for name in (f"{base}.{alias.name}" for alias in node.names) if _find(name)]
    if base == OURS:
        if len(found) < len(node.names):
            raise ValueError(f"{path}, line {node.lineno}: {OURS} itself is not copied, only its modules are")
        return found
    return [base, *found]


def _is_ours(name: str) -> bool:
    return name == OURS or name.startswith(f"{OURS}.")
