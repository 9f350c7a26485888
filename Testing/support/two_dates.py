"""One synthetic patient at two dates in Slicer's scene: heads of 4 mm voxels with lesions of known diameters."""

from __future__ import annotations

import numpy as np
import slicer
from SegMambaSlicerLib.results import history
from SegMambaSlicerLib.results.segments import createSegmentation

# corner and size in voxels (X, Y, Z) of the enhancing lesions; a box of n x n has two diagonals of 4 (n - 1) sqrt(2) mm
FIRST = (((-12, -4, 0), (8, 8, 4)), ((5, -4, 0), (5, 5, 3)))
LATER = (((-12, -4, 0), (6, 6, 4)),)
# where the head lies at the later date: turned by 8 degrees and shifted, RAS mm
MOVE = np.eye(4)
MOVE[:2, :2] = [[np.cos(np.radians(8)), -np.sin(np.radians(8))], [np.sin(np.radians(8)), np.cos(np.radians(8))]]
MOVE[:3, 3] = (9, -6, 4)


def addDate(head, places, name: str, move=None):
    """A T1c and its segmentation; head: a nibabel image. places: corner, size, and the label where it is not ET's.

    move: (4, 4) where the head lies instead, RAS mm.
    """
    array = np.asarray(head.dataobj, np.float32)
    matrix = head.affine if move is None else move @ head.affine
    volume = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(array.transpose(2, 1, 0)), ijkToRAS=matrix, name=f"{name} T1c"
    )
    labels, middle = np.zeros(array.shape, np.uint8), np.array(array.shape) // 2
    for corner, size, *label in places:
        start = middle + corner
        labels[tuple(slice(a, a + n) for a, n in zip(start, size))] = label[0] if label else 3
    segmentation = createSegmentation(labels.transpose(2, 1, 0), volume, name=f"{name} tumor")
    history.keepOrigin(segmentation, {"t1c": volume}, {"model": "quick"})
    return segmentation


def addTwoDates(head, first=FIRST, later=LATER):
    """(first, later): the later one is turned by 8 degrees and shifted."""
    return addDate(head, first, "first"), addDate(head, later, "later", MOVE)
