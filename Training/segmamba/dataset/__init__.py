"""Data sets: a folder of cases as a manifest with hashes, checked, and split once by subject.

`read_dataset` reads a manifest; `segmamba dataset init|check|summary|split` makes and inspects one.
"""

from __future__ import annotations

from segmamba.dataset.manifest import CaseEntry, Dataset, FileEntry, read_dataset, write_dataset

__all__ = ["CaseEntry", "Dataset", "FileEntry", "read_dataset", "write_dataset"]
