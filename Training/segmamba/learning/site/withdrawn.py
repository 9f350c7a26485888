"""What was withdrawn from a site's corrections: a run that knows it ends, pictures and prepared cases of it go."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

from segmamba.datasets.manifest import MANIFEST, CaseEntry, Dataset, read_dataset
from segmamba.errors import InputError, explain
from segmamba.files.shares import exclusive
from segmamba.learning.site.layout import MOMENT, Site
from segmamba.learning.submissions.record import FOLDER, INCOMING, check_sent, read_record
from segmamba.learning.submissions.verdicts import VERDICTS
from segmamba.training.samples import drop_all

log = logging.getLogger(__name__)


# as the gate, a validation and an intake name them
_PICTURE = re.compile(r"(?:gate-)?([0-9a-f]{20})(?:-v\d+)?\.png")


def drop_pictures(site: Site) -> None:
    """Deletes the pictures of cases of which no version is left in the site, from its models and its runs.

    What comes with the program or lies in replay/ and anchor/ keeps its pictures, as all that is no picture of a
    corrected case.
    """
    incoming = site.corrections / INCOMING
    if not incoming.is_dir():  # a share that is away
        return
    kept = {match[1] for path in incoming.iterdir() if (match := FOLDER.fullmatch(path.name))}
    for place in (site.replay, site.anchor):
        if (place / MANIFEST).is_file():
            kept |= {case.id for case in read_dataset(place).cases}
    for place in (site.models, site.runs, site.corrections / VERDICTS):
        for file in place.rglob("*.png"):
            match = _PICTURE.fullmatch(file.name)
            if match and match[1] not in kept:
                log.info("deleting %s: the case was withdrawn", file)
                _delete(file)


def _delete(file: Path) -> None:
    """One that another program holds, or another account owns, stops nothing: the next run tries again."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s, of a withdrawn case, cannot be deleted (%s); delete it", file, explain(error))


def drop_traces_beside(corrections: Path) -> None:
    """As `drop_pictures`, where a folder of corrections is that of a site in which something was improved.

    Prepared cases go too; a run that is at work needs them, and what begins after it drops them.
    """
    site = Site(corrections.absolute().parent)
    if site.corrections != corrections.absolute() or not site.lock.exists():
        return
    with suppress(InputError), exclusive(site.lock, MOMENT):  # held: a run is at work
        drop_all(site.cache)
    try:
        drop_pictures(site)
    except InputError as error:
        log.warning("pictures of withdrawn cases stay: %s", error)


def refuse_withdrawn(site: Site, run: str, dataset: Dataset, way: str) -> None:
    """Refuses to go on with a case that was withdrawn since the run began.

    Args:
        site: of the run.
        run: its name.
        dataset: the corrections as it sees them.
        way: of the run, for the command that begins another one.

    Raises:
        InputError: naming the submission; also where the whole folder of corrections is away.
    """
    check_sent(site.corrections)
    gone = [name for case in dataset.cases if (name := _withdrawn(dataset, case))]
    if gone:
        others = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise InputError(
            f"submission {gone[0]}{others} was withdrawn since run {run} began, which cannot go on without it; begin "
            f"another run: `segmamba improve {site.folder} --way {way}`"
        )


def _withdrawn(dataset: Dataset, case: CaseEntry) -> str:
    """The name of a case's submission where that is gone, or where another one was sent into its place; else ""."""
    assert case.label is not None  # as of every corrected case
    place = dataset.path(case.label).parent
    try:
        return "" if place.is_dir() and read_record(place).segmentation.sha256 == case.label.sha256 else place.name
    except InputError:  # damaged: said where its files are read
        return ""
