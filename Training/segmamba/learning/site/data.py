"""Data sets of a site: the corrections as a run sees them, and phantoms where a site has no old data of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segmamba.datasets.collect import init_dataset
from segmamba.datasets.manifest import MANIFEST, CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.datasets.phantom import make_phantom, save_phantom
from segmamba.datasets.split import read_split, write_split
from segmamba.files.shares import publish_folder
from segmamba.learning.provenance import PHANTOMS

REPLAY_SEEDS, ANCHOR_SEEDS = range(1, 61), range(500_001, 500_013)
ANY_KIND = (None,)  # as phantoms are drawn: half of them enhance, one in seven has a trace
# of the anchor: a trace of ET, of which one voxel decides, says nothing; none at all shows ET that is made up
ANCHOR_KINDS = (True, True, True, False)


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

        folder.mkdir(exist_ok=True)
        write_split(read_split(dataset), folder)
        write_dataset(replace(dataset, cases=tuple(map(moved, dataset.cases)), folder=str(folder)))
    return read_dataset(folder)


def make_phantoms(
    folder: Path,
    seeds: range,
    spacing: tuple[float, float, float],
    progress: Callable[[int], None] = lambda done: None,
    kinds: Sequence[bool | None] = ANY_KIND,
) -> None:
    """Makes a data set of synthetic cases, unless its folder has something.

    Made beside it and renamed: a making that was broken off goes on with the cases that are whole.

    Args:
        folder: of the data set.
        seeds: a case each.
        spacing: mm along X, Y and Z.
        progress: called with the cases done, before each that is made now.
        kinds: in turn, whether they enhance (make_phantom).
    """
    if folder.exists():
        if any(folder.iterdir()):
            return
        folder.rmdir()
    making = folder.with_name(f".{folder.name}.making")
    cases = {seed: making / f"phantom-{seed:06d}" for seed in seeds}
    missing = [seed for seed in seeds if not cases[seed].is_dir()]  # else the time left would count work of before
    for done, seed in enumerate(missing, len(seeds) - len(missing)):
        progress(done)
        case, half = cases[seed], making / ".half"
        shutil.rmtree(half, ignore_errors=True)
        phantom = make_phantom(seed, spacing=spacing, enhancing=kinds[seeds.index(seed) % len(kinds)])
        for path in save_phantom(phantom, half, case.name).values():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        publish_folder(half, case)
    progress(len(seeds))
    (making / MANIFEST).unlink(missing_ok=True)
    dataset = init_dataset(making, name=folder.name, convention="brats2023").dataset
    drawn = {"seeds": [seeds.start, seeds.stop - 1], "spacing": list(spacing)}
    if kinds != ANY_KIND:
        drawn["enhancing"] = list(kinds)
    write_dataset(replace(dataset, made={**dataset.made, PHANTOMS: drawn}))
    publish_folder(making, folder)
