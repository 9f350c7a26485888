"""What an intake would say of a case before it is sent. Writes beside the folder of corrections, never into it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from segmamba.files.shares import work_folder
from segmamba.images.image_io import Source
from segmamba.learning.submissions.checks import examine
from segmamba.learning.submissions.findings import Finding
from segmamba.learning.submissions.record import FOLDER, IDENTITY, INCOMING, SEGMENTATION, LabelChange, read_record
from segmamba.learning.submissions.verdicts import Verdict, beside_others, known_verdict
from segmamba.learning.submissions.write import Provenance, write_case


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What intake would say of a case before it is sent."""

    findings: tuple[Finding, ...]
    """As intake would have them."""
    changes: dict[str, LabelChange]
    """By label, against the proposal; {} without one."""
    dice: dict[str, float]
    """Region -> Dice of the proposal against the correction; {} without a proposal."""
    empty: tuple[str, ...]
    """Labels without a voxel that nobody has confirmed."""
    unchanged: bool
    """The proposal was accepted as it was."""
    earlier_versions: int
    """Number of earlier submissions of this case."""
    next_version: int
    """That it would get."""


def preview_submission(
    folder: Path | str,
    images: Mapping[str, Path | str | Source],
    labels: Path,
    proposal: Path | None,
    *,
    subject: str | None,
    convention: str | None = "brats2023",
    about: Provenance | None = None,
    **preparing: Any,
) -> Preview:
    """What intake would say of a case before it is sent. Nothing is written into the folder.

    Args:
        folder: of all submissions of a site; it need not be there yet.
        images: as of `write_case`.
        labels: as of `write_case`.
        proposal: as of `write_case`.
        subject: as of `write_case`.
        convention: as of `write_case`.
        about: as of `write_case`.
        **preparing: `preparing` and `brain_mask` of `write_case`.

    Returns:
        The findings, the changes, and what a person should be asked.

    Raises:
        InputError: where nothing could be sent.
    """
    folder = Path(folder)
    with work_folder("segmamba-check-") as work:
        aside = work / "corrections"
        if (folder / IDENTITY).is_dir():  # the same salt, so that case and subject are known again
            shutil.copytree(folder / IDENTITY, aside / IDENTITY)
        case = (aside, images, labels, proposal)
        submission = write_case(*case, subject=subject, consent=True, convention=convention, about=about, **preparing)
        record = read_record(submission)
        found = beside_others(examine(submission, aside), _accepted(folder))
        present = set(np.unique(np.asarray(cast(SpatialImage, nib.load(submission / SEGMENTATION)).dataobj)).tolist())
    versions = [int(match[2]) for match in _sent(folder) if match[1] == record.case]
    return Preview(
        findings=found.findings,
        changes=found.changes,
        dice=found.dice,
        empty=tuple(
            label
            for label, value in record.labels.items()
            if value not in present and label not in record.confirmed_empty
        ),
        unchanged=found.unchanged,
        earlier_versions=len(versions),
        next_version=max([0, *versions]) + 1,
    )


def _sent(folder: Path) -> list:
    incoming = folder / INCOMING
    matches = [FOLDER.fullmatch(path.name) for path in incoming.iterdir()] if incoming.is_dir() else []
    return sorted((match for match in matches if match), key=lambda match: (int(match[2]), match[1]))


def _accepted(folder: Path) -> dict[str, Verdict]:
    """What earlier intakes said of the submissions that are there; what they have not seen says nothing yet."""
    verdicts = {match[0]: known_verdict(folder, folder / INCOMING / match[0]) for match in _sent(folder)}
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}
