"""Whether a submission is what FORMAT.md says, and whether what it says can be true. Reads, never changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from segmamba import limits
from segmamba.cases.case import Case
from segmamba.cases.labels import LabelScheme, renumber
from segmamba.datasets.check import check_label
from segmamba.datasets.collect import name_labels
from segmamba.datasets.manifest import CaseEntry, Dataset, FileEntry
from segmamba.datasets.reading import foreground, measure, read_case
from segmamba.datasets.registration import find_misplaced
from segmamba.errors import InputError
from segmamba.files.atomic import is_left_by_system
from segmamba.files.digest import hash_file
from segmamba.images.digest import size_and_time
from segmamba.images.grid import GRID_TOLERANCE_MM, corner_distance
from segmamba.images.image_io import Source
from segmamba.learning.submissions.changes import best_place, label_changes, region_dice
from segmamba.learning.submissions.findings import WRONG, Finding
from segmamba.learning.submissions.headers import find_hidden
from segmamba.learning.submissions.record import RECORD, CaseRecord, LabelChange, find_identifying_text, read_record
from segmamba.settings import read_json

_SHIFT_MM = 6.0
# Brains found in heads whose brain was known: 95 % of the surface were within 4.2 to 5.4 mm of it
_EDGE_MM = 5.0
_BEYOND = 0.01  # of what is labelled, as in segmamba.datasets
# Of 24 cases with proposals of a model that never saw their scanners (benchmarks/proposal_place.py): sound labels gain
# 0.02 at most by another place, moved ones 0.2 or more, and then have a Dice of 0.6 or more in 23 of them
_BETTER_THERE, _FITS = 0.1, 0.6


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A submission as found."""

    name: str
    """Of its folder, CASE-vN."""
    subject: str = ""
    """Hash of the patient; "" where case.json cannot be read."""
    findings: tuple[Finding, ...] = ()
    """What was found, wrong or not."""
    entry: CaseEntry | None = None
    """None where it cannot be used at all."""
    labels: dict[str, int] = field(default_factory=dict)
    """Name -> value, as case.json has them."""
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> names of its labels."""
    changes: dict[str, LabelChange] = field(default_factory=dict)
    """By label, against the proposal, measured here; {} without one."""
    dice: dict[str, float] = field(default_factory=dict)
    """Region -> Dice of the proposal against the correction, measured here; {} without a proposal."""
    contents: dict[str, str] = field(default_factory=dict)
    """Modality, or "label" -> hash of the voxels."""

    @property
    def unchanged(self) -> bool:
        """Whether the proposal was accepted as it was."""
        return bool(self.changes) and not any(c.added or c.removed for c in self.changes.values())


def examine(folder: Path, root: Path) -> Examined:
    """Everything that is wrong with one submission. root: where the manifest will stand; paths count from there."""
    try:
        if not folder.is_dir():
            raise InputError(f"{folder.name} is not a folder, or is a broken link; send the case again")
        record = read_record(folder)
    except InputError as error:
        return Examined(name=folder.name, findings=(Finding(kind="record", text=str(error)),))
    findings = [Finding(kind=kind, text=text) for kind, text in _outside(folder, record)]
    if any(f.kind in ("changed", "file") for f in findings):
        return Examined(name=record.name, subject=record.subject, findings=tuple(findings))
    images = {m: Source(folder / file.file) for m, file in record.images.items()}
    reading = read_case(record.case, images, folder / record.segmentation.file)
    findings += [Finding(kind="file", text=text) for text in reading.errors]
    case, label = reading.case, reading.label
    if case is None or label is None:  # there are errors
        return Examined(name=record.name, subject=record.subject, findings=tuple(findings))
    dataset = _as_dataset(record, root)
    done = record.preprocessing[-len(record.preparation) :] if record.preparation else ()
    findings += [Finding(kind="prepared", text=f"prepared: {text}") for text in done]
    found = [*_geometry(record, case), *find_moved(case)]
    found += [("note", text) for text in case.notes]
    about_label = check_label(dataset, case, label, folder / record.segmentation.file)
    found += _at_the_edge(about_label, case, label) if record.is_brain_found else about_label
    if set(record.confirmed_empty) == set(record.labels):
        found = [f for f in found if f[0] != "empty label"]
    findings += [Finding(kind=kind, text=text) for kind, text in found]
    changes, dice = {}, {}
    if not any(f.kind == "label values" for f in findings):
        try:
            changes, dice, moved = _compare(folder, record, case, label)
            findings += [Finding(kind="elsewhere", text=text) for text in moved]
        except InputError as error:
            findings.append(Finding(kind="file", text=str(error)))
        findings += [Finding(kind=kind, text=text) for kind, text in _about_changes(record, changes)]
    entry = None
    if not any(f.kind in WRONG for f in findings):
        entry = name_labels(_entry(folder, root, record, case, label), dataset)
    contents = {m: facts["content"] for m, facts in entry.statistics["images"].items()} if entry else {}
    if entry and "label_content" in entry.statistics:
        contents["label"] = entry.statistics["label_content"]
    return Examined(
        name=record.name,
        subject=record.subject,
        findings=tuple(findings),
        entry=entry,
        labels=record.labels,
        regions=record.regions,
        changes=changes,
        dice=dice,
        contents=contents,
    )


def _outside(folder: Path, record: CaseRecord) -> Iterator[tuple[str, str]]:
    """What can be told without looking at voxels."""
    if not (record.consent and record.deidentified):
        yield "consent", f"{folder.name} does not say that it may be used and is de-identified"
    expected = {RECORD, *(file.file for file in record.files)}
    present = {path.name for path in folder.iterdir() if not is_left_by_system(path)}
    if strange := sorted(present - expected):
        yield "identifying", f"{folder.name} holds files that do not belong there: {', '.join(strange[:5])}"
    for text in find_identifying_text(read_json(folder / RECORD, most=limits.RECORD_BYTES)):
        yield "identifying", f"{RECORD}: {text}"
    for file in record.files:
        path = folder / file.file
        if file.file not in present:
            yield "file", f"{path} is missing"
        elif path.is_symlink() or not path.is_file() or path.stat().st_size > limits.FILE_BYTES:
            yield "file", f"{path} is not a regular file of up to {limits.FILE_BYTES >> 20} MiB"
        elif hash_file(path) != file.sha256:
            yield "changed", f"{path} is not the file that was sent"
        else:
            yield from (("identifying", text) for text in find_hidden(path))


def _geometry(record: CaseRecord, case: Case) -> Iterator[tuple[str, str]]:
    said = record.geometry
    if tuple(said.shape) != tuple(case.shape):
        yield "record", f"images have {case.shape} voxels, {RECORD} says {said.shape}"
    elif (far := corner_distance(case.shape, case.affine, np.array(said.affine, float))) > GRID_TOLERANCE_MM:
        yield "record", f"the images lie {far:.3g} mm from where {RECORD} says"


def find_moved(case: Case) -> Iterator[tuple[str, str]]:
    """Images that do not lie on the others, as intake takes it.

    A shift of a voxel or two may be a mistake of the search; a person need not be asked about it.

    Args:
        case: the images.

    Yields:
        (kind, text); kind is "registration", or "note" for a short shift.
    """
    for image in find_misplaced(case):
        if image.mirrored:
            yield "registration", f"{image.modality} fits the others better mirrored {image.mirrored}"
        else:
            far = image.distance > max(_SHIFT_MM, 2.5 * float(max(voxel_sizes(case.affine))))
            text = f"{image.modality} fits the others better {image.distance:.0f} mm away"
            yield "registration" if far else "note", text


def _at_the_edge(found: Iterator[tuple[str, str]], case: Case, label: np.ndarray) -> Iterator[tuple[str, str]]:
    """`found` of a case whose brain was cut out by a program.

    What a person labelled a little outside is no mistake of the person. A little: _EDGE_MM or, where they are larger,
    one voxel along each axis.
    """
    for kind, text in found:
        if kind not in ("outside head", "other patient"):
            yield kind, text
            continue
        spacing, labelled = voxel_sizes(case.affine), label != 0
        head = np.any([foreground(image) for image in case.images.values()], axis=0)
        away = ndimage.distance_transform_edt(~head, sampling=spacing / np.maximum(spacing, _EDGE_MM))
        beyond, total = np.count_nonzero(labelled & (away > 1 + 1e-6)), np.count_nonzero(labelled)
        outside = np.count_nonzero(labelled & ~head)
        if beyond <= _BEYOND * total:
            yield "note", f"{outside} of {total} labelled voxels lie just outside the brain that was cut out"
        else:
            kind = "outside head" if 2 * beyond <= total else kind
            yield kind, f"{beyond} of {total} labelled voxels lie far outside the brain that was cut out"


def _compare(
    folder: Path, record: CaseRecord, case: Case, label: np.ndarray
) -> tuple[dict[str, LabelChange], dict[str, float], list[str]]:
    """Changes, Dice, and what a proposal says of the label map's place."""
    if record.proposal is None:
        return {}, {}, []
    path = folder / record.proposal.file
    proposed = read_case(record.case, dict(case.sources), path)
    if proposed.label is None:
        raise InputError(proposed.errors[0])
    own = {value: value for value in record.labels.values()}
    before, after = renumber(proposed.label, own), renumber(label, own)
    scheme = record.scheme
    here, there, away = best_place(before, after, case.affine)
    moved = []
    if is_moved(here, there):
        moved = [f"the label map fits the proposal better {away:.0f} mm away (Dice {there:.2f}, here {here:.2f})"]
    return label_changes(before, after, case.affine, scheme), region_dice(before, after, scheme), moved


