"""`segmamba dicom`: the series in a folder tree, and which of them are the four of a case.

And what `segmamba predict --dicom` needs: a case out of such a folder, and its result as DICOM SEG.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba.commands.shared import AddCommand
from segmamba.errors import InputError
from segmamba.images.modalities import MODALITIES

if TYPE_CHECKING:
    from segmamba.cases.case import Source
    from segmamba.images.dicom import Choice, Series
    from segmamba.models.package import Model


@dataclass(frozen=True)
class DicomCase:
    """A case out of a folder of DICOM files."""

    choices: dict[str, Choice]
    """By modality."""
    sources: dict[str, Source]
    """The same as images that every part of the engine reads, with what was odd about the series."""

    @property
    def reference(self) -> Series:
        """The series on whose grid the result lies: T1c or, without one, the first."""
        return (self.choices.get("t1c") or next(iter(self.choices.values()))).series

    def lines(self) -> list[str]:
        """'t1c is series 9 (0.98): named T1, ...', one a modality."""
        return [f"{m} is series {c.series.name} ({c.confidence:.2f}): {c.reason}" for m, c in self.choices.items()]

    def facts(self) -> dict:
        """For a summary: which series was taken for what, and why; nothing of the patient."""
        return {
            modality: {
                "series": choice.series.name,
                "confidence": round(choice.confidence, 3),
                "reason": choice.reason,
            }
            for modality, choice in self.choices.items()
        }


def add(add_command: AddCommand) -> None:
    """Adds `dicom` to the command line."""
    command = add_command("dicom", _run, "list the series in a folder of DICOM files, and find the four of a case")
    command.add_argument("folder", help="folder with DICOM files, at any depth, possibly among other files")
    add_series_argument(command)
    command.add_argument("--json", action="store_true", help="print the list as JSON")


def add_series_argument(command: ArgumentParser) -> None:
    """Adds --series, by which a user names the series of a modality."""
    command.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="MODALITY=NUMBER",
        help="use this series for the modality, e.g. t1c=7; can be repeated",
    )


def named_series(entries: Sequence[str]) -> dict[str, str]:
    """['t1c=7', ...] -> {'t1c': '7'}. Raises InputError for what is no MODALITY=NUMBER, or given twice."""
    named = {}
    for entry in entries:
        modality, _, name = entry.partition("=")
        if modality not in MODALITIES or not name or modality in named:
            raise InputError(
                f"--series {entry}: expected MODALITY=NUMBER, once for each of {', '.join(MODALITIES)}, e.g. t1c=7"
            )
        named[modality] = name
    return named


@contextmanager
def dicom_case(
    folder: Path | str,
    named: Mapping[str, str] | None = None,
    modalities: Sequence[str] = MODALITIES,
    *,
    incomplete: bool = False,
) -> Iterator[DicomCase]:
    """The series of a case in a folder tree, as NIfTI files that hold voxels and geometry, and nothing of the patient.

    Args:
        folder: at any depth of which the files lie.
        named: modality -> name of a series, which is taken whatever it looks like.
        modalities: that are wanted.
        incomplete: see segmamba.images.dicom.choose_four.

    Yields:
        The case; its files lie in a temporary folder that goes when the block ends.

    Raises:
        InputError: where the series cannot be told (see there) or read.
    """
    from segmamba.cases.case import Source, save_image
    from segmamba.cases.swaps import swap_warnings
    from segmamba.files.shares import work_folder
    from segmamba.images.dicom import choose_four, doubt, find_series, read_series

    choices = choose_four(find_series(folder), named, modalities, incomplete=incomplete)
    with work_folder("segmamba-dicom-") as work:
        sources, images = {}, {}
        for modality, choice in choices.items():
            image = images[modality] = read_series(choice.series)
            path = work / f"{modality}.nii"
            save_image(image.array, image.affine, path, image.array.dtype)
            sources[modality] = Source(path, notes=image.notes)
        odd = swap_warnings({m: i.array for m, i in images.items()}, {m: i.affine for m, i in images.items()})
        if odd:
            choices = doubt(choices, odd)
        del images
        yield DicomCase(choices, sources)


def seg_target(case: DicomCase, path: Path | str, model: Model) -> Path:
    """Checks where the DICOM SEG of a case is to be, now rather than after the run.

    Args:
        case: whose reference series it will refer to.
        path: of the file.
        model: whose labels it will hold.

    Returns:
        `path`.

    Raises:
        InputError: for what would stop it.
    """
    from segmamba.cases.dicom_seg import check_seg

    check_seg(case.reference, path, list(model.manifest.label_map))
    return Path(path)


def write_case_seg(case: DicomCase, label_map: Path | str, path: Path | str, model: Model) -> Path | None:
    """The label map of a case as DICOM SEG that refers to the series of its reference.

    Args:
        case: as `dicom_case` gives it.
        label_map: a NIfTI file on the grid of the reference.
        path: of the DICOM file, which must not exist.
        model: that made the label map.

    Returns:
        `path`, or None where the map is empty.

    Raises:
        InputError: as segmamba.cases.dicom_seg.write_seg.
    """
    from segmamba import __version__
    from segmamba.cases.dicom_seg import ModelFacts, write_seg

    manifest = model.manifest
    name = manifest.id if len(manifest.id) <= 64 else f"{manifest.id[:61]}..."  # all that DICOM has room for
    facts = ModelFacts(name=name, version=manifest.weights_sha256[:16] or "unknown", software=__version__)
    return write_seg(Path(label_map), None, case.reference, path, facts, scheme=manifest.scheme)


def _run(options: Namespace) -> int:
    from segmamba.images.dicom import choose_four, find_series

    found = find_series(options.folder)
    try:
        chosen, problem = choose_four(found, named_series(options.series)), None
    except InputError as error:
        chosen, problem = {}, str(error)
    if options.json:
        print(json.dumps({"series": [_row(s) for s in found], "chosen": _names(chosen), "problem": problem}, indent=2))
        return 0
    for series in found:
        print(_line(series, max(len(s.name) for s in found)))
    print(
        f"chosen: {', '.join(f'{m} {name}' for m, name in _names(chosen).items())}" if chosen else f"no case: {problem}"
    )
    return 0


def _names(chosen: Mapping[str, Choice]) -> dict[str, str]:
    return {modality: choice.series.name for modality, choice in chosen.items()}


def _line(series: Series, width: int) -> str:
    guess = series.guess
    what = f"{guess.modality} {guess.confidence:.2f}" if guess.modality else "-"
    text = (
        f"{series.name:>{width}}  {what:<8}  {series.description or '(no description)'}: {series.geometry.describe()}"
    )
    reason = f"left out, {series.left_out}" if series.left_out else guess.reason
    notes = [reason, *series.geometry.notes]
    if series.geometry.fault and not series.left_out:
        notes.insert(0, f"CANNOT BE USED, {series.geometry.fault}")
    return f"{text}; {'; '.join(notes)}"


def _row(series: Series) -> dict:
    geometry = series.geometry
    return {
        "name": series.name,
        "series_uid": series.uid,
        "description": series.description,
        "modality": series.guess.modality,
        "confidence": round(series.guess.confidence, 3),
        "reason": series.guess.reason,
        "left_out": series.left_out or None,
        "fault": geometry.fault or None,
        "notes": list(geometry.notes),
        "shape": list(geometry.shape),
        "spacing": None if geometry.spacing is None else [round(s, 4) for s in geometry.spacing],
        "affine": None if geometry.affine is None else geometry.affine.round(6).tolist(),
        "plane": geometry.plane or None,
        "oblique_degrees": round(geometry.oblique_degrees, 1),
        "reformatted": series.reformatted,
        "files": len(series.files),
    }
