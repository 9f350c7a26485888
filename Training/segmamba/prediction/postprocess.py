"""From probabilities on the case's grid to a label map, its volumes, and no more specks than the model wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from segmamba.cases.labels import GLIOMA, LabelScheme, to_regions
from segmamba.errors import InputError
from segmamba.models.specs import PostprocessSpec, check_limits, next_inner


def to_label_map(probabilities: np.ndarray, nested: Sequence[int] = ()) -> np.ndarray:
    """The label map that probabilities speak for.

    Without `nested` the label of the largest; ties go to the lower label. With it (networks.heads) region by region,
    the outermost first: a voxel is in a region where the labels inside it have more than half of the probability.

    Args:
        probabilities: (K, X, Y, Z) of background and labels.
        nested: the output head.

    Returns:
        (X, Y, Z) uint8.

    Raises:
        InputError: where a probability is not finite, which argmax would turn into a label without a word.
    """
    probabilities = np.asarray(probabilities)
    bad = probabilities.size - int(np.count_nonzero(np.isfinite(probabilities)))
    if bad:
        raise InputError(
            f"{bad} of {probabilities.size} probabilities are NaN or infinite; "
            "run the model in fp32, and check its weights"
        )
    if not nested:
        return probabilities.argmax(0).astype(np.uint8)
    label_map = np.zeros(probabilities.shape[1:], np.uint8)
    for depth, label in enumerate(nested):
        label_map[probabilities[list(nested[depth:])].sum(0) > 0.5] = label
    return label_map


def voxel_volume_mm3(affine: np.ndarray) -> float:
    """The volume of one voxel in mm3."""
    return float(abs(np.linalg.det(np.asarray(affine, float)[:3, :3])))


def volumes_ml(label_map: np.ndarray, affine: np.ndarray, scheme: LabelScheme = GLIOMA) -> dict[str, float]:
    """The volume of each region and each label.

    Args:
        label_map: (X, Y, Z), in the values of `scheme`.
        affine: (4, 4), voxel indices to mm.
        scheme: the labels and regions.

    Returns:
        Name of a region or label (WT, TC, ET, NCR, ED) -> mL.
    """
    counts = np.bincount(label_map.ravel(), minlength=len(scheme.labels) + 1)
    ml = voxel_volume_mm3(affine) / 1000
    groups = {region: scheme.values(region) for region in scheme.regions}
    groups |= {name: (value,) for name, value in scheme.labels.items()}
    return {name: float(sum(counts[value] for value in values) * ml) for name, values in groups.items()}


def postprocess(
    label_map: np.ndarray, affine: np.ndarray, spec: PostprocessSpec, scheme: LabelScheme = GLIOMA
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Takes away what is too small to be shown.

    Small components first, then those without the next inner region, then regions whose total is small; of each the
    outermost region first.

    Args:
        label_map: (X, Y, Z), in the values of `scheme`.
        affine: (4, 4) voxel indices to RAS mm.
        spec: the limits in mm3 by region; what is exactly as large stays.
        scheme: the labels and regions.

    Returns:
        A new label map, and region -> {"components", "voxels"} taken away, for every region that the spec names.

    Raises:
        InputError: for an unknown region, or a limit that is no size.
    """
    box = _lesion_box(label_map)
    result = label_map.copy()
    result[box], report = _postprocess(label_map[box], affine, spec, scheme)
    return result, report


def _lesion_box(label_map: np.ndarray) -> tuple[slice, ...]:
    """The smallest box with everything that is no background, or any voxel where there is nothing."""
    found = ndimage.find_objects((label_map != 0).astype(np.uint8), 1)
    return found[0] or (slice(0, 1),) * label_map.ndim


