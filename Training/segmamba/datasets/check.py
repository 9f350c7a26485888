"""Reads a data set again and finds what is wrong with it, as far as a machine can tell, and how to fix it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from segmamba.cases.case import Case
from segmamba.cases.labels import GLIOMA, renumber
from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.datasets.plausibility import find_implausible
from segmamba.datasets.reading import content, foreground, read_case, value_counts
from segmamba.datasets.registration import find_misplaced
from segmamba.datasets.split import SPLIT, read_split
from segmamba.datasets.workers import Progress, map_cases
from segmamba.errors import InputError
from segmamba.images.digest import hash_image

# kind -> (severity, how to fix it)
KINDS = {
    "missing": ("error", "put the file back, or take over with `segmamba dataset init --update` that it is gone"),
    "changed": ("error", "take over corrections with `segmamba dataset init --update`; else put the old file back"),
    "file": ("error", "fix the case or leave it out, then `segmamba dataset init --update`"),
    "label values": ("error", "correct the label map, or make the data set anew with the right --labels or --task"),
    "left out": ("error", "fix the case, then `segmamba dataset init --update`"),
    "same image": ("error", "remove one of them: the same image on both sides of a split makes results too good"),
    "same label": ("error", "one label map was copied over another: restore the right one"),
    "other patient": ("error", "most of the label lies outside the head: it belongs to another case or place"),
    "split": ("error", "add new subjects with `segmamba dataset split`"),
    "repeated image": ("warning", "one examination of this subject counts twice: remove one"),
    "no label": ("warning", "add a label map (X-seg.nii.gz) and update; the case cannot be trained on"),
    "empty label": ("warning", "right only if there is nothing to label; otherwise draw it"),
    "outside head": ("warning", "look at the label map there, and erase what is outside"),
    "specks": ("warning", "look at them: pieces of a few voxels are slips of the pen as a rule, and count as lesions"),
    "note": ("warning", "check the header of the file against its source"),
    "geometry": ("warning", "look whether left, right and the size in mm are right"),
    "registration": ("warning", "look at both images in one view; register and resample again if they do not match"),
    "modalities": ("warning", "look at the images; rename the files if they are exchanged"),
    "labels": ("warning", "look at the labels; state the convention with --labels when making the data set"),
    "elsewhere": ("warning", "look at the label map over t2f: is it of this case, and in its place?"),
    "slight": ("warning", "look at what was drawn there: little speaks for it, as a stroke of the brush would"),
    "mirrored": ("warning", "look at the label map over t2f; flip it back if it is mirrored"),
}
_SPECK_MM3, _SPECKS = 10.0, 5  # pieces below this size are told where there are more than so many
_OUTSIDE, _ELSEWHERE = 0.01, 0.5  # shares of the labelled voxels
_ODD = 3.0  # times the median spacing


@dataclass(frozen=True)
class Finding:
    """One thing that a check of a data set found."""

    kind: str
    """Of KINDS."""
    case: str
    """Its id, or "" for the data set."""
    text: str
    """What was found, in plain words."""

    @property
    def severity(self) -> str:
        """How bad it is, as the table of kinds says."""
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return KINDS[self.kind][1]

    def as_json(self) -> dict:
        """The finding as plain JSON."""
        return {"severity": self.severity, **asdict(self), "mend": self.remedy}


def check_dataset(dataset: Dataset, jobs: int = 1, progress: Progress | None = None) -> list[Finding]:
    """Everything that is wrong with a data set. Reads every file.

    Args:
        dataset: as `manifest.read_dataset` gives it.
        jobs: processes that read at once.
        progress: called as progress(done, total), both in cases.

    Returns:
        The findings, errors first, then in the order of KINDS and of the cases. What can be reported is no exception.
    """
    alone = replace(dataset, cases=(), fingerprint={}, left_out={})
    checked = list(map_cases(_check_case, [(alone, case) for case in dataset.cases], jobs, progress))
    findings = [finding for found, _ in checked for finding in found]
    findings += [Finding("left out", case, why) for case, why in dataset.left_out.items()]
    contents = {case.id: facts for case, (_, facts) in zip(dataset.cases, checked)}
    findings += _duplicates(dataset.cases, contents)
    findings += _geometry(dataset.cases)
    findings += _convention(dataset.cases, findings)
    findings += _split(dataset)
    order = list(KINDS)
    return sorted(findings, key=lambda f: (f.severity != "error", order.index(f.kind), f.case))


# --- one case


def _check_case(given: tuple[Dataset, CaseEntry]) -> tuple[list[Finding], dict[str, str]]:
    """-> findings, and what the files hold: {"label" or modality: digest}."""
    dataset, entry = given
    found: list[tuple[str, str]] = []
    files = [*entry.images.values(), *([entry.label] if entry.label else [])]
    hashes = {}
    for file in files:
        path = dataset.path(file)
        if not path.exists():
            found.append(("missing", str(path)))
        elif path not in hashes:
            try:
                hashes[path] = hash_image(path)
            except OSError as error:
                found.append(("file", f"{path}: {error.strerror}"))
                continue
            if hashes[path] != file.sha256:
                found.append(("changed", f"{path} is not the file that the data set was made of"))
    label_path = dataset.path(entry.label) if entry.label else None
    present = {m: s for m, s in dataset.sources(entry).items() if s.path in hashes}
    contents = {}
    if present:
        reading = read_case(entry.id, present, label_path if label_path in hashes else None)
        found += [("file", error) for error in reading.errors]
        if reading.case is not None:
            contents = {m: content(image) for m, image in reading.case.images.items()}
            found += [("note", note) for note in reading.case.notes]
            found += _images(reading.case)
        if reading.label is not None and label_path is not None:
            if reading.label.any():
                contents["label"] = content(reading.label)
            found += check_label(dataset, reading.case, reading.label, label_path)
    if entry.label is None:
        found.append(("no label", "has no label map"))
    return [Finding(kind, entry.id, text) for kind, text in found], contents


def _images(case: Case) -> Iterator[tuple[str, str]]:
    for image in find_misplaced(case):
        if image.mirrored:
            yield "registration", f"{image.modality} fits the others better mirrored {image.mirrored}"
        else:
            where = ", ".join(f"{v:+.0f}" for v in image.shift_mm or ())
            yield (
                "registration",
                f"{image.modality} fits the others better {image.distance:.0f} mm away ({where} mm along the axes)",
            )


def check_label(dataset: Dataset, case: Case | None, label: np.ndarray, path: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with a label map.

    Args:
        dataset: whose labels it should hold.
        case: the images that it belongs to; None: they could not be read.
        label: (X, Y, Z), the values as stored.
        path: of the file, for texts.

    Yields:
        (kind of KINDS, text).
    """
    known = dataset.renumbering
    if unknown := {v: n for v, n in value_counts(label).items() if v not in known}:
        text = ", ".join(f"{v} ({n} voxels)" for v, n in list(unknown.items())[:5])
        yield (
            "label values",
            f"{path}: {text}; expected {', '.join(f'{v} {n}' for v, n in dataset.label_values.items())}",
        )
    if not label.any():
        yield "empty label", "the label map is empty"
    elif case is not None:
        yield from _place(case, label != 0)
        if dataset.scheme == GLIOMA and not unknown:
            yield from find_implausible(case, renumber(label, known))


