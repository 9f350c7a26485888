"""The gate: a candidate against the model in use, on cases that neither has seen, and a verdict with its evidence.

CANDIDATE/gate.json    criteria, checks, verdict, the scores of both on every case (segmamba.learning.registry reads it)
CANDIDATE/GATE.md      the same for people
CANDIDATE/gate-*.png   the cases to look at first

It recommends; what is promoted a person decides.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from segmamba import __version__
from segmamba.evaluation.compare import compare_scores
from segmamba.evaluation.picture import save_picture
from segmamba.files.atomic import write_aside
from segmamba.learning.gate.comparison import Comparison, compare_models
from segmamba.learning.gate.page import format_report
from segmamba.learning.gate.rules import Criteria, Judgement, beside_doubts, is_guard
from segmamba.learning.gate.scores import answer, table
from segmamba.learning.provenance import doubtful_cases, shipped_cases

__all__ = ["Comparison", "Criteria", "compare_models", "format_report", "run_gate", "score_cache"]

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
    progress: Callable[[str, int], None] | None = None,
) -> dict:
    """Judges a candidate against the model in use, and writes the report into the candidate's folder.

    Where the manifest of `local` names doubtful cases and the anchor cases cannot show what they teach, for they
    ship with the program or are few, the candidate is not recommended.

    Args:
        candidate: folder of a model package.
        champion: folder of the model in use.
        anchor: a data set (segmamba.datasets) whose labelled cases are never trained on.
        local: one with a split (`segmamba intake`), of which the validation cases count; None where there is none.
        criteria: what is asked of the candidate; None: as usual.
        device: "cpu", "cuda" or "cuda:1".
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.
        cache: folder of scores, beside the candidate where not said; a gate that was killed goes on from there.
        pictures: at most so many cases are drawn, and one of the site's own besides where none is among them.
        progress: called before a model is asked about a case, as of `compare_models`.

    Returns:
        What was written into gate.json: verdict, checks, the scores of both models on every case.

    Raises:
        InputError: where the two models or data sets do not fit one another, or the candidate was trained on one of
            the cases.

    Example:
        ``candidate`` and ``champion`` are folders of models, and ``dataset`` a folder with a data set's manifest.

        >>> report = run_gate(candidate, champion, dataset, pictures=0)
        >>> report["verdict"]
        'refuse'
        >>> (candidate / "GATE.md").is_file()
        True
    """
    criteria, candidate = criteria or Criteria(), Path(candidate)
    found = compare_models(
        candidate,
        champion,
        anchor,
        local,
        criteria=criteria,
        device=device,
        mirrorings=mirrorings,
        cache=Path(cache) if cache is not None else score_cache(candidate.parent),
        progress=progress or (lambda text, left: None),
    )
    found = replace(found, judgement=_beside_doubts(found))
    report = _report(found, criteria, {"device": device, "mirrorings": mirrorings})
    _draw(candidate, found, pictures, device, mirrorings)
    write_aside(candidate / TEXT, format_report(report).encode())
    write_aside(candidate / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


def score_cache(models: Path) -> Path:
    """Where the scores of the models in a folder are kept."""
    return models / ".gate-scores"


def _beside_doubts(found: Comparison) -> Judgement:
    anchor, local = found.sets
    doubtful = doubtful_cases(local.dataset) if local.dataset else ()
    guarded = anchor.dataset is not None and not shipped_cases(anchor.dataset) and is_guard(anchor.pair, found.spots)
    return found.judgement if guarded else beside_doubts(found.judgement, doubtful)


def _report(found: Comparison, criteria: Criteria, settings: dict) -> dict:
    names = ("champion", "candidate")
    judgement = found.judgement
    report = {
        "schema": SCHEMA,
        "verdict": judgement.verdict,
        "low_evidence": list(judgement.low_evidence),
        "look_first": [asdict(look) for look in judgement.look_first],
        "checks": [asdict(check) for check in judgement.checks],
        "criteria": {**asdict(criteria), "false_spots_mm3": found.spots},
        "settings": settings,
        "notes": found.notes,
        "segmamba": __version__,
    }
    for name, model in zip(names, found.models):
        manifest = model.manifest
        report[name] = {"id": manifest.id, "weights_sha256": manifest.weights_sha256, "parent": manifest.parent}
    for cases in found.sets:
        scores = [{case: scored.scores for case, scored in model.items()} for model in cases.pair]
        report[cases.name] = {
            "dataset": cases.dataset.name if cases.dataset else None,
            "cases": {e.id: e.label and e.label.sha256 for e in cases.entries},
            "comparison": compare_scores(*scores) if cases.entries else {},
            **dict(zip(names, scores)),
        }
    return report


def _draw(folder: Path, found: Comparison, count: int, device: str, mirrorings: int) -> None:
    """Pictures of the cases to look at first, then of those that changed most: truth beside both answers.

    At most `count`. Where none of the site's own is among them, one is added: there a person sees what the corrections
    have done.
    """
    for old in folder.glob("gate-*.png"):
        old.unlink()
    changes = {}
    for cases in found.sets:
        if cases.entries:
            change = (table(cases.pair[1], "dice") - table(cases.pair[0], "dice")).mean(axis=1)
            by_id = sorted(cases.entries, key=lambda entry: entry.id)
            changes |= {(cases.name, e.id): (float(c), cases.dataset, e) for c, e in zip(change, by_id)}
    first = [(look.part, look.case) for look in found.judgement.look_first]
    by_change = sorted(changes, key=lambda key: -abs(changes[key][0]))
    order = list(dict.fromkeys([*first, *by_change]))
    shown = order[:count]
    own = [key for key in order if key[0] == "local"]
    if shown and own and not set(own) & set(shown):
        shown.append(own[0])
    for key in shown:
        change, dataset, entry = changes[key]
        both = [answer(model, dataset, entry, device, mirrorings) for model in found.models]
        case, truth = both[0][:2]
        maps = {"truth": truth, "in use": both[0][2].label_map, "candidate": both[1][2].label_map}
        title = f"{entry.id}: mean Dice {change:+.3f}"
        save_picture(case, maps, folder / f"gate-{entry.id}.png", title, found.models[0].manifest.label_map)
