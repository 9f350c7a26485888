"""`segmamba compare`: two predictions of the same cases, and whether they differ."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from segmamba.commands.evaluate import add_options, read_options
from segmamba.commands.shared import AddCommand


def add(add_command: AddCommand) -> None:
    """Adds `compare` to the command line."""
    command = add_command("compare", run, "two predictions of the same cases: differences, intervals, p-values")
    command.add_argument("prediction_a", metavar="PRED_A", help="the reference: a label map, or a folder of them")
    command.add_argument("prediction_b", metavar="PRED_B", help="the other: a label map, or a folder of them")
    command.add_argument("truths", metavar="TRUTHS")
    add_options(command)
    command.add_argument(
        "--prediction-labels-b",
        metavar="NAME",
        help="label convention of PRED_B (default: as --prediction-labels, which is then that of both)",
    )


def run(options: Namespace) -> int:
    """Runs `segmamba compare`; returns the exit code."""
    from segmamba.evaluation.compare import compare_folders
    from segmamba.evaluation.score_tables import format_comparison

    folders = (Path(path) for path in (options.prediction_a, options.prediction_b, options.truths))
    result = compare_folders(*folders, predicted_b=options.prediction_labels_b, **read_options(options))
    print(json.dumps(result, indent=2) if options.json else format_comparison(result))
    return 0
