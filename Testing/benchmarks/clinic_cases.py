"""The cases of clinic_curve.py: read from a data set with folds, linked, their labels as its damages know them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

BRATS_2021 = {"NCR": 1, "ED": 2, "ET": 4}  # as the damages of poisoned_corrections know them


@dataclass(frozen=True)
class CaseOf:
    """A case of a data set: its images by modality, its label map, the names of that map's values."""

    id: str
    subject: str
    fold: int
    images: dict[str, Path]
    label: Path
    names: dict[int, str]


def read_cases(folder: Path) -> list[CaseOf]:
    """The labelled cases of a data set with folds."""
    manifest = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    folds = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["subjects"]
    names = {int(value): name for value, name in manifest["label_values"].items() if int(value)}
    return [
        CaseOf(
            id=case["id"],
            subject=case["subject"],
            fold=folds[case["subject"]],
            images={m: (folder / image["path"]).resolve() for m, image in case["images"].items()},
            label=(folder / case["label"]["path"]).resolve(),
            names=names,
        )
        for case in manifest["cases"]
        if case["label"]
    ]


def read_label(case: CaseOf) -> tuple[np.ndarray, np.ndarray]:
    """-> (uint8 voxels with the values of BRATS_2021, affine)."""
    image = nib.load(case.label)
    stored = np.asarray(image.dataobj)
    voxels = np.zeros(stored.shape, np.uint8)
    for value, name in case.names.items():
        voxels[stored == value] = BRATS_2021[name]
    return voxels, image.affine


def link_case(folder: Path, case: CaseOf, swap: dict[str, str]) -> Path:
    """A case folder of links. swap: which modality is given out as which."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality, path in case.images.items():
        link = folder / f"{case.id}-{swap.get(modality, modality)}.nii.gz"
        if not link.exists():
            link.symlink_to(path)
    return folder
