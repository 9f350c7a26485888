"""Which model of a registry is in use, once its files have been looked at. Nothing here writes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from segmamba.errors import InputError
from segmamba.learning.registry.state import MODELS, Registry, hash_of, read_registry
from segmamba.models.package import MANIFEST, load_package

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Current:
    """The model in use: its name and folder."""

    name: str
    """In the registry."""
    folder: Path
    """Of its package."""
    note: str = ""
    """What a person should know, or empty."""


def current(folder: Path | str) -> Current:
    """The champion; where it cannot be read here, the newest champion before it that can, with a note.

    Raises InputError where there is no champion, or none that loads.
    """
    folder = Path(folder)
    registry, first = _read(folder)
    problems = []
    for name in dict.fromkeys([first, *reversed(registry.before)]):
        try:
            check_model(folder, name, registry)
        except InputError as error:
            problems.append(str(error))
            continue
        note = "" if not problems else f"the model in use cannot be read here, {name} takes its place: {problems[0]}"
        if note:
            log.warning(note)
        return Current(name=name, folder=folder / MODELS / name, note=note)
    raise InputError(f"no model of {folder} can be loaded: {'; '.join(problems)}")


def champion(folder: Path | str) -> Current:
    """The champion and no other, for what learns from it or is judged against it.

    What is better than a retired model may be worse than the one in use.

    Raises InputError where there is no champion, or it cannot be read here.
    """
    folder = Path(folder)
    registry, name = _read(folder)
    try:
        check_model(folder, name, registry)
    except InputError as error:
        raise InputError(
            f"the model in use, {name}, cannot be read here ({error}); update the program if a newer one wrote it, or "
            f"go back to the model before it: `segmamba models {folder} rollback`"
        ) from None
    return Current(name=name, folder=folder / MODELS / name)


def _read(folder: Path) -> tuple[Registry, str]:
    """What a registry holds, and its champion's name. Raises InputError where it has none."""
    registry = read_registry(folder)
    if registry.champion is None:
        raise InputError(f"{folder} has no model in use yet; begin with `segmamba models {folder} start quick`")
    return registry, registry.champion


def check_model(folder: Path, name: str, registry: Registry) -> None:
    """Checks that a model loads and is, byte for byte, the one that was added.

    Args:
        folder: of the registry.
        name: of the model.
        registry: what the folder holds.

    Raises:
        InputError: where it is not.
    """
    package = folder / MODELS / name
    if name not in registry.models:
        raise InputError(f"{folder} has no model {name!r}; it has {', '.join(registry.models) or 'none'}")
    if hash_of(package / MANIFEST) != registry.models[name].manifest_sha256:
        raise InputError(f"model {name}: {MANIFEST} is not the one that was added, or is gone")
    load_package(package)


def find_package(folder: Path | str, name_or_folder: str) -> Path:
    """A model of the registry by its name, or any package by its folder. Raises InputError."""
    inside = Path(folder) / MODELS / name_or_folder
    package = inside if (inside / MANIFEST).is_file() else Path(name_or_folder)
    if not (package / MANIFEST).is_file():
        known = ", ".join(read_registry(folder).models) or "none"
        raise InputError(
            f"{name_or_folder} is neither the folder of a model ({MANIFEST} in it) nor a name in the registry "
            f"{folder}, which has {known}"
        )
    return package
