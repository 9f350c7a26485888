"""The gate: a candidate against the model in use, on cases that neither has seen, and a verdict with its evidence.

CANDIDATE/gate.json    criteria, checks, verdict, the scores of both on every case (segmamba.learning.registry reads it)
CANDIDATE/GATE.md      the same for people
CANDIDATE/gate-*.png   the cases in which the two differ most
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from segmamba import __version__
from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import validation_cases
from segmamba.errors import InputError
from segmamba.evaluation.compare import compare_scores
from segmamba.evaluation.picture import save_picture
from segmamba.files.atomic import write_aside
from segmamba.learning.gate.page import format_report
from segmamba.learning.gate.rules import Criteria, Judgement, Pair, dice_table, judge
from segmamba.learning.gate.scores import answer, score_cases
from segmamba.models.package import Model, load_package
from segmamba.training.samples import case_digest

__all__ = ["Criteria", "format_report", "run_gate"]

log = logging.getLogger(__name__)

REPORT, TEXT = "gate.json", "GATE.md"
SCHEMA = 1


def run_gate(
    candidate: Path,
    champion: Path,
    anchor: Path | str,
    local: Path | str | None = None,
    *,
    criteria: Criteria | None = None,
    device: str = "cpu",
    mirrorings: int = 0,
    cache: Path | None = None,
    pictures: int = 3,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Judges `candidate` and writes the report into its folder; returns what it wrote into gate.json.

    anchor: a data set (segmamba.datasets) whose labelled cases are never trained on. local: one with a split
    (`segmamba intake`), of which the validation cases count. cache: of scores, beside the candidate where not said; a
    gate that was killed goes on from there. pictures: at most so many.

    Raises InputError where the two models or data sets do not fit one another, or the candidate was trained on one
    of the cases.
    """
    criteria, candidate = criteria or Criteria(), Path(candidate)
    cache = Path(cache) if cache is not None else candidate.parent / ".gate-scores"
    models = [load_package(champion), load_package(candidate)]
    if models[0].manifest.weights_sha256 == models[1].manifest.weights_sha256:
        raise InputError(f"{candidate} is the model in use itself; there is nothing to compare")
    sets = [("anchor", *_anchor(anchor, models)), ("local", *_local(local, models))]
    notes = [note for _, dataset, entries in sets for note in _check_unseen(dataset, entries, models)]
    tell = progress or (lambda text: None)
    options = {"device": device, "mirrorings": mirrorings, "cache": cache, "progress": tell}
    pairs: dict[str, Pair] = {
        name: tuple(score_cases(model, dataset, entries, **options) if entries else {} for model in models)
        for name, dataset, entries in sets
    }
    judgement = judge(pairs["anchor"], pairs["local"], criteria)
    notes += _slower(pairs, models)
    report = _report(models, sets, pairs, judgement, criteria, {"device": device, "mirrorings": mirrorings}, notes)
    _draw(candidate, models, sets, pairs, pictures, device, mirrorings)
    write_aside(candidate / TEXT, format_report(report).encode())
    write_aside(candidate / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


def _anchor(where: Path | str, models: list[Model]) -> tuple[Dataset, tuple[CaseEntry, ...]]:
    dataset = _fitting(where, models)
    return dataset, tuple(case for case in dataset.cases if case.label is not None)


def _local(where: Path | str | None, models: list[Model]) -> tuple[Dataset | None, tuple[CaseEntry, ...]]:
    if where is None:
        return None, ()
    dataset = _fitting(where, models)
    return dataset, validation_cases(dataset)


def _fitting(where: Path | str, models: list[Model]) -> Dataset:
    dataset = read_dataset(where)
    for model in models:
        manifest = model.manifest
        if manifest.scheme != dataset.scheme:
            raise InputError(f"model {manifest.id} has other labels or regions than data set {dataset.name}")
        if missing := [m for m in manifest.preprocess.modalities if m not in dataset.modalities]:
            raise InputError(f"data set {dataset.name} has no {', '.join(missing)}, which model {manifest.id} needs")
    return dataset


def _check_unseen(dataset: Dataset | None, entries: tuple[CaseEntry, ...], models: list[Model]) -> list[str]:
    """Raises InputError where the candidate was trained on a case; that the champion was is a note: it is favoured."""
    notes = []
    for model, whose in zip(models, ("champion", "candidate")):
        trained = model.manifest.training.get("cases")
        digests = set(trained.values()) if isinstance(trained, dict) else set()
        seen = [e.id for e in entries if case_digest(dataset, e, model.manifest.preprocess) in digests]
        if seen and whose == "candidate":
            raise InputError(
                f"{model.manifest.id} was trained on {', '.join(seen[:5])} of data set {dataset.name}: what it does "
                "there is no evidence; take cases that it has not seen"
            )
        if seen:
            notes.append(f"the champion was trained on {len(seen)} case(s) of {dataset.name}, which favours it")
    return notes


def _slower(pairs: dict[str, Pair], models: list[Model]) -> list[str]:
    one, other = models[0].manifest, models[1].manifest
    if (one.network, one.preprocess, one.inference) == (other.network, other.preprocess, other.inference):
        return []  # the same work: any difference is chance
    before, after = (sum(s.seconds for s in scored.values()) for scored in pairs["anchor"])
    return [f"the candidate's network took {after / max(before, 1e-9):.2f} times as long as the champion's"]


def _report(models, sets, pairs: dict[str, Pair], judgement: Judgement, criteria: Criteria, settings, notes) -> dict:
    names = ("champion", "candidate")
    report = {
        "schema": SCHEMA,
        "verdict": judgement.verdict,
        "low_evidence": list(judgement.low_evidence),
        "checks": [asdict(check) for check in judgement.checks],
        "criteria": {**asdict(criteria), "margin": criteria.margin_for(len(pairs["anchor"][0]))},
        "settings": settings,
        "notes": notes,
        "segmamba": __version__,
    }
    for name, model in zip(names, models):
        manifest = model.manifest
        report[name] = {"id": manifest.id, "weights_sha256": manifest.weights_sha256, "parent": manifest.parent}
    for name, dataset, entries in sets:
        scores = [{case: scored.scores for case, scored in found.items()} for found in pairs[name]]
        report[name] = {
            "dataset": dataset.name if dataset else None,
            "cases": {e.id: e.label.sha256 for e in entries},
            "comparison": compare_scores(*scores) if entries else {},
            **dict(zip(names, scores)),
        }
    return report


def _draw(
    folder: Path, models: list[Model], sets, pairs: dict[str, Pair], count: int, device: str, mirrorings: int
) -> None:
    """Pictures of the cases with the largest change either way, truth beside both answers."""
    for old in folder.glob("gate-*.png"):
        old.unlink()
    changes = []
    for name, dataset, entries in sets:
        if entries:
            change = (dice_table(pairs[name][1]) - dice_table(pairs[name][0])).mean(axis=1)
            by_id = sorted(entries, key=lambda entry: entry.id)
            changes += [(float(c), dataset, entry) for c, entry in zip(change, by_id)]
    changes.sort(key=lambda row: -np.abs(row[0]))
    for change, dataset, entry in changes[:count]:
        found = [answer(model, dataset, entry, device, mirrorings) for model in models]
        case, truth = found[0][:2]
        maps = {"truth": truth, "in use": found[0][2].label_map, "candidate": found[1][2].label_map}
        title = f"{entry.id}: mean Dice {change:+.3f}"
        save_picture(case, maps, folder / f"gate-{entry.id}.png", title, models[0].manifest.label_map)
