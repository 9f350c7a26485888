"""Where the cases of a data set are: in a folder of case folders, in an MSD folder, or in a CSV or JSON list."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmamba import settings
from segmamba.cases.case_folder import find_case, find_label, holds_results_only
from segmamba.cases.labels import GLIOMA
from segmamba.datasets.task import Task, custom_task
from segmamba.errors import InputError, explain
from segmamba.files.atomic import read_text, subfolders
from segmamba.images.image_io import NIFTI, Source, image_suffix, name_without_suffix
from segmamba.images.modalities import MODALITIES

# Several examinations of one subject: BraTS 2023 and later number them, UPENN-GBM has _11 before and _21 after surgery,
# UCSF-PDGM _FU003d three days later, all of its folders with _nifti at the end.
# Phantoms of one seed have one head, with a tumour that is drawn or a real one, prepared or raw.
_SUBJECTS = re.compile(
    r"(BraTS-[A-Za-z]+-\d+)-\d+|(UPENN-GBM-\d+)_\d+|(UCSF-PDGM-\d+)(?:_FU\d+d)?(?:_nifti)?"
    r"|(phantom-\d+)(?:-shape)?(?:-raw)?"
)
_DEPTH = 4  # folders below the root in which cases are looked for, as HGG/ and LGG/ of BraTS 2018
_ID, _LABEL = ("id", "case"), ("label", "seg")
# Channels as the descriptions of MSD Task01 and of its nnU-Net versions call them; another keeps its name
_CHANNELS = {
    **dict.fromkeys(("t1", "t1w", "t1n"), "t1n"),
    **dict.fromkeys(("t1gd", "t1ce", "t1c"), "t1c"),
    **dict.fromkeys(("t2", "t2w"), "t2w"),
    **dict.fromkeys(("flair", "t2f"), "t2f"),
}
# What dataset.json of MSD Task01 and of its nnU-Net versions calls the labels
_GLIOMA_NAMES = {
    "NCR": r"non[- ]?enhancing([- ]tumou?r)?([- ]core)?|necrotic[- ]tumou?r[- ]core|necrosis|ncr",
    "ED": r"o?edema|peritumou?ral[- ]edema|ed",
    "ET": r"enhancing([- ]tumou?r)?|et",
}
_NO_PLAIN_NAME = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case: images by modality, and its label map where it has one."""

    id: str
    """Names the case in the data set."""
    subject: str
    """Whose examination it is."""
    images: dict[str, Source]
    """By modality."""
    label: Path | None = None
    """Its label map; None where it has none."""


SubjectNamer = Callable[[str], str]  # case id -> subject


@dataclass(kw_only=True)
class Found:
    """The cases that a folder or a list holds."""

    task: Task
    """As described by an MSD folder."""
    cases: dict[str, CaseFiles] = field(default_factory=dict)
    """By id."""
    bad: dict[str, str] = field(default_factory=dict)
    """Id -> why it cannot be used."""
    notes: list[str] = field(default_factory=list)
    """Plain sentences."""

    def add(self, case_id: str, subject: str, images: dict[str, Source], label: Path | None) -> None:
        """Takes up one case.

        Args:
            case_id: names the case in the data set.
            subject: whose examination it is.
            images: by modality.
            label: its label map; None where it has none.

        Raises:
            InputError: for an id that was there before.
        """
        self._check_new(case_id)
        self.cases[case_id] = CaseFiles(id=case_id, subject=subject, images=images, label=label)

    def refuse(self, case_id: str, why: str) -> None:
        """Leaves out one case.

        Args:
            case_id: names the case in the data set.
            why: what is wrong with it, and what helps.

        Raises:
            InputError: for an id that was there before.
        """
        self._check_new(case_id, why)
        self.bad[case_id] = why

    def _check_new(self, case_id: str, why: str = "") -> None:
        if case_id in self.cases or case_id in self.bad:
            text = f"two cases have the id {case_id}; rename a folder, or give ids in a list"
            why = why or self.bad.get(case_id, "")
            raise InputError(f"{text}. One cannot be used: {why}" if why else text)


