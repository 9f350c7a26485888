"""The head in the image: where it is, and how clearly skull and scalp lie around what was taken for its brain."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from segmamba.errors import InputError
from segmamba.preparation.brain.lattice import WorkImage

_RINGS = ((-6, -1), (1, 4), (4, 8), (9, 14))  # mm outside the brain: its rim, fluid, skull, scalp
_BRIGHTEST = 2.5  # times the brain: fat near a coil must not decide alone


def find_head(what: str, work: WorkImage) -> np.ndarray:
    """The head: what is not air, its largest piece, filled; bool on the lattice.

    Raises InputError, which begins with `what`, where that has not a head's size.
    """
    values = work.values[work.seen]
    low, top = values.min(), np.percentile(values, 99)
    bright = work.values > low + 0.6 * (threshold_otsu(np.minimum(values, top)) - low)
    pieces, count = ndimage.label(bright & work.seen)
    head = np.zeros_like(bright)
    if count:
        head = ndimage.binary_fill_holes(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
    litres = head.sum() * work.step**3 / 1e6
    if not 1.0 < litres < 15:
        raise InputError(
            f"{what}: the largest thing in the image has {litres:.2f} litres; expected a head of 2 to 8: give an image "
            "of a whole head, or a brain mask"
        )
    return head


def layering(work: WorkImage, head: np.ndarray, brain: np.ndarray) -> float:
    """How clearly skull and scalp lie around a brain.

    The correlation ratio of the brightness over four rings around its upper half. A brain's rim, its fluid, the skull
    and the scalp differ in every modality; a ball that was taken for a head has nothing of the kind. The head's
    outermost 4 mm stay out: the step to air is no sign of a skull.

    Args:
        work: the image on its lattice.
        head: bool, of its shape.
        brain: bool, of its shape.

    Returns:
        0 to 1; 0 where a ring has too few voxels to tell.
    """
    middle = np.argwhere(brain).mean(0)[2]
    out = ndimage.distance_transform_edt(~brain, sampling=work.step)
    out -= ndimage.distance_transform_edt(brain, sampling=work.step)
    below_skin = ndimage.distance_transform_edt(np.pad(head, 1), sampling=work.step)[1:-1, 1:-1, 1:-1] > 4
    used = below_skin & work.seen & (np.arange(brain.shape[2]) > middle)
    values = np.clip(work.values / max(float(np.median(work.values[brain])), 1e-6), 0, _BRIGHTEST)
    rings = [values[used & (out > low) & (out < high)].astype(float) for low, high in _RINGS]
    if min(len(ring) for ring in rings) < 200:
        return 0.0
    pooled = np.concatenate(rings)
    between = sum(len(ring) * (ring.mean() - pooled.mean()) ** 2 for ring in rings)
    return float(np.sqrt(between / max(float(((pooled - pooled.mean()) ** 2).sum()), 1e-12)))
