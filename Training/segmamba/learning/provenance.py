"""What a manifest's `made` says that decides how far the gate may trust a data set."""

from __future__ import annotations

from segmamba.datasets.manifest import Dataset
from segmamba.errors import InputError

SHIPPED = "shipped"  # made of cases that come with the project: their names
DOUBTFUL = "doubtful"  # made of corrections: names of those that a person accepted against the advice of intake


def shipped_cases(dataset: Dataset) -> tuple[str, ...]:
    """Names of the cases in the data set that come with the project: the models that ship have learned from them."""
    return _names(dataset, SHIPPED, "remove the data set; the next improvement makes it anew")


def doubtful_cases(dataset: Dataset) -> tuple[str, ...]:
    """Names of submissions in the data set that a person accepted though intake found them doubtful.

    They stand in the manifest, so what is withdrawn later still counts where it was learnt.
    """
    return _names(dataset, DOUBTFUL, "write its manifest anew with `segmamba intake`")


def _names(dataset: Dataset, key: str, remedy: str) -> tuple[str, ...]:
    names = dataset.made.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"data set {dataset.name} in {dataset.folder}: made.{key} must be a list of names; {remedy}")
    return tuple(names)
