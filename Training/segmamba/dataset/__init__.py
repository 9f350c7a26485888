"""Data sets: a folder of cases as a manifest with hashes, checked, and split once by subject.

`read_dataset` reads a manifest; `segmamba dataset init|check|summary|split` makes and inspects one.
"""

from __future__ import annotations

from segmamba.dataset.manifest import CaseEntry, Dataset, FileEntry, read_dataset, write_dataset
from segmamba.dataset.reading import hash_file
from segmamba.dataset.split import Split, read_split, test_cases, training_cases, validation_cases

__all__ = [
    "CaseEntry",
    "Dataset",
    "FileEntry",
    "Split",
    "hash_file",
    "read_dataset",
    "read_split",
    "test_cases",
    "training_cases",
    "validation_cases",
    "write_dataset",
]
