"""Data sets of a site: the corrections as a run sees them, and old cases where a site has none of its own."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from segmamba.datasets.collect import init_dataset
from segmamba.datasets.manifest import MANIFEST, CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.split import read_split, write_split
from segmamba.errors import InputError
from segmamba.files.atomic import is_left_by_system, make_folder, write_aside
from segmamba.files.shares import publish_folder
from segmamba.learning.provenance import SHIPPED

_CASES = Path(__file__).resolve().parents[4] / "Resources" / "cases"


def freeze(corrections: Path, folder: Path) -> Dataset:
    """The data set of an intake as it is now, under `folder`; one that is there stays. The images are not copied."""
    if not (folder / MANIFEST).is_file():
        dataset = read_dataset(corrections)
        way = Path(os.path.relpath(corrections, folder)).as_posix()

        def seen(file: FileEntry) -> FileEntry:
            return file if Path(file.path).is_absolute() else replace(file, path=f"{way}/{file.path}")

        def moved(case: CaseEntry) -> CaseEntry:
            images = {m: seen(file) for m, file in case.images.items()}
            return replace(case, images=images, label=case.label and seen(case.label))

        make_folder(folder)
        write_split(read_split(dataset), folder)
        write_dataset(replace(dataset, cases=tuple(map(moved, dataset.cases)), folder=str(folder)))
    return read_dataset(folder)


def copy_shipped(folder: Path) -> None:
    """Makes a data set of the labelled cases that come with the project, unless its folder has something.

    Made beside it and renamed, so it is whole or not there.

    Args:
        folder: of the data set; "replay" or "anchor", as the folders of Resources/cases.

    Raises:
        InputError: where the cases are missing.
    """
    inside = list(folder.iterdir()) if folder.exists() else []
    if not all(is_left_by_system(path) for path in inside):
        return
    source = _CASES / folder.name
    if not source.is_dir():
        raise InputError(
            f"{source} is missing, which comes with the program; install the program again, or make a data set of "
            f"labelled cases of your own in {folder}"
        )
    making = folder.with_name(f".{folder.name}.copying")
    shutil.rmtree(making, ignore_errors=True)
    for path in source.rglob("*.nii.gz"):  # content alone: an installation may be read-only, a share know no modes
        target = making / path.relative_to(source)
        make_folder(target.parent)
        write_aside(target, path.read_bytes())
    dataset = init_dataset(making, name=folder.name, convention="brats2023").dataset
    write_dataset(replace(dataset, made={**dataset.made, SHIPPED: [case.id for case in dataset.cases]}))
    for path in inside:  # a recycle bin may hold what somebody wants back
        path.rename(making / path.name) if path.is_dir() else path.unlink()
    if folder.exists():
        folder.rmdir()
    publish_folder(making, folder)