def _place(case: Case, labelled: np.ndarray) -> Iterator[tuple[str, str]]:
    head = np.any([foreground(image) for image in case.images.values()], axis=0)
    total, outside = np.count_nonzero(labelled), np.count_nonzero(labelled & ~head)
    if outside > _OUTSIDE * total:
        kind = "other patient" if outside > _ELSEWHERE * total else "outside head"
        yield kind, f"{outside} of {total} labelled voxels lie where every image is background"
    pieces, count = ndimage.label(labelled, np.ones((3, 3, 3)))
    volumes = np.bincount(pieces.ravel())[1:] * float(np.prod(voxel_sizes(case.affine)))
    small = int(np.count_nonzero(volumes < _SPECK_MM3))
    if small > _SPECKS:
        yield "specks", f"{small} of {count} pieces are smaller than {_SPECK_MM3:g} mm3"


# --- all cases together


def _duplicates(cases: Sequence[CaseEntry], contents: dict[str, dict[str, str]]) -> Iterator[Finding]:
    subject = {case.id: case.subject for case in cases}
    holders: dict[tuple[bool, str], list[tuple[str, str]]] = defaultdict(list)
    for case_id, found in contents.items():
        for name, digest in found.items():
            holders[name == "label", digest].append((case_id, name))
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    labels = []
    for (is_label, _), places in holders.items():
        first = places[0]
        for other in places[1:]:
            if other[0] == first[0]:
                continue
            if is_label:
                labels.append((first[0], other[0]))
            else:
                names = first[1] if first[1] == other[1] else f"{first[1]} as {other[1]}"
                images[first[0], other[0]].append(names)
    for (one, other), names in images.items():
        same = subject[one] == subject[other]
        whose = f"of the same subject {subject[one]}" if same else f"subjects {subject[one]} and {subject[other]}"
        yield Finding(
            "repeated image" if same else "same image",
            other,
            f"holds the same voxels as {one} ({', '.join(names)}); {whose}",
        )
    for one, other in labels:
        if (one, other) not in images:
            yield Finding("same label", other, f"its label map is that of {one}, the images are others")


def _geometry(cases: Sequence[CaseEntry]) -> Iterator[Finding]:
    if len(cases) < 3:
        return
    spacing = np.array([sorted(case.spacing) for case in cases])
    usual = np.median(spacing, 0)
    hands = Counter(bool(case.statistics.get("left_handed")) for case in cases)
    for case, own in zip(cases, spacing):
        if (own > _ODD * usual).any() or (own * _ODD < usual).any():
            yield Finding(
                "geometry",
                case.id,
                f"spacing {' x '.join(f'{s:g}' for s in case.spacing)} mm; others have "
                f"{' x '.join(f'{s:g}' for s in usual)}",
            )
        hand = bool(case.statistics.get("left_handed"))
        if hands[hand] * 4 < len(cases):
            kind = "left" if hand else "right"
            yield Finding("geometry", case.id, f"its axes are {kind}-handed, unlike those of most others: mirrored?")


def _convention(cases: Sequence[CaseEntry], findings: Sequence[Finding]) -> Iterator[Finding]:
    odd = {f.case for f in findings if f.kind == "labels"}
    labelled = [case for case in cases if case.label is not None]
    if len(odd) > 1 and 2 * len(odd) > len(labelled):
        yield Finding("labels", "", f"in {len(odd)} of {len(labelled)} cases labels look exchanged: wrong --labels?")


def _split(dataset: Dataset) -> Iterator[Finding]:
    if not (Path(dataset.folder) / SPLIT).exists():
        return
    try:
        split = read_split(dataset)
    except InputError as error:
        yield Finding("split", "", str(error))
        return
    for case in dataset.cases:
        if case.subject not in split.subjects:
            yield Finding("split", case.id, f"its subject {case.subject} is in no fold of {SPLIT}")
