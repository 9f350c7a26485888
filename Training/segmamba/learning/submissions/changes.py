"""What a person changed against the model's proposal."""

from __future__ import annotations

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.signal import correlate, correlation_lags

from segmamba.cases.labels import LabelScheme, to_regions
from segmamba.evaluation.metrics import dice
from segmamba.learning.submissions.record import LabelChange

_GRID_MM = 2.0  # places are told apart so far
_REACH_MM = 40.0  # farther ones are not looked at


def label_changes(
    proposal: np.ndarray, corrected: np.ndarray, affine: np.ndarray, scheme: LabelScheme
) -> dict[str, LabelChange]:
    """What a correction did to each label.

    Args:
        proposal: (X, Y, Z), in the scheme's values.
        corrected: likewise, on the same grid.
        affine: (4, 4), voxel indices to mm.
        scheme: the labels.

    Returns:
        Name of a label -> voxels added and removed, volumes before and after in mL.
    """
    ml = float(np.prod(voxel_sizes(affine))) / 1000
    changes = {}
    for name, value in scheme.labels.items():
        before, after = proposal == value, corrected == value
        changes[name] = LabelChange(
            added=int(np.count_nonzero(after & ~before)),
            removed=int(np.count_nonzero(before & ~after)),
            ml_before=round(int(np.count_nonzero(before)) * ml, 6),
            ml=round(int(np.count_nonzero(after)) * ml, 6),
        )
    return changes


def region_dice(proposal: np.ndarray, corrected: np.ndarray, scheme: LabelScheme) -> dict[str, float]:
    """Dice of a proposal against its correction.

    Args:
        proposal: (X, Y, Z), in the scheme's values.
        corrected: likewise, on the same grid.
        scheme: the regions.

    Returns:
        Name of a region -> 0 to 1; 1 where both are empty.
    """
    one, other = to_regions(proposal, scheme), to_regions(corrected, scheme)
    return {region: round(dice(one[region], other[region]), 6) for region in scheme.regions}


def best_place(proposal: np.ndarray, corrected: np.ndarray, affine: np.ndarray) -> tuple[float, float, float]:
    """Whether a correction would fit the proposal better elsewhere, as one that was saved on a shifted grid.

    Args:
        proposal: (X, Y, Z), label values.
        corrected: likewise, on the same grid.
        affine: (4, 4), voxel indices to mm.

    Returns:
        Dice of all that is labelled, where the correction lies and at the best place up to 40 mm away; how many mm
        away that is.
    """
    sizes = voxel_sizes(affine)
    steps = [max(1, round(_GRID_MM / size)) for size in sizes]
    coarse = tuple(slice(None, None, step) for step in steps)
    one, other = ((labels[coarse] > 0).astype(np.float32) for labels in (proposal, corrected))
    lags = [correlation_lags(side, side, "same") * step * size for side, step, size in zip(one.shape, steps, sizes)]
    away = np.sqrt(sum(np.square(lag) for lag in np.ix_(*lags)))
    overlap = np.where(away <= _REACH_MM, correlate(one, other, mode="same", method="fft"), 0.0)
    best = np.unravel_index(overlap.argmax(), overlap.shape)
    total = max(1.0, float(one.sum() + other.sum()))
    return 2 * float((one * other).sum()) / total, 2 * float(overlap[best]) / total, float(away[best])