def find_cases(source: Path, task: Task | None = None, subject_pattern: str | None = None) -> Found:
    """The cases that a source holds; images are not opened, and a single wrong case goes to `bad`.

    Args:
        source: a folder of cases, an MSD folder or its dataset.json, or a list (.csv, .tsv, .json).
        task: None for what an MSD folder describes, else brain tumors.
        subject_pattern: a regular expression that finds the subject in the id of a case; None: as BraTS names them.

    Returns:
        The files of each case, and what could not be used and why.

    Raises:
        InputError: where nothing is found, a list is malformed, or the pattern is wrong.
    """
    name_subject = _subject_namer(subject_pattern)
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such folder or list of cases; check the path")
    description = source if source.name == "dataset.json" else source / "dataset.json"
    described = _read_json(description) if description.is_file() else None
    if isinstance(described, dict) and ("modality" in described or "channel_names" in described):
        found = _find_described(description, described, task, name_subject)
    elif source.is_file():
        found = _find_listed(source, task or Task(), name_subject)
    else:
        found = _find_in_folder(source, task or Task(), name_subject)
    if not found.cases and not found.bad:
        raise InputError(
            f"{source}: no cases; expected a folder for each case, imagesTr and labelsTr as in MSD, or a list. "
            + " ".join(found.notes[:3])
        )
    return found


def _subject_namer(pattern: str | None) -> SubjectNamer:
    if pattern is None:
        return lambda case_id: next((g for g in _match(_SUBJECTS, case_id) if g), case_id)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--subject-pattern {pattern!r} is not a regular expression: {error}") from None

    def name(case_id: str) -> str:
        found = compiled.search(case_id)
        subject = found and (found.group(1) if compiled.groups else found.group())
        if not subject:
            raise InputError(f"--subject-pattern {pattern!r} finds no subject in the case id {case_id!r}")
        return subject

    return name


def _match(pattern: re.Pattern, text: str) -> tuple:
    found = pattern.fullmatch(text)
    return found.groups() if found else ()


# --- a folder of cases


def _find_in_folder(root: Path, task: Task, name_subject: SubjectNamer) -> Found:
    found = Found(task=task)
    if (root / "imagesTr").is_dir():
        root = root / "imagesTr"
    if volumes := _images(root):
        if root.name != "imagesTr":
            raise InputError(
                f"{root} holds images itself: {volumes[0].name} ...; expected a folder for each case, or imagesTr and "
                "labelsTr as in MSD. For one case, give the folder above it; for other layouts, a CSV list"
            )
        for path in volumes:
            _try(found, name_without_suffix(path), path, name_subject)
        return found
    for folder in _case_folders(root, task, found):
        _try(found, folder.name, folder, name_subject)
    return found


def _case_folders(root: Path, task: Task, found: Found, depth: int = 1) -> Iterator[Path]:
    """Folders that hold images, or are DICOM folders of the modalities; others are searched in turn."""
    for folder in subfolders(root):
        try:
            below = subfolders(folder)
            is_case = bool(_images(folder)) or (bool(below) and _has_all(folder, task))
        except OSError as error:
            why = f"{folder} cannot be looked into ({explain(error)}); ask for the right to read it"
            found.refuse(folder.name, why)
            continue
        if is_case:
            yield folder
        elif below and depth < _DEPTH:
            yield from _case_folders(folder, task, found, depth + 1)
        else:
            found.notes.append(f"{folder}: no images in it; not taken for a case")


def _has_all(folder: Path, task: Task) -> bool:
    try:
        return bool(find_case(folder, task.modalities))
    except InputError:
        return False


def _images(folder: Path) -> list[Path]:
    if holds_results_only(folder):
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and image_suffix(p) and not p.name.startswith("."))


def _try(found: Found, case_id: str, path: Path, name_subject: SubjectNamer) -> None:
    subject = name_subject(case_id)
    try:
        images, label = find_case(path, found.task.modalities), find_label(path)
    except InputError as error:
        found.refuse(case_id, str(error))
    else:
        found.add(case_id, subject, images, label)


# --- MSD, and what is laid out like it


def _find_described(description: Path, described: dict, task: Task | None, name_subject: SubjectNamer) -> Found:
    """imagesTr with one (4-D) file a case, or nnU-Net's CASE_0000.nii.gz, one a channel; labelsTr beside it."""
    root = description.parent
    channels: Any = described.get("channel_names", described.get("modality"))
    try:
        names = [str(channels[str(i)]) for i in range(len(channels))]
    except (KeyError, TypeError) as error:
        raise InputError(f"{description}: no readable table of modalities ({error!r})") from None
    images = _images(root / "imagesTr") if (root / "imagesTr").is_dir() else []
    if not images:
        raise InputError(f"{description}: there are no images in {root / 'imagesTr'}")
    names = [_CHANNELS.get(name.lower(), name.lower()) for name in names]
    split = "channel_names" in described
    task = task or _described_task(description, names, described.get("labels"))
    if unknown := [m for m in task.modalities if m not in names]:
        raise InputError(f"{description} knows no modality {', '.join(unknown)}; it has {', '.join(names)}")
    found = Found(task=task)
    ids = {(name_without_suffix(p)[: -len("_0000") if split else None], image_suffix(p)): p for p in images}
    for (case_id, suffix), path in sorted(ids.items()):
        place = {m: names.index(m) for m in task.modalities}
        if split:
            sources = {m: Source(path.with_name(f"{case_id}_{i:04d}{suffix}")) for m, i in place.items()}
        else:
            sources = {m: Source(path, i if suffix in NIFTI else None) for m, i in place.items()}
        label = root / "labelsTr" / f"{case_id}{suffix}"
        found.add(case_id, name_subject(case_id), sources, label if label.is_file() else None)
    return found


