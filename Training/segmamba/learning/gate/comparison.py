"""Two models on the same cases: checked to fit one another and to be unseen, scored, judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from segmamba.datasets.manifest import CaseEntry, Dataset, read_dataset
from segmamba.datasets.split import validation_cases
from segmamba.errors import InputError
from segmamba.learning.gate.rules import Criteria, Judgement, judge
from segmamba.learning.gate.scores import Pair, Scored, count_unknown, kept_mm3, score_cases
from segmamba.learning.provenance import shipped_cases
from segmamba.models.package import Manifest, Model, load_package
from segmamba.training.samples import case_digest


@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """Cases on which both models were scored."""

    name: str
    """"anchor" or "local"."""
    dataset: Dataset | None
    """None where there is none."""
    entries: tuple[CaseEntry, ...]
    """Of the data set, by id."""
    pair: Pair
    """Scores of champion and candidate."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same cases, and what follows."""

    models: tuple[Model, Model]
    """Champion, candidate."""
    sets: tuple[CaseSet, CaseSet]
    """Anchor, local."""
    spots: dict[str, float]
    """As of scores.kept_mm3."""
    judgement: Judgement
    """The verdict, with what it rests on."""
    notes: list[str]
    """What a reader should know, one sentence each."""


def compare_models(
    candidate: Path,
    champion: Path,
    anchor: Path | str,
    local: Path | str | None,
    *,
    criteria: Criteria,
    device: str,
    mirrorings: int = 0,
    cache: Path,
    progress: Callable[[str, int], None],
) -> Comparison:
    """Scores both models on both sets of cases, and judges the candidate.

    Args:
        candidate: as of `run_gate`.
        champion: as of `run_gate`.
        anchor: as of `run_gate`.
        local: as of `run_gate`.
        criteria: what is asked of the candidate.
        device: as torch names it.
        mirrorings: 0, 1, 3 or 7 extra passes with flipped axes.
        cache: folder of scores.
        progress: called before a model is asked about a case, with both and the number of such questions that are
            left, this one included; a score that is known is not asked for.

    Returns:
        The scores of both on every case, and the verdict.

    Raises:
        InputError: where the two models or data sets do not fit one another, or the candidate was trained on one of the
            cases.
    """
    models = load_package(champion), load_package(candidate)
    one, other = (model.manifest for model in models)
    if one.weights_sha256 == other.weights_sha256 and one.network == other.network:
        raise InputError(f"{candidate} is the model in use itself; there is nothing to compare")
    spots = kept_mm3(models)
    chosen = [("anchor", *_anchor(anchor, models)), ("local", *_local(local, models))]
    notes = [note for _, dataset, entries in chosen for note in _check_unseen(dataset, entries, models)]
    options: dict[str, Any] = {
        "spots": spots,
        "device": device,
        "mirrorings": mirrorings,
        "cache": cache,
    }
    left = sum(count_unknown(model, *cases, **options) for _, *cases in chosen for model in models)

    def ask(what: str) -> None:
        nonlocal left
        progress(what, left)
        left -= 1

    anchored, at_home = (
        CaseSet(
            name=name,
            dataset=dataset,
            entries=entries,
            pair=cast(Pair, tuple(_scores(model, dataset, entries, {**options, "progress": ask}) for model in models)),
        )
        for name, dataset, entries in chosen
    )
    judgement = judge(anchored.pair, at_home.pair, spots, criteria)
    notes += [*_slower(anchored.pair, models), *_chosen(models[1])]
    return Comparison(models=models, sets=(anchored, at_home), spots=spots, judgement=judgement, notes=notes)


def _scores(
    model: Model, dataset: Dataset | None, entries: tuple[CaseEntry, ...], options: dict[str, Any]
) -> dict[str, Scored]:
    return score_cases(model, dataset, entries, **options) if dataset is not None and entries else {}


def _anchor(where: Path | str, models: tuple[Model, ...]) -> tuple[Dataset, tuple[CaseEntry, ...]]:
    dataset = _fitting(where, models, "dataset init")
    return dataset, tuple(case for case in dataset.cases if case.label is not None)


def _local(where: Path | str | None, models: tuple[Model, ...]) -> tuple[Dataset | None, tuple[CaseEntry, ...]]:
    if where is None:
        return None, ()
    dataset = _fitting(where, models, "intake")
    return dataset, validation_cases(dataset)


def _fitting(where: Path | str, models: tuple[Model, ...], made_with: str) -> Dataset:
    dataset = read_dataset(where, made_with)
    for model in models:
        check_fits(dataset, model.manifest)
    return dataset


def check_fits(dataset: Dataset, manifest: Manifest) -> None:
    """Raises InputError where a data set has other labels or regions than a model, or not all modalities it needs."""
    if manifest.scheme != dataset.scheme:
        raise InputError(f"model {manifest.id} has other labels or regions than data set {dataset.name}")
    if missing := [m for m in manifest.preprocess.modalities if m not in dataset.modalities]:
        raise InputError(f"data set {dataset.name} has no {', '.join(missing)}, which model {manifest.id} needs")


def _check_unseen(dataset: Dataset | None, entries: tuple[CaseEntry, ...], models: tuple[Model, ...]) -> list[str]:
    """Raises InputError where the candidate was trained on a case; that the champion was is a note: it is favoured."""
    notes = []
    if dataset is None:
        return notes
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
    if shipped := shipped_cases(dataset):  # made smaller, so their digests do not tell
        notes.append(
            f"the models that ship were trained on the {len(shipped)} cases of {dataset.name}, which favours them"
        )
    return notes


def _slower(anchor: Pair, models: tuple[Model, Model]) -> list[str]:
    one, other = models[0].manifest, models[1].manifest
    if (one.network, one.preprocess, one.inference) == (other.network, other.preprocess, other.inference):
        return []  # the same work: any difference is chance
    before, after = (sum(s.seconds for s in scored.values()) for scored in anchor)
    return [f"the candidate's network took {after / max(before, 1e-9):.2f} times as long as the champion's"]


def _chosen(candidate: Model) -> list[str]:
    """Of training.interpolation, which a site uses with a share that did best on these cases."""
    way = candidate.manifest.training.get("interpolation")
    if not isinstance(way, dict):
        return []
    return [
        f"the candidate's weights are {way.get('share')} of the way from {way.get('from')} to what was fine-tuned from "
        "it; where that share was chosen on these cases, it favours the candidate a little"
    ]
