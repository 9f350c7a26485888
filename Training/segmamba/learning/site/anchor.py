"""The anchor set of a site, from labelled cases of its own instead of those that come with the program."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from segmamba.datasets.collect import Collected, init_dataset
from segmamba.datasets.manifest import MANIFEST, Dataset, read_dataset
from segmamba.datasets.split import SPLIT
from segmamba.datasets.workers import Progress
from segmamba.errors import InputError
from segmamba.files.atomic import aside, is_left_by_system, make_folder
from segmamba.files.shares import exclusive, publish_folder
from segmamba.learning.gate.comparison import check_fits
from segmamba.learning.gate.rules import ENOUGH
from segmamba.learning.provenance import shipped_cases
from segmamba.learning.registry.in_use import current
from segmamba.learning.registry.state import read_registry
from segmamba.learning.site.improvement import free_or_refuse
from segmamba.learning.site.layout import MOMENT, Site, check_site
from segmamba.learning.submissions.verdicts import find_trainable
from segmamba.models.package import read_manifest
from segmamba.training.plan import check_apart, may_hold_labels

_FEWEST = 2  # fewer have no spread, from which the gate's margins follow
_SHOWN = 3  # names in an error


def set_anchor(
    site: Site,
    source: Path | str,
    *,
    convention: str | None = None,
    subject_pattern: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Collected:
    """Makes labelled cases of a site the anchor set that its gate judges by; what ships gives way to them.

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
        InputError: where there is no such site, or an improvement is at work; SITE/anchor holds anything that the
            program did not make, or `source` is in it; fewer than two of the cases have a tumor; the model in use has
            other labels or needs other modalities; an image is trained on here, or was sent; or intake has not
            examined all that was sent. What was in SITE/anchor is then as it was.
    """
    check_site(site)
    free_or_refuse(site)
    making, old = (site.folder / f".anchor.{name}" for name in ("new", "old"))
    _refuse_inside(Path(source), source, site.anchor, making, old)
    make_folder(site.runs)
    with exclusive(site.lock, MOMENT):
        if old.exists() and not site.anchor.exists():  # killed between two renames
            old.rename(site.anchor)
        for folder in (site.anchor, old):
            _refuse_own(folder)
        for left in (making, old):
            _remove(left)
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
            for case in made.dataset.cases:
                for file in (*case.images.values(), *([case.label] if case.label else [])):
                    _refuse_inside(made.dataset.path(file), source, site.anchor)
            _check_can_judge(site, made.dataset, source)
            _publish(making, site.anchor, old)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return replace(made, dataset=read_dataset(site.anchor))


def _refuse_inside(path: Path, source: Path | str, *folders: Path) -> None:
    """Raises InputError where a path is in a folder that gives way, by its name or by where it leads."""
    for folder in folders:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  takes ".." away and keeps links
        if absolute.is_relative_to(folder) or path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{source} has files in {folder}, which the new set replaces; move your cases out of that folder, and "
                "name the folder where they are then"
            )


def _refuse_own(folder: Path) -> None:
    """Raises InputError where a folder holds anything but the cases that `copy_shipped` put there."""
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, which is not replaced; move it away, and try again")
    names = sorted(path.name for path in folder.iterdir() if not is_left_by_system(path)) if folder.exists() else []
    if not names:
        return
    dataset = read_dataset(folder) if MANIFEST in names else None
    shipped = set(shipped_cases(dataset)) if dataset else set()
    if strange := [name for name in names if name not in shipped | {MANIFEST, SPLIT}]:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise InputError(
            f"{folder} holds {', '.join(strange[:_SHOWN])}{more}, which the program did not make and does not remove; "
            "move your cases to a folder outside of it, and name that folder: `segmamba anchor SITE FOLDER`"
        )
    own = [case.id for case in dataset.cases if case.id not in shipped] if dataset else []
    if own:
        raise InputError(
            f"{folder} holds {len(own)} case(s) of your own already; add to them with "
            f"`segmamba dataset init {folder} --update`, or move that folder away"
        )


def _check_can_judge(site: Site, dataset: Dataset, source: Path | str) -> None:
    """Raises InputError where an improvement of the site could not use the data set at its end."""
    labelled = tuple(case for case in dataset.cases if case.label is not None)
    useful = sum(map(may_hold_labels, labelled))
    if useful < _FEWEST:
        raise InputError(
            f"{source} has {useful} labelled case(s) with a tumor that can be used; expected {_FEWEST} at the very "
            f"least, better {ENOUGH} or more"
        )
    try:
        if read_registry(site.models).champion is not None:
            check_fits(dataset, read_manifest(current(site.models).folder))
        sent, unknown = find_trainable(site.corrections)
        if unknown:
            raise InputError(
                f"{len(unknown)} corrected case(s) there are not examined yet ({', '.join(unknown[:_SHOWN])}), and one "
                f"of these may be the same patient; run `segmamba intake {site.corrections}`, withdraw what it cannot "
                "read, and try again"
            )
        use = "meant to judge new models"
        check_apart([(dataset, tuple(sent), labelled)], use, "was sent as corrected case")
        replayed = read_dataset(site.replay).cases if (site.replay / MANIFEST).is_file() else ()
        check_apart([(dataset, replayed, labelled)], use)
    except InputError as error:
        raise InputError(f"{source} cannot judge the models of {site.folder}: {error}") from None


def _publish(making: Path, anchor: Path, old: Path) -> None:
    """Puts the new set in the place of the old one, which comes back where that fails."""
    if anchor.exists():
        anchor.rename(old)
    try:
        if not publish_folder(making, anchor):
            raise InputError(f"another program made {anchor} meanwhile, and it was left as it is; look what it holds")
    except BaseException:
        if not making.exists():  # it failed after the rename
            anchor.rename(making)
        if old.exists() and not anchor.exists():
            old.rename(anchor)
        raise
    _remove(old)


def _remove(folder: Path) -> None:
    """Renamed first, so that what a kill leaves of it is never put back as a set; `sweep` takes that away."""
    with contextlib.suppress(OSError):  # not there, or in use: the next start removes it
        gone = folder.rename(aside(folder))
        shutil.rmtree(gone, ignore_errors=True)
