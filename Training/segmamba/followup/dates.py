"""One date of a patient: a label map with its T1c, both on the grid on which the label map was made."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segmamba.cases.case import find_case, load_label_map
from segmamba.cases.label_files import case_id, named_as_brats2023, summary_of
from segmamba.cases.labels import CONVENTIONS, cohort_of, convention_with, find_convention
from segmamba.errors import InputError
from segmamba.followup.lesions import REGIONS
from segmamba.images.dicom import Series
from segmamba.images.dicom.headers import quiet
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance, describe_grid
from segmamba.images.image_io import Image, Source
from segmamba.images.sources import read_source
from segmamba.settings import read_json, shown


@dataclass(frozen=True, eq=False)
class Timepoint:
    """What is there of one date. Nothing in it names the patient."""

    day: int
    """Counted from the baseline."""
    label_map: np.ndarray
    """(X, Y, Z) of the engine's labels."""
    affine: np.ndarray
    """(4, 4), voxels to RAS mm."""
    t1c: Image
    """On the grid of the label map."""
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(X, Y, Z) of each region that is followed, or {}."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Model and software, {} where nobody said."""
    absent: tuple[str, ...] = ()
    """Modalities that the model did without."""
    notes: tuple[str, ...] = ()
    """What is odd about the files, in plain sentences."""
    scanner: str = ""
    """Of DICOM, "" where unknown."""


def read_label_map(path: Path, labels: str | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Reads a label map in the engine's labels. A resection cavity is left out: it is no lesion.

    Args:
        path: of the file.
        labels: a convention of cases.labels; None finds out: from the summary of `segmamba predict` beside it, or from
            the values and the name of the case or, as `segmamba predict` names its own, of the file.

    Returns:
        (X, Y, Z) uint8, the affine (4, 4) to RAS mm, and what is to be known of the file.
    """
    image = read_source(path)
    convention = labels or _told_beside(path) or _convention(path, image.array)
    meaning: dict[int, int] | str = {**CONVENTIONS[convention], 4: 0} if convention == "brats2024" else convention
    return load_label_map(path, meaning, None), image.affine, image.notes


def _told_beside(path: Path) -> str:
    """The convention of the model that made the label map, by its summary; "" where there is none.

    1 is enhancing tumor in BraTS-PED and necrosis in BraTS 2023: the values alone do not tell. Raises InputError for a
    model whose labels follow no convention.
    """
    try:
        summary = read_json(summary_of(path))
        labels = dict(summary["settings"]["manifest"]["label_map"])
        if path.name not in summary["files"].values():
            return ""
    except (InputError, KeyError, TypeError, ValueError, AttributeError):  # none, another program's, or an early one
        return ""
    if convention := convention_with(labels):
        return convention
    raise InputError(f"{path}: made by a model of {', '.join(labels)}; if it holds others now, --labels says it")


def _convention(path: Path, array: np.ndarray) -> str:
    values = np.unique(array).tolist()
    cohort = next((c for name in (path.name, path.resolve().parent.name) if (c := cohort_of(name))), "")
    try:
        return find_convention(values, path.name if cohort_of(path.name) else path.resolve().parent.name)
    except InputError as error:
        # children's files have other values under such names, which only a person can tell from our own
        ours = named_as_brats2023({case_id(path): path}) and cohort != "BraTS-PED"
        if ours and {*values} <= {0, 1, 2, 3}:
            return "brats2023"
        hint = "; --labels says it" if "several conventions" in str(error) else ""
        raise InputError(f"{path}: {error}{hint}") from None


def read_timepoint(
    day: int, label_map: Path, t1c: Path | Source | None, labels: str | None = None, **facts: Any
) -> Timepoint:
    """A date from its label map file and its T1c.

    Args:
        day: counted from the baseline.
        label_map: the file.
        t1c: a file, a DICOM folder, or None for the T1c in the label map's folder.
        labels: the convention, see `read_label_map`.
        **facts: more fields of the date.

    Returns:
        The date.

    Raises:
        InputError: for what cannot be read, and a T1c on another grid than its label map.
    """
    array, affine, notes = read_label_map(label_map, labels)
    given = read_source(t1c if t1c is not None else find_case(label_map.parent, ("t1c",))["t1c"])
    image = Image(np.nan_to_num(np.asarray(given.array, np.float32), posinf=0, neginf=0), given.affine, given.notes)
    same = image.array.shape == array.shape
    if not same or corner_distance(array.shape, affine, image.affine) > GRID_TOLERANCE_MM:
        raise InputError(
            f"{label_map}: not on the grid of its T1c: {describe_grid(array.shape, affine)} against "
            f"{describe_grid(image.array.shape, image.affine)}; give the T1c that it was drawn on"
        )
    return Timepoint(day, array, affine, image, notes=tuple(dict.fromkeys((*image.notes, *notes))), **facts)


def read_probability(path: Path, region: str, convention: str) -> np.ndarray:
    """The probability of a region, out of those of the labels that `segmamba predict` writes.

    Args:
        path: of the file.
        region: of lesions.REGIONS.
        convention: that the model's labels follow.

    Returns:
        (X, Y, Z) float32.
    """
    values = [value for value, label in CONVENTIONS[convention].items() if label in REGIONS[region]]
    return np.asarray(np.sum([read_source(Source(path, value)).array for value in values], axis=0, dtype=np.float32))


def count_days(dates: list[str]) -> list[int]:
    """Dates (2026-01-31, or 20260131 as DICOM has it) or numbers of days -> days since the first.

    Raises InputError for what is neither, or a mixture.
    """
    if all(re.fullmatch(r"-?[0-9]{1,5}", text) for text in dates):  # six would be a date without its century
        days = [int(text) for text in dates]
    else:
        try:
            days = [datetime.date.fromisoformat(_with_dashes(text)).toordinal() for text in dates]
        except ValueError:
            raise InputError(
                f"dates {shown(' '.join(dates))}: expected days like 2026-01-31 in order, or numbers of days, one a "
                "timepoint"
            ) from None
    return [day - days[0] for day in days]


def dicom_facts(series: Series) -> tuple[str, str]:
    """When a series was taken, as 20260131 or "", and on what: maker, model and field strength of the scanner."""
    import pydicom

    names = ["AcquisitionDate", "SeriesDate", "StudyDate", "Manufacturer", "ManufacturerModelName"]
    names.append("MagneticFieldStrength")
    with quiet():
        data = pydicom.dcmread(series.files[0], stop_before_pixels=True, specific_tags=names, force=True)
        when = next((str(data.get(name)) for name in names[:3] if data.get(name)), "")
        scanner = " ".join(str(data.get(name, "")) for name in names[3:]).strip()
    return (when if len(when) == 8 and when.isdecimal() else ""), scanner


def patient_id(series: Series) -> str:
    """PatientID of a series, "" where it has none: to compare with another's, and written nowhere."""
    import pydicom

    with quiet():
        data = pydicom.dcmread(series.files[0], stop_before_pixels=True, specific_tags=["PatientID"], force=True)
        return str(data.get("PatientID") or "").strip()


def _with_dashes(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else text
