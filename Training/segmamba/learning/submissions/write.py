"""Writing a corrected case into the folder of corrections, without 3D Slicer; the panel writes the same (FORMAT.md).

Everything is written into a hidden folder, flushed, and renamed: a reader sees a whole submission or none, a writer
that is killed leaves nothing but the hidden folder, and two writers get two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import math
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np

from segmamba import __version__
from segmamba.cases.case import Case, Source, load_label_map
from segmamba.cases.label_files import summary_of, was_changed
from segmamba.cases.labels import GLIOMA
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder, share
from segmamba.files.shares import publish_folder, write_file
from segmamba.learning.submissions.changes import label_changes, region_dice
from segmamba.learning.submissions.ready import make_ready
from segmamba.learning.submissions.record import (
    FOLDER,
    IDENTITY,
    INCOMING,
    PROPOSAL,
    RECORD,
    SCHEMA,
    SEGMENTATION,
    CaseRecord,
    FileRecord,
    Geometry,
    ModelRecord,
    find_identifying_text,
    to_json,
)
from segmamba.preparation.steps import Step
from segmamba.settings import read_json

_SALT = "identity.json"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is known of a correction beside its images."""

    model: ModelRecord | None = None
    """That made the proposal; None where it is not known."""
    settings: dict = field(default_factory=dict)
    """With which it did, plain JSON."""
    editor_seconds: float | None = None
    """Time spent on correcting; None where it was not taken."""
    role: str = ""
    """Of who corrected it, no name."""
    confirmed_empty: tuple[str, ...] = ()
    """Labels that a person said are truly absent."""
    preprocessing: tuple[str, ...] = ()
    """Steps before, in plain words."""
    versions: dict[str, str] = field(default_factory=lambda: {"segmamba": __version__})
    """Program -> version."""


