"""`python Testing/benchmarks/intake_doubts.py DATASET ...`: what of real cases does intake doubt, sound and damaged?

DATASETs are of gliomas labelled NCR, ED and ET. Every case is looked at by the rules of intake that a person may
overrule, sound and damaged in the ways of poisoned_corrections.py: its label map against the images, and whether an
image lies elsewhere, one of them moved by 10 mm or mirrored. Nothing is sent. Writes results/intake_doubts.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import describe, print_table, progress, write_results
from poisoned_corrections import IMAGES, LABELS
from segmamba.cases.case import Case, load_case, load_label_map
from segmamba.cases.labels import LABELS as STANDARD
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.plausibility import find_implausible
from segmamba.learning.submissions.checks import find_moved
from segmamba.learning.submissions.findings import DOUBTFUL
from segmamba.shared.swaps import MODALITIES

_BRATS = {"NCR": 1, "ED": 2, "ET": 4}  # in whose values LABELS damages
_MOVED_MM = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="What intake doubts of real cases, sound and damaged.")
    parser.add_argument("datasets", type=Path, nargs="+")
    options = parser.parse_args()
    found: dict[str, dict[str, list[str]]] = {}
    for number, (case, label) in enumerate(_labelled(options.datasets)):
        progress(f"{number + 1}: {case.id}")
        for way, kinds in _doubts(case, label, number):
            found.setdefault(way, {})[case.id] = sorted(set(kinds) & set(DOUBTFUL))
    ways = {
        way: {"cases": len(cases), "doubted": {case: kinds for case, kinds in cases.items() if kinds}}
        for way, cases in found.items()
    }
    write_results("intake_doubts", {**describe(), "ways": ways})
    rows = [[way, f"{len(of_way['doubted'])}/{of_way['cases']}"] for way, of_way in ways.items()]
    print_table("doubted by intake", ("cases", "doubted"), rows)


def _labelled(folders: list[Path]) -> Iterator[tuple[Case, np.ndarray]]:
    """Cases with their labels in the values of STANDARD."""
    for dataset in map(read_dataset, folders):
        for entry in dataset.cases:
            if entry.label is not None:
                case = load_case(dataset.sources(entry), entry.id)
                yield case, load_label_map(dataset.path(entry.label), dataset.renumbering, case)


def _doubts(case: Case, label: np.ndarray, number: int) -> Iterator[tuple[str, list[str]]]:
    """(way, kinds of what was found). The image that is moved or mirrored, and the direction, change with `number`."""
    in_place = [kind for kind, _ in find_moved(case)]
    for way, damage in LABELS.items():
        damaged = _renumber(damage(_renumber(label, STANDARD, _BRATS)), _BRATS, STANDARD)
        yield way, [*in_place, *(kind for kind, _ in find_implausible(case, damaged))]
    for way, (one, other) in IMAGES.items():
        exchanged = _with(case, {one: case.images[other], other: case.images[one]})
        yield way, [kind for pairs in (find_moved(exchanged), find_implausible(exchanged, label)) for kind, _ in pairs]
    name = [modality for modality in MODALITIES if modality != "t1c"][number % 3]
    moved = np.roll(case.images[name], _MOVED_MM, number // 3 % 3)
    yield f"one image moved by {_MOVED_MM} voxels", [kind for kind, _ in find_moved(_with(case, {name: moved}))]
    yield "one image mirrored", [kind for kind, _ in find_moved(_with(case, {name: case.images[name][::-1]}))]


def _with(case: Case, images: dict[str, np.ndarray]) -> Case:
    return replace(case, images={**case.images, **images})


def _renumber(label: np.ndarray, old: dict[str, int], new: dict[str, int]) -> np.ndarray:
    result = np.zeros_like(label)
    for name, value in old.items():
        result[label == value] = new[name]
    return result


if __name__ == "__main__":
    main()
