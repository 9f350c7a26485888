"""From a folder or list of cases to a manifest, and again where files changed.

A case that cannot be used does not stop the others: it is left out, and the manifest says why. Reading a large data set
takes long, and what was read is not thrown away; once fixed, an update reads the rest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from nibabel.affines import voxel_sizes

from segmamba import __version__
from segmamba.datasets.find import CaseFiles, Found, find_cases
from segmamba.datasets.fingerprint import fingerprint
from segmamba.datasets.manifest import MANIFEST, CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.reading import measure, read_case
from segmamba.datasets.task import Task, glioma_values, settle_convention, suggest_labels
from segmamba.datasets.workers import Progress, map_cases
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder
from segmamba.images.digest import hash_image, size_and_time

_UNSEEN = "no label seen yet"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A data set as it was just made or updated."""

    dataset: Dataset
    """As its manifest was written."""
    read: tuple[str, ...]
    """Ids of the cases that were read; the others were unchanged."""
    gone: tuple[str, ...] = ()
    """Ids that the manifest had and that are no longer there."""
    notes: tuple[str, ...] = ()
    """Plain sentences."""

    @property
    def left_out(self) -> dict[str, str]:
        """Id of each case that was left out, and the reason."""
        return self.dataset.left_out


def init_dataset(
    source: Path | str,
    *,
    output: Path | str | None = None,
    name: str | None = None,
    task: Task | None = None,
    convention: str | None = None,
    subject_pattern: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Collected:
    """Reads every case under `source` (segmamba.datasets.find) and writes the manifest.

    A single bad case is left out, and said to be.

    Args:
        source: a folder of cases, or a list of them.
        output: folder of the manifest; None: `source`, or the folder that a list stands in.
        name: of the data set; None: that of the folder.
        task: modalities, labels and regions; None: what an MSD folder describes, else brain tumors.
        convention: of the label maps of brain tumors (cases.labels); without it, it must follow from the values of all
            cases together.
        subject_pattern: a regular expression that finds the subject in the id of a case.
        jobs: processes that read at once.
        progress: called as progress(done, total), both in cases.

    Returns:
        The data set, and which cases were read.

    Raises:
        InputError: where nothing can be made of `source`.
    """
    source = Path(source)
    folder = Path(output) if output is not None else source if source.is_dir() else source.parent
    _check_free(folder)
    found = find_cases(source, task, subject_pattern)
    _check_descriptions(folder, found)
    task = found.task
    if convention is not None:
        if task.scheme.labels != Task().scheme.labels:
            raise InputError(
                f"--labels {convention} is for brain tumours; this task has {', '.join(task.scheme.labels)}"
            )
        task = replace(task, label_values=glioma_values(convention))
    make_folder(folder)
    style = _PathStyle(str(folder), _relative_to(source, folder))
    made = {"source": style.text(source), "subject_pattern": subject_pattern, "segmamba": __version__}
    blank = Dataset(
        name=name or (source if source.is_dir() else source.parent).resolve().name,
        modalities=task.modalities,
        labels=task.scheme.labels,
        regions=task.scheme.regions,
        label_values=task.label_values or {},
        cases=(),
        made=made,
        folder=str(folder),
    )
    return _collect(blank, found, style, jobs, progress)


def update_dataset(source: Path | str, *, jobs: int = 1, progress: Progress | None = None) -> Collected:
    """Takes over cases that were added, removed or corrected. Ids, labels and split stay.

    A case whose files have their size and time, or else their hash, is not read again.

    Args:
        source: the data set's folder, or the list that it was made of.
        jobs: processes that read at once.
        progress: called as progress(done, total), both in cases.

    Returns:
        The data set as it is now, and which cases were read or are gone.

    Raises:
        InputError: where there is no data set, it does not record what it was made of, or that holds no case any more.
    """
    path = Path(source)
    dataset = read_dataset(path if path.is_dir() or path.name == MANIFEST else path.parent)
    if "source" not in dataset.made:
        raise InputError(f"data set {dataset.folder} does not record what it was made of; make it again")
    folder = Path(dataset.folder)
    origin = folder / dataset.made["source"]
    task = Task(modalities=dataset.modalities, scheme=dataset.scheme, label_values=dataset.label_values)
    found = find_cases(origin, task, dataset.made.get("subject_pattern"))
    return _collect(dataset, found, _PathStyle(str(folder), _relative_to(origin, folder)), jobs, progress)


# --- where things stand


@dataclass(frozen=True)
class _PathStyle:
    """How paths are written in the manifest: from its folder where it and the source move together."""

    folder: str
    relative: bool

    def text(self, path: Path) -> str:
        absolute = os.path.abspath(path)  # noqa: PTH100  links are kept: many data sets are made of them
        return Path(os.path.relpath(absolute, self.folder) if self.relative else absolute).as_posix()


def _relative_to(source: Path, folder: Path) -> bool:
    one, other = source.absolute(), folder.absolute()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _check_free(folder: Path) -> None:
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        read_dataset(path)
    except InputError:
        raise InputError(
            f"{path} exists and was not written by this program (it may describe an MSD data set); "
            f"choose where the manifest goes, e.g. --output {folder / 'segmamba'}"
        ) from None
    raise InputError(f"{path} already exists; add what changed with --update, or choose another --output")


def _check_descriptions(folder: Path, found: Found) -> None:
    """Above a 4-D file, a dataset.json is read as the description of its volumes (segmamba.cases.case_folder)."""
    for case in found.cases.values():
        for source in case.images.values():
            if source.volume is not None and folder.resolve() in source.path.resolve().parents[:2]:
                raise InputError(
                    f"{folder / MANIFEST} would be mistaken for the description of {source.path}; "
                    f"choose where the manifest goes, e.g. --output {folder / 'segmamba'}"
                )


# --- reading


@dataclass(frozen=True)
class _Job:
    files: CaseFiles
    old: CaseEntry | None
    style: _PathStyle


@dataclass(frozen=True)
class _Done:
    """entry: with labels by their values in the file where `read`. error: why there is no entry."""

    id: str
    entry: CaseEntry | None = None
    read: bool = False
    error: str = ""
    notes: tuple[str, ...] = field(default=())


def _do(job: _Job) -> _Done:
    files = job.files
    try:
        images, label = _files(job)
        if job.old is not None and _same(job.old, images, label):
            return _Done(files.id, replace(job.old, subject=files.subject, images=images, label=label))
        reading = read_case(files.id, files.images, files.label)
        if reading.case is None or reading.errors:
            return _Done(files.id, read=True, error="; ".join(reading.errors))
        case = reading.case
        entry = CaseEntry(
            id=files.id,
            subject=files.subject,
            images=images,
            label=label,
            shape=cast(tuple[int, int, int], tuple(int(n) for n in case.shape)),
            spacing=cast(tuple[float, float, float], tuple(round(float(s), 6) for s in voxel_sizes(case.affine))),
            statistics=measure(case, reading.label),
        )
        return _Done(files.id, entry, read=True)
    except InputError as error:
        return _Done(files.id, read=True, error=str(error))
    except OSError as error:
        return _Done(files.id, read=True, error=f"{error.filename or files.id}: {error.strerror or error}")


def _files(job: _Job) -> tuple[dict[str, FileEntry], FileEntry | None]:
    """The files as they are now; hashed where size or time is not what it was."""
    known = {}
    if job.old is not None:
        known = {entry.path: entry for entry in (*job.old.images.values(), job.old.label) if entry is not None}

    @functools.cache  # a 4-D file is named by each of its modalities
    def facts(path: Path) -> tuple[str, str, int, int]:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        text, (size, modified) = job.style.text(path), size_and_time(path)
        old = known.get(text)
        if old is not None and (old.size, old.modified) == (size, modified):
            return text, old.sha256, size, modified
        return text, hash_image(path), size, modified

    def entry(path: Path, volume: int | None = None) -> FileEntry:
        text, digest, size, modified = facts(path)
        return FileEntry(path=text, sha256=digest, volume=volume, size=size, modified=modified)

    images = {m: entry(s.path, s.volume) for m, s in job.files.images.items()}
    return images, None if job.files.label is None else entry(job.files.label)


def _same(old: CaseEntry, images: dict[str, FileEntry], label: FileEntry | None) -> bool:
    def essence(entry: FileEntry | None) -> tuple | None:
        return entry and (entry.path, entry.sha256, entry.volume)

    return essence(old.label) == essence(label) and all(essence(old.images[m]) == essence(images[m]) for m in images)


def _collect(dataset: Dataset, found: Found, style: _PathStyle, jobs: int, progress: Progress | None) -> Collected:
    before = {case.id: case for case in dataset.cases}
    settled = bool(dataset.label_values) and dataset.made.get("convention") != _UNSEEN
    seen: dict[int, list[str]] = {}
    work = [_Job(files, before.get(files.id), style) for _, files in sorted(found.cases.items())]
    results = []
    for done in map_cases(_do, work, jobs, progress):
        results.append(done)
        if not settled and done.entry is not None and done.read:
            for value in done.entry.statistics.get("labels", {}):
                seen.setdefault(value, []).append(done.id)
            settle_convention(seen, final=False)
    made = dict(dataset.made)
    if not settled:
        convention = settle_convention(seen, final=True)
        assert convention is not None  # as `final` makes it
        made["convention"] = f"{convention}, from the values of all cases" if seen else _UNSEEN
        dataset = replace(dataset, label_values=glioma_values(convention))
    cases, left_out = [], dict(found.bad)
    for done in results:
        try:
            if done.error:
                raise InputError(done.error)
            cases.append(name_labels(done.entry, dataset) if done.read else done.entry)
        except InputError as error:
            left_out[done.id] = str(error)
    gone = tuple(sorted(set(before) - {c.id for c in cases} - set(left_out)))
    result = replace(
        dataset,
        cases=tuple(cases),
        left_out=dict(sorted(left_out.items())),
        fingerprint=fingerprint(cases, dataset.modalities, tuple(dataset.labels)),
        made=made,
    )
    if not cases:
        reasons = "\n".join(f"  {case_id}: {reason}" for case_id, reason in list(left_out.items())[:10])
        raise InputError(f"none of {len(left_out)} cases can be used:\n{reasons}")
    write_dataset(result)
    read = tuple(done.id for done in results if done.read)
    return Collected(dataset=result, read=read, gone=gone, notes=tuple([*found.notes, *_notes(cases)]))


def name_labels(entry: CaseEntry, dataset: Dataset) -> CaseEntry:
    """Statistics by value in the file -> by name, each label of the data set once."""
    statistics = dict(entry.statistics)
    if "labels" not in statistics:
        return entry
    raw, names = statistics["labels"], dataset.label_values
    if unknown := [value for value in raw if str(value) not in names]:
        counts = ", ".join(f"{v} ({raw[v]['voxels']} voxels)" for v in unknown[:5])
        known = ", ".join(f"{v} {n}" for v, n in names.items())
        known += suggest_labels(names, unknown)
        raise InputError(f"{entry.label and entry.label.path}: label values {counts} are unknown; expected {known}")
    named = {name: {"voxels": 0, "ml": 0.0} for name in dataset.labels}
    for value, measured in raw.items():
        total = named[names[str(value)]]
        total["voxels"] += measured["voxels"]
        total["ml"] = round(total["ml"] + measured["ml"], 6)
    return replace(entry, statistics={**statistics, "labels": named})


def _labelled(case: CaseEntry) -> bool:
    return any(measured["voxels"] for measured in case.statistics.get("labels", {}).values())


def _notes(cases: Sequence[CaseEntry]) -> Iterable[str]:
    if bare := [case.id for case in cases if case.label is None]:
        yield f"{len(bare)} of {len(cases)} cases have no label map, e.g. {bare[0]}: they cannot be trained on"
    empty = [case.id for case in cases if case.label is not None and not _labelled(case)]
    if empty and len(empty) == sum(case.label is not None for case in cases):
        yield f"all {len(empty)} label maps are empty: a model that is trained on them finds nothing, ever"
    for case in cases:
        yield from (f"{case.id}: {note}" for note in case.statistics["notes"])
