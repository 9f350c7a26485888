"""Cases that wait for a person: a picture to decide by, and taking a case back."""

from __future__ import annotations

import logging
import secrets
import shutil
from pathlib import Path

from segmamba.cases.case import Case
from segmamba.cases.labels import renumber
from segmamba.datasets.reading import read_case
from segmamba.errors import InputError, explain
from segmamba.images.image_io import Source
from segmamba.learning.submissions.record import FOLDER, read_record

log = logging.getLogger(__name__)


def picture_file(verdicts: Path, name: str) -> Path:
    """Where the picture of a doubtful case lies."""
    return verdicts / f"{name}.png"


def draw(submission: Path, file: Path) -> None:
    """Writes a picture of the submission in the folder `submission`.

    Its images, the model's proposal beside what was corrected, and where the two differ. One that cannot be drawn is no
    reason to fail: the case waits without.
    """
    from segmamba.evaluation.picture import save_picture

    try:
        record = read_record(submission)
        images = {modality: Source(submission / image.file) for modality, image in record.images.items()}
        own = {value: value for value in record.labels.values()}
        maps = {}
        case: Case | None = None
        for title, saved in (("proposal", record.proposal), ("corrected", record.segmentation)):
            if saved is not None:
                reading = read_case(record.case, images, submission / saved.file)
                if reading.case is None or reading.label is None:
                    raise InputError(reading.errors[0])
                case = reading.case
                maps[title] = renumber(reading.label, own)
        assert case is not None  # what was corrected was read
        save_picture(case, maps, file, submission.name, record.labels)
    except Exception as error:
        log.warning("no picture of %s (%s)", submission.name, error)


def withdraw(incoming: Path, verdicts: Path, name: str) -> None:
    """Takes a submission back: its files are deleted, what was found about it too. An earlier version counts again.

    Args:
        incoming: the folder of submissions.
        verdicts: the folder of what was found about them.
        name: of the submission, CASE-vN.

    Raises:
        InputError: where there is no such submission, or the folder does not allow it; also where it no longer counts,
            but some of its files are still there.
    """
    submission = incoming / name
    if not FOLDER.fullmatch(name) or not submission.is_dir():
        raise InputError(f"--withdraw {name}: no such submission in {incoming}")
    gone = incoming / f".{secrets.token_hex(8)}.tmp"  # in one step; what is left of it is swept by a later intake
    try:
        submission.rename(gone)
    except OSError as error:
        raise InputError(f"{name} cannot be withdrawn ({explain(error)}); ask who may delete there") from error
    left = {}
    for path in (gone, verdicts / f"{name}.json", picture_file(verdicts, name)):  # the images first
        try:
            shutil.rmtree(path) if path == gone else path.unlink(missing_ok=True)
        except OSError as error:
            left[path] = error
    if left:
        error = next(iter(left.values()))
        raise InputError(
            f"{name} is withdrawn, but its files are not all deleted ({explain(error)}): remove "
            f"{', '.join(map(str, left))}, and run the intake again"
        ) from error
