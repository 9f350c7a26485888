"""Plain values from TOML or JSON to frozen dataclasses, and back.

An unknown key is an error that suggests the nearest known one. Nothing is evaluated or imported by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from typing import Any

from segmamba.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str, where: str) -> dict:
    """Raises InputError naming `where` for text that is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from None


def build(cls: type, values: Any, where: str):
    """`values`, as TOML or JSON gives them, to the dataclass `cls`. Raises InputError naming the key at fault."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a table of settings, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"{where}: unknown setting {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known are {known}")
            )
    if missing := [f.name for f in dataclasses.fields(cls) if _is_required(f) and f.name not in values]:
        raise InputError(f"{where}: missing {', '.join(map(repr, missing))}")
    return cls(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def override(values: dict, text: str) -> None:
    """`a.b=value`, or `sources.0.fold=1` for an entry of a list; value in TOML, or a bare word taken as text."""
    key, equals, raw = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: expected KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, leaf = key.strip().split(".")
    target: Any = values
    try:
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        target[int(leaf) if isinstance(target, list) else leaf] = value
    except (IndexError, ValueError, TypeError, AttributeError):
        raise InputError(f"--set {text}: there is no {key!r} in the configuration") from None


def _fitting(options: list, value: Any) -> Any:
    """Of several dataclasses the first that knows all the keys of `value`; otherwise the first option."""
    classes = [option for option in options if dataclasses.is_dataclass(option)] if isinstance(value, dict) else []
    knowing = [cls for cls in classes if set(value) <= {f.name for f in dataclasses.fields(cls)}]
    return knowing[0] if knowing else options[0]


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        return None if value is None else _convert(_fitting(options, value), value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a table, got {value!r}")
        return {key: _convert(typing.get_args(hint)[1], v, f"{where}: {key}") for key, v in value.items()}
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: expected a list, got {value!r}")
        args = typing.get_args(hint)
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise InputError(f"{where}: expected {len(args)} values, got {value!r}")
        return tuple(_convert(a, v, where) for a, v in zip(args, value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise InputError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
