"""Changing the registry: every change holds a lock, is written in one step, and is refused where it would be unsafe."""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.files.shares import exclusive, publish_folder
from segmamba.learning.registry.in_use import check_model
from segmamba.learning.registry.state import MODELS, REGISTRY, Entry, Event, Registry, hash_of, read_registry
from segmamba.models.package import MANIFEST, copy_package, load_package, read_manifest
from segmamba.settings import read_json

log = logging.getLogger(__name__)

LOCK = ".registry.lock"
# what segmamba.learning.gate writes into the candidate's folder
GATE = "gate.json"
GATE_TEXT = "GATE.md"
GATE_PICTURES = "gate-*.png"


def start(folder: Path | str, package: Path, reason: str = "the first model") -> str:
    """Makes a package the first model in use.

    Args:
        folder: of the registry.
        package: folder of the model.
        reason: for its history.

    Returns:
        The name of the model in the registry.

    Raises:
        InputError: where a model is in use already, or for a broken package.
    """
    with _changing(Path(folder)) as change:
        if change.registry.champion:
            raise InputError(f"{folder} has a model in use, {change.registry.champion}; adopt the other one instead")
        name = change.add(package)
        change.to_champion("start", name, reason, None)
    return name


def add(folder: Path | str, package: Path) -> str:
    """Copies a package in as a candidate; returns its name. What is there already stays as it is."""
    with _changing(Path(folder)) as change:
        return change.add(package)


def promote(folder: Path | str, package: Path) -> str:
    """A candidate into use, by the verdict "promote" of its gate against the champion of this very moment.

    Raises InputError where the gate's report is missing, says otherwise, is about other weights or another champion, or
    goes by a margin that somebody typed.
    """
    with _changing(Path(folder)) as change:
        evidence = change.evidence(package)
        if evidence is None or evidence["verdict"] != "promote":
            said = "has no report of the gate" if evidence is None else f"was given {evidence['verdict']!r} by the gate"
            raise InputError(
                f"{package} {said}; a person can adopt it: `segmamba models {folder} adopt {package} --reason WHY`"
            )
        name = change.add(package)
        change.to_champion("promote", name, "the gate", evidence)
    return name


def refuse(folder: Path | str, package: Path, reason: str) -> str:
    """Marks a candidate as not to be used.

    Args:
        folder: of the registry.
        package: folder of the model, in the registry or elsewhere.
        reason: for its history.

    Returns:
        The name of the model in the registry.

    Raises:
        InputError: for the model in use, without a reason, or for a broken package.
    """
    _check_reason(reason)
    with _changing(Path(folder)) as change:
        evidence = change.evidence(package, strict=False)
        name = change.add(package)
        if name == change.registry.champion:
            raise InputError(f"{name} is in use; go back with `segmamba models {folder} rollback`")
        change.set_state(name, "refused")
        change.log("refuse", name, reason, evidence)
    return name


def adopt(folder: Path | str, package: Path, reason: str, against_the_gate: bool = False) -> str:
    """Takes a model into use because a person says so.

    Args:
        folder: of the registry.
        package: folder of the model, in the registry or elsewhere.
        reason: for its history.
        against_the_gate: also a model that the gate found worse.

    Returns:
        The name of the model in the registry.

    Raises:
        InputError: without a reason, for the model in use, and for one that the gate found worse unless
            `against_the_gate`.
    """
    _check_reason(reason)
    with _changing(Path(folder)) as change:
        # A site's gate writes its report into the registry's copy of the package.
        places = (Path(package), change.folder / MODELS / _name_of(Path(package)))
        reports = {place: change.evidence(place, strict=False) for place in places}
        for place, found in reports.items():
            if found and found["verdict"] == "refuse" and not against_the_gate:
                raise InputError(
                    f"the gate found {package} worse than the model in use ({place / GATE_TEXT} says why); "
                    "whoever takes it into use all the same adds --against-the-gate"
                )
        name = change.add(package)
        evidence = next((found for found in reports.values() if found), None)
        if name == change.registry.champion:
            raise InputError(f"{name} is in use already")
        change.to_champion("adopt", name, reason, evidence)
    return name


def rollback(folder: Path | str, reason: str = "") -> str:
    """Back to the champion before this one that loads; returns its name. Raises InputError where there is none."""
    with _changing(Path(folder)) as change:
        used, before = change.registry.champion, list(change.registry.before)
        while before:
            name = before.pop()
            if name == used:  # in use twice, and what came between was passed over
                continue
            try:
                check_model(change.folder, name, change.registry)
            except InputError as error:
                log.warning("passed over: %s", error)
                continue
            change.back_to(name, tuple(before), reason)
            return name
        raise InputError(
            f"{folder} has {f'no model before {used}' if used else 'no model in use, and none'} to go back to"
        )


