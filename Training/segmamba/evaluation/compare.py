"""Two predictions of the same cases against the truth: what `segmamba compare PRED_A PRED_B TRUTHS` does.

The comparison is paired: every case is scored for both, and the differences are what is averaged, resampled and
tested. A is the reference, B is what is held against it; a difference is B - A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from segmamba.cases.conventions import PREDICTION_LABELS
from segmamba.errors import InputError
from segmamba.evaluation.confidence import mean_interval, sign_flip_test
from segmamba.evaluation.evaluate import SEED, evaluate_folders

BETTER_BELOW = ("hd95", "lesion_hd95", "false_positives")  # metrics of which less is better
NOT_COMPARED = ("lesions",)  # a property of the truth
PREDICTION_LABELS_B = "--prediction-labels-b"
WORST = 5  # cases that are listed for each score


def compare_folders(
    prediction_a: Path,
    prediction_b: Path,
    truths: Path,
    *,
    predicted: str | None = None,
    predicted_b: str | None = None,
    **options: Any,
) -> dict:
    """The predictions of two models, scored on the same truths and compared case by case.

    Args:
        prediction_a: a folder, or the file of one case.
        prediction_b: likewise, of the same cases.
        truths: a folder, or the file of one case.
        predicted: convention of both predictions, or of A alone; None: found from each by itself.
        predicted_b: convention of B; None: as `predicted`. Where the two differ, the regions that both have are scored.
        **options: others of `evaluate.evaluate_folders`.

    Returns:
        Ready for JSON: {"comparison": of `compare_scores`, "a", "b": {"predictions": where they were, "mean", "ci95",
        "cases"} of each, and the other fields of `evaluate_folders`, which both share}.

    Raises:
        InputError: as `evaluate_folders`, and where the two hold different cases of the truths, or are scored in
            different regions: only one of them holds the label that tells its convention.
    """
    predicted_b = predicted_b or predicted
    results = [
        evaluate_folders(where, truths, predicted=own, beside=other, option=option, **options)
        for where, own, other, option in (
            (prediction_a, predicted, predicted_b, PREDICTION_LABELS),
            (prediction_b, predicted_b, predicted, PREDICTION_LABELS_B),
        )
    ]
    cases_a, cases_b = (list(result["cases"]) for result in results)
    if cases_a != cases_b:
        raise InputError(
            f"{prediction_a} holds case {', '.join(cases_a)} and {prediction_b} case {', '.join(cases_b)}; "
            "expected the same cases"
        )
    regions_a, regions_b = (", ".join(result["mean"]["dice"]) for result in results)
    if regions_a != regions_b:
        raise InputError(
            f"{prediction_a} is scored in {regions_a} and {prediction_b} in {regions_b}, by the labels that they hold; "
            f"say what each follows, with {PREDICTION_LABELS} and, for the second, {PREDICTION_LABELS_B}"
        )
    of_each = ("cases", "mean", "ci95", "without_truth")
    a, b = (
        {"predictions": str(where), **{key: result[key] for key in of_each}}
        for where, result in zip((prediction_a, prediction_b), results)
    )
    shared = {key: value for key, value in results[0].items() if key not in of_each}
    shared["notes"] = list(dict.fromkeys(note for result in results for note in result["notes"]))
    return {"comparison": compare_scores(a["cases"], b["cases"]), "a": a, "b": b, **shared}


def compare_scores(a: dict[str, dict[str, dict]], b: dict[str, dict[str, dict]]) -> dict[str, dict[str, dict]]:
    """Scores of the same cases, {case: {metric: {region: score}}} as `evaluate_folders` gives them, for A and for B.

    Returns {metric: {region: {
     "a", "b": means; "difference": mean of B - A; "ci95": [low, high] of it, a paired bootstrap (None for one case);
     "p": confidence.sign_flip_test; "p_exact": whether all signs were counted;
     "wilcoxon_p": scipy's signed-rank test, where the size of the differences does not count (1 where there are none);
     "better", "worse", "same": in how many cases B is;
     "worst": of the cases in which B is worse, those with the largest loss first: [{"case", "a", "b"}, ..]}}}.
    No p-value is corrected for the number of regions and metrics looked at. Raises InputError where the cases differ.
    """
    if set(a) != set(b) or not a:
        raise InputError(f"the two have scores of {len(a)} and {len(b)} cases; expected the same cases, one at least")
    first = next(iter(a.values()))
    columns = [(metric, region) for metric in first if metric not in NOT_COMPARED for region in first[metric]]
    names = list(a)
    one, other = (np.array([[s[case][m][r] for m, r in columns] for case in a], float) for s in (a, b))
    differences = other - one
    test = sign_flip_test(differences, rng=np.random.default_rng(SEED))
    ends = [None] * len(columns)
    if len(a) > 1:
        low, high = mean_interval(differences, rng=np.random.default_rng(SEED))
        ends = [list(pair) for pair in zip(low.tolist(), high.tolist())]
    result: dict[str, dict[str, dict]] = {}
    for k, (metric, region) in enumerate(columns):
        change = differences[:, k]
        gain = -change if metric in BETTER_BELOW else change
        losses = [int(i) for i in np.argsort(gain, kind="stable")[:WORST] if gain[i] < 0]
        result.setdefault(metric, {})[region] = {
            "a": float(one[:, k].mean()),
            "b": float(other[:, k].mean()),
            "difference": float(change.mean()),
            "ci95": ends[k],
            "p": float(test.p[k]),
            "p_exact": test.exact,
            "wilcoxon_p": float(wilcoxon(change).pvalue) if change.any() else 1.0,
            "better": int(np.count_nonzero(gain > 0)),
            "worse": int(np.count_nonzero(gain < 0)),
            "same": int(np.count_nonzero(gain == 0)),
            "worst": [{"case": names[i], "a": float(one[i, k]), "b": float(other[i, k])} for i in losses],
        }
    return result
