"""Held-out cases of data sets with folds, each with the model that has not seen it: what several benchmarks go over."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class HeldOut(NamedTuple):
    """One labelled case of a `dataset`, held out in `fold`, and the `model` (segmamba's Model) of that fold."""

    fold: int
    model: object
    dataset: object
    entry: object


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("datasets", type=Path, nargs="+", help="data sets with folds, each a cohort")
    parser.add_argument(
        "--model",
        nargs=2,
        action="append",
        required=True,
        metavar=("FOLD", "MODEL"),
        help="a package that has not seen the cases of that fold; repeat",
    )


def held_out_cases(options: argparse.Namespace) -> Iterator[HeldOut]:
    from segmamba.datasets.manifest import read_dataset
    from segmamba.datasets.split import validation_cases
    from segmamba.models.package import load_package

    datasets = [read_dataset(folder) for folder in options.datasets]
    for fold, folder in options.model:
        model = load_package(folder)
        for dataset in datasets:
            for entry in validation_cases(dataset, int(fold)):
                yield HeldOut(int(fold), model, dataset, entry)
