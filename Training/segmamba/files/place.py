"""Whether what lies where a result goes may be written over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segmamba.errors import InputError


def check_owner(path: Path, known: Iterable[str], own: Iterable[str], what: str) -> None:
    """Refuses to write over what was made of other images.

    One image in common is enough: an examination of which another image was exported anew is still the same.

    Args:
        path: of what is there.
        known: digests of the images that it says it was made of; none where it says nothing.
        own: digests of the images of what is to be written there.
        what: lies there, with its article, such as "a result".

    Raises:
        InputError: where the two have no image in common.
    """
    known = set(known)
    if known.isdisjoint(own):
        whose = f"{what} of other images" if known else f"not known to be {what} of these images"
        raise InputError(
            f"{path}: already exists, and is {whose}; choose another folder or file name, or move what is there"
        )