def is_moved(here: float, there: float) -> bool:
    """Whether a label map is taken for moved.

    Args:
        here: its Dice with the proposal where it lies, as `changes.best_place` gives it.
        there: likewise at its best place.
    """
    return there >= _FITS and there - here >= _BETTER_THERE


def _about_changes(record: CaseRecord, changes: dict[str, LabelChange]) -> Iterator[tuple[str, str]]:
    if record.proposal is None:
        yield "no proposal", "nothing tells what the model had proposed"
        return
    for name, said in record.changes.items():
        own = changes.get(name)
        if own and (own.added, own.removed) != (said.added, said.removed):
            text = f"{said.added} voxels of {name} added and {said.removed} removed, not {own.added} and {own.removed}"
            yield "record", f"{RECORD} says {text}: these are not the label maps that were compared"
    if changes and not any(c.added or c.removed for c in changes.values()):
        yield "unchanged", "the model's proposal was accepted as it was"


def _as_dataset(record: CaseRecord, root: Path) -> Dataset:
    return Dataset(
        name=root.resolve().name,
        modalities=tuple(record.images),
        labels=record.labels,
        regions=record.regions,
        label_values={str(value): name for name, value in record.labels.items()},
        cases=(),
        folder=str(root),
    )


def same_task(one: Examined, other: Examined) -> bool:
    """Whether two submissions can stand in one data set."""
    schemes = [LabelScheme(labels=e.labels, regions=e.regions) for e in (one, other)]
    return schemes[0] == schemes[1] and _modalities(one) == _modalities(other)


def _modalities(one: Examined) -> set[str]:
    return set(one.entry.images) if one.entry else set()


def _entry(folder: Path, root: Path, record: CaseRecord, case: Case, label: np.ndarray) -> CaseEntry:
    def file(name: str, sha256: str) -> FileEntry:
        path = folder / name
        text = path.relative_to(root) if path.is_relative_to(root) else path.absolute()
        size, modified = size_and_time(path)
        return FileEntry(path=text.as_posix(), sha256=sha256, size=size, modified=modified)

    return CaseEntry(
        id=record.case,
        subject=record.subject,
        images={m: file(f.file, f.sha256) for m, f in record.images.items()},
        label=file(record.segmentation.file, record.segmentation.sha256),
        shape=cast(tuple[int, int, int], tuple(int(n) for n in case.shape)),
        spacing=cast(tuple[float, float, float], tuple(round(float(s), 6) for s in voxel_sizes(case.affine))),
        statistics=measure(case, label),
    )
