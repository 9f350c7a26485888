"""The fingerprint of a data set: what its cases have in common, and what that suggests, as plain facts.

Numbers over cases are medians, with the smallest and largest beside them, so that one odd case moves nothing.
Geometry is in the order of the body's axes (right, anterior, superior), however a file stores them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from segmamba.datasets.manifest import CaseEntry

_PATCH_MOST, _PATCH_STEP = 128, 16
_AXES = ("LR", "PA", "IS")


def fingerprint(cases: Sequence[CaseEntry], modalities: Sequence[str], labels: Sequence[str]) -> dict:
    """What the cases of a data set are like together, and what settings follow from it.

    Args:
        cases: as segmamba.datasets.reading measured them.
        modalities: of the data set.
        labels: names of its labels.

    Returns:
        Plain JSON; {} for no cases. Suggestions are in the order of a model's axes D, H, W.
    """
    if not cases:
        return {}
    labelled = [case for case in cases if case.label is not None]
    spacing = np.array([_to_body(case, case.spacing) for case in cases])
    shape = np.array([_to_body(case, case.shape) for case in cases])
    extent = np.array([_to_body(case, [b - a for a, b in _statistic(case, "foreground", "box")]) for case in cases])
    return {
        "cases": len(cases),
        "labelled": len(labelled),
        "subjects": len({case.subject for case in cases}),
        "orientations": _count(case.statistics["orientation"] for case in cases),
        "spacing": _spread(spacing),
        "shape": _spread(shape),
        "foreground_shape": _spread(extent),
        "intensities": {m: _pool(cases, "images", m) for m in modalities},
        "labelled_intensities": {m: _pool(labelled, "labelled", m) for m in modalities},
        "labels": {name: _volumes(labelled, name) for name in labels},
        "voxel_shares": _shares(labelled, labels),
        "suggested": _suggest(cases, spacing, extent),
    }


def _statistic(case: CaseEntry, *keys: str) -> Any:
    values = case.statistics
    for key in keys:
        values = values[key]
    return values


def _to_body(case: CaseEntry, values: Sequence[float]) -> list[float]:
    codes = case.statistics["orientation"]
    return [next(v for code, v in zip(codes, values) if code in axis) for axis in _AXES]


def _count(values: Iterable[str]) -> dict[str, int]:
    values = list(values)
    return {value: values.count(value) for value in sorted(set(values))}


def _spread(rows: np.ndarray) -> dict:
    named = {"median": np.median(rows, 0), "min": rows.min(0), "max": rows.max(0)}
    return {name: [round(float(v), 4) for v in row] for name, row in named.items()}


def _pool(cases: Sequence[CaseEntry], part: str, modality: str) -> dict:
    """Medians over cases; "median_range": of the cases' own medians, which shows scanners of different scale."""
    found = [case.statistics[part][modality] for case in cases if part in case.statistics]
    if not found:
        return {}
    medians = [f["percentiles"]["50"] for f in found]
    return {
        "mean": float(np.median([f["mean"] for f in found])),
        "std": float(np.median([f["std"] for f in found])),
        "percentiles": {p: float(np.median([f["percentiles"][p] for f in found])) for p in found[0]["percentiles"]},
        "median_range": [min(medians), max(medians)],
    }


def _volumes(cases: Sequence[CaseEntry], name: str) -> dict:
    """mL over the cases that have the label, and how many have."""
    ml = [v for case in cases if (v := _statistic(case, "labels", name, "ml")) > 0]
    spread = {"median": float(np.median(ml)), "min": min(ml), "max": max(ml)} if ml else {}
    return {"cases": len(ml), "of": len(cases), "ml": spread}


def _shares(cases: Sequence[CaseEntry], labels: Sequence[str]) -> dict[str, float]:
    """Share of each label in all voxels of all labelled cases; weights against imbalance begin here."""
    total = sum(int(np.prod(case.shape)) for case in cases)
    if not total:
        return {}
    shares = {name: sum(_statistic(case, "labels", name, "voxels") for case in cases) / total for name in labels}
    return {"background": 1 - sum(shares.values()), **shares}


def _suggest(cases: Sequence[CaseEntry], spacing: np.ndarray, extent: np.ndarray) -> dict:
    """What a model of these cases may be asked for.

    spacing: the median; patch: the median foreground at that spacing, at most 128 and in steps of 16; normalisation:
    over nonzero voxels where a good part of the images is 0, else over everything.
    """
    wanted = np.median(spacing, 0)
    size = np.median(extent * spacing / wanted, 0)
    patch = np.clip(size // _PATCH_STEP * _PATCH_STEP, _PATCH_STEP, _PATCH_MOST)
    zeros = [case.statistics["foreground"]["share"] < 0.9 for case in cases]
    negative = [any(image["min"] < 0 for image in case.statistics["images"].values()) for case in cases]
    nonzero = np.mean(zeros) > 0.5 and np.mean(negative) < 0.5
    return {
        "spacing": [round(float(v), 4) for v in wanted[::-1]],
        "patch": [int(v) for v in patch[::-1]],
        "normalisation": "zscore_nonzero" if nonzero else "zscore_box",
    }
