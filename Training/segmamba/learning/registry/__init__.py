"""The registry of a place's models: which one is in use, which were, and why. One click goes back.

    MODELS/models/NAME/       a package (models.package), never changed; NAME is its id and the start of its hash
    MODELS/registry.json      champion, the champions before it, the state of every model, and the history

registry.json is written aside and renamed while a lock is held, and only after the package it will name has been loaded
and found to be the one that was added. So it names a model that loads, whoever is killed when. Where the disk has
since damaged that model, `current` takes the one before it, and says so.

What registry.json says (`state`) can be read without torch; what opens a package is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module

from segmamba.learning.registry.state import Registry, format_registry, read_registry

__all__ = [
    "Current",
    "Registry",
    "add",
    "adopt",
    "check_model",
    "current",
    "find_package",
    "format_registry",
    "promote",
    "read_registry",
    "refuse",
    "rollback",
    "start",
]
_LATER = {
    **dict.fromkeys(("Current", "check_model", "current", "find_package"), "in_use"),
    **dict.fromkeys(("add", "adopt", "promote", "refuse", "rollback", "start"), "change"),
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
