"""case.json of a corrected case: what it says, and how it is read. The whole format: FORMAT.md beside this file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segmamba import limits, settings
from segmamba.cases.labels import LabelScheme
from segmamba.errors import InputError
from segmamba.learning.submissions.words import WORDS

SCHEMA = 1
INCOMING, IDENTITY = "incoming", "identity"
RECORD = "case.json"
SEGMENTATION = "seg.nii.gz"
PROPOSAL = "proposal.nii.gz"
FOLDER = re.compile(r"([0-9a-f]{20})-v([1-9]\d{0,5})")  # the name of a submission: case and version
UNFINISHED = re.compile(r"\..*\.tmp")
_HASH = re.compile(r"[0-9a-f]{20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]{1,80}")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_-]{0,24}")
# what may tell who the patient is or when the examination was
_IDENTIFYING = {
    "a date": re.compile(r"(?<!\d)(19|20)\d\d([-/. ]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)"),
    "a date ": re.compile(r"(?<!\d)(0?[1-9]|[12]\d|3[01])[-/.](0?[1-9]|1[0-2])[-/.](19|20)\d\d(?!\d)"),
    "a DICOM identifier": re.compile(r"(?<![\d.])\d+(\.\d+){5,}(?![\d.])"),
    "a DICOM name": re.compile(r"\w\^\w"),
    "a path": re.compile(r"[\\/]\S*[\\/]"),
}
# of who corrects: a profession, from this list, so that no name can be one. The panel offers the first eight
ROLES = (
    *("radiologist", "neuroradiologist", "neurosurgeon", "radiation oncologist", "medical physicist", "technician"),
    *("researcher", "student", "neurologist", "oncologist", "pathologist", "nurse", "resident", "engineer", "expert"),
)
_NUMBER = re.compile(r"[-+]?\d{1,4}(\.\d{1,4})?(x\d{1,4}(\.\d{1,4})?){0,2}(mm|ml|%|t|d)?")
_IN_A_ROW = re.compile(r"\d+[\s/.-]+\d+[\s/.-]+\d+")  # a date, or a number in groups
_SPLIT = re.compile(r"[\s,;:()]+")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of a submission."""

    file: str
    """Its name in the folder."""
    sha256: str
    """Of the file as it is, compressed."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The grid of a case."""

    shape: tuple[int, int, int]
    """Voxels along X, Y, Z."""
    affine: tuple[tuple[float, ...], ...]
    """(4, 4) voxel indices (of voxel centres) to RAS mm, by rows."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model that made the proposal."""

    id: str
    """As its manifest says."""
    weights_sha256: str = ""
    """Of model.safetensors; "" where it is not known."""


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """Voxels that the correction added to a label and took from it; its volume before and after in mL."""

    added: int
    """Voxels that the correction has and the proposal has not."""
    removed: int
    """Voxels that the proposal has and the correction has not."""
    ml_before: float
    """Volume of the proposal, mL."""
    ml: float
    """Volume of the correction, mL."""


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """What case.json says; FORMAT.md explains every field."""

    schema: int
    """Of the file; another one is refused."""
    case: str
    """20 hexadecimal digits, a salted hash of the images as they were given."""
    version: int
    """N of CASE-vN, from 1."""
    subject: str
    """20 hexadecimal digits, a salted hash of what names the patient; that of `case` where nothing does."""
    images: dict[str, FileRecord]
    """By modality."""
    segmentation: FileRecord
    """The corrected label map."""
    proposal: FileRecord | None = None
    """The model's label map; None where there was none."""
    labels: dict[str, int]
    """Name -> value in the label maps."""
    regions: dict[str, tuple[str, ...]]
    """Name -> names of its labels."""
    geometry: Geometry
    """Of every file."""
    model: ModelRecord | None = None
    """That made the proposal; None where it is not known."""
    settings: dict = field(default_factory=dict)
    """With which it did, plain JSON."""
    changes: dict[str, LabelChange] = field(default_factory=dict)
    """By label, against the proposal; {} without one."""
    dice: dict[str, float] = field(default_factory=dict)
    """Region -> Dice of the proposal against the correction; {} without a proposal."""
    editor_seconds: float | None = None
    """Time spent on correcting; None where it was not taken."""
    role: str = ""
    """Profession of whoever corrected, of ROLES, or ""."""
    consent: bool
    """A person said that the images may be trained on."""
    deidentified: bool
    """A person said that they name nobody."""
    confirmed_empty: tuple[str, ...] = ()
    """Names of labels that a person said are truly absent."""
    preprocessing: tuple[str, ...] = ()
    """Steps before, in plain words."""
    preparation: tuple[dict, ...] = ()
    """The same steps in figures, where the images were prepared for the submission."""
    versions: dict[str, str] = field(default_factory=dict)
    """Program -> version."""

    @property
    def scheme(self) -> LabelScheme:
        """The labels and regions of the case."""
        return LabelScheme(labels=self.labels, regions=self.regions)

    @property
    def name(self) -> str:
        """What the submission is called: CASE-vN."""
        return f"{self.case}-v{self.version}"

    @property
    def is_brain_found(self) -> bool:
        """Whether the brain was cut out of the head before the images were kept, so that its edge is a program's."""
        return any(step.get("kind") == "brain" for step in self.preparation)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file that the record vouches for."""
        return (*self.images.values(), self.segmentation, *([self.proposal] if self.proposal else []))


def check_sent(folder: Path) -> None:
    """Raises InputError where no case was ever sent into a folder of corrections, whose name may be misspelt."""
    if not (folder / INCOMING).is_dir():
        raise InputError(
            f"{folder} is not a folder of corrections: it has no {INCOMING}; check the path, or send a case first: "
            f"`segmamba correct CASE --labels FILE --output {folder} --consent`"
        )


def read_record(folder: Path) -> CaseRecord:
    """case.json of a submission. Raises InputError where it is missing, broken, or not what FORMAT.md says."""
    path = folder / RECORD
    values = settings.read_json(path, most=limits.RECORD_BYTES)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise InputError(f"{path} has schema {found}; this version reads {SCHEMA}: update the one that is older")
    record = settings.build(CaseRecord, values, str(path))
    for found, form, what in (
        (record.case, _HASH, "case: expected 20 hexadecimal digits"),
        (record.subject, _HASH, "subject: expected 20 hexadecimal digits, a salted hash"),
        *((file.sha256, _SHA256, f"sha256 of {file.file}: expected 64 hexadecimal digits") for file in record.files),
    ):
        if not form.fullmatch(found):
            raise InputError(f"{path}: {what}, got {found[:40]!r}")
    wanted = {**{m: f"{m}.nii.gz" for m in record.images}, "segmentation": SEGMENTATION, "proposal": PROPOSAL}
    named = {**record.images, "segmentation": record.segmentation}
    named |= {"proposal": record.proposal} if record.proposal else {}
    for what, file in named.items():
        if file.file != wanted[what] or not re.fullmatch(r"[a-z0-9_.]+", file.file):
            raise InputError(f"{path}: {what} is named {file.file[:40]!r}; expected {wanted[what]!r}")
    if folder.name != record.name:
        raise InputError(f"{path} belongs into a folder {record.name}, it lies in {folder.name}; send the case again")
    if len(record.geometry.affine) != 4 or any(len(row) != 4 for row in record.geometry.affine):
        raise InputError(f"{path}: geometry.affine is not a 4 x 4 matrix")
    record.scheme  # noqa: B018  checks labels and regions
    return record


def to_json(record: CaseRecord) -> dict:
    """The record as JSON. `preparation` is left out where it is empty, so that older engines can read it."""
    return {key: value for key, value in asdict(record).items() if key != "preparation" or value}


def find_identifying_text(values: dict) -> list[str]:
    """Texts in a case.json that may tell who the patient is or when the examination was: 'role: a date'.

    What names the model and the programs is left out: they may have dates of their own, and are one short word each.
    A role is one of ROLES, and steps before are told in words that no name can be made of.
    """
    found = _identifying({key: value for key, value in values.items() if key not in ("model", "versions")}, "")
    role = values.get("role") or ""
    if not found and role and role not in ROLES:
        found.append(f"role: expected one of {', '.join(ROLES)}, got {str(role)[:40]!r}")
    for text in values.get("preprocessing") or ():
        if not found and (strange := strange_words(str(text))):
            found.append(
                f"preprocessing: {', '.join(map(repr, strange[:5]))} may be a name, a date, a number or a place; tell "
                "the steps in plain technical words, e.g. 'registered to t1c', 'skull-stripped'"
            )
    model, versions = values.get("model") or {}, values.get("versions") or {}
    names = [model.get("id"), *versions, *versions.values()]
    found += [
        f"model, versions: {name[:40]!r} is no plain word" for name in names if name and not _PLAIN.fullmatch(name)
    ]
    return (
        found + _free_texts(values.get("settings"), "settings") + _free_texts(values.get("preparation"), "preparation")
    )


def strange_words(text: str) -> list[str]:
    """Words of a step before that are neither of the trade nor a number with a unit."""
    words = (word.strip(".'\"+-/") for word in _SPLIT.split(text.lower()))
    strange = [word for word in words if word and word not in WORDS and not _NUMBER.fullmatch(word)]
    return strange + _IN_A_ROW.findall(text)


def _free_texts(value: object, where: str) -> list[str]:
    """Texts in settings and measurements that are no plain word: 'uniform', 'hd-bet', 'WT'."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _free_texts(part, where)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _free_texts(part, where)]
    if not isinstance(value, str) or _PLAIN_WORD.fullmatch(value) or _identifying(value, where):
        return []
    return [f"{where}: {value[:40]!r} is no plain word"]


def _identifying(value: object, where: str) -> list[str]:
    if isinstance(value, dict):
        inner = [(f"{where}.{key}".lstrip("."), part) for key, part in value.items()]
        keys = [text for key in value for text in _identifying(key, where)]
        return keys + [text for key, part in inner for text in _identifying(part, key)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _identifying(part, where)]
    if not isinstance(value, str) or _SHA256.fullmatch(value) or _HASH.fullmatch(value):
        return []
    return [f"{where}: {what.strip()}" for what, form in _IDENTIFYING.items() if form.search(value)]