def _postprocess(
    label_map: np.ndarray, affine: np.ndarray, spec: PostprocessSpec, scheme: LabelScheme
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    result, report = remove_small(label_map, affine, spec.min_component_mm3, scheme)
    _remove_without_inner(result, affine, spec.min_without_inner_mm3, scheme, report)
    check_limits(spec.min_total_mm3, scheme)
    voxel = voxel_volume_mm3(affine)
    for region in (r for r in scheme.regions if r in spec.min_total_mm3):
        mask = np.isin(result, scheme.values(region))
        count = int(np.count_nonzero(mask))
        entry = report.setdefault(region, {"components": 0, "voxels": 0})
        if 0 < count * voxel < spec.min_total_mm3[region] * (1 - 1e-9):
            entry["components"] += int(ndimage.label(mask, np.ones((3, 3, 3)))[1])
            entry["voxels"] += count
            result[mask] = _around(region, scheme)
    return result, report


def describe_removed(report: Mapping[str, Mapping[str, int]], affine: np.ndarray) -> str | None:
    """One line about what `postprocess` took away: "Too small, left out: 3 spots of WT (0.2 mL)"; None: nothing."""
    ml = voxel_volume_mm3(affine) / 1000
    parts = [
        f"{entry['components']} spot{'s' if entry['components'] > 1 else ''} of {region} "
        f"({entry['voxels'] * ml:.2g} mL)"
        for region, entry in report.items()
        if entry["components"]
    ]
    return f"Too small, left out: {', '.join(parts)}" if parts else None


def count_spots(left_out: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Pieces (26-connected) of what was taken away, and mL in all: {"spots", "ml"}. left_out: (X, Y, Z)."""
    voxels = int(np.count_nonzero(left_out))
    spots = int(ndimage.label(left_out != 0, np.ones((3, 3, 3)))[1])
    return {"spots": spots, "ml": round(voxels * voxel_volume_mm3(affine) / 1000, 3)}


def remove_small(
    label_map: np.ndarray, affine: np.ndarray, min_mm3: Mapping[str, float], scheme: LabelScheme = GLIOMA
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Takes away components (26-connected) of a region that are smaller than its limit.

    A small component of a region becomes what the next larger region around it has besides: of ET it becomes NCR, of TC
    ED, of WT background. Regions are taken in the scheme's order, each on what the one before left.

    Args:
        label_map: (X, Y, Z), in the values of `scheme`; it stays as it is.
        affine: (4, 4), voxel indices to mm.
        min_mm3: region -> smallest component that stays, in mm3, inclusive. Regions that it does not name stay.
        scheme: the labels and regions.

    Returns:
        A new label map, and per region {"components": how many were taken away, "voxels": how many voxels that
        changed}.

    Raises:
        InputError: for an unknown region or a limit that is no size.
    """
    check_limits(min_mm3, scheme)
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


def _remove_without_inner(
    result: np.ndarray,
    affine: np.ndarray,
    limits: Mapping[str, float],
    scheme: LabelScheme,
    report: dict[str, dict[str, int]],
) -> None:
    """Takes components out of `result` that hold nothing of the next inner region, and adds them to `report`."""
    check_limits(limits, scheme)
    voxel = voxel_volume_mm3(affine)
    for region in (r for r in scheme.regions if r in limits):
        inner = next_inner(region, scheme)
        components, count = ndimage.label(np.isin(result, scheme.values(region)), np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        sizes[0] = 0
        held = np.bincount(components[np.isin(result, inner)], minlength=count + 1)
        gone = (held == 0) & (sizes * voxel < limits[region] * (1 - 1e-9)) & (sizes < sizes.max())
        gone[0] = False
        result[gone[components]] = _around(region, scheme)
        entry = report.setdefault(region, {"components": 0, "voxels": 0})
        entry["components"] += int(gone.sum())
        entry["voxels"] += int(sizes[gone].sum())


def _around(region: str, scheme: LabelScheme) -> int:
    """The label that is left when `region` is taken out of the smallest region that encloses it; 0 without one."""
    inner = set(scheme.values(region))
    larger = [outer for outer in (set(scheme.values(other)) for other in scheme.regions) if outer > inner]
    return min(min(larger, key=len) - inner) if larger else 0
