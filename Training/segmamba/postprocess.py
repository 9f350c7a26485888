"""From probabilities on the case's grid to a label map, its volumes, and, if asked for, fewer specks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from segmamba.errors import InputError
from segmamba.labels import LABELS, REGIONS, to_regions

# what a component too small for a region becomes: the label that is left when that region is taken away
_DEMOTED = {"WT": 0, "TC": LABELS["ED"], "ET": LABELS["NCR"]}


def to_label_map(probabilities: np.ndarray) -> np.ndarray:
    """(K, X, Y, Z) probabilities -> (X, Y, Z) uint8: the label of the largest; ties go to the lower label.

    Raises InputError where a probability is not finite, which argmax would turn into a label without a word.
    """
    probabilities = np.asarray(probabilities)
    bad = probabilities.size - int(np.count_nonzero(np.isfinite(probabilities)))
    if bad:
        raise InputError(
            f"{bad} of {probabilities.size} probabilities are NaN or infinite; "
            "run the model in fp32, and check its weights"
        )
    return probabilities.argmax(0).astype(np.uint8)


def voxel_volume_mm3(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(np.asarray(affine, float)[:3, :3])))


def volumes_ml(label_map: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Volume in mL of each region (WT, TC, ET) and each label (NCR, ED, ET)."""
    counts = np.bincount(label_map.ravel(), minlength=max(LABELS.values()) + 1)
    ml = voxel_volume_mm3(affine) / 1000
    groups = {**REGIONS, **{name: (label,) for name, label in LABELS.items()}}
    return {name: float(sum(counts[label] for label in labels) * ml) for name, labels in groups.items()}


def remove_small(
    label_map: np.ndarray, affine: np.ndarray, min_mm3: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Take away components (26-connected) of a region that are smaller than `min_mm3[region]`.

    A small component of WT becomes background, one of TC becomes ED, one of ET becomes NCR; in this order,
    each on what the one before left. Regions that `min_mm3` does not name stay. Returns a new label map, and
    per region {"components": how many were taken away, "voxels": how many voxels that changed}.
    """
    unknown = [region for region in min_mm3 if region not in REGIONS]
    if unknown:
        raise InputError(f"unknown region {', '.join(unknown)}; known are {', '.join(REGIONS)}")
    for region, limit in min_mm3.items():
        if not (math.isfinite(limit) and limit >= 0):
            raise InputError(f"smallest {region} of {limit} mm3: expected a number, 0 or more")
    result, report = label_map.copy(), {}
    voxel = voxel_volume_mm3(affine)
    for region in (r for r in REGIONS if r in min_mm3):
        components, count = ndimage.label(to_regions(result)[region], np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        # sizes are whole voxels: a component of exactly the limit stays whatever the rounding of the product
        small = sizes * voxel < min_mm3[region] * (1 - 1e-9)
        small[0] = False
        result[small[components]] = _DEMOTED[region]
        report[region] = {"components": int(small.sum()), "voxels": int(sizes[small].sum())}
    return result, report
