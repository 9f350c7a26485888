"""A small tumor as a label map of any convention, saved as NIfTI."""

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (9, 14, 6)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 1.5, -20], [0, 0, 0, 1]])  # LPS, 1 x 2 x 1.5 mm
LABELS = {"brats2023": (1, 2, 3), "brats2021": (1, 2, 4), "msd": (2, 1, 3)}  # NCR, ED, ET


def tumour(convention="brats2023", *, ncr=True, ed=True, et=True, shift=0):
    """A label map with 24 voxels of ED, then 24 of NCR, then 24 of ET, in a column along the second axis."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, (there, value) in enumerate(zip((ncr, ed, et), LABELS[convention])):
        start = 1 + shift + (3, 0, 6)[number]
        labels[2:6, start : start + 3, 2:4] = value * there
    return labels


def save(labels, *path, affine=AFFINE):
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), file)
    return file
