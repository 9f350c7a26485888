"""What was withdrawn from a site's corrections: a run that knows it ends."""

from __future__ import annotations

from segmamba.datasets.manifest import CaseEntry, Dataset
from segmamba.errors import InputError
from segmamba.learning.site.layout import Site
from segmamba.learning.submissions.record import check_sent, read_record


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
