"""`python Testing/benchmarks/cross_validation.py DATASET ... --model 0 MODEL --model 1 MODEL ... [--keep FOLDER]`.

DATASETs are data sets with folds (`segmamba dataset split --folds`), each a cohort; MODEL of fold K has not seen the
cases of fold K of any of them. Every held-out case is segmented on its own grid, without post-processing; then the
limits of post-processing (prediction.postprocess) are fitted on these predictions, once on all of them, which is what a
manifest takes, and once for each fold on the other folds, which is what the scores "after" are made with, so that no
case is scored with limits that it helped to choose.

Writes results/NAME.json: Dice, HD95, NSD, lesion-wise Dice and false positives of each case and region, before and
after, means with 95 % bootstrap intervals of all and per cohort, and the limits. --keep: label maps for a second look.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from held_out import HeldOut, add_arguments, held_out_cases
from measure import describe, print_table, progress, write_results
from segmamba.cases.labels import GLIOMA, to_regions
from segmamba.evaluation.metrics import dice, lesion_wise, region_scores
from segmamba.models.specs import PostprocessSpec
from segmamba.prediction.postprocess import postprocess

REGIONS = ("WT", "TC", "ET")
METRICS = ("dice", "hd95", "nsd", "lesion_dice", "false_positives")
COMPONENTS = (0, 10, 25, 50, 100, 200, 500, 1000)  # mm3
WITHOUT_INNER = (0, 1000, 2000, 5000, 10000, 20000)  # mm3, of WT: oedema without a core
TOTALS = (0, 50, 100, 200, 400, 800, 1600)  # mm3
ENOUGH = (
    0.005  # a limit stays only where it brings that much: fewer voxels are taken away for nothing, whole lesions too
)


@dataclass(frozen=True)
class Held:
    """A held-out case: label maps (X, Y, Z) of the answer and of the expert, cropped to where either has a label.

    known: what `merit` found for a region's mask.
    """

    id: str
    cohort: str
    fold: int
    answer: np.ndarray
    truth: np.ndarray
    affine: np.ndarray
    seconds: float
    known: dict = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(float(side) for side in np.linalg.norm(self.affine[:3, :3], axis=0))


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description="Scores of models on the folds that they have not seen.")
    add_arguments(parser)
    parser.add_argument("--mirrorings", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the label maps")
    parser.add_argument("--name", default="cross_validation", help="of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = [segment_case(one, options) for one in held_out_cases(options)]
    limits = fit_limits(held)
    folds = sorted({case.fold for case in held})
    others = {fold: [case for case in held if case.fold != fold] for fold in folds}
    unseen = {fold: fit_limits(cases) if cases else PostprocessSpec() for fold, cases in others.items()}
    before = {case.id: scores_of(case, PostprocessSpec()) for case in held}
    after = {case.id: scores_of(case, unseen[case.fold]) for case in held}
    cohorts = {case.id: case.cohort for case in held}
    tables = {"before": summarize(before, cohorts), "after": summarize(after, cohorts)}
    for when, table in tables.items():
        rows = [
            [cohort, str(entry["cases"]), *(f"{entry[region][metric][0]:.3f}" for metric, region in columns())]
            for cohort, entry in table.items()
        ]
        print_table(f"{when} post-processing", ("cohort", "n", *(f"{m} {r}" for m, r in columns())), rows)
    write_results(
        options.name,
        {
            **describe(),
            "mirrorings": options.mirrorings,
            "limits": asdict(limits),
            "limits_without_fold": {fold: asdict(spec) for fold, spec in unseen.items()},
            "mean": tables,
            "cases": {
                case.id: {"cohort": case.cohort, "fold": case.fold, "before": before[case.id], "after": after[case.id]}
                for case in held
            },
            "seconds": round(float(np.median([case.seconds for case in held])), 2),
        },
    )


def columns() -> list[tuple[str, str]]:
    return list(product(("dice", "lesion_dice", "false_positives"), REGIONS))


def segment_case(one: HeldOut, options: argparse.Namespace) -> Held:
    from segmamba.cases.case import load_case, load_label_map, save_image
    from segmamba.prediction.segment import segment

    entry, dataset, manifest = one.entry, one.dataset, one.model.manifest
    progress(f"fold {one.fold}, {entry.id}")
    case = load_case(dataset.sources(entry), entry.id, manifest.preprocess.modalities)
    result = segment(case, one.model.network, manifest.preprocess, manifest.inference, mirrorings=options.mirrorings)
    truth = load_label_map(dataset.path(entry.label), dataset.renumbering, case)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        save_image(result.label_map, case.affine, options.keep / f"{entry.id}-seg.nii.gz", np.uint8)
    box = crop(result.label_map, truth)
    seconds = sum(result.seconds.values())
    return Held(entry.id, dataset.name, one.fold, result.label_map[box], truth[box], case.affine, seconds)


def crop(answer: np.ndarray, truth: np.ndarray) -> tuple[slice, ...]:
    """The box that holds every label, two voxels wider: no score of regions depends on what is outside of it."""
    found = np.argwhere((answer > 0) | (truth > 0))
    if not len(found):
        return (slice(0, 2),) * 3
    return tuple(slice(max(0, low - 2), high + 3) for low, high in zip(found.min(0), found.max(0)))


def fit_limits(cases: list[Held]) -> PostprocessSpec:
    """Limits region by region, the innermost first, each the smallest of those that score about best. Without an inner
    region only WT is tried: oedema has a tumour in it, while a tumour that does not enhance is one.

    Score: the mean over cases and regions of Dice and lesion-wise Dice together, so that neither many specks nor one
    lost lesion is free.
    """
    spec = PostprocessSpec()
    for region in reversed(REGIONS):
        spec = chosen(cases, spec, "min_component_mm3", region, COMPONENTS)
        if region == "WT":
            spec = chosen(cases, spec, "min_without_inner_mm3", region, WITHOUT_INNER)
        spec = chosen(cases, spec, "min_total_mm3", region, TOTALS)
    return spec


def chosen(
    cases: list[Held], spec: PostprocessSpec, limit: str, region: str, sizes: tuple[float, ...]
) -> PostprocessSpec:
    """`spec` with the smallest size of a limit that scores about best; a size of 0 is no limit."""
    tried = {size: replace(spec, **{limit: {**getattr(spec, limit), region: float(size)}}) for size in sizes if size}
    merits = {0: merit(cases, spec), **{size: merit(cases, other) for size, other in tried.items()}}
    best = min(size for size, value in merits.items() if value >= max(merits.values()) - ENOUGH)
    return tried[best] if best else spec


def merit(cases: list[Held], spec: PostprocessSpec) -> float:
    values = []
    for case in cases:
        label_map, _ = postprocess(case.answer, case.affine, spec, GLIOMA)
        for region, mask in to_regions(label_map).items():
            key = region, mask.tobytes()
            if key not in case.known:  # most limits change nothing in most cases
                true = to_regions(case.truth)[region]
                lesions = lesion_wise(mask, true, case.spacing)["dice"]
                case.known[key] = (dice(mask, true) + lesions) / 2
            values.append(case.known[key])
    return float(np.mean(values))


def scores_of(case: Held, spec: PostprocessSpec) -> dict[str, dict[str, float]]:
    label_map, _ = postprocess(case.answer, case.affine, spec, GLIOMA)
    whole = region_scores(label_map, case.truth, case.spacing)
    ours, true = to_regions(label_map), to_regions(case.truth)
    result = {}
    for region in REGIONS:
        lesions = lesion_wise(ours[region], true[region], case.spacing)
        scores = {**whole[region], "lesion_dice": lesions["dice"], "false_positives": lesions["false_positives"]}
        result[region] = {metric: round(float(scores[metric]), 4) for metric in METRICS}
    return result


def summarize(scores: dict[str, dict], cohorts: dict[str, str]) -> dict[str, dict]:
    """Cohort, and "all" -> {"cases": n, region: {metric: [mean, low, high]}}, of a 95 % bootstrap over cases.

    Of a single case there is no interval: [mean].
    """
    from segmamba.evaluation.confidence import mean_interval

    groups = {"all": list(scores)}
    for name, cohort in cohorts.items():
        groups.setdefault(cohort, []).append(name)
    summary = {}
    for cohort, names in groups.items():
        entry: dict = {"cases": len(names)}
        for region in REGIONS:
            entry[region] = {}
            for metric in METRICS:
                values = np.array([scores[name][region][metric] for name in names])
                ends = mean_interval(values, rng=np.random.default_rng(2023)) if len(values) > 1 else ()
                entry[region][metric] = [round(float(v), 4) for v in (values.mean(), *ends)]
        summary[cohort] = entry
    return summary


if __name__ == "__main__":
    main()
