"""Box-shaped lesions for the tests of the follow-up."""

import numpy as np
from segmamba.followup.lesions import measure_mask

MM = np.eye(4)


def boxes(*places, shape=(60, 60, 12), affine=MM):
    """Each place: first corner and size."""
    mask = np.zeros(shape, bool)
    for corner, size in places:
        mask[tuple(slice(c, c + s) for c, s in zip(corner, size))] = True
    return measure_mask(mask, affine, "ET")


def drawn(shape, *places):
    label_map = np.zeros(shape, np.uint8)
    for corner, size in places:
        label_map[tuple(slice(c, c + s) for c, s in zip(corner, size))] = 3
    return label_map
