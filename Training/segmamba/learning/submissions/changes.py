"""What a person changed against the model's proposal."""

from __future__ import annotations

import numpy as np
from nibabel.affines import voxel_sizes

from segmamba.cases.labels import LabelScheme, to_regions
from segmamba.evaluation.metrics import dice
from segmamba.learning.submissions.record import LabelChange


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
