"""Whether an image shows a whole head, or a brain that was cut out of one."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmamba.preparation.pyramid import Level

# Nine BraTS cases and one prepared elsewhere, all four modalities: brains of 1250 to 1660 mL with nothing in the air
# around them; rim of T1c 0.80 to 0.96. Native series of one patient: heads of 3190 to 3330 mL, air of 1 to 4 % of the
# head's median, rim of T1c 1.4.
_LARGEST_BRAIN_ML = 2300.0
_AIR = 0.005  # of the median of the head
_RIM = 1.2
_AIR_MM = (8.0, 16.0)  # outside the head
_RIM_MM, _INNER_MM = (4.0, 8.0), (12.0, 20.0)  # below its surface: scalp, and brain


def find_skull(level: Level, bright_scalp: bool, *, noise: bool = True) -> str | None:
    """Why the skull seems to be on.

    Args:
        level: of 4 mm.
        bright_scalp: whether fat is brighter than brain in this image, as on T1.
        noise: whether noise around the head counts as a sign of it.

    Returns:
        The reason in plain words; None for a brain alone.
    """
    spacing = float(level.grid.spacing[0])
    volume = np.count_nonzero(level.head) * spacing**3 / 1000
    if volume > _LARGEST_BRAIN_ML:
        return f"{volume:.0f} mL are brighter than air, more than a brain has"
    middle = float(np.median(level.array[level.head]))
    if noise and _is_noisy(level, spacing, middle):
        return "there is noise around it, as in an image that nothing was cut out of"
    # where the volume ends there is no surface
    padded = np.pad(level.head, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]
    rim, inner = (level.array[(depth > low) & (depth <= high)] for low, high in (_RIM_MM, _INNER_MM))
    if bright_scalp and rim.size and inner.size and rim.mean() > _RIM * inner.mean():
        return "its rim is as bright as scalp"
    return None


def _is_noisy(level: Level, spacing: float, middle: float) -> bool:
    """Whether the air around the head is that of a scanner. middle: of the head's values."""
    outside = ndimage.distance_transform_edt(~level.head, sampling=spacing)
    air = level.array[(outside > _AIR_MM[0]) & (outside <= _AIR_MM[1])]
    return bool(air.size and np.abs(air - np.median(level.array[~level.head])).mean() > _AIR * middle)
