"""What `segmamba follow` is given for a date, made ready: its label map with its T1c, and what a report refers to."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmamba.commands.dicom import dicom_case
from segmamba.commands.shared import Bar, choose_device
from segmamba.errors import InputError

if TYPE_CHECKING:
    from segmamba.cases.case import Source
    from segmamba.cases.dicom_seg import ModelFacts
    from segmamba.followup.dates import Timepoint
    from segmamba.images.dicom import Series
    from segmamba.models.package import Model

SEGMENTATIONS = "segmentations"  # folder in that of the results


@dataclass(frozen=True)
class Given:
    """One date as the arguments have it."""

    place: Path
    """A label map, a folder of a case, or one of DICOM files."""
    day: int
    """Counted from any day, the same for all dates."""
    t1c: Path | None = None
    """The T1c that a label map belongs to, where it does not lie beside it."""
    series: Path | None = None
    """Folder of the DICOM files of its T1c."""
    made_by: str = ""
    """The model's name."""
    labels: str | None = None
    """Convention of a label map; None: found from it."""

    @property
    def name(self) -> str:
        """What the date is called in files: its day."""
        return f"day-{self.day:04d}"


@dataclass(frozen=True, eq=False)
class Refers:
    """The DICOM series that a Structured Report refers to, and who made the label map over it."""

    series: Series
    """Of the T1c."""
    facts: ModelFacts
    """Model and software."""


def date_of(place: Path) -> str:
    """When the T1c of DICOM files was taken, as 20260131. Raises InputError where that is not known."""
    from segmamba.followup.dates import dicom_facts

    series = _series_of_t1c(place)
    dates = {dicom_facts(one)[0] for one in ([series] if series else _case_of(_dicom(place)))} - {""}
    if len(dates) != 1:
        what = f"images of {len(dates)} dates" if dates else "no date"
        raise InputError(f"{place}: holds {what}; give --dates, one a timepoint")
    return dates.pop()


def _case_of(found: list[Series]) -> list[Series]:
    """What a case is made of among `found`, its T1c alone where there is one; all where that cannot be told.

    Folders hold earlier examinations too, and what is first in them is then of another date.
    """
    from segmamba.images.dicom import choose_four

    try:
        choices = choose_four(found, incomplete=True)
    except InputError:
        return found
    return [choices["t1c"].series] if "t1c" in choices else [choice.series for choice in choices.values()]


def make_ready(given: Given, options: Namespace, output: Path) -> tuple[Timepoint, Refers | None]:
    """Reads the label map of a date, or makes it into OUTPUT/SEGMENTATIONS.

    Args:
        given: the date as the arguments have it.
        options: of the command line.
        output: its folder.

    Returns:
        The date, and the DICOM series that it refers to; None where it is not of DICOM.

    Raises:
        InputError: for what cannot be read or segmented.
    """
    from segmamba import __version__
    from segmamba.cases.case import find_label
    from segmamba.cases.dicom_seg import ModelFacts, check_seg
    from segmamba.followup.dates import dicom_facts, read_timepoint
    from segmamba.images.dicom import find_in_folder

    place = given.place
    label_map = place if place.is_file() else find_label(place)
    corrected = None if label_map else _corrected(place)
    label_map = label_map or corrected
    if not label_map:
        if given.t1c:
            raise InputError(f"{place}: holds no label map that --t1c {given.t1c} could belong to")
        return _segmented(given, options, output)
    facts: dict[str, Any] = {"made_by": {"model": given.made_by}} if given.made_by else {}
    series = find_in_folder(given.series)[0] if given.series else _series_of_t1c(label_map.parent)
    if series:
        facts["scanner"] = dicom_facts(series)[1]
        if options.dicom_sr:
            check_seg(series, seg_path(output, given.name))
    timepoint = read_timepoint(given.day, label_map, given.t1c, given.labels, **facts)
    if corrected:
        # the file may be called as the patient is: its name is for the terminal alone
        print(f"day {given.day}: taken from {corrected.name}", file=sys.stderr, flush=True)
        note = "the result was corrected since it was written and is taken as it is, not segmented anew"
        timepoint = replace(timepoint, notes=(*timepoint.notes, note))
    made_by = ModelFacts(name=given.made_by or "label map as given", version="unknown", software=__version__)
    return timepoint, Refers(series, made_by) if series else None


