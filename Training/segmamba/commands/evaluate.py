"""`segmamba evaluate`: predictions against truths."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from segmamba.commands.shared import LABEL_CONVENTIONS, AddCommand
from segmamba.errors import InputError

_SCORINGS = ("brats2023", "paper")


def add(add_command: AddCommand) -> None:
    """Adds `evaluate` to the command line."""
    command = add_command("evaluate", run, "Dice, HD95 and NSD of predictions against truths")
    command.add_argument("predictions", help="a label map, or a folder of them")
    command.add_argument("truths", help="the reference: a label map, or a folder of them")
    command.add_argument("--csv", metavar="FILE", help="write the scores of every case to this file")
    add_options(command)


def add_options(command: ArgumentParser) -> None:
    """The options that `compare` has too."""
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument(
        "--labels",
        metavar="|".join(LABEL_CONVENTIONS),
        help="label convention of the truths, or a table (.csv) with a line CASE,CONVENTION for each; if left out, it "
        "is found from them and their names",
    )
    command.add_argument(
        "--prediction-labels",
        metavar="NAME",
        help="label convention of the predictions (default: the engine's own, or that of the truths if a prediction "
        "contains label 4)",
    )
    command.add_argument(
        "--dataset", metavar="FOLDER", help="data set whose manifest defines the labels and regions of another task"
    )
    command.add_argument(
        "--convention",
        metavar="|".join(_SCORINGS),
        help="scoring rules: brats2023 (default), or paper for those of the SegMamba authors' script",
    )
    command.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="tolerance of NSD in mm (default: 1)"
    )
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="number of processes")


def read_options(options: Namespace) -> dict:
    """The same as arguments of `evaluate_folders`."""
    if options.convention not in (None, *_SCORINGS):
        hint = f"; labels are told by --labels {options.convention}" if options.convention in LABEL_CONVENTIONS else ""
        raise InputError(f"--convention {options.convention}: expected {' or '.join(_SCORINGS)}{hint}")
    chosen = {
        "convention": _read_table(options.labels) if (options.labels or "").endswith(".csv") else options.labels,
        "predicted": options.prediction_labels,
        # who says BraTS 2023 has also answered what labels 1, 2, 3 mean, should nothing else tell
        "otherwise": "brats2023" if options.convention == "brats2023" else None,
        "scoring": options.convention or "brats2023",
        "tolerance": options.tolerance,
        "jobs": options.jobs,
    }
    if options.dataset is not None:
        from segmamba.datasets.manifest import read_dataset

        dataset = read_dataset(options.dataset)
        chosen |= {"scheme": dataset.scheme, "renumbering": dataset.renumbering, "images": dataset.modalities}
    return chosen


def _read_table(path: str) -> dict[str, str]:
    """A file of lines CASE,CONVENTION -> the same. Raises InputError for other lines, and a case given twice."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels {path}: cannot be read ({error})") from None
    table = {}
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or (number == 1 and cells[-1] not in LABEL_CONVENTIONS):
            continue
        if len(cells) != 2 or cells[1] not in LABEL_CONVENTIONS or cells[0] in table:
            raise InputError(f"--labels {path}, line {number}: {line!r}: expected CASE,CONVENTION, each case once")
        table[cells[0]] = cells[1]
    return table


def run(options: Namespace) -> int:
    """Runs `segmamba evaluate`; returns the exit code."""
    from segmamba.evaluation.evaluate import evaluate_folders
    from segmamba.evaluation.score_tables import format_csv, format_table
    from segmamba.files.atomic import check_output_file, write_aside

    table = Path(options.csv) if options.csv else None
    if table:
        check_output_file(table)
    result = evaluate_folders(Path(options.predictions), Path(options.truths), **read_options(options))
    if table:
        write_aside(table, format_csv(result).encode())
    print(json.dumps(result, indent=2) if options.json else format_table(result))
    return 0