def _described_task(description: Path, names: list[str], labels: object) -> Task:
    """The labels as described; names such as edema are a statement of the convention of a brain-tumour data set."""
    if not isinstance(labels, dict) or not labels:
        raise InputError(f"{description}: no table of labels; describe them in a --task file")
    values = {}
    for key, value in labels.items():  # MSD has value: name, nnU-Net name: value
        number, name = (key, value) if str(key).isdecimal() else (value, key)
        if not str(number).isdecimal() or not isinstance(name, str):
            raise InputError(
                f"{description}: label {key!r}: {value!r} is not a number; describe the labels in a --task file"
            )
        if int(number):
            values[name.strip()] = [int(number)]
    if set(MODALITIES) <= set(names):
        glioma = {
            str(v): name
            for name, spelling in _GLIOMA_NAMES.items()
            for n, [v] in values.items()
            if re.fullmatch(spelling, n, re.IGNORECASE)
        }
        if len(glioma) == len(values) == len(_GLIOMA_NAMES):
            return Task(scheme=GLIOMA, label_values=glioma)
    return custom_task(names, values)


# --- lists


def _find_listed(path: Path, task: Task, name_subject: SubjectNamer) -> Found:
    found = Found(task=task)
    for number, row in enumerate(_read_list(path), start=1):
        where = f"{path}, case {number}"
        if unknown := [key for key, value in row.items() if value is not None and not isinstance(value, str)]:
            raise InputError(f"{where}: {', '.join(unknown)} must be text")
        row = {key: value.strip() for key, value in row.items() if value and value.strip()}
        images = {m: Source(path.parent / row[m]) for m in task.modalities if m in row}
        folder = path.parent / row["folder"] if "folder" in row else None
        label = next((path.parent / row[key] for key in _LABEL if key in row), None)
        case_id = next((row[key] for key in _ID if key in row), None) or (folder and name_without_suffix(folder))
        if not case_id:
            raise InputError(
                f"{where}: no id; expected a column 'id' (or 'folder'), and found {', '.join(row) or 'none'}"
            )
        if case_id in (".", "..") or _NO_PLAIN_NAME.search(case_id):
            raise InputError(
                f"{where}: the id {case_id!r} is no plain name; expected one without slashes and control characters, "
                "as files are named by it"
            )
        subject = row.get("subject") or name_subject(case_id)
        try:
            if missing := [m for m in task.modalities if m not in images]:
                if folder is None:
                    raise InputError(
                        f"{where} ({case_id}): no {', '.join(missing)}; expected a column for each of "
                        f"{', '.join(task.modalities)}, or a column 'folder'"
                    )
                images |= {m: s for m, s in find_case(folder, missing).items()}
            label = label or (find_label(folder) if folder is not None else None)
        except InputError as error:
            found.refuse(case_id, str(error))
        else:
            found.add(case_id, subject, {m: images[m] for m in task.modalities}, label)
    return found


def _read_list(path: Path) -> list[dict]:
    if path.suffix.lower() == ".json":
        rows = _read_json(path)
        rows = rows.get("cases") if isinstance(rows, dict) else rows
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: expected a list of cases, each a table of id, subject, images and label")
        return rows
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise InputError(f"{path}: expected a folder, or a list that ends in .csv, .tsv or .json")
    text = read_text(path)
    if "\0" in text:
        raise InputError(f"{path}: holds a null character; expected text")
    header = text.splitlines()[0] if text.strip() else ""
    try:
        rows = list(csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=header.count)))
    except csv.Error as error:
        raise InputError(f"{path} is not a table: {error}") from None
    if any(None in row for row in rows):
        raise InputError(f"{path}: a line has more columns than the first, which names them: {header}")
    return rows


def _read_json(path: Path) -> object:
    return settings.read_json(path)
