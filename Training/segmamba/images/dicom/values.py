"""Values of DICOM attributes as Python has them: what is no number is None, a text that is missing ''."""

from __future__ import annotations

import re
from typing import Any, Protocol


class Attributes(Protocol):
    """Values by keyword: a data set of pydicom, or a dictionary."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of an attribute, or `default`."""
        ...


def plain(text: str) -> str:
    """One line, without control characters: it is shown on terminals."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def texts(data: Attributes, name: str) -> tuple[str, ...]:
    """The values of attribute `name`, () where it is missing or empty."""
    value = data.get(name)
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, (str, int, float)) else list(value)
    return tuple(str(v).strip() for v in values)


def text(data: Attributes, name: str) -> str:
    """An attribute as text, its values joined by backslashes; empty where it is missing."""
    return "\\".join(texts(data, name))


def numbers(data: Attributes, name: str, count: int) -> tuple[float, ...]:
    """The numbers of an attribute of several values.

    Args:
        data: of a file, or an item of a sequence in it.
        name: keyword of the attribute.
        count: of numbers that it has to have.

    Returns:
        `count` numbers; () where there are more or fewer, or something else.
    """
    try:
        values = tuple(float(v) for v in texts(data, name))
    except ValueError:
        return ()
    return values if len(values) == count else ()


def number(data: Attributes, name: str) -> float | None:
    """The first value of an attribute as a number, or None."""
    try:
        return float(texts(data, name)[0])
    except (ValueError, IndexError):
        return None


def integer(data: Attributes, name: str) -> int | None:
    """The first value of an attribute as a whole number, or None."""
    value = number(data, name)
    return None if value is None else int(value)


def seconds(text: str) -> float | None:
    """YYYYMMDDHHMMSS.FFFFFF as seconds since some day, with months of 31 days."""
    try:
        days = (int(text[:4]) * 12 + int(text[4:6])) * 31 + int(text[6:8])
        return ((days * 24 + int(text[8:10])) * 60 + int(text[10:12])) * 60 + float(re.split("[+-]", text[12:])[0] or 0)
    except ValueError:
        return None
