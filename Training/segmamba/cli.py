"""The command line: `segmamba COMMAND`, or `python -m segmamba COMMAND`. Says what happens, does nothing itself.

Exit codes: 0 all went well, 1 something failed (of `gate`: the candidate is not recommended), 2 the command was wrong
(argparse), 128 and the signal's number a training that was stopped, its state saved. Interrupted: dead of SIGINT, which
a shell calls 130; on Windows 130 itself.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

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
from segmamba.errors import InputError, explain, is_out_of_memory, last_line

_COMMANDS = (info, network, predict, evaluate, compare, demo, phantom, import_model, dataset, train, table1, report)
_COMMANDS += (dicom, look, measure, follow)
_COMMANDS += (export, correct, models, site)


class _UnreadError(io.FileIO):
    """Standard error, of which the reader may go away: no reason to end the work, nor to lose what it came to."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def script(arguments: list[str] | None = None) -> int:
    """As `main`, for a process of its own: on POSIX it dies of Ctrl-C, else a loop in a shell would go on.

    Raises KeyboardInterrupt, of which Python makes that end once it has tidied up.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        if os.name != "posix":
            return 130
        sys.excepthook = lambda *_: None  # it would print where that was
        raise


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str] | None) -> int:
    _ready_streams()
    options = _parser().parse_args(arguments)
    training = options.command in ("train", "table1", "improve")
    logging.basicConfig(
        level=logging.INFO if options.verbose or training else logging.WARNING,
        format="%(asctime)s %(message)s" if training else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    # A pass of a network makes and frees the same large tensors. On Linux glibc gives their pages back every time, and
    # touching them anew is a tenth of a training step on a CPU and a fifth of a window of `released`; huge pages cost
    # next to nothing. torch reads it once.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads has had enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.verbose and not isinstance(error, InputError):
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)  # which writes what cannot be encoded as \\x..
        return 1


def _ready_streams() -> None:
    """Standard output and error as every command may use them: results, progress, notes, what libraries say."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us, as `>&-` does
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if (
        isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict"
    ):  # a case's name may have letters that the code page has not
        sys.stdout.reconfigure(errors="backslashreplace")
    error = sys.stderr
    if error is sys.__stderr__ and not error.isatty():  # a terminal that goes away ends the process
        raw = io.BufferedWriter(_UnreadError(error.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, error.encoding, error.errors, line_buffering=True, write_through=True)


def _one_line(error: Exception) -> str:
    """What went wrong. A user can cause an OSError and run out of memory; whatever else there is, is ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return explain(error)
    if is_out_of_memory(error):
        return "there was not enough memory; close other programs, or use a smaller model or fewer --jobs"
    if isinstance(error, ValueError) and "null byte" in str(error):
        return "a name with a null character: no file can have it; check what was given"
    if isinstance(error, UnicodeEncodeError):
        return f"a name or text that cannot be written here ({error.reason}); set PYTHONUTF8=1, or rename the file"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded ({error}); install the dependencies again"
    return f"unforeseen: {type(error).__name__}: {last_line(error)}; --verbose says where: please report it"


class _Parser(argparse.ArgumentParser):
    """Refuses an empty text, as an unset variable of a script leaves it, unless an argument is said to be `type=str`.

    As a path it would be the current folder, or not be given at all.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.register("type", None, _not_empty)

    def add_subparsers(self, **settings: Any) -> Any:
        action = super().add_subparsers(**settings)
        action.type = str  # of all that follows, which is for the parser of the command to judge
        return action


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty text; give a value, or leave it out")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="segmamba", description="Brain-tumour segmentation with SegMamba. Research use only.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument(
            "--verbose", action="store_true", help="print what is being done, and where an error arose"
        )
        command.set_defaults(run=run)
        return command

    for command in _COMMANDS:
        command.add(add_command)
    return parser
