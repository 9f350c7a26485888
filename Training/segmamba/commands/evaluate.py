"""`segmamba evaluate`: predictions against truths."""

from __future__ import annotations

import json
from pathlib import Path


def add(add_command) -> None:
    command = add_command("evaluate", run, "Dice and HD95 of predictions against truths")
    command.add_argument("predictions")
    command.add_argument("truths")
    command.add_argument("--convention", help="label convention of the truths: brats2023, brats2021 or msd")
    command.add_argument("--json", action="store_true")


def run(options) -> int:
    from segmamba.evaluate import evaluate_folders, format_table

    result = evaluate_folders(Path(options.predictions), Path(options.truths), convention=options.convention)
    print(json.dumps(result, indent=2) if options.json else format_table(result))
    return 0
