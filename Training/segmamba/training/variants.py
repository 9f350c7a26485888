"""One configuration trained several times: fold by fold, and from several seeds; and what all of that scored.

RUN/fold-0, RUN/fold-0-seed-2, ...   run folders as of any training; with resume a finished one is collected, one that
                                     was stopped goes on
RUN/summary.json, summary.md         the scores of each, and of all held-out cases together

`segmamba predict --model RUN/fold-0/model --model RUN/fold-1/model ...` averages them.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.split import SPLIT, read_split
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, write_aside
from segmamba.models.package import MANIFEST, read_manifest
from segmamba.training.checkpoint import has_checkpoint, is_resumed
from segmamba.training.config import SourceConfig, TrainingConfig, resolved
from segmamba.training.data_check import check_data
from segmamba.training.loop import train
from segmamba.training.plan import check_ids
from segmamba.training.run_folder import changed_settings, read_record

log = logging.getLogger(__name__)


def make_variants(config: TrainingConfig, folds: int | None, seeds: Sequence[int] = ()) -> dict[str, TrainingConfig]:
    """The configurations of several trainings that differ in fold and seed alone.

    Args:
        config: of them all.
        folds: how many, each validated on once; None: the sources as they are.
        seeds: each for every fold; none: that of the configuration.

    Returns:
        Name ("fold-0-seed-1") -> configuration.

    Raises:
        InputError: where no source is split into so many folds, or two cases of one id are held out in them.
    """
    found = {}
    for fold in range(folds) if folds else [None]:
        sources = _sources_of_fold(config, folds, fold) if folds and fold is not None else config.sources
        for seed in seeds or [config.seed]:
            parts = [f"fold-{fold}"] if fold is not None else []
            parts += [f"seed-{seed}"] if seeds else []
            name = "-".join(parts)
            found[name] = replace(config, name=f"{config.name}-{name}", sources=sources, seed=seed)
    if folds:
        _check_names(next(iter(found.values())).sources)
    return found


def _check_names(sources: tuple[SourceConfig, ...]) -> None:
    """Refuses data sets with cases of one id, which the summary of their folds would take for one case."""
    datasets = [read_dataset(source.dataset) for source in sources if source.validate or source.held_out]
    check_ids([i for _, i in {(d.folder, case.id) for d in datasets for case in d.cases if case.label}], "hold out")


def _sources_of_fold(config: TrainingConfig, folds: int, fold: int) -> tuple[SourceConfig, ...]:
    """Each source with a split leaves out its fold; one without, as of phantoms, is trained on whole each time."""
    sources, found = [], False
    for source in config.sources:
        if source.dataset and not source.held_out:
            dataset = read_dataset(source.dataset)
            if (Path(dataset.folder) / SPLIT).exists():
                split = read_split(dataset)
                if split.folds != folds:
                    raise InputError(
                        f"data set {dataset.name} is split into {split.describe()}; expected {folds} folds: give "
                        "--folds that number, or split a copy of it anew"
                    )
                source, found = replace(source, validate=True, fold=fold), True
        sources.append(source)
    if not found:
        raise InputError(
            f"no data set of the configuration is split; `segmamba dataset split DATASET --folds {folds}` does it"
        )
    return tuple(sources)


def train_variants(variants: dict[str, TrainingConfig], run: Path, *, resume: str = "never", device: str) -> dict:
    """Trains or collects several trainings, one after the other.

    Args:
        variants: name -> configuration.
        run: folder of them all, each in a folder of its name.
        resume: "never", "auto", or "must", which goes on where any of them was begun.
        device: as torch names it.

    Returns:
        The summary, which is written anew after each.

    Raises:
        InputError: before anything is trained, with "must", where none was begun, with "never", where one was, and
            where a finished one had other settings or data; and as `training.loop.train`.
    """
    if resume == "must" and not any(
        has_checkpoint(run / n) or (run / n / "model" / MANIFEST).is_file() for n in variants
    ):
        raise InputError(
            f"{run} holds none of the trainings {', '.join(variants)} to go on with; name the --run-folder they were "
            "begun in, or leave --resume out"
        )
    finished = {n for n in variants if resume != "never" and (run / n / "model" / MANIFEST).is_file()}
    for name, config in variants.items():  # before anything is trained
        if name in finished:
            _check_settings(run / name, config)
        else:
            is_resumed(run / name, "never" if resume == "never" else "auto")
    make_folder(run)
    rows: dict[str, dict] = {}
    for name, config in variants.items():
        folder = run / name
        model = folder / "model"
        if name not in finished:
            log.info("%s", name)
            model = train(config, folder, resume="never" if resume == "never" else "auto", device=device)
        metrics = read_manifest(model).metrics
        rows[name] = {"mean": metrics.get("mean", {}), "cases": metrics.get("cases", {})}
        summary = {"variants": rows, **summarize(rows)}
        if os.environ.get("RANK", "0") == "0":
            write_aside(run / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
            write_aside(run / "summary.md", format_summary(summary).encode())
    return summary


def _check_settings(folder: Path, config: TrainingConfig) -> None:
    changed = changed_settings({"config": read_record(folder).get("config", {})}, {"config": resolved(config)})
    if changed:
        raise InputError(
            f"{folder} is of a training with other settings ({', '.join(changed)}): give the configuration it was made "
            "with, or another --run-folder"
        )
    check_data(config, folder, "--run-folder")


def summarize(rows: dict[str, dict]) -> dict:
    """The scores of several trainings together.

    {"cases": how many were held out, "mean", "deviation": region -> metric -> over cases}. A case that several seeds
    were validated on counts once, with its mean over them.
    """
    scores: dict[str, dict] = {}
    for row in rows.values():
        for case, regions in row["cases"].items():
            for region, metrics in regions.items():
                for metric, value in metrics.items():
                    scores.setdefault(region, {}).setdefault(metric, {}).setdefault(case, []).append(value)
    means, deviations = {}, {}
    for region, metrics in scores.items():
        each = {metric: [statistics.fmean(found) for found in cases.values()] for metric, cases in metrics.items()}
        means[region] = {metric: statistics.fmean(values) for metric, values in each.items()}
        deviations[region] = {metric: statistics.pstdev(values) for metric, values in each.items()}
    cases = {case for row in rows.values() for case in row["cases"]}
    return {"cases": len(cases), "mean": means, "deviation": deviations}


def format_summary(summary: dict) -> str:
    """A table: Dice and HD95 (mm) of each region, a row a variant, the last over all held-out cases."""
    regions = list(summary["mean"])
    header = ["", "cases", *(f"Dice {region}" for region in regions), *(f"HD95 {region}" for region in regions)]
    lines = [_line(header), _line(["---"] + ["---:"] * (len(header) - 1))]
    for name, row in summary["variants"].items():
        lines.append(_line([name, str(len(row["cases"])), *_cells(row["mean"], regions)]))
    lines.append(_line(["all cases", str(summary["cases"]), *_cells(summary["mean"], regions)]))
    lines.append(_line(["standard deviation", "", *_cells(summary["deviation"], regions)]))
    return "\n".join(lines) + "\n"


def _cells(scores: dict, regions: Sequence[str]) -> list[str]:
    def cell(region: str, metric: str, digits: int) -> str:
        return f"{scores[region][metric]:.{digits}f}" if region in scores else "-"

    return [cell(region, "dice", 3) for region in regions] + [cell(region, "hd95", 2) for region in regions]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
