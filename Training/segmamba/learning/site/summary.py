"""How a site stands: its corrections, its models, its runs, as plain JSON. Reads names and small files only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from segmamba.errors import InputError
from segmamba.files.atomic import read_bytes
from segmamba.learning.registry.state import MODELS, Registry, read_registry
from segmamba.learning.site.layout import LOG, Site, check_site
from segmamba.learning.site.status import as_json, read_status
from segmamba.learning.submissions.findings import Finding
from segmamba.learning.submissions.record import FOLDER, INCOMING
from segmamba.settings import build, parse_json, read_json

SCHEMA = 1
_COUNTED = ("train", "validation", "refused", "waiting", "doubtful", "replaced")
_REPORT = "intake.json"
_GATE = "gate.json"  # beside a model that was judged


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Of the report of an intake: segmamba.learning.submissions.intake.Row, which needs numpy."""

    name: str
    status: str
    findings: tuple[Finding, ...] = ()
    dice: dict[str, float] = field(default_factory=dict)


def summarise(site: Site, run: str | None = None) -> dict:
    """What `segmamba status SITE --json` prints (SITE.md). run: with the lines of its log.

    Raises InputError where there is no such folder or run, or the registry is broken.
    """
    check_site(site)
    found = {
        "schema": SCHEMA,
        "corrections": _corrections(site.corrections),
        "models": _models(site.models),
        "runs": _runs(site),
    }
    if run is not None:
        found["log"] = _log(site.old_run(run) / LOG)
    return found


def _corrections(folder: Path) -> dict:
    incoming = folder / INCOMING
    sent = {path.name for path in incoming.iterdir() if FOLDER.fullmatch(path.name)} if incoming.is_dir() else set()
    try:
        report = read_json(folder / _REPORT)
        rows = [asdict(build(_Row, row, _REPORT)) for row in report["rows"]]
    except (InputError, KeyError, TypeError):  # no intake yet, or a broken report, which the next one writes anew
        rows = []
    rows = [{**row, "findings": [_finding(**found) for found in row["findings"]]} for row in rows]
    counts = {status: sum(row["status"] == status for row in rows) for status in _COUNTED}
    return {"sent": len(sent), **counts, "new": len(sent - {row["name"] for row in rows}), "rows": rows}


def _finding(kind: str, text: str) -> dict:
    finding = Finding(kind=kind, text=text)
    return {"kind": kind, "text": text, "mend": finding.remedy, "severity": finding.severity}


def _models(folder: Path) -> dict:
    registry = read_registry(folder)
    name = registry.champion or ""
    champion = registry.models.get(name)
    return {
        "champion": registry.champion,
        "folder": str((folder / MODELS / name).absolute()) if champion else None,
        "id": champion.id if champion else None,
        "parents": _parents(registry),
        "previous": registry.before[-1] if registry.before else None,
        "states": {name: entry.state for name, entry in registry.models.items()},
        "history": [asdict(event) for event in registry.history],
    }


def _parents(registry: Registry) -> list[str]:
    """Names of the models that the one in use was made from, the nearest first.

    Of one that was never in this registry the id alone, and there the line ends.
    """
    names = {entry.id: name for name, entry in registry.models.items()}  # of two of one id the later
    line: list[str] = []
    name = registry.champion
    while name in registry.models and (parent := registry.models[name].parent):
        name = names.get(parent, parent)
        if name in line or name == registry.champion:
            break
        line.append(name)
    return line


def _runs(site: Site) -> list[dict]:
    found = ((folder, read_status(folder)) for folder in site.run_folders())
    rows = [_gate(site, as_json(folder, status)) for folder, status in found if status is not None]
    return sorted(rows, key=lambda row: (row["started"], row["run"]), reverse=True)


def _gate(site: Site, row: dict) -> dict:
    """The run may have been written by another machine, to which the site lies elsewhere."""
    place = site.models / MODELS / (row["candidate"] or "-")
    there = row["verdict"] and place.is_dir()
    return {**row, "gate": str(place.absolute()) if there else None, "own": _own_cases(place) if there else None}


def _own_cases(model: Path) -> dict | None:
    """What the gate found on the site's own cases; None where there was none, or the report is broken."""
    try:
        local = read_json(model / _GATE)["local"]
        dice = {region: [float(row["a"]), float(row["b"])] for region, row in local["comparison"]["dice"].items()}
        return {"cases": len(local["cases"]), "dice": dice}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _log(path: Path) -> list[dict]:
    """The lines of a run's log, without those of work that was lost: what goes on from a checkpoint repeats steps."""
    lines: list[dict] = []
    try:
        texts = read_bytes(path).decode(errors="replace").splitlines()
    except InputError:
        texts = []
    for text in texts:
        try:
            line = parse_json(text, LOG)
        except InputError:  # cut short by a kill
            continue
        if not isinstance(line, dict) or not isinstance(line.get("step"), int) or "kind" not in line:
            continue
        if line.get("kind") in ("step", "validation"):
            lines = [old for old in lines if not _is_lost(old, line["step"], line["kind"])]
        lines.append(line)
    return lines


def _is_lost(old: dict, step: int, kind: str) -> bool:
    if old["kind"] == "event":
        return False
    return old["step"] > step or (old["step"] == step and old["kind"] == kind)
