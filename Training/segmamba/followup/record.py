"""A follow-up, or one date, as JSON (record.schema.json describes it) and as CSV. No names, no dates: days only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from segmamba import __version__
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside
from segmamba.files.place import check_owner
from segmamba.followup.burden import Burden
from segmamba.followup.content import remarks
from segmamba.followup.dates import Timepoint
from segmamba.followup.follow import Date, FollowUp
from segmamba.followup.lesions import Lesion, Measured, least_mm
from segmamba.followup.match import Registered, fingerprint
from segmamba.preparation.register import Registration
from segmamba.settings import read_json

SCHEMA = Path(__file__).with_name("record.schema.json")
_COLUMNS = (
    "day",
    "lesion",
    "region",
    "baseline_lesion",
    "target",
    "d1_mm",
    "d2_mm",
    "product_mm2",
    "volume_ml",
    "slice",
)
_COLUMNS += ("slices", "measurable", "remark")


def measured_as_json(measured: Measured) -> dict:
    """One date."""
    return {
        "region": measured.region,
        "spacing_mm": [round(s, 6) for s in measured.spacing],
        "least_diameter_mm": least_mm(measured.spacing[2]),
        "volume_ml": round(measured.volume_ml, 6),
        "voxels_left_out": measured.small_voxels,
        "notes": list(measured.notes),
        "lesions": [_lesion(lesion) for lesion in measured.lesions],
    }


def as_json(result: FollowUp) -> dict:
    """The whole follow-up as plain JSON (record.schema.json)."""
    settings = result.settings
    return {
        "schema": 2,
        "software": f"segmamba {__version__}",
        "settings": {
            "region": settings.region,
            "targets": settings.most_targets,
            "radiotherapy_end_day": settings.radiotherapy_end,
            "confirm_weeks": settings.confirm_weeks,
            "volumetric_minor": settings.volumetric_minor,
        },
        "targets": list(result.targets),
        "dates": [_date(date) for date in result.dates],
        "warnings": list(result.warnings),
        "remarks": list(remarks(settings)),
        # what a physician has said: nothing here is known from images
        "clinician": [{"day": day, **asdict(said)} for day, said in sorted(result.clinician.items())],
    }


def check_place(path: Path, timepoints: Sequence[Timepoint]) -> None:
    """Refuses to write over another patient's record: one that was made of none of these T1c.

    Args:
        path: where the record is to be.
        timepoints: the dates that it will hold.

    Raises:
        InputError: where another file is there, or a record that has no T1c in common with `timepoints`.
    """
    try:
        record = read_json(path, optional=True)
        known = {date["t1c"] for date in record["dates"]} if record is not None else set()
    except (InputError, KeyError, TypeError):
        record, known = {}, set()
    if record is not None:
        check_owner(path, known, (fingerprint(timepoint.t1c) for timepoint in timepoints), "a follow-up")


def begin(path: Path, timepoints: Sequence[Timepoint]) -> None:
    """Says whose files are about to be written beside `path`, so that a run goes on where this one breaks off.

    Only in a first run: a record that is there says it (`check_place`), and stays until the new one is whole.

    Args:
        path: where the record will be.
        timepoints: the dates that it will hold.
    """
    if not path.exists():
        dates = [{"day": timepoint.day, "t1c": fingerprint(timepoint.t1c)} for timepoint in timepoints]
        write_aside(path, (json.dumps({"schema": 2, "unfinished": True, "dates": dates}, indent=2) + "\n").encode())


def read_registrations(path: Path) -> dict[tuple[str, str], Registered]:
    """Registrations of a record that this software wrote before, by the fingerprints of both T1c.

    {} where there is none, or it is another program's or version's.
    """
    try:
        record = read_json(path, optional=True)
        if record is None or record["software"] != f"segmamba {__version__}":
            return {}
        first, *later = record["dates"]
        return {(first["t1c"], date["t1c"]): (_registration(date["registration"]), date["problem"]) for date in later}
    except (InputError, KeyError, TypeError, ValueError):
        return {}


def _registration(values: dict | None) -> Registration | None:
    if values is None:
        return None
    transform = np.array(values["transform"], float)
    if transform.shape != (4, 4):
        raise ValueError("a transform is 4 x 4")
    numbers = {name: values[name] for name in ("quality", "overlap", "seen", "agreeing", "starts", "moved_mm")}
    return Registration(transform=transform, information=float("nan"), **numbers)


def write_json(result: FollowUp, path: Path) -> None:
    """Writes `as_json` to `path`, aside first."""
    write_aside(path, (json.dumps(as_json(result), indent=2) + "\n").encode())


def write_csv(result: FollowUp, path: Path) -> None:
    """A row a lesion and date."""
    regions = {lesion.number: lesion.region for lesion in result.dates[0].measured.lesions}
    rows = [row for date in result.dates for row in _rows(date, result.targets, regions)]
    write_aside(path, _table(rows).encode())


def measured_as_csv(measured: Measured) -> str:
    """A row a lesion."""
    return _table([{**_row(lesion), "day": 0} for lesion in measured.lesions])


def _table(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(date: Date, targets: tuple[int, ...], regions: dict[int, str]) -> list[dict]:
    """regions: of the baseline's lesions."""
    origin = {part: number for number, parts in date.matches.parts.items() for part in parts} if date.matches else {}
    new = date.matches.new if date.matches else ()
    rows = []
    for lesion in date.measured.lesions:
        number = origin.get(lesion.number)
        row = {**_row(lesion), "day": date.day, "baseline_lesion": number or ("new" if lesion.number in new else "")}
        target = "yes" if number in targets else "no"
        rows.append({**row, "target": target if date.matches else ""})  # not known where lesions were not followed
    parts_of, merged = (date.matches.parts, date.matches.merged) if date.matches else ({}, {})
    for number, parts in parts_of.items():
        if not parts:
            into = merged.get(number)
            gone = {"d1_mm": 0, "d2_mm": 0, "product_mm2": 0, "volume_ml": 0, "remark": "disappeared"}
            more = gone if into is None else {"remark": f"merged into lesion {into}"}
            row = {"day": date.day, "region": regions[number], "baseline_lesion": number, **more}
            rows.append({**row, "target": "yes" if number in targets else "no"})
    return rows


