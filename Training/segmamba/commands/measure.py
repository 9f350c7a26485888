"""`segmamba measure`: the lesions of one label map, with diameters and volumes."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from segmamba.commands.shared import LABEL_CONVENTIONS, AddCommand

REGIONS = ("ET", "TC", "WT", "non-enhancing", "mixed")


def add(add_command: AddCommand) -> None:
    """Adds `measure` to the command line."""
    command = add_command("measure", run, "measure the lesions of a label map: diameters, volumes, measurable or not")
    command.add_argument("label_map", help="file of a label map")
    add_region(command)
    add_labels(command)
    command.add_argument("--by-hand", metavar="FILE", help="JSON file with lines moved by hand, of day 0")
    command.add_argument("--csv", metavar="FILE", help="write one row per lesion to this file")
    command.add_argument("--json", action="store_true", help="print everything as JSON, with the ends of the lines")


def add_region(command: ArgumentParser) -> None:
    """Adds --region."""
    command.add_argument(
        "--region",
        default="ET",
        choices=REGIONS,
        help="region to measure (default: ET); mixed: enhancing and non-enhancing lesions, each by itself",
    )


def add_labels(command: ArgumentParser, each: bool = False) -> None:
    """Adds --labels, the convention of a label map; each: of several, once for all or once for each."""
    command.add_argument(
        "--labels",
        action="append" if each else "store",
        choices=LABEL_CONVENTIONS,
        metavar="|".join(LABEL_CONVENTIONS),
        help="label convention of label maps; if left out, it is found from them"
        + ("; given once for all, or once a timepoint, in their order" if each else ""),
    )


def run(options: Namespace) -> int:
    """Runs `segmamba measure`; returns the exit code."""
    from segmamba.files.atomic import check_output_file, write_aside
    from segmamba.followup.by_hand import read_by_hand, with_lines
    from segmamba.followup.dates import read_label_map
    from segmamba.followup.lesions import measure
    from segmamba.followup.record import measured_as_csv, measured_as_json

    table = Path(options.csv) if options.csv else None
    if table:
        check_output_file(table)
    label_map, affine, notes = read_label_map(Path(options.label_map), options.labels)
    measured = measure(label_map, affine, options.region)
    measured = replace(measured, notes=(*notes, *measured.notes))
    if options.by_hand:
        measured = with_lines(measured, read_by_hand(Path(options.by_hand)).lines.get(0, ()))
    if table:
        write_aside(table, measured_as_csv(measured).encode())
    if options.json:
        print(json.dumps(measured_as_json(measured), indent=2))
        return 0
    for lesion in measured.lesions:
        state = "measurable" if lesion.measurable else f"not measurable: {lesion.not_measurable}"
        size = f"{lesion.region} " if options.region == "mixed" else ""
        size += f"{lesion.d1:.1f} x {lesion.d2:.1f} mm = {lesion.product:.0f} mm2"
        print(f"{lesion.number:>3}  {size}, {lesion.volume_ml:.2f} mL, slice {lesion.slice}; {state}")
        for note in lesion.notes:
            print(f"note: lesion {lesion.number}: {note}", file=sys.stderr)
    for note in measured.notes:
        print(f"note: {note}", file=sys.stderr)
    measurable = sum(lesion.measurable for lesion in measured.lesions)
    print(f"{measured.region}: {len(measured.lesions)} lesions, {measurable} measurable, {measured.volume_ml:.2f} mL")
    return 0
