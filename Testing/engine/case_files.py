"""Folders of cases of noise, named as any data set names them, with label maps."""

import numpy as np
from image_files import SHAPE, noise, write
from segmamba.datasets.task import custom_task

NAMES = ("t1n", "t1c", "t2w", "t2f")
CT = custom_task(("ct",), {"lesion": [1]})
ML = 0.9 * 1.2 * 2.5 / 1000  # of a voxel of AFFINE


def labels(*values, each=20):
    """A label map with `each` voxels of each value, in a row from the start."""
    array = np.zeros(SHAPE, np.uint8)
    array.ravel()[: each * len(values)] = np.repeat(values, each)
    return array


def make_case(folder, pattern="{}-{}.nii.gz", names=NAMES, seg="seg", seed=0, label=None):
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        write(folder / pattern.format(folder.name, name), noise(10 * seed + i))
    if label is not None:
        write(folder / pattern.format(folder.name, seg), label)
    return folder
