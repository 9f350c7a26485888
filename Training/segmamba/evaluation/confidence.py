"""How far a mean over cases can be trusted, and whether two models differ: bootstrap and sign flips.

Every function takes one row a case and one column a score, (n,) or (n, K) float, and draws the same resamples for all
columns, so that a score's numbers do not depend on what stands beside it. Cases are taken as independent: several
scans of one patient are not, and make the intervals too narrow. Resampling cannot invent what few cases do not show:
below some 20 cases the percentile bootstrap covers less than it says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from segmamba.errors import InputError

RESAMPLES = 10_000
_CHUNK = 2_000_000  # numbers drawn at a time


class SignFlip(NamedTuple):
    """What the sign-flip test gives."""

    p: np.ndarray
    """Of each column, (K,), or () for one column."""
    exact: bool
    """Every assignment of signs was counted, none drawn."""


def bootstrap_means(values: ArrayLike, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """Means of samples of n cases drawn from the n given, with replacement.

    Args:
        values: (n,) or (n, K), a case a row.
        rng: draws the samples.
        resamples: how many samples are drawn, 1 or more.

    Returns:
        (resamples,) or (resamples, K).

    Raises:
        InputError: for fewer than two cases (from one, every sample is the same), values that are not finite, or fewer
            than one resample.
    """
    values = _check(values, resamples)
    n = len(values)
    means, rows = [], max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        # how often each case was drawn serves every column at once
        times = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        means.append(times @ values / n)
    return np.concatenate(means)


def mean_interval(
    values: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """The two-sided percentile bootstrap interval of the mean over cases.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13. For a paired comparison give the differences of
    each case.

    Args:
        values: (cases,) or (cases, K).
        rng: draws the samples.
        level: of confidence, between 0 and 1.
        resamples: how many samples are drawn.

    Returns:
        The low and the high end, each () or (K,).

    Raises:
        InputError: as `bootstrap_means`, or for a level outside 0 to 1.
    """
    _check_level(level)
    means = bootstrap_means(values, rng=rng, resamples=resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def paired_lower_bound(
    candidate: ArrayLike,
    reference: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """One-sided lower bound of the mean change candidate - reference.

    The percentile bootstrap over cases: the (1 - level) quantile of the resampled mean differences. A candidate is not
    inferior by a margin d where the bound of its Dice is >= -d.

    Args:
        candidate: (cases,) or (cases, K).
        reference: the same cases in the same order.
        rng: draws the samples.
        level: of confidence, between 0 and 1.
        resamples: how many samples are drawn.

    Returns:
        The bound, () or (K,).

    Raises:
        InputError: where the shapes differ, or as `mean_interval`.
    """
    _check_level(level)
    means = bootstrap_means(_differences(candidate, reference), rng=rng, resamples=resamples)
    return np.quantile(means, 1 - level, axis=0)


def sign_flip_test(differences: ArrayLike, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> SignFlip:
    """Two-sided paired permutation test of the mean difference over cases.

    If two models were alike, which of the two gave which score of a case would be chance, so the sign of each case's
    difference would be too. p is the share of all 2^n assignments of signs whose mean is at least as far from 0 as the
    one observed (Fisher 1935; Edgington & Onghena, Randomization Tests). All are counted where 2^(n-1) is not more than
    `resamples` (n <= 14 for 10,000; the other half mirrors them); beyond, signs are drawn, and p = (1 + as far) / (1 +
    resamples), which is never 0 (Phipson & Smyth 2010).

    Not the t-test: its p holds for differences that are normal, or many. Those of Dice are bounded, skewed and often 0,
    those of HD95 jump by 374 mm where one model misses a region, and there are few cases. Wilcoxon's test drops the
    size of the differences and answers another question, about their ranks.

    The least p that n cases can give is 2^(1-n): below six cases nothing is significant at 5 %.

    Args:
        differences: (n,) or (n, K), a case a row; a single case has p = 1.
        rng: draws the signs, where not all are counted.
        resamples: the most assignments of signs that are looked at.

    Returns:
        p, () or (K,), and whether it is exact.

    Raises:
        InputError: for no case, values that are not finite, or fewer than one resample.
    """
    values = _check(differences, resamples, least=1)
    n = len(values)
    # A sum in another order differs in the last bits; without this, ties would be counted or not by chance.
    observed = np.abs(values.sum(axis=0)) - 1e-12 * np.abs(values).sum(axis=0)
    exact = n <= 60 and 2 ** (n - 1) <= resamples
    as_far = 0
    total = 2 ** (n - 1) if exact else resamples
    rows = max(1, _CHUNK // n)
    for start in range(0, total, rows):
        count = min(rows, total - start)
        if exact:  # the bits of a number are the signs; the last case's stays +
            negative = np.arange(start, start + count)[:, None] >> np.arange(n) & 1
        else:
            negative = rng.integers(2, size=(count, n), dtype=np.int8)
        as_far = as_far + np.count_nonzero(np.abs((1.0 - 2.0 * negative) @ values) >= observed, axis=0)
    p = as_far / total if exact else (1 + as_far) / (1 + total)
    return SignFlip(np.asarray(p, float), exact)


def _differences(candidate: ArrayLike, reference: ArrayLike) -> np.ndarray:
    candidate, reference = np.asarray(candidate, float), np.asarray(reference, float)
    if candidate.shape != reference.shape:
        raise InputError(
            f"scores of shape {candidate.shape} and {reference.shape} are compared; expected the same cases and columns"
        )
    return candidate - reference


def _check(values: ArrayLike, resamples: int, least: int = 2) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim not in (1, 2) or len(values) < least:
        raise InputError(f"scores have shape {values.shape}; expected {least} or more cases, one a row")
    if not np.isfinite(values).all():
        raise InputError("scores hold nan or inf; expected finite numbers: score every case, the empty ones too")
    if resamples < 1:
        raise InputError(f"resamples is {resamples}; expected 1 or more")
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is {level}; expected a number between 0 and 1, such as 0.95")
