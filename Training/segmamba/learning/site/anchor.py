"""The anchor set of a site, from labelled cases of its own instead of phantoms."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from segmamba.datasets.collect import Collected, init_dataset
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.workers import Progress
from segmamba.errors import InputError
from segmamba.files.atomic import make_folder
from segmamba.files.shares import exclusive, publish_folder
from segmamba.learning.site.data import is_of_phantoms
from segmamba.learning.site.improvement import free_or_refuse
from segmamba.learning.site.layout import Site

ENOUGH = 25  # labelled cases, from which on their means are more than chance
_FEWEST = 2  # fewer have no spread, from which the gate's margins follow
_MOMENT = 1.0  # seconds for which somebody who only looks may hold the lock


def set_anchor(
    site: Site,
    source: Path | str,
    *,
    convention: str | None = None,
    subject_pattern: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Collected:
    """Makes labelled cases of a site the anchor set that its gate judges by; synthetic ones give way to them.

    The cases stay where they are. The set appears whole or not at all; until then the one before stays.

    Args:
        site: the folder of the site.
        source: a folder or a list of cases, as of `init_dataset`.
        convention: of the label maps, likewise.
        subject_pattern: finds the subject in the id of a case, likewise.
        jobs: processes that read at once.
        progress: called as progress(done, total), both in cases.

    Returns:
        The data set in SITE/anchor, and which cases were left out.

    Raises:
        InputError: where an improvement is at work, the site has an anchor set of its own cases already, or fewer than
            two of the cases are labelled.
    """
    free_or_refuse(site)
    make_folder(site.runs)
    making, old = (site.folder / f".anchor.{name}" for name in ("new", "old"))
    with exclusive(site.lock, _MOMENT):
        _refuse_own(site.anchor)
        for left in (making, old):
            shutil.rmtree(left, ignore_errors=True)
        try:
            made = init_dataset(
                source,
                output=making,
                name="anchor",
                convention=convention,
                subject_pattern=subject_pattern,
                jobs=jobs,
                progress=progress,
            )
            labelled = sum(case.label is not None for case in made.dataset.cases)
            if labelled < _FEWEST:
                raise InputError(
                    f"{source} has {labelled} labelled case(s) that can be used; expected {_FEWEST} at the very least, "
                    f"better {ENOUGH} or more"
                )
            if site.anchor.exists():
                site.anchor.rename(old)  # killed here, the next improvement makes phantoms, as it would have without
            publish_folder(making, site.anchor)
        finally:
            shutil.rmtree(making, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return replace(made, dataset=read_dataset(site.anchor))


def _refuse_own(anchor: Path) -> None:
    if not anchor.exists() or not any(anchor.iterdir()):
        return
    dataset = read_dataset(anchor)
    if not is_of_phantoms(dataset):
        raise InputError(
            f"{anchor} holds {len(dataset.cases)} cases of your own already; add to them with "
            f"`segmamba dataset init {anchor} --update`, or move that folder away"
        )
