"""The manifest of a data set: what its cases are, in which files, and what their labels mean.

`dataset.json` stands in the data set's own folder, and paths in it count from there. Modalities, labels and regions
are data: a CT data set of one channel and one label has the same form as BraTS. The split stands beside it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segmamba import settings
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.files.atomic import write_aside

if TYPE_CHECKING:
    from segmamba.cases.case_folder import Source

MANIFEST = "dataset.json"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """An image or a label map of a data set, as its manifest knows it."""

    path: str
    """From the data set's folder with forward slashes, or absolute; a file, or a folder of DICOM slices."""
    sha256: str
    """Of the file, or over its slices by name."""
    volume: int | None = None
    """Which volume of a 4-D file, where it is one."""
    size: int = 0
    """In bytes."""
    modified: int = 0
    """Time of the last change, ns since 1970. Where both are as they were, an update takes the file for unchanged."""


@dataclass(frozen=True, kw_only=True)
class CaseEntry:
    """One examination."""

    id: str
    """Names the case."""
    subject: str
    """Whose examination it is; all cases of a subject stand on one side of every split."""
    images: dict[str, FileEntry]
    """By modality."""
    label: FileEntry | None = None
    """Its label map; None where it has none."""
    shape: tuple[int, int, int]
    """Voxels along each axis."""
    spacing: tuple[float, float, float]
    """In mm."""
    statistics: dict = field(default_factory=dict)
    """Of intensities by modality and of labels in mL, plain JSON."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set: its cases, with the labels that their files hold."""

    name: str
    """In texts."""
    modalities: tuple[str, ...]
    """That every case has, in the order of channels."""
    labels: dict[str, int]
    """Name -> value in the engine, 1 to n."""
    regions: dict[str, tuple[str, ...]]
    """Name -> names of its labels."""
    label_values: dict[str, str]
    """Value in the label files -> name of the label, e.g. {"1": "NCR", "2": "ED", "4": "ET"}."""
    cases: tuple[CaseEntry, ...]
    """In the order of their ids."""
    fingerprint: dict = field(default_factory=dict)
    """Over all cases, plain JSON."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Cases that were found and could not be used, and why."""
    made: dict = field(default_factory=dict)
    """From what, with which options."""
    schema: int = SCHEMA
    """Of the manifest; another one is refused."""
    folder: str = ""
    """Where the manifest stands, to which its relative paths belong; not part of the file."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.label_values.values()) - set(self.labels))
        if unknown:
            raise InputError(f"label_values name {settings.shown(unknown)}; known labels are {', '.join(self.labels)}")
        wrong = [value for value in self.label_values if not value.isdecimal() or value == "0"]
        if wrong:
            raise InputError(f"label_values has {settings.shown(wrong)}: expected whole numbers above 0")
        ids = [case.id for case in self.cases]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise InputError(f"case ids occur twice: {', '.join(twice[:5])}")
        for case in self.cases:
            if set(case.images) != set(self.modalities):
                raise InputError(f"case {case.id} has {', '.join(case.images)}; expected {', '.join(self.modalities)}")

    @property
    def scheme(self) -> LabelScheme:
        """The labels and regions of every case."""
        return LabelScheme(labels=self.labels, regions=self.regions)

    @property
    def renumbering(self) -> dict[int, int]:
        """Value in the label files -> value in the engine."""
        return {int(value): self.labels[name] for value, name in self.label_values.items()}

    def sources(self, case: CaseEntry) -> dict[str, Source]:
        """modality -> image file, in the data set's order of modalities."""
        from segmamba.cases.case_folder import Source  # brings readers of images, which packed cases do without

        return {m: Source(self.path(case.images[m]), case.images[m].volume) for m in self.modalities}

    def path(self, entry: FileEntry) -> Path:
        """Where a file of the data set is on this machine."""
        return Path(self.folder) / entry.path


def read_dataset(path: Path | str, made_with: str = "dataset init") -> Dataset:
    """Reads the manifest of a data set, from its path or the folder that it stands in. Files are not opened.

    made_with: the command that makes it where it is missing. Raises InputError where it is missing, broken, or says
    what this version does not know.
    """
    path = Path(path)
    path = path if path.is_file() or path.name == MANIFEST else path / MANIFEST
    values = settings.read_json(path, "data set", optional=True)
    if values is None:
        raise InputError(f"there is no data set {path}; make it with `segmamba {made_with} {path.parent}`")
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(f"data set {path} has schema {found}; this version reads {SCHEMA}")
    if "folder" in values:
        raise InputError(f"data set {path}: unknown setting 'folder'")
    try:
        dataset = settings.build(Dataset, {**values, "folder": str(path.parent)}, str(path))
        dataset.scheme  # noqa: B018  checks labels and regions
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"data set {path}: {error}") from None
    return dataset


def write_dataset(dataset: Dataset) -> Path:
    """Writes dataset.json into dataset.folder, aside and renamed; returns its path."""
    values = asdict(dataset)
    del values["folder"]
    path = Path(dataset.folder) / MANIFEST
    write_aside(path, (json.dumps(values, indent=1) + "\n").encode())
    return path
