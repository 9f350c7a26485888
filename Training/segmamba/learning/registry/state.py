"""What registry.json says. Nothing here writes, or needs torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from segmamba import settings
from segmamba.errors import InputError
from segmamba.files.digest import hash_file

REGISTRY, MODELS = "registry.json", "models"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of the registry."""

    state: str
    """"candidate", "champion", "retired" (was champion) or "refused"."""
    id: str
    """Of the model, as its manifest says."""
    parent: str | None
    """Id of the model it was fine-tuned from."""
    weights_sha256: str
    """Of model.safetensors."""
    manifest_sha256: str
    """Of model.json, which names the hash of the weights."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a model of the registry."""

    what: str
    """"start", "add", "promote", "refuse", "adopt" or "rollback"."""
    model: str
    """Its name in the registry."""
    before: str | None = None
    """The champion until then."""
    reason: str = ""
    """Why, in the words of whoever did it."""
    evidence: dict[str, str] | None = None
    """Verdict of the gate and hash of its report."""
    time: int = 0
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The models of a site, and which of them is in use."""

    schema: int = SCHEMA
    """Of the file; another one is refused."""
    champion: str | None = None
    """Name of the model in use."""
    before: tuple[str, ...] = ()
    """The champions before it, the last one last."""
    models: dict[str, Entry]
    """By name."""
    history: tuple[Event, ...] = ()
    """The oldest first."""


def read_registry(folder: Path | str) -> Registry:
    """An empty one where there is none yet. Raises InputError where it is broken."""
    path = Path(folder) / REGISTRY
    try:
        values = settings.read_json(path, "registry", optional=True)
    except InputError as error:
        raise InputError(f"{error}; restore it from a backup") from None
    if values is None:
        return Registry(models={})
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise InputError(f"registry {path}: expected schema {SCHEMA}; update the program that is older")
    registry = settings.build(Registry, values, str(path))
    named = [*registry.before, *([registry.champion] if registry.champion else [])]
    if strange := [name for name in named if name not in registry.models]:
        raise InputError(f"registry {path} names the model {strange[0]}, which it does not have; restore a backup")
    return registry


def hash_of(path: Path) -> str:
    """sha256 of a file; empty where it cannot be read."""
    try:
        return hash_file(path)
    except OSError:
        return ""


def format_registry(folder: Path | str) -> str:
    """A table for a terminal: the models, the one in use first, and what happened."""
    registry = read_registry(folder)
    names = sorted(registry.models, key=lambda name: (registry.models[name].state != "champion", name))
    lines = []
    for name in names:
        entry = registry.models[name]
        lines.append(f"{entry.state:<10} {name}" + (f"  from {entry.parent}" if entry.parent else ""))
    for event in registry.history:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(event.time))
        said = f" ({event.evidence['verdict']})" if event.evidence else ""
        lines.append(f"{day}  {event.what} {event.model}{said}" + (f": {event.reason}" if event.reason else ""))
    return "\n".join(lines) or "no model yet"
