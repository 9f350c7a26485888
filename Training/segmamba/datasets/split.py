"""The split of a data set: by subject, seeded, written once beside the manifest, and never changed, only added to.

A subject goes where most are wanting, in the order of a hash of (seed, subject): neither the order of files nor the
library of random numbers has a say, and a subject that is there stays where it is when others come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segmamba import settings
from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside

SPLIT = "splits.json"
PARTS = ("train", "validation", "test")
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which subjects are trained on: `folds` of equal size, or `shares` of train, validation and test."""

    seed: int
    """Of the draw (`make_split`)."""
    folds: int | None = None
    """How many, 2 or more; None for a split into parts."""
    shares: dict[str, float] | None = None
    """"train", "validation" and "test" -> share of the subjects, together 1; None for folds."""
    subjects: dict[str, int | str]
    """Subject -> number of its fold from 0, or "train", "validation" or "test"."""
    schema: int = _SCHEMA
    """Of the file; another one is refused."""

    def __post_init__(self) -> None:
        if (self.folds is None) == (self.shares is None):
            raise InputError("a split has either folds or shares")
        if self.folds is not None and self.folds < 2:
            raise InputError(f"{self.folds} folds: expected 2 or more")
        if self.shares is not None:
            if tuple(self.shares) != PARTS:
                raise InputError(f"shares of {', '.join(self.shares)}: expected {', '.join(PARTS)}")
            # so put, for a comparison with nan is false
            values = self.shares.values()
            if not (all(share >= 0 for share in values) and self.shares["train"] and abs(sum(values) - 1) <= 1e-6):
                raise InputError(
                    f"shares {self.shares}: expected numbers from 0 that add up to 1, some of them to train"
                )
        if wrong := [subject for subject, part in self.subjects.items() if part not in self.parts]:
            raise InputError(f"subject {wrong[0]} is in {self.subjects[wrong[0]]!r}; expected one of {self.parts}")

    @property
    def parts(self) -> tuple[int | str, ...]:
        """The names that a subject's part may have: folds by number, or train, validation and test."""
        return PARTS if self.folds is None else tuple(range(self.folds))

    def part_of(self, subject: str) -> int | str:
        """Its fold, or "train", "validation" or "test". Raises InputError where it is in none."""
        if subject not in self.subjects:
            raise InputError(f"subject {subject} is in no fold; add it with `segmamba dataset split`")
        return self.subjects[subject]

    def describe(self) -> str:
        """The split in one line, with its seed."""
        if self.folds is not None:
            return f"{self.folds} folds, seed {self.seed}"
        shares = self.shares or {}
        return "/".join(f"{100 * shares[part]:g}" for part in PARTS) + f" of {'/'.join(PARTS)}, seed {self.seed}"


def extend(split: Split, subjects: set[str], present: set[str]) -> Split:
    """The split with `subjects` that were missing from it; all others stay.

    Args:
        split: as it was.
        subjects: that need a place.
        present: of which there are cases; what the others left is filled again.

    Returns:
        The split, in which absent subjects too are where they were.
    """
    placed = dict(split.subjects)
    share: dict[Any, float] = dict(split.shares) if split.shares else dict.fromkeys(split.parts, 1 / len(split.parts))
    taken = [part for subject, part in placed.items() if subject in present]
    count = {part: taken.count(part) for part in split.parts}
    for subject in sorted(subjects - set(placed), key=lambda s: _hash(split.seed, s)):
        total = sum(count.values()) + 1
        part = max(split.parts, key=lambda p: share[p] * total - count[p])  # of equals the first
        placed[subject] = part
        count[part] += 1
    return replace(split, subjects=placed)


