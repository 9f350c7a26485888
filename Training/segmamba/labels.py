"""Label maps and regions: knows every convention in use, and refuses what it does not know.

The engine's own convention is that of BraTS 2023: 1 NCR, 2 ED, 3 ET. A label map with values
{1, 2, 4} can only be the older BraTS one; {1, 2, 3} may be BraTS 2023 or MSD Task01, which give the
values different meanings, so there the convention must be told.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segmamba.errors import InputError

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}

# value in the file -> label of the engine; msd as its dataset.json has it (some tutorials swap its 2 and 3)
CONVENTIONS = {
    "brats2023": {1: 1, 2: 2, 3: 3},
    "brats2021": {1: 1, 2: 2, 4: 3},
    "msd": {1: 2, 2: 1, 3: 3},
}


def find_convention(values: Iterable[float]) -> str:
    """The convention of a label map that holds `values` (0 is ignored).

    Without any label all conventions agree, and the answer is the engine's own. Raises InputError where the
    values leave a choice ({1, 2, 3} and its subsets), fit none, or are no whole numbers.
    """
    found = {float(v) for v in values} - {0.0}
    broken = sorted(str(v) for v in found if not v.is_integer())
    if broken:
        raise InputError(f"label values {', '.join(broken[:8])} are no whole numbers; expected a label map")
    labels = sorted(int(v) for v in found)
    if not labels:
        return "brats2023"
    if 4 in labels and set(labels) <= {1, 2, 4}:
        return "brats2021"
    if set(labels) <= {1, 2, 3}:
        raise InputError(
            f"label values {labels} fit several conventions ({', '.join(CONVENTIONS)}), which give them "
            "different meanings; say which one the file follows"
        )
    raise InputError(f"label values {labels[:8]} fit no known convention: {_describe()}")


def to_standard(label_map: np.ndarray, convention: str) -> np.ndarray:
    """`label_map` (any shape) in `convention` -> the same shape, uint8, in the engine's labels 0..3.

    Raises InputError for an unknown convention, a value outside it, or a value that is no whole number.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"unknown label convention {convention!r}; known are {_describe()}")
    mapping = {0: 0, **CONVENTIONS[convention]}
    values = np.unique(label_map)
    unknown = [v.item() for v in values if v.item() not in mapping]
    if unknown:
        raise InputError(f"label values {unknown[:8]} are not in convention {convention!r}: {_describe()}")
    result = np.zeros(label_map.shape, np.uint8)
    for value, label in mapping.items():
        result[label_map == value] = label
    return result


def to_regions(label_map: np.ndarray) -> dict[str, np.ndarray]:
    """The engine's label map -> {"WT": bool, "TC": bool, "ET": bool}, each of the same shape."""
    return {name: np.isin(label_map, labels) for name, labels in REGIONS.items()}


def from_regions(regions: dict[str, np.ndarray]) -> np.ndarray:
    """Nested regions -> label map, uint8. Raises InputError where ET leaves TC or TC leaves WT."""
    wt, tc, et = (np.asarray(regions[name], bool) for name in ("WT", "TC", "ET"))
    for inner, outer, text in ((tc, wt, "TC outside WT"), (et, tc, "ET outside TC")):
        stray = int(np.count_nonzero(inner & ~outer))
        if stray:
            raise InputError(f"regions are not nested: {stray} voxels of {text}; expected ET inside TC inside WT")
    label_map = np.zeros(wt.shape, np.uint8)
    label_map[wt] = LABELS["ED"]
    label_map[tc] = LABELS["NCR"]
    label_map[et] = LABELS["ET"]
    return label_map


def _describe() -> str:
    names = {label: name for name, label in LABELS.items()}
    return "; ".join(
        f"{convention}: " + ", ".join(f"{value} {names[label]}" for value, label in mapping.items())
        for convention, mapping in CONVENTIONS.items()
    )