def _corrected(place: Path) -> Path | None:
    """The result in a case folder that somebody has corrected in its place; None where there is none."""
    from segmamba.cases.label_files import corrected_results

    found = corrected_results(place)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{place}: several results were corrected ({names}); give the one that counts, not the folder")
    return found[0] if found else None


def _segmented(given: Given, options: Namespace, output: Path) -> tuple[Timepoint, Refers | None]:
    from segmamba.cases.case import find_case
    from segmamba.cases.dicom_seg import ModelFacts, check_seg
    from segmamba.cases.labels import convention_with
    from segmamba.followup.dates import dicom_facts, read_probability, read_timepoint
    from segmamba.followup.lesions import regions_of
    from segmamba.models.package import find_model, load_package
    from segmamba.prediction.result import find_warnings

    model = load_package(find_model(options.model))
    manifest = model.manifest
    convention = convention_with(manifest.label_map)
    if not convention:
        raise InputError(
            f"--model {options.model}: its labels are {', '.join(manifest.label_map)}, of which a follow-up cannot "
            "make enhancing tumor, core and edema; expected a model of brain tumors, or timepoints with label maps"
        )
    folder = output / SEGMENTATIONS
    place = given.place
    incomplete = manifest.incomplete is not None
    dicom = dicom_case(place, incomplete=incomplete) if _dicom(place) else nullcontext()
    with dicom as case:
        modalities = manifest.preprocess.modalities
        sources = case.sources if case else find_case(place, modalities, incomplete=incomplete)
        if "t1c" not in sources:
            raise InputError(f"{place}: no T1c, on which dates are registered and lesions measured")
        series = case.reference if case else _series_of_t1c(place)
        if series and options.dicom_sr:
            check_seg(series, seg_path(output, given.name))
        summary = _result(model, sources, folder, given, choose_device(options.device))
        probabilities = folder / summary["files"]["probabilities"]
        timepoint = read_timepoint(
            given.day,
            folder / summary["files"]["label_map"],
            sources["t1c"],
            convention,
            probabilities={
                name: read_probability(probabilities, name, convention) for name in regions_of(options.region)
            },
            made_by={"model": manifest.id, "weights": manifest.weights_sha256[:16], "software": summary["segmamba"]},
            absent=tuple(summary["absent"]),
            scanner=dicom_facts(series)[1] if series else "",
        )
        for line in case.lines() if case else ():
            print(f"note: day {given.day}: {line}", file=sys.stderr)
    timepoint = replace(timepoint, notes=tuple(dict.fromkeys((*timepoint.notes, *find_warnings(summary)))))
    software = summary["segmamba"]
    facts = ModelFacts(name=manifest.id, version=manifest.weights_sha256[:16] or "unknown", software=software)
    return timepoint, Refers(series, facts) if series else None


def _result(model: Model, sources: Mapping[str, Source], folder: Path, given: Given, device: str) -> dict:
    """The summary of a date's result in `folder`, which is made unless it is there of the same images and model.

    Raises InputError where it was changed since, and as predict_case.
    """
    from segmamba.prediction.options import PredictOptions, digest_images, output_files, settings_of
    from segmamba.prediction.predict import predict_case
    from segmamba.prediction.result import check_place, finished

    options = PredictOptions(device=device, probabilities=True)
    files, images_sha256 = output_files(folder, given.name, options), digest_images(sources)
    check_place(files, images_sha256)
    if summary := finished(files, settings_of(model, options, images_sha256)):
        print(f"day {given.day}: segmented before", file=sys.stderr, flush=True)
        return summary
    print(f"day {given.day}: segmenting", file=sys.stderr, flush=True)
    bar = Bar()
    summary = predict_case(model, sources, folder, given.name, options, bar)
    bar.close()
    return summary


def seg_path(output: Path, name: str) -> Path:
    """Where the DICOM SEG of a date goes."""
    return output / SEGMENTATIONS / f"{name}-seg.dcm"


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


def _series_of_t1c(place: Path) -> Series | None:
    """Of a case folder whose T1c is a folder of DICOM files; None for another."""
    from segmamba.cases.case import find_case
    from segmamba.images.dicom import find_in_folder

    try:
        source = find_case(place, ("t1c",))["t1c"]
    except InputError:
        return None
    return find_in_folder(source.path)[0] if source.path.is_dir() else None
