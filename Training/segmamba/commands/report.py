"""`segmamba report`: one page about a training."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import AddCommand, ready_for_output


def add(add_command: AddCommand) -> None:
    """Adds `report` to the command line."""
    command = add_command("report", run, "write RUN/report.html, everything about a training on one page")
    command.add_argument("folder", metavar="RUN", help="run folder of a training")


def run(options: Namespace) -> int:
    """Runs `segmamba report`; returns the exit code."""
    from segmamba.evaluation.report import format_table, write_report

    if Path(options.folder).is_dir():
        ready_for_output(options.folder)
    path = write_report(Path(options.folder))
    print(format_table(options.folder))
    print(f"\nwritten: {path}")
    return 0
