"""The command line: `segmamba COMMAND`, or `python -m segmamba COMMAND`. Says what happens, does nothing itself.

Exit codes: 0 all went well, 1 something failed, 2 the command was wrong (argparse), 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys

from segmamba import __version__
from segmamba.commands import (
    compare,
    correct,
    dataset,
    demo,
    dicom,
    evaluate,
    export,
    follow,
    import_model,
    info,
    look,
    measure,
    models,
    network,
    phantom,
    predict,
    report,
    site,
    table1,
    train,
)
from segmamba.errors import InputError

_COMMANDS = (info, network, predict, evaluate, compare, demo, phantom, import_model, dataset, train, table1, report)
_COMMANDS += (dicom, look, measure, follow)
_COMMANDS += (export, correct, models, site)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    training = options.command in ("train", "table1", "improve")
    logging.basicConfig(
        level=logging.INFO if options.verbose or training else logging.WARNING,
        format="%(asctime)s %(message)s" if training else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segmamba", description="Brain-tumour segmentation with SegMamba. Research use only."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(name: str, run, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--verbose", action="store_true", help="say more")
        command.set_defaults(run=run)
        return command

    for command in _COMMANDS:
        command.add(add_command)
    return parser
