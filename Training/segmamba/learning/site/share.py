"""How far a candidate goes from the model in use to what was fine-tuned from it (training.interpolation)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from segmamba.learning.gate import Comparison
from segmamba.learning.gate.rules import count_with_tumor, local_change
from segmamba.models.package import copy_package
from segmamba.training.interpolation import save_between

log = logging.getLogger(__name__)

SHARES = (1.0, 0.5, 0.25)
_USUAL = 0.5
_ENOUGH = 5  # local validation cases with a tumour; of fewer, chance decides which share is best of them
_MISTAUGHT = 3.0  # times what may be lost on the anchor set
_RANK = {"refuse": 0, "confirm": 1, "promote": 2}


def choose_share(tuned: Path, initial: Path, folder: Path, judge: Callable[[Path], Comparison], trials: Path) -> float:
    """Writes the candidate of a fine-tuning: some of the way from the model in use to what was learnt.

    Of the shares that the gate likes best it is the one with the best change on the local validation cases, the
    smallest where these do not tell. With few of these cases half of the way comes first: it keeps what was known, and
    what one to four cases say of a share says little of other patients (Testing/benchmarks/CLINIC.md; that weights
    between the two are good at both is from WiSE-FT, arXiv 2109.01903). Where the fine-tuned one itself loses far more
    on the anchor set than may be lost, it was taught something wrong rather than made to forget: then it is the
    candidate, for the gate to refuse. A little of it would pass, and what is wrong with it would be hidden.

    Args:
        tuned: package of what was fine-tuned from `initial`.
        initial: package of the model in use.
        folder: of the candidate.
        judge: compares a package with `initial`.
        trials: folder for those that are tried.

    Returns:
        The share, of SHARES.
    """
    packages, found = {1.0: tuned}, {1.0: judge(tuned)}
    if found[1.0].judgement.harm <= _MISTAUGHT:
        for share in SHARES[1:]:
            packages[share] = trials / f"{share:.2f}"
            save_between(packages[share], initial, tuned, share)
            found[share] = judge(packages[share])
    best = max(found, key=lambda share: (*_merit(share, found[share]), -share))
    for share, comparison in found.items():
        log.info("share %.2f: %s, local change %+.4f", share, comparison.judgement.verdict, _local_change(comparison))
    copy_package(packages[best], folder)
    return best


def _merit(share: float, found: Comparison) -> tuple[int, bool, float]:
    few = count_with_tumor(found.sets[1].pair, found.spots) < _ENOUGH
    return _RANK[found.judgement.verdict], few and share == _USUAL, _local_change(found)


def _local_change(found: Comparison) -> float:
    return local_change(found.sets[1].pair, found.spots) or 0.0
