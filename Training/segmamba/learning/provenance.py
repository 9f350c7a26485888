"""What a manifest's `made` says that decides how far the gate may trust a data set."""

from __future__ import annotations

from segmamba.datasets.manifest import Dataset
from segmamba.errors import InputError

PHANTOMS = "phantoms"  # made of synthetic cases: how they were drawn
DOUBTFUL = "doubtful"  # made of corrections: names of those that a person accepted against the advice of intake


def is_of_phantoms(dataset: Dataset) -> bool:
    """Whether the data set was made of synthetic cases."""
    return PHANTOMS in dataset.made


def doubtful_cases(dataset: Dataset) -> tuple[str, ...]:
    """Names of submissions in the data set that a person accepted though intake found them doubtful.

    They stand in the manifest, so what is withdrawn later still counts where it was learnt.
    """
    names = dataset.made.get(DOUBTFUL, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"data set {dataset.name} in {dataset.folder}: made.{DOUBTFUL} must be a list of names; write its manifest "
            "anew with `segmamba intake`"
        )
    return tuple(names)
