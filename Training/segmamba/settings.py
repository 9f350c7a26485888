"""Plain values from TOML or JSON to frozen dataclasses, and back.

A field whose name says more than its key in files has that key in its metadata, {"key": "fixed"}: files are written
with the key, and read with either.

An unknown key is an error that suggests the nearest known one. Nothing is evaluated or imported by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from segmamba import limits
from segmamba.errors import InputError
from segmamba.files.atomic import read_text

T = typing.TypeVar("T")

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_json(path: Path, what: str = "", *, optional: bool = False, most: int = limits.TEXT_BYTES) -> Any:
    """The values in a JSON file.

    Args:
        path: of the file.
        what: it is, for errors.
        optional: whether None is given where there is no such file.
        most: bytes that it may have, inclusive.

    Returns:
        Tables, lists and plain values, as `json.loads` gives them.

    Raises:
        InputError: and nothing else, beginning with `what` it is and its path, for a file that is missing, cannot be
            read, is not a regular file or too large, and as `parse_json`.
    """
    return _read(path, what, optional=optional, most=most, parse=parse_json)


def read_toml(path: Path, what: str = "") -> dict:
    """The same of a TOML file. Raises InputError alike."""
    return _read(path, what, optional=False, most=limits.TEXT_BYTES, parse=parse_toml)


def _read(path: Path, what: str, *, optional: bool, most: int, parse: Callable[[str, str], Any]) -> Any:
    if optional and "\0" not in str(path) and not path.exists() and not path.is_symlink():
        return None
    try:
        text = read_text(path, most)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}").removeprefix(" cannot be read").removeprefix(": ")
        raise InputError(f"{what} {path} cannot be read: {reason}".strip()) from None
    values = parse(text, f"{what} {path}".strip())
    if optional and values is None:  # a file that holds null is not one that is missing
        raise InputError(f"{what} {path} holds null; expected a table or a list of values".strip())
    return values


def parse_json(text: str, where: str) -> Any:
    """The values in a JSON text.

    Raises InputError naming `where` for text that is not JSON, nests too deeply, or holds what is no value of ours:
    whole numbers beyond 64 bits, texts that no file or terminal takes.
    """
    try:
        return _checked(json.loads(text, parse_int=_whole), where)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read: it is not valid JSON: {_reason(error)}") from None


def parse_toml(text: str, where: str) -> dict:
    """The values in a TOML text. Raises InputError as `parse_json`, for text that is not TOML."""
    try:
        return _checked(tomllib.loads(text), where)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        raise InputError(f"{where} is not valid TOML: {_reason(error)}") from None


def _whole(digits: str) -> int:
    if len(digits) > limits.DIGITS + 1:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _checked(values: Any, where: str) -> Any:
    """`values`, level by level: no recursion, which deep nesting would exhaust here too."""
    level, depth = [values], 0
    while level:
        if depth > limits.NESTING:
            raise InputError(
                f"{where}: tables and lists nest more than {limits.NESTING} deep; files of this program do not"
            )
        below = []
        for value in level:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                _check_text(value, where)
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise InputError(f"{where}: holds a whole number of more than 64 bits")
        level, depth = below, depth + 1
    return values


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: holds a text that is not valid Unicode: {text[:40]!r}") from None
    if "\0" in text:
        raise InputError(f"{where}: holds a text with a null character: {text[:40]!r}")


def _reason(error: BaseException) -> str:
    return "it nests too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def shown(value: Any) -> str:
    """A value in an error's text, which nobody reads beyond a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def build(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from the values that TOML or JSON gives.

    Args:
        cls: the dataclass.
        values: a table; nested ones become the dataclasses that the fields ask for.
        where: what the error begins with, such as the file.

    Returns:
        An instance of `cls`.

    Raises:
        InputError: begins with `where` and names the key at fault: unknown, missing, given twice, of another type, or
            with a value that the dataclass itself refuses.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a table of settings, got {shown(values)}")
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cast(Any, cls))
    known = [f.name for f in fields]
    names = {_key(f): f.name for f in fields}
    given = {names.get(key, key): value for key, value in cast(dict[str, Any], values).items()}
    if len(given) < len(values):
        twice = next(key for key in values if key in names and key != names[key] and names[key] in values)
        raise InputError(f"{where}: {twice!r} and {names[twice]!r} are one setting; give it once")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, {*known, *names}, n=1)
            raise InputError(
                f"{where}: unknown setting {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known are {known}")
            )
    if missing := [f.name for f in fields if _is_required(f) and f.name not in given]:
        raise InputError(f"{where}: missing {', '.join(map(repr, missing))}")
    converted = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in given.items()}
    try:
        return cls(**converted)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def plain(value: Any) -> Any:
    """What `build` reads: dataclasses as tables with the keys of files, however deep; other values as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {_key(f): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(entry) for entry in value)
    return value


def override(cls: type, values: dict, text: str) -> None:
    """Replaces one of the values, of which `cls` is to be built, by what a command line says.

    `a.b=value`, or `sources.0.fold=1` for an entry of a list; value in TOML, or a bare word taken as text. Raises
    InputError for what is no such text, or a place that is not there.
    """
    key, equals, raw = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: expected KEY=VALUE")
    try:
        value = parse_toml(f"value = {raw}", "")["value"]
    except InputError:
        value = raw
    *parents, leaf = key.strip().split(".")
    target: Any = values
    classes = [cls]
    try:
        for part in parents:
            if isinstance(target, list):
                target = target[int(part)]
            else:
                part, classes = _place(classes, target, part)
                target = target.setdefault(part, {})
        if isinstance(target, list):
            target[int(leaf)] = value
        else:
            target[_place(classes, target, leaf)[0]] = value
    except (IndexError, ValueError, TypeError, AttributeError):
        raise InputError(f"--set {text}: there is no {key!r} in the configuration") from None


def merge(cls: type, under: dict, over: dict) -> dict:
    """The values of `over`, and of `under` those that it does not give, table by table; of both `cls` can be built."""
    return _merge([cls], under, over)


def _merge(classes: list, under: dict, over: dict) -> dict:
    merged, placed = {**under}, set()
    for key, value in over.items():
        place, inner = _place(classes, under, key)
        if place in placed:
            raise InputError(f"{key!r} and {place!r} are one setting; give it once")
        placed.add(place)
        both = isinstance(value, dict) and isinstance(under.get(place), dict)
        merged[place] = _merge(inner, under[place], value) if both else value
    return merged


def _place(classes: list, table: dict, key: str) -> tuple[str, list]:
    """The word by which `table`, of one of these dataclasses, has a setting, or would; and the dataclasses below."""
    place, inner = key, []
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if key in (words := (field.name, _key(field))):
                place = next((word for word in words if word in table), key)
                inner += _dataclasses_in(hints[field.name])
    return place, inner


def _dataclasses_in(hint: Any) -> list:
    """Those that a type is or lists, as in tuple[A, ...] or A | None; the words of a dict are no settings."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    parts = () if typing.get_origin(hint) is dict else typing.get_args(hint)
    return [cls for part in parts for cls in _dataclasses_in(part)]


def _fitting(options: list, value: Any) -> Any:
    """Of several dataclasses the first that knows all the keys of `value`; otherwise the first option."""
    classes = [option for option in options if dataclasses.is_dataclass(option)] if isinstance(value, dict) else []
    knowing = [cls for cls in classes if set(value) <= _keys(cls)]
    return knowing[0] if knowing else options[0]


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get("key", field.name)


def _keys(cls: Any) -> set[str]:
    return {name for f in dataclasses.fields(cls) for name in (f.name, _key(f))}


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        args = typing.get_args(hint)
        if value is None and type(None) in args:
            return None
        return _convert(_fitting([a for a in args if a is not type(None)], value), value, where)
    if dataclasses.is_dataclass(hint):
        return build(cast(type, hint), value, where)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a table, got {shown(value)}")
        return {key: _convert(typing.get_args(hint)[1], v, f"{where}: {key}") for key, v in value.items()}
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: expected a list, got {shown(value)}")
        args = typing.get_args(hint)
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise InputError(f"{where}: expected {len(args)} values, got {shown(value)}")
        return tuple(_convert(a, v, where) for a, v in zip(args, value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, got {value}")
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise InputError(f"{where}: expected {hint.__name__}, got {shown(value)}")
    return value
