"""`segmamba export`: a model in the format of other software."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from segmamba.commands.shared import AddCommand, ready_for_output


def add(add_command: AddCommand) -> None:
    """Adds `export` to the command line."""
    command = add_command("export", run, "write a model in the format of other software")
    command.add_argument("model", help="name or folder of a model")
    command.add_argument(
        "--format",
        default="monai-bundle",
        help="monai-bundle (default); torch-export: the network alone, for one window, as torch's own operators",
    )
    command.add_argument("--output", "-o", required=True, metavar="FOLDER", help="new folder to write")


def run(options: Namespace) -> int:
    """Runs `segmamba export`; returns the exit code."""
    from segmamba.export.bundle import export_model
    from segmamba.models.package import find_model

    ready_for_output(Path(options.output).absolute().parent)
    print(f"written: {export_model(find_model(options.model), Path(options.output), options.format)}")
    return 0