def make_split(
    dataset: Dataset, *, folds: int | None = None, shares: Mapping[str, float] | None = None, seed: int | None = None
) -> tuple[Split, int]:
    """Writes splits.json beside the manifest, or adds the subjects that are missing from it.

    Args:
        dataset: whose subjects are split.
        folds: how many of equal size; 5 where neither is said.
        shares: train, validation and test -> their shares, which add up to 1.
        seed: of the order in which subjects are placed; default 1.

    Returns:
        The split, and how many subjects were added.

    Raises:
        InputError: where a split is there that was made otherwise.
    """
    subjects = {case.subject for case in dataset.cases}
    path = Path(dataset.folder) / SPLIT
    if path.exists():
        old = read_split(dataset)
        asked = {"folds": folds, "shares": dict(shares) if shares else None, "seed": seed}
        if any(value is not None and value != getattr(old, name) for name, value in asked.items()):
            raise InputError(
                f"{path} already exists, with {old.describe()}, and results may rest on it; it is added to, never "
                "made anew. Leave the options out to add new subjects; for another split, make another data set "
                "with --output, or move the file away"
            )
    else:
        folds = 5 if folds is None and shares is None else folds
        seed = 1 if seed is None else seed
        old = Split(seed=seed, folds=folds, shares=dict(shares) if shares else None, subjects={})
        if len(subjects) < (folds or 1):
            raise InputError(f"{len(subjects)} subjects are too few for {folds} folds")
    new = extend(old, subjects, subjects)
    if new.subjects != old.subjects or not path.exists():
        write_split(new, Path(dataset.folder))
    return new, len(new.subjects) - len(old.subjects)


def write_split(split: Split, folder: Path) -> None:
    """Writes splits.json, aside and renamed. The caller keeps every subject of the one that is there (`extend`)."""
    write_aside(folder / SPLIT, (json.dumps(asdict(split), indent=1) + "\n").encode())


def read_split(dataset: Dataset) -> Split:
    """The split beside the manifest. Raises InputError where it is missing or broken."""
    path = Path(dataset.folder) / SPLIT
    values = settings.read_json(path, "split", optional=True)
    if values is None:
        raise InputError(
            f"data set {dataset.name} has no split ({path}); "
            f"make it once with `segmamba dataset split {dataset.folder}`"
        )
    if not isinstance(values, dict) or values.get("schema") != _SCHEMA:
        raise InputError(f"split {path}: expected schema {_SCHEMA}")
    subjects = values.get("subjects")
    if not isinstance(subjects, dict):
        raise InputError(f"split {path}: no table of subjects")
    try:
        return replace(settings.build(Split, {**values, "subjects": {}}, str(path)), subjects=subjects)
    except InputError as error:
        raise InputError(f"split {path}: {error}") from None


def training_cases(dataset: Dataset, fold: int | None = None) -> tuple[CaseEntry, ...]:
    """Labelled cases of the other folds; of a split by shares, those of "train", and `fold` is None."""
    return _select(dataset, fold, "train")


def validation_cases(dataset: Dataset, fold: int | None = None) -> tuple[CaseEntry, ...]:
    """Labelled cases of `fold`; of a split by shares, those of "validation"."""
    return _select(dataset, fold, "validation")


def test_cases(dataset: Dataset) -> tuple[CaseEntry, ...]:
    """Labelled cases that a split by shares keeps for the end; none of a split by folds."""
    return () if read_split(dataset).folds is not None else _select(dataset, None, "test")


test_cases.__test__ = False  # pytest: no test


def _select(dataset: Dataset, fold: int | None, part: str) -> tuple[CaseEntry, ...]:
    split = read_split(dataset)
    if split.folds is None:
        if fold is not None:
            raise InputError(f"data set {dataset.name} is split by shares ({split.describe()}); leave the fold out")
    elif fold is None or not 0 <= fold < split.folds:
        raise InputError(f"data set {dataset.name}: fold {fold}; expected 0 to {split.folds - 1} ({split.describe()})")
    chosen = []
    for case in dataset.cases:
        if case.subject not in split.subjects:
            raise InputError(
                f"case {case.id} of data set {dataset.name}: its subject {case.subject} is in no fold; "
                f"add it with `segmamba dataset split {dataset.folder}`"
            )
        own = split.part_of(case.subject)
        own = own if split.folds is None else "validation" if own == fold else "train"
        if own == part and case.label is not None:
            chosen.append(case)
    return tuple(chosen)


def _hash(seed: int, subject: str) -> str:
    return hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest()