@contextmanager
def _changing(folder: Path) -> Iterator[_Change]:
    """Holds the lock; what the block made of the registry is written at its end, unless it raised."""
    make_folder(folder / MODELS)
    with exclusive(folder / LOCK):
        change = _Change(folder, read_registry(folder))
        before = change.registry
        yield change
        if change.registry != before:
            if change.registry.champion:  # whatever was done above: never name what does not load
                check_model(folder, change.registry.champion, change.registry)
            values = json.dumps(asdict(change.registry), indent=1) + "\n"
            write_aside(folder / REGISTRY, values.encode())


def _name_of(package: Path) -> str:
    """What a package is called in a registry."""
    id_ = re.sub(r"[^A-Za-z0-9_.-]", "_", read_manifest(package).id)[:60].lstrip(".")
    return f"{id_}-{hash_of(package / MANIFEST)[:12]}"


class _Change:
    """A registry while the lock is held."""

    def __init__(self, folder: Path, registry: Registry):
        self.folder, self.registry = folder, registry

    def add(self, package: Path) -> str:
        package = Path(package)
        manifest = read_manifest(package)
        name = _name_of(package)
        if name not in self.registry.models:
            self._copy(package, self.folder / MODELS / name)
            entry = Entry(
                state="candidate",
                id=manifest.id,
                parent=manifest.parent,
                weights_sha256=manifest.weights_sha256,
                manifest_sha256=hash_of(self.folder / MODELS / name / MANIFEST),
            )
            self.registry = replace(self.registry, models={**self.registry.models, name: entry})
            self.log("add", name, "", None)
        elif package.resolve() != (self.folder / MODELS / name).resolve():
            self._copy_evidence(package, self.folder / MODELS / name)
        return name

    def _copy(self, package: Path, place: Path) -> None:
        aside = self.folder / MODELS / f".{secrets.token_hex(8)}.tmp"
        try:
            copy_package(package, aside)
            self._copy_evidence(package, aside)
            if not publish_folder(aside, place):
                load_package(place)  # of a writer that was killed before it could write the registry: the same model
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _copy_evidence(package: Path, place: Path) -> None:
        for path in [package / GATE, package / GATE_TEXT, *package.glob(GATE_PICTURES)]:
            if path.is_file():
                write_aside(place / path.name, path.read_bytes())

    def evidence(self, package: Path, strict: bool = True) -> dict[str, str] | None:
        """What the gate said of a package.

        strict: refuse a report about other weights or another champion, or with a margin that was typed.
        """
        path = Path(package) / GATE
        try:
            report = read_json(path, optional=True)
            if report is None:
                return None
            verdict = report["verdict"]
            candidate, champion = (str(report[who]["weights_sha256"]) for who in ("candidate", "champion"))
            margin = report["criteria"]["margin"]
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); run the gate again") from None
        if strict:
            if candidate != read_manifest(package).weights_sha256:
                raise InputError(f"{path} is about other weights than {package} has; run the gate again")
            used = self.registry.models.get(self.registry.champion or "")
            if used is None or champion != used.weights_sha256:
                raise InputError(f"{path} is about another model in use than there is now; run the gate again")
            if margin is not None:
                raise InputError(f"{path} goes by a margin of {margin} that was typed; run the gate without --margin")
        return {"verdict": str(verdict), "report_sha256": hash_of(path)}

    def set_state(self, name: str, state: str) -> None:
        entry = replace(self.registry.models[name], state=state)
        self.registry = replace(self.registry, models={**self.registry.models, name: entry})

    def to_champion(self, what: str, name: str, reason: str, evidence: dict[str, str] | None) -> None:
        check_model(self.folder, name, self.registry)
        old = self.registry.champion
        if old == name:
            raise InputError(f"{name} is in use already")
        before = (*self.registry.before, *([old] if old else []))
        if old:
            self.set_state(old, "retired")
        self.set_state(name, "champion")
        self.registry = replace(self.registry, champion=name, before=before)
        self.log(what, name, reason, evidence, old)

    def back_to(self, name: str, before: tuple[str, ...], reason: str) -> None:
        old = self.registry.champion
        assert old is not None  # there are others before it
        self.set_state(old, "retired")
        self.set_state(name, "champion")
        self.registry = replace(self.registry, champion=name, before=before)
        self.log("rollback", name, reason, None, old)

    def log(
        self, what: str, name: str, reason: str, evidence: dict[str, str] | None, before: str | None = None
    ) -> None:
        event = Event(what=what, model=name, before=before, reason=reason, evidence=evidence, time=int(time.time()))
        self.registry = replace(self.registry, history=(*self.registry.history, event))


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError("a person who decides says why: --reason TEXT")