def write_case(
    folder: Path | str,
    images: Mapping[str, Path | str | Source],
    labels: Path,
    proposal: Path | None,
    *,
    subject: str | None,
    consent: bool,
    convention: str | None = "brats2023",
    about: Provenance | None = None,
    preparing: str = "never",
    brain_mask: Path | None = None,
) -> Path:
    """Writes a submission; sending a case again makes its next version.

    Args:
        folder: of all submissions of a site.
        images: all of cases.case.MODALITIES.
        labels: the corrected label map, on the grid of T1c as it was given.
        proposal: what the model had proposed, on that grid and in the engine's labels; None where there was none.
        subject: whatever names the patient here; only its salted hash is written. None: the case is a subject of
            its own.
        consent: whether a person said that the images are de-identified and may be trained on.
        convention: that of `labels` (cases.labels); None: found from its values.
        about: what else is known of the correction.
        preparing: see `make_ready`; with "auto" raw images may be given, and prepared ones are kept.
        brain_mask: see `make_ready`.

    Returns:
        The folder of the submission.

    Raises:
        InputError: where there is no consent, the subject is blank, what is known of the correction cannot be, or files
            do not belong together.
    """
    if not consent:
        raise InputError(
            "a case is kept for training only where somebody says that it may be, and that its images are "
            "de-identified: --consent"
        )
    folder, about = Path(folder), about or Provenance()
    _check_given(subject, about)
    ready = make_ready(images, preparing, brain_mask)
    case, given = ready.case, ready.given
    corrected = load_label_map(labels, convention, case)
    proposed = None if proposal is None else load_label_map(proposal, "brats2023", case)
    salt = read_salt(folder)
    # by what was given: the same raw images are the same case also when they are prepared better one day
    case_hash = _hash(salt, "case", *(text for m in sorted(given) for text in (m, voxel_hash(given[m].array))))
    files = {f"{m}.nii.gz": _nifti(_compact(image), case.affine) for m, image in case.images.items()}
    files[SEGMENTATION] = _nifti(corrected, case.affine)
    if proposed is not None:
        files[PROPOSAL] = _nifti(proposed, case.affine)
    known = {name: FileRecord(file=name, sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    compared = proposed is not None
    record = CaseRecord(
        schema=SCHEMA,
        case=case_hash,
        version=1,
        subject=case_hash if subject is None else subject_hash(salt, subject),
        images={m: known[f"{m}.nii.gz"] for m in case.images},
        segmentation=known[SEGMENTATION],
        proposal=known.get(PROPOSAL),
        labels=dict(GLIOMA.labels),
        regions=dict(GLIOMA.regions),
        geometry=_geometry(case),
        changes=label_changes(proposed, corrected, case.affine, GLIOMA) if compared else {},
        dice=region_dice(proposed, corrected, GLIOMA) if compared else {},
        consent=True,
        deidentified=True,
        preparation=tuple(_figures(step) for step in ready.steps),
        **{**vars(about), "preprocessing": (*about.preprocessing, *(step.text for step in ready.steps))},
    )
    if texts := find_identifying_text(asdict(record)):
        raise InputError(
            f"the case would tell who the patient is or when it was made: {'; '.join(texts)}; leave it out"
        )
    return _publish(folder / INCOMING, record, files)


def _check_given(subject: str | None, about: Provenance) -> None:
    if subject is not None and not subject.strip():
        raise InputError(
            "the subject is blank, and all cases sent so would be one patient's; give the patient's identifier, or no "
            "subject: the case is then a subject of its own"
        )
    if unknown := [label for label in about.confirmed_empty if label not in GLIOMA.labels]:
        raise InputError(
            f"no label {', '.join(unknown)} to confirm as empty; the labels are {', '.join(GLIOMA.labels)}"
        )
    if about.editor_seconds is not None and not 0 <= about.editor_seconds < math.inf:
        raise InputError(f"editor seconds {about.editor_seconds}: expected 0 or more, or none")


def read_salt(folder: Path) -> bytes:
    """The secret of a folder of corrections, made by whoever comes first. Raises InputError where it is broken."""
    path = folder / IDENTITY / _SALT
    if not path.exists():
        make_folder(folder)
        aside = folder / f".{secrets.token_hex(8)}.tmp"
        aside.mkdir()
        write_file(aside / _SALT, json.dumps({"schema": SCHEMA, "salt": secrets.token_hex(32)}).encode(), mode=0o600)
        if folder.stat().st_mode & stat.S_IWGRP:  # whose group sends too, and has to know subjects again
            share(aside)
            share(aside / _SALT)
        if not publish_folder(aside, folder / IDENTITY):
            shutil.rmtree(aside)  # somebody else was first
    try:
        return bytes.fromhex(read_json(path)["salt"])
    except (ValueError, KeyError, TypeError):  # InputError is a ValueError
        raise InputError(
            f"{path} cannot be read; it holds the secret by which subjects are known again: bring it back"
        ) from None


def subject_hash(salt: bytes, subject: str) -> str:
    """The same 20 hexadecimal digits for a subject every time, of which nobody without the salt can find the name."""
    return _hash(salt, "subject", subject.strip())


def voxel_hash(image: np.ndarray) -> str:
    """sha256 over the shape and the voxels of (X, Y, Z) as little-endian float32, X fastest."""
    digest = hashlib.sha256(" ".join(str(n) for n in image.shape).encode())
    digest.update(np.asarray(image, "<f4").tobytes(order="F"))
    return digest.hexdigest()


def _hash(salt: bytes, *parts: str) -> str:
    return hmac.new(salt, "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:20]


def _geometry(case: Case) -> Geometry:
    rows = tuple(tuple(round(float(v), 9) for v in row) for row in case.affine)
    return Geometry(shape=cast(tuple[int, int, int], tuple(int(n) for n in case.shape)), affine=rows)


def _figures(step: Step) -> dict:
    """What was done and measured, without the words and the seconds."""
    return {key: value for key, value in step.as_json().items() if key not in ("text", "seconds")}


def _compact(image: np.ndarray) -> np.ndarray:
    """Whole numbers as int16, which halves the file; else float32."""
    whole = image.astype(np.int16) if np.abs(image).max() < 2**15 else image
    return whole if np.array_equal(whole, image) else image.astype(np.float32)


def _nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    """A NIfTI file with nothing in its header but geometry, nor a name or time in its gzip header."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    return gzip.compress(image.to_bytes(), 5, mtime=0)


def _publish(incoming: Path, record: CaseRecord, files: Mapping[str, bytes]) -> Path:
    make_folder(incoming)
    aside = incoming / f".{secrets.token_hex(8)}.tmp"
    aside.mkdir()
    try:
        for name, data in files.items():
            write_file(aside / name, data)
        share(aside)
        for name in files:
            share(aside / name)
        while True:
            matches = [FOLDER.fullmatch(path.name) for path in incoming.iterdir()]
            versions = [int(match[2]) for match in matches if match and match[1] == record.case]
            record = replace(record, version=max([0, *versions]) + 1)
            write_file(aside / RECORD, (json.dumps(to_json(record), indent=1) + "\n").encode())
            share(aside / RECORD)
            if publish_folder(aside, incoming / record.name):
                return incoming / record.name
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def proposal_facts(proposal: Path) -> tuple[ModelRecord | None, dict]:
    """Model and settings from the summary that `segmamba predict` wrote beside its label map; none: (None, {}).

    Raises InputError where the label map is not as it was written: a correction is no proposal.
    """
    try:
        summary = read_json(summary_of(proposal))
        made = summary["settings"]
        chosen = {key: made[key] for key in ("mirrorings", "remove_small_mm3")}
        model = ModelRecord(id=str(summary["model"]), weights_sha256=str(made["weights_sha256"]))
        changed = was_changed(proposal, summary)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}
    if changed:
        raise InputError(
            f"{proposal}: was changed since {model.id} wrote it, so it is not what the model proposed; give it as the "
            "corrected label map alone, or run the case again into another folder for the proposal"
        )
    return model, chosen
