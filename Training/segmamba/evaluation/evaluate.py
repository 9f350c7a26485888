"""Predicted label maps against the truth, case by case: what `segmamba evaluate PREDICTIONS TRUTHS` does.

Every file is read before the first is scored, so that no damaged file, wrong grid or unknown label is found after an
hour of work; that takes about a tenth of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from segmamba.cases.conventions import PREDICTION_LABELS, find_conventions, in_common
from segmamba.cases.label_files import Found, check_grid, find_label_maps, look_at, pair_label_maps, read_label_map
from segmamba.cases.labels import CONVENTIONS, GLIOMA, LabelScheme, renumber, to_regions
from segmamba.errors import InputError
from segmamba.evaluation.confidence import RESAMPLES, mean_interval
from segmamba.evaluation.metrics import (
    LESION_DILATION,
    NSD_TOLERANCE,
    SMALLEST_LESION,
    lesion_wise,
    paper_scores,
    region_scores,
)

SCORINGS = {
    "brats2023": ("dice", "hd95", "nsd", "lesion_dice", "lesion_hd95", "lesions", "false_positives"),
    "paper": ("dice", "hd95"),
}
SEED = 2023  # of the bootstrap: the same scores give the same intervals

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rules:
    """How a case is scored; crosses over to other processes."""

    scheme: LabelScheme
    scoring: str
    tolerance: float


def evaluate_folders(
    predictions: Path,
    truths: Path,
    *,
    convention: str | Mapping[str, str] | None = None,
    predicted: str | None = None,
    beside: str | None = None,
    option: str = PREDICTION_LABELS,
    otherwise: str | None = None,
    scheme: LabelScheme = GLIOMA,
    renumbering: Mapping[int, int] | None = None,
    images: Iterable[str] = (),
    scoring: str = "brats2023",
    tolerance: float = NSD_TOLERANCE,
    jobs: int = 1,
) -> dict:
    """Scores every case of `truths`.

    For another task than glioma, predictions hold the scheme's values; where one of them has a value which only the
    data set's files have, and none has others, all follow those. Where `predictions` is one file, only its case is
    scored; two single files are paired whatever their names.

    Args:
        predictions: a file or a folder (`label_files` says which files are taken).
        truths: likewise.
        convention: label convention of the truths (a name in labels.CONVENTIONS), or one for each case. None: it is
            found from the values and names of all truths of one cohort together, as one case without enhancing tumour
            would leave it open; failing that, labels 1 to 3 follow `otherwise`.
        predicted: convention of the predictions. None: they hold the engine's labels, or, where one of them holds a 4,
            those of the truths. Where truths and predictions have labels that the others do not know (labels.SCHEMES),
            the regions that both have are scored: WT, TC and ET.
        beside: convention of other predictions, which are to be scored in the same regions.
        option: of the command line that says `predicted`, for errors.
        otherwise: convention of labels 1 to 3 where nothing tells it; None: that is an error.
        scheme: labels and regions of another task than glioma.
        renumbering: with it, value in the truths' files -> value in the scheme, as a data set's manifest has them;
            `convention` stays None.
        images: modalities whose files may lie beside label maps.
        scoring: "brats2023": metrics.region_scores and lesion_wise. "paper": metrics.paper_scores, Dice and HD95 alone.
        tolerance: of NSD, in mm.
        jobs: processes that work at once; the result does not depend on it. (A script that asks for more than one needs
            `if __name__ == "__main__":`, as new processes import it.)

    Returns:
        Ready for JSON: {"cases": {id: {"dice": {"WT", "TC", "ET"}, "hd95": .., the others of SCORINGS[scoring]: ..}},
        "mean": the same over the cases, "ci95": the same with [low, high] of the mean (a bootstrap over cases; None for
        a single case), "n": number of cases, "convention": that of the truths (several with a comma between; "data set"
        with a renumbering), "scoring", "nsd_tolerance_mm" and "lesion_parameters" (where used), "without_truth": ids of
        predictions that were not scored as they have no truth, "notes": what a reader should know}.

    Raises:
        InputError: where a truth has no prediction (to leave it out would flatter the mean), a file cannot be read, the
            convention of either cannot be told, or a prediction does not lie on the grid of its truth.
    """
    predictions, truths = Path(predictions), Path(truths)
    _check_conventions(convention, predicted, option, otherwise, renumbering)
    _check_options(scheme, renumbering, scoring, jobs)
    truth_files = find_label_maps(truths, images)
    pairs, without_truth = pair_label_maps(predictions, find_label_maps(predictions, images), truths, truth_files)
    if isinstance(convention, Mapping) and (untold := [case for case in pairs if case not in convention]):
        raise InputError(f"{truths}: the table of --labels does not say what {', '.join(untold[:8])} follow")
    notes: list[str] = []
    with _workers(jobs) as each:
        needed = [file for pair in pairs.values() for file in pair]
        if convention is None and renumbering is None:
            needed = list(dict.fromkeys([*needed, *truth_files.values()]))
        found = dict(zip(needed, each(look_at, needed)))
        for prediction, truth in pairs.values():
            check_grid(found[prediction], found[truth])
        work = []
        if renumbering is None:
            if convention is None:
                convention = find_conventions(truths, {c: found[f] for c, f in truth_files.items()}, otherwise, notes)
            elif isinstance(convention, str):
                convention = dict.fromkeys(pairs, convention)
            told = {case: convention[case] for case in pairs}
            scheme, numbers, renumberings = in_common(
                told, predicted, [found[p] for p, _ in pairs.values()], notes, beside=beside, option=option
            )
            for case, (prediction, truth) in pairs.items():
                _check_values(found[truth], renumberings[told[case]], f"{told[case]} labels", "--labels")
                _check_values(found[prediction], numbers, "a prediction's labels", option)
                work.append((prediction, numbers, truth, renumberings[told[case]]))
            convention = ", ".join(sorted(set(told.values())))
        else:
            convention = "data set"
            numbers = _numbers([found[p] for p, _ in pairs.values()], scheme, renumbering, notes)
            for prediction, truth in pairs.values():
                _check_values(found[truth], renumbering, f"{convention} labels", "--dataset")
                _check_values(found[prediction], numbers, "a prediction's labels", "--dataset")
                work.append((prediction, numbers, truth, renumbering))
        rules = _Rules(scheme, scoring, tolerance)
        cases = {}
        for number, (case, scores) in enumerate(zip(pairs, each(partial(_score, rules), work)), start=1):
            cases[case] = scores
            _log.info("%d of %d: %s scored", number, len(pairs), case)
    lesion_wise_used = scoring == "brats2023"
    coarse = sum(not np.allclose(voxel_sizes(found[truth].affine), 1, atol=1e-3) for _, truth in pairs.values())
    if coarse and lesion_wise_used:
        notes.append(
            f"{coarse} of {len(pairs)} cases are not on a grid of 1 mm: their lesion-wise numbers are not those of "
            f"the challenge, which counts {LESION_DILATION} voxels of dilation as 3 mm"
        )
    if scheme != GLIOMA and lesion_wise_used:
        notes.append("lesion-wise numbers use the challenge's parameters for adult glioma, for want of this task's own")
    result = {"cases": cases, **summarise(cases), "n": len(cases), "convention": convention, "scoring": scoring}
    if lesion_wise_used:
        result["nsd_tolerance_mm"] = tolerance
        result["lesion_parameters"] = {"dilation_voxels": LESION_DILATION, "smallest_mm3": SMALLEST_LESION}
    return {**result, "without_truth": without_truth, "notes": notes}


def summarise(cases: dict[str, dict[str, dict[str, float]]]) -> dict:
    """The means of scores over cases, with their intervals of confidence.

    {case: {metric: {region: score}}} -> {"mean": {metric: {region: mean}}, "ci95": the same with [low, high]}.
    """
    first = next(iter(cases.values()))
    table = np.array([[s for regions in case.values() for s in regions.values()] for case in cases.values()], float)
    ends = None
    if len(cases) > 1:
        low, high = mean_interval(table, rng=np.random.default_rng(SEED), resamples=RESAMPLES)
        ends = _as_tree(first, [list(pair) for pair in zip(low.tolist(), high.tolist())])
    return {"mean": _as_tree(first, table.mean(axis=0).tolist()), "ci95": ends}


def _as_tree(like: dict[str, dict], numbers: list) -> dict[str, dict]:
    left = iter(numbers)
    return {metric: {region: next(left) for region in regions} for metric, regions in like.items()}


def _score(rules: _Rules, work: tuple) -> dict[str, dict[str, float]]:
    prediction, numbers, truth, renumbering = work
    predicted, _ = read_label_map(prediction)
    true, affine = read_label_map(truth)
    spacing = [float(size) for size in voxel_sizes(affine)]
    # All metrics take what lies outside the array for background: a box around the labels says the same, sooner.
    boxes = ndimage.find_objects(((predicted > 0) | (true > 0)).view(np.uint8))
    if boxes:
        predicted, true = predicted[boxes[0]], true[boxes[0]]
    predicted, true = renumber(predicted, numbers), renumber(true, renumbering)
    if rules.scoring == "paper":
        return _by_metric(paper_scores(predicted, true, spacing, rules.scheme))
    whole = _by_metric(region_scores(predicted, true, spacing, rules.scheme, tolerance=rules.tolerance))
    masks, true_masks = to_regions(predicted, rules.scheme), to_regions(true, rules.scheme)
    lesions = _by_metric({region: lesion_wise(masks[region], true_masks[region], spacing) for region in masks})
    return {
        **whole,
        **{f"lesion_{metric}": lesions[metric] for metric in ("dice", "hd95")},
        **{count: lesions[count] for count in ("lesions", "false_positives")},
    }


def _by_metric(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    metrics = next(iter(scores.values()))
    return {metric: {region: of_region[metric] for region, of_region in scores.items()} for metric in metrics}


@contextmanager
def _workers(jobs: int) -> Iterator[Callable]:
    """Gives `each(function, items)`, which yields function(item) in the order of the items."""
    if jobs == 1:
        yield map
        return
    # spawn: a fork would copy the locks of threads that libraries keep, and is not to be had everywhere
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {jobs} processes was ended by the system, perhaps because memory ran out; try fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _check_conventions(
    convention: str | Mapping[str, str] | None,
    predicted: str | None,
    option: str,
    otherwise: str | None,
    renumbering: Mapping[int, int] | None,
) -> None:
    told = convention.values() if isinstance(convention, Mapping) else (convention,)
    for said_by, name in (*(("--labels", name) for name in (*told, otherwise)), (option, predicted)):
        if name is not None and name not in CONVENTIONS:
            raise InputError(f"{said_by} {name}: unknown; expected one of {', '.join(CONVENTIONS)}")
    if (convention or predicted) and renumbering is not None:
        said_by = "--labels" if convention else option
        raise InputError(f"{said_by} and --dataset both say what the labels mean; give one of them")


def _check_options(scheme: LabelScheme, renumbering: Mapping[int, int] | None, scoring: str, jobs: int) -> None:
    if scheme != GLIOMA and renumbering is None:
        raise InputError(f"labels {', '.join(scheme.labels)}: nothing says which values they have in the truths' files")
    if scoring not in SCORINGS:
        raise InputError(f"--convention {scoring}: unknown; expected one of {', '.join(SCORINGS)}")
    if jobs < 1:
        raise InputError(f"--jobs {jobs}: expected 1 or more")


def _numbers(
    predictions: Iterable[Found], scheme: LabelScheme, renumbering: Mapping[int, int], notes: list[str]
) -> Mapping[int, int]:
    """Value in the predictions -> label of a data set, the same for all of them: one case without a label tells less.

    notes: what a reader should know is appended.
    """
    same = {value: value for value in scheme.labels.values()}
    values = {value for found in predictions for value in found.values}
    others = sorted(values - set(same))
    if others and values <= set(renumbering):
        held = ", ".join(map(str, others[:8]))
        notes.append(f"the predictions hold a {held}: taken for the values of the data set's files, as the truths are")
        return renumbering
    if not others and values <= set(renumbering) and any(renumbering[value] != value for value in values):
        names = {value: name for name, value in scheme.labels.items()}
        ours, files = (
            ", ".join(f"{value} {names[numbers[value]]}" for value in sorted(numbers) if numbers[value] in names)
            for numbers in (same, renumbering)
        )
        notes.append(f"the values of the predictions are taken for a model's ({ours}); the files have {files}")
    return same


def _check_values(found: Found, numbers: Mapping[int, int], what: str, option: str) -> None:
    unknown = sorted(set(found.values) - set(numbers))
    if unknown:
        raise InputError(
            f"{found.file}: label values {unknown[:8]} are none of {sorted(numbers)} ({what}); correct the file, or "
            f"check {option}"
        )
