"""`segmamba follow`: one patient at several dates, segmented where that is still to be done, measured and compared."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.dicom import dicom_case, seg_target, write_case_seg
from segmamba.commands.measure import add_labels, add_region
from segmamba.commands.shared import Bar, choose_device
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.followup.dates import Timepoint
    from segmamba.followup.follow import FollowUp
    from segmamba.images.dicom import Series


def add(add_command) -> None:
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
    command.add_argument("--t1c", nargs="+", metavar="FILE", help="the T1c of each timepoint, where they are elsewhere")
    command.add_argument("--output", "-o", required=True, metavar="OUT", help="folder for the report and the numbers")
    add_region(command)
    add_labels(command)
    command.add_argument("--targets", type=int, default=3, metavar="N", help="largest lesions that are summed up; 3")
    command.add_argument("--radiotherapy-end", metavar="DATE", help="given as the --dates are")
    command.add_argument(
        "--confirm-weeks", type=float, default=12, metavar="N", help="after it, progression is to be confirmed; 12"
    )
    command.add_argument("--model", default="quick", metavar="NAME_OR_FOLDER", help="for what is to be segmented")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--dicom-sr",
        action="store_true",
        help="write a DICOM SEG and a Structured Report of each DICOM timepoint; they name the patient",
    )


@dataclass(frozen=True, eq=False)
class _Written:
    """What a Structured Report refers to."""

    series: Series
    seg: Path | None


def run(options) -> int:
    from segmamba.followup.dates import count_days
    from segmamba.followup.follow import Settings, follow

    places = [Path(place) for place in options.timepoints]
    for name in ("dates", "t1c"):
        given = getattr(options, name)
        if given and len(given) != len(places):
            raise InputError(f"--{name}: {len(given)} given for {len(places)} timepoints; expected one for each")
    if len(places) < 2:
        raise InputError("one timepoint was given; expected two or more (one alone: segmamba measure)")
    dates = options.dates or [_date_of(place) for place in places]
    days = count_days(dates)
    end = count_days([dates[0], options.radiotherapy_end])[1] if options.radiotherapy_end else None
    settings = Settings(
        region=options.region, targets=options.targets, radiotherapy_end=end, confirm_weeks=options.confirm_weeks
    )
    if sorted(set(days)) != days:
        raise InputError("the dates do not rise; give the timepoints in order, the baseline first, each date once")
    output = Path(options.output)
    targets = _sr_targets(options, output, days)
    timepoints, written = [], {}
    for place, day, t1c in zip(places, days, options.t1c or [None] * len(places)):
        timepoint, refers = _timepoint(place, day, t1c, options, output)
        timepoints.append(timepoint)
        if refers:
            written[day] = refers
    if targets and not written:
        raise InputError("--dicom-sr: none of the timepoints is a folder of DICOM files that was segmented")
    result = follow(timepoints, settings, lambda text: print(text, file=sys.stderr, flush=True))
    for path in (*_write(result, output), *_write_sr(result, written, targets)):
        print(path)
    for date in result.dates[1:]:
        texts = (f"{name} {found.category}" for name, found in date.suggestions.items())
        print(f"day {date.day}: measurements compatible with {', '.join(texts)}")
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    return 0


def _date_of(place: Path) -> str:
    """Of DICOM files. Raises InputError where there is none."""
    from segmamba.followup.dates import dicom_facts

    series = _dicom(place)
    date = dicom_facts(series[0])[0] if series else ""
    if not date:
        raise InputError(f"{place}: holds no date; give --dates, one a timepoint")
    return date


def _dicom(place: Path) -> list[Series]:
    """The series in a folder that holds no case by name, or []."""
    from segmamba.cases.case import find_case
    from segmamba.images.dicom import find_series

    if not place.is_dir():
        return []
    try:
        find_case(place, ("t1c",))
    except InputError:
        try:
            return find_series(place)
        except InputError:
            return []
    return []


def _timepoint(place: Path, day: int, t1c: str | None, options, output: Path) -> tuple[Timepoint, _Written | None]:
    from segmamba.cases.case import find_label
    from segmamba.followup.dates import read_timepoint

    given = Path(t1c) if t1c else None
    if place.is_file():
        return read_timepoint(day, place, given, options.labels), None
    if label_map := find_label(place):
        return read_timepoint(day, label_map, given, options.labels), None
    if given:
        raise InputError(f"{place}: holds no label map that --t1c {given} could belong to")
    return _segmented(place, day, options, output)


def _segmented(place: Path, day: int, options, output: Path) -> tuple[Timepoint, _Written | None]:
    """A date whose label map is still to be made, into OUT/segmentations."""
    from segmamba import __version__
    from segmamba.cases.case import find_case
    from segmamba.followup.dates import dicom_facts, read_probability, read_timepoint
    from segmamba.models.package import find_model, load_package
    from segmamba.prediction.predict import PredictOptions, predict_case

    model = load_package(find_model(options.model))
    manifest, folder, name = model.manifest, output / "segmentations", _name(day)
    incomplete = manifest.incomplete is not None
    dicom = dicom_case(place, incomplete=incomplete) if _dicom(place) else nullcontext()
    with dicom as case:
        modalities = manifest.preprocess.modalities
        sources = case.sources if case else find_case(place, modalities, incomplete=incomplete)
        if "t1c" not in sources:
            raise InputError(f"{place}: no T1c, on which dates are registered and lesions measured")
        target = seg_target(case, folder / f"{name}-seg.dcm", model) if case and options.dicom_sr else None
        settings = PredictOptions(device=choose_device(options.device), probabilities=True)
        bar = Bar()
        print(f"day {day}: segmenting", file=sys.stderr, flush=True)
        summary = predict_case(model, sources, folder, name, settings, bar)
        bar.close()
        timepoint = read_timepoint(
            day,
            folder / summary["files"]["label_map"],
            sources["t1c"],
            "brats2023",
            probability=read_probability(folder / summary["files"]["probabilities"], options.region),
            made_by={"model": manifest.id, "weights": manifest.weights_sha256[:16], "software": __version__},
            absent=tuple(summary["absent"]),
            scanner=dicom_facts(case.reference)[1] if case else "",
        )
        if not target:
            return timepoint, None
        seg = write_case_seg(case, folder / summary["files"]["label_map"], target, model)
        return timepoint, _Written(case.reference, seg)


def _name(day: int) -> str:
    return f"day-{day:04d}"


def _sr_targets(options, output: Path, days: list[int]) -> dict[int, Path]:
    """Day -> where its Structured Report is to be. Raises InputError now for what would stop it after the run."""
    from segmamba.followup.structured import check_sr

    if not options.dicom_sr:
        return {}
    paths = {day: output / f"{_name(day)}-sr.dcm" for day in days}
    for path in paths.values():
        check_sr(options.region, path)
    return paths


def _write(result: FollowUp, output: Path) -> list[Path]:
    from segmamba.followup.page import write_page
    from segmamba.followup.paper import write_paper
    from segmamba.followup.record import write_csv, write_json

    output.mkdir(parents=True, exist_ok=True)
    writers = {"follow-up.csv": write_csv, "report.html": write_page, "report.pdf": write_paper}
    for name, write in {**writers, "follow-up.json": write_json}.items():  # the record last: with it, all is there
        write(result, output / name)
    return [output / name for name in (*writers, "follow-up.json")]


def _write_sr(result: FollowUp, written: dict[int, _Written], targets: dict[int, Path]) -> list[Path]:
    from segmamba.followup.structured import tracking, write_sr

    if not written:
        return []
    paths, names = [], tracking(result)
    for date in result.dates:
        refers = written.get(date.day)
        if refers and refers.seg:
            paths.append(write_sr(date.measured, refers.series, refers.seg, names[date.day], targets[date.day]))
    return paths
