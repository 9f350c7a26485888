"""From probabilities on the case's grid to a label map, its volumes, and, if asked for, fewer specks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from segmamba.cases.labels import GLIOMA, LabelScheme, to_regions
from segmamba.errors import InputError


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


def volumes_ml(label_map: np.ndarray, affine: np.ndarray, scheme: LabelScheme = GLIOMA) -> dict[str, float]:
    """Volume in mL of each region and each label of the scheme (WT, TC, ET, NCR, ED)."""
    counts = np.bincount(label_map.ravel(), minlength=len(scheme.labels) + 1)
    ml = voxel_volume_mm3(affine) / 1000
    groups = {region: scheme.values(region) for region in scheme.regions}
    groups |= {name: (value,) for name, value in scheme.labels.items()}
    return {name: float(sum(counts[value] for value in values) * ml) for name, values in groups.items()}


def remove_small(
    label_map: np.ndarray, affine: np.ndarray, min_mm3: Mapping[str, float], scheme: LabelScheme = GLIOMA
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Take away components (26-connected) of a region that are smaller than `min_mm3[region]`.

    A small component of a region becomes what the next larger region around it has besides: of ET it becomes NCR,
    of TC ED, of WT background. Regions are taken in the scheme's order, each on what the one before left; those that
    `min_mm3` does not name stay. Returns a new label map, and per region {"components": how many were taken away,
    "voxels": how many voxels that changed}. Raises InputError for an unknown region or a limit that is no size.
    """
    unknown = [region for region in min_mm3 if region not in scheme.regions]
    if unknown:
        raise InputError(f"unknown region {', '.join(unknown)}; known are {', '.join(scheme.regions)}")
    for region, limit in min_mm3.items():
        if not (math.isfinite(limit) and limit >= 0):
            raise InputError(f"smallest {region} of {limit} mm3: expected a number, 0 or more")
    result, report = label_map.copy(), {}
    voxel = voxel_volume_mm3(affine)
    for region in (r for r in scheme.regions if r in min_mm3):
        components, count = ndimage.label(to_regions(result, scheme)[region], np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        # sizes are whole voxels: a component of exactly the limit stays whatever the rounding of the product
        small = sizes * voxel < min_mm3[region] * (1 - 1e-9)
        small[0] = False
        result[small[components]] = _around(region, scheme)
        report[region] = {"components": int(small.sum()), "voxels": int(sizes[small].sum())}
    return result, report


def _around(region: str, scheme: LabelScheme) -> int:
    """The label that is left when `region` is taken out of the smallest region that encloses it; 0 without one."""
    inner = set(scheme.values(region))
    larger = [outer for outer in (set(scheme.values(other)) for other in scheme.regions) if outer > inner]
    return min(min(larger, key=len) - inner) if larger else 0
