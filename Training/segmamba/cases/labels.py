"""Label maps and regions: knows every convention in use, and refuses what it does not know.

A `LabelScheme` names the labels of a task and the regions it is scored by; `GLIOMA`, that of brain tumours, is what
every function takes unless told another. Its label values are those of BraTS 2023: 1 NCR, 2 ED, 3 ET. A label map
with values {1, 2, 4} can only be the older BraTS one; {1, 2, 3} may be BraTS 2023 or MSD Task01, which give the
values different meanings, so there the convention must be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segmamba.errors import InputError

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """labels: name -> value, 1 to n without a gap. regions: name -> names of the labels it is the union of."""

    labels: dict[str, int]
    regions: dict[str, tuple[str, ...]]

    def __post_init__(self):
        if sorted(self.labels.values()) != list(range(1, len(self.labels) + 1)):
            raise InputError(f"labels {self.labels} must have the values 1 to {len(self.labels)}, each once")
        if not self.regions:
            raise InputError(f"labels {', '.join(self.labels)} need one region at least, to be scored by")
        for region, names in self.regions.items():
            unknown = [name for name in names if name not in self.labels]
            if unknown or not names:
                raise InputError(f"region {region} of {names or 'nothing'}: known labels are {', '.join(self.labels)}")

    def values(self, region: str) -> tuple[int, ...]:
        return tuple(self.labels[name] for name in self.regions[region])


GLIOMA = LabelScheme(labels=LABELS, regions=REGIONS)

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
    try:
        return renumber(label_map, CONVENTIONS[convention])
    except InputError as error:
        raise InputError(f"{error} in convention {convention!r}: {_describe()}") from None


def renumber(label_map: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """`label_map` (any shape) with value v -> the same shape, uint8, with mapping[v]; 0 stays 0.

    Raises InputError for a value that `mapping` does not have.
    """
    mapping = {0: 0, **mapping}
    unknown = [v.item() for v in np.unique(label_map) if v.item() not in mapping]
    if unknown:
        raise InputError(f"label values {unknown[:8]} are not among {sorted(mapping)}")
    result = np.zeros(label_map.shape, np.uint8)
    for value, label in mapping.items():
        result[label_map == value] = label
    return result


def to_regions(label_map: np.ndarray, scheme: LabelScheme = GLIOMA) -> dict[str, np.ndarray]:
    """Label map in the scheme's values -> {region: bool mask}, each of the same shape."""
    return {region: np.isin(label_map, scheme.values(region)) for region in scheme.regions}


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
