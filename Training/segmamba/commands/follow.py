"""`segmamba follow`: one patient at several dates, segmented where that is still to be done, measured and compared."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.follow_dates import SEGMENTATIONS, Given, Refers, date_of, make_ready, seg_path
from segmamba.commands.measure import add_labels, add_region
from segmamba.commands.shared import AddCommand, ready_for_output
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.followup.follow import FollowUp, Settings

RECORD = "follow-up.json"
_REPORTS = ("follow-up.csv", "report.html", "report.pdf")


def add(add_command: AddCommand) -> None:
    """Adds `follow` to the command line."""
    command = add_command("follow", run, "compare one patient's dates: diameters, volumes, changes, a report")
    command.add_argument(
        "timepoints",
        nargs="+",
        metavar="TIMEPOINT",
        help="the baseline first; each a case folder (with a label map in it, or to be segmented), a folder of DICOM "
        "files, or a label map with its T1c in the same folder",
    )
    command.add_argument(
        "--dates",
        nargs="+",
        metavar="DATE",
        help="2026-01-31 or a number of days, one a timepoint; of DICOM they are read from the files",
    )
    command.add_argument(
        "--t1c", nargs="+", metavar="FILE", help="T1c image of each timepoint, if it is not beside the label map"
    )
    command.add_argument(
        "--series",
        nargs="+",
        metavar="FOLDER",
        help="for label maps with --dicom-sr: folder of the DICOM files of each T1c",
    )
    command.add_argument(
        "--made-by", type=str, nargs="+", metavar="MODEL", help="for label maps: name of the model that made each"
    )
    command.add_argument("--output", "-o", required=True, metavar="OUT", help="folder for the report and the numbers")
    add_region(command)
    add_labels(command, each=True)
    command.add_argument(
        "--targets",
        type=int,
        metavar="N",
        help="number of largest lesions that are summed (default: 3; of mixed tumors 2 of each kind)",
    )
    command.add_argument("--radiotherapy-end", metavar="DATE", help="end of radiotherapy, in the form of --dates")
    command.add_argument(
        "--confirm-weeks",
        type=float,
        default=12,
        metavar="N",
        help="weeks after radiotherapy during which progression must be confirmed (default: 12)",
    )
    command.add_argument(
        "--volumetric-minor",
        type=float,
        default=40,
        metavar="PERCENT",
        help="non-enhancing: decrease in volume from which a response is minor; 40",
    )
    command.add_argument(
        "--by-hand", metavar="FILE", help="JSON file with lines moved by hand and the physician's assessment"
    )
    command.add_argument(
        "--model", default="quick", metavar="NAME_OR_FOLDER", help="model for timepoints that have no label map"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--dicom-sr",
        action="store_true",
        help="write a DICOM SEG and a Structured Report of each DICOM timepoint; both contain the patient's name",
    )
    command.add_argument("--json", action="store_true", help="print everything as JSON, as in follow-up.json")


def run(options: Namespace) -> int:
    """Runs `segmamba follow`; returns the exit code."""
    from segmamba.followup.by_hand import read_by_hand
    from segmamba.followup.follow import follow
    from segmamba.followup.record import as_json, check_place, read_registrations

    given, settings = _given(options)
    output = ready_for_output(options.output)
    ready_for_output(output / SEGMENTATIONS)
    _check_reports(output)
    by_hand = read_by_hand(Path(options.by_hand)) if options.by_hand else None
    targets = _sr_targets(options, output, given)
    timepoints, refers = [], {}
    for one in given:
        timepoint, found = make_ready(one, options, output)
        timepoints.append(timepoint)
        if found:
            refers[one.day] = found
            _check_one_patient(refers)
    if targets and not refers:
        raise InputError("--dicom-sr: of none of the timepoints the T1c is a series of DICOM files")
    check_place(output / RECORD, timepoints)
    known = read_registrations(output / RECORD)
    result = follow(timepoints, settings, lambda text: print(text, file=sys.stderr, flush=True), by_hand, known)
    paths = [*_write(result, output), *_write_sr(result, refers, targets, output)]
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps(as_json(result)))
        return 0
    for path in paths:
        print(path)
    for date in result.dates[1:]:
        texts = (f"{name} {found.category}" for name, found in date.suggestions.items())
        print(f"day {date.day}: measurements compatible with {', '.join(texts)}")
    return 0


def _check_reports(output: Path) -> None:
    """Raises InputError where files lie in the places of the reports, and no record says whose they are."""
    from segmamba.files.place import check_owner

    there = [path for name in _REPORTS if (path := output / name).exists() or path.is_symlink()]
    if there and not (output / RECORD).exists():
        check_owner(there[0], (), (), "a follow-up")


def _check_one_patient(refers: Mapping[int, Refers]) -> None:
    """Raises InputError where the DICOM files of two dates name different patients, as the panel does."""
    from segmamba.followup.dates import patient_id

    days = {patient_id(found.series): day for day, found in refers.items()}
    days.pop("", None)
    if len(days) > 1:
        first, second = sorted(days.values())[:2]
        raise InputError(
            f"the DICOM files of day {first} and day {second} have different patient IDs; a follow-up is of one: give "
            "that one's dates or, where two hospitals number the same patient, the images as NIfTI files"
        )


def _given(options: Namespace) -> tuple[list[Given], Settings]:
    """Raises InputError for numbers of arguments that do not go together, and dates that do not rise."""
    from segmamba.followup.dates import count_days
    from segmamba.followup.follow import Settings

    places = [Path(place) for place in options.timepoints]
    if options.labels and len(options.labels) == 1:
        options.labels *= len(places)
    for name in ("dates", "t1c", "series", "made_by", "labels"):
        values = getattr(options, name)
        if values and len(values) != len(places):
            option = name.replace("_", "-")
            raise InputError(f"--{option}: {len(values)} given for {len(places)} timepoints; expected one for each")
    if len(places) < 2:
        raise InputError("one timepoint was given; expected two or more (one alone: segmamba measure)")
    dates = options.dates or [date_of(place) for place in places]
    days = count_days(dates)
    if sorted(set(days)) != days:
        raise InputError(
            "the dates are not in increasing order; give the timepoints in order, the baseline first, each date once"
        )
    end = count_days([dates[0], options.radiotherapy_end])[1] if options.radiotherapy_end else None
    settings = Settings(
        region=options.region,
        targets=options.targets,
        radiotherapy_end=end,
        confirm_weeks=options.confirm_weeks,
        volumetric_minor=options.volumetric_minor / 100,
    )
    nothing = [None] * len(places)
    others = (getattr(options, name) or nothing for name in ("t1c", "series", "made_by", "labels"))
    columns = zip(places, days, *others)
    return [Given(p, day, t and Path(t), s and Path(s), m or "", c) for p, day, t, s, m, c in columns], settings


def _sr_targets(options: Namespace, output: Path, given: list[Given]) -> dict[int, Path]:
    """Day -> where its Structured Report is to be. Raises InputError now for what would stop it after the run."""
    from segmamba.followup.structured import check_sr

    if not options.dicom_sr:
        return {}
    paths = {one.day: output / f"{one.name}-sr.dcm" for one in given}
    for path in (*paths.values(), *(seg_path(output, one.name) for one in given)):
        check_sr(path)
    return paths


def _write(result: FollowUp, output: Path) -> list[Path]:
    from segmamba.files.atomic import make_folder
    from segmamba.followup.content import sections
    from segmamba.followup.page import write_page
    from segmamba.followup.paper import write_paper
    from segmamba.followup.record import begin, write_csv, write_json

    make_folder(output)
    table, page, paper, record = (output / name for name in (*_REPORTS, RECORD))
    report = sections(result)  # once for both: its pictures take longer than anything else here
    begin(record, [date.timepoint for date in result.dates])
    write_csv(result, table)
    write_page(result, report, page)
    write_paper(result, report, paper)
    write_json(result, record)  # last: with it, all is there
    return [table, page, paper, record]


def _write_sr(result: FollowUp, refers: dict[int, Refers], targets: dict[int, Path], output: Path) -> list[Path]:
    """The DICOM SEG and the Structured Report of each date that has a series."""
    from segmamba.cases.dicom_seg import write_seg
    from segmamba.followup.structured import tracking, write_sr

    paths, names = [], tracking(result) if targets else {}
    for date in result.dates if targets else ():
        found, timepoint = refers.get(date.day), date.timepoint
        if not found:
            print(f"note: day {date.day}: not of DICOM files, no Structured Report", file=sys.stderr)
            continue
        path = seg_path(output, f"day-{date.day:04d}")
        seg = write_seg(timepoint.label_map, timepoint.affine, found.series, path, found.facts)
        if not seg:
            text = "nothing is segmented: there is no DICOM SEG, and no Structured Report, which would refer to it"
            print(f"note: day {date.day}: {text}", file=sys.stderr)
            continue
        paths += [seg, write_sr(date.measured, found.series, seg, names[date.day], targets[date.day])]
    return paths