def _row(lesion: Lesion) -> dict:
    return {
        "lesion": lesion.number,
        "region": lesion.region,
        "d1_mm": f"{lesion.d1:.2f}",
        "d2_mm": f"{lesion.d2:.2f}",
        "product_mm2": f"{lesion.product:.1f}",
        "volume_ml": f"{lesion.volume_ml:.4f}",
        "slice": lesion.slice,
        "slices": lesion.slices,
        "measurable": "yes" if lesion.measurable else "no",
        "remark": "; ".join(_remarks(lesion)),
    }


def _remarks(lesion: Lesion) -> list[str]:
    drawn = [f"{', '.join(lesion.by_hand)} drawn by hand"] if lesion.by_hand else []
    return [*drawn, *([lesion.not_measurable] if lesion.not_measurable else []), *lesion.notes]


def _lesion(lesion: Lesion) -> dict:
    return {
        "number": lesion.number,
        "region": lesion.region,
        "d1_mm": round(lesion.d1, 6),
        "d2_mm": round(lesion.d2, 6),
        "product_mm2": round(lesion.product, 6),
        "volume_ml": round(lesion.volume_ml, 6),
        "voxels": lesion.voxels,
        "slice": lesion.slice,
        "slices": lesion.slices,
        "pieces": lesion.pieces,
        "measurable": lesion.measurable,
        "not_measurable": lesion.not_measurable,
        "line1_ras_mm": _points(lesion.line1),
        "line2_ras_mm": _points(lesion.line2),
        "centre_ras_mm": np.round(lesion.centre, 4).tolist(),
        "by_hand": list(lesion.by_hand),
        "notes": list(lesion.notes),
    }


def _points(line: np.ndarray | None) -> list | None:
    return None if line is None else np.round(line, 4).tolist()


def _date(date: Date) -> dict:
    matches = date.matches
    return {
        "day": date.day,
        "made_by": dict(date.timepoint.made_by),
        "absent": list(date.timepoint.absent),
        "t1c": fingerprint(date.timepoint.t1c),
        **measured_as_json(date.measured),
        "followed": matches is not None,
        "problem": date.problem,
        "registration": None if date.registration is None else date.registration.as_json(),
        "parts": None if matches is None else {str(number): list(parts) for number, parts in matches.parts.items()},
        "merged": None if matches is None else {str(number): into for number, into in matches.merged.items()},
        "new": None if matches is None else list(matches.new),
        "burdens": [_burden(burden) for burden in date.burdens],
        "suggestions": _suggestions(date),
    }


def _burden(burden: Burden) -> dict:
    return {
        "region": burden.region,
        "sum_of_products_mm2": None if burden.spd is None else round(burden.spd, 6),
        "volume_ml": round(burden.volume_ml, 6),
        "spread": {
            name: {"sum_of_products_mm2": round(spd, 6), "volume_ml": round(volume, 6)}
            for name, (spd, volume) in burden.spread.items()
        },
        "suggestions": _suggestions(burden),
    }


def _suggestions(judged: Date | Burden) -> dict:
    return {
        name: {
            "category": found.category,
            "near_threshold": list(judged.near.get(name, ())),
            "from_baseline": None if found.from_baseline is None else round(found.from_baseline, 6),
            "from_nadir": None if found.from_nadir is None else round(found.from_nadir, 6),
            "nadir_day": found.nadir_day,
            "rules": [{"category": r.category, "met": r.met, "text": r.text} for r in found.rules],
        }
        for name, found in judged.suggestions.items()
    }
