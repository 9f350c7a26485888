"""`segmamba look`: what the images of a case are, and what will be done to them before they are segmented."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.dicom import add_series_argument, dicom_case, named_series
from segmamba.commands.shared import AddCommand
from segmamba.errors import InputError
from segmamba.images.modalities import MODALITIES

if TYPE_CHECKING:
    from segmamba.cases.case import Source
    from segmamba.preparation.look import Look, Taken


def add(add_command: AddCommand) -> None:
    """Adds `look` to the command line."""
    command = add_command("look", run, "say what the images of a case are, and what will be done to them")
    command.add_argument("case", nargs="?", help="folder of one case, in any of the BraTS namings, or an MSD 4-D file")
    for modality in MODALITIES:
        command.add_argument(f"--{modality}", metavar="FILE", help="image file or DICOM folder; at least one")
    command.add_argument("--dicom", metavar="FOLDER", help="folder of DICOM files; `segmamba dicom` lists its series")
    add_series_argument(command)
    command.add_argument("--json", action="store_true", help="print the same as JSON")


def run(options: Namespace) -> int:
    """Runs `segmamba look`; returns the exit code."""
    from segmamba.cases.case import Source, find_case
    from segmamba.preparation.look import Taken

    named = {m: Source(Path(getattr(options, m))) for m in MODALITIES if getattr(options, m)}
    if (options.case is not None) + bool(named) + (options.dicom is not None) != 1:
        raise InputError("give one of: a CASE folder, images by name (--t1n F --t1c F ...), --dicom FOLDER")
    if options.series and options.dicom is None:
        raise InputError("--series requires --dicom FOLDER")
    if options.dicom is not None:
        with dicom_case(options.dicom, named_series(options.series), incomplete=True) as case:
            taken = {
                m: Taken(f"series {choice.series.name}, DICOM", choice.confidence, choice.reason)
                for m, choice in case.choices.items()
            }
            return _show(_look(case.sources, taken), options.json)
    if named:
        return _show(_look(named, dict.fromkeys(named, Taken("named by the user"))), options.json)
    sources = find_case(options.case, incomplete=True)
    by_place = "by its place in the 4-D file"
    taken = {m: Taken("by its name" if source.volume is None else by_place) for m, source in sources.items()}
    return _show(_look(sources, taken), options.json)


def _look(sources: dict[str, Source], taken: dict[str, Taken]) -> Look:
    from segmamba.cases.case import read_images
    from segmamba.preparation.look import look

    return look(read_images(sources, tuple(sources)), taken)


def _show(found: Look, as_json: bool) -> int:
    print(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(found.lines()))
    return 0
