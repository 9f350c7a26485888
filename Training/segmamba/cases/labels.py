"""Label maps and regions: knows every convention in use, and refuses what it does not know.

A `LabelScheme` names the labels of a task and the regions it is scored by; `GLIOMA`, that of brain tumours, is what
every function takes unless told another. Its label values are those of BraTS 2023: 1 NCR, 2 ED, 3 ET. The same values
mean different things elsewhere: {1, 2, 3} in BraTS 2023 and in MSD Task01; 4 is ET up to BraTS 2021, a resection cavity
in BraTS 2024, oedema in BraTS-PED 2024 (1 ET, 2 NET, 3 CC, 4 ED: Kazerooni et al., arXiv 2404.15009, and their tool's
README; the release of 2023 has the three of BraTS 2023). So a convention is told, or follows from the cohort's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segmamba.errors import InputError

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
# left and right in a name, and l and r that stand alone or as in kidneyL and LKidney; LV and RV are no two of a kind
_SIDE = re.compile(r"(?i:left|right)|(?<![A-Za-z])(?:[LRlr](?![A-Za-z])|[LR](?=[A-Z][a-z]))|(?<=[a-z])[LR](?![A-Za-z])")


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """The labels of a label map, and the regions that they make up."""

    labels: dict[str, int]
    """Name -> value, 1 to n without a gap."""
    regions: dict[str, tuple[str, ...]]
    """Name -> names of the labels it is the union of."""

    def __post_init__(self) -> None:
        if sorted(self.labels.values()) != list(range(1, len(self.labels) + 1)):
            raise InputError(f"labels {self.labels} must have the values 1 to {len(self.labels)}, each once")
        if not self.regions:
            raise InputError(f"labels {', '.join(self.labels)} need one region at least, to be scored by")
        for region, names in self.regions.items():
            unknown = [name for name in names if name not in self.labels]
            if unknown or not names:
                made_of = ", ".join(str(name)[:40] for name in names[:8]) or "nothing"
                raise InputError(f"region {region} of {made_of}: known labels are {', '.join(self.labels)}")

    def values(self, region: str) -> tuple[int, ...]:
        """The values of the labels that make up a region."""
        return tuple(self.labels[name] for name in self.regions[region])

    def sides(self) -> tuple[str, str] | None:
        """Two labels, or two regions, whose names differ in left and right alone; None where there are none."""
        for names in (self.labels, self.regions):
            known: dict[str, str] = {}
            for name in names:
                unsided, found = _SIDE.subn("", name)
                if found and known.setdefault(unsided.casefold(), name) != name:
                    return known[unsided.casefold()], name
        return None

    def check_mirroring(self, remedy: str) -> None:
        """Raises InputError where names tell sides apart, which mirror images exchange. remedy: what to do instead."""
        if pair := self.sides():
            raise InputError(f"{pair[0]} and {pair[1]} name sides, which a mirror image exchanges: {remedy}")


GLIOMA = LabelScheme(labels=LABELS, regions=REGIONS)

# after treatment: the cavity is no part of the tumour
POST_TREATMENT = LabelScheme(labels={**LABELS, "RC": 4}, regions={**REGIONS, "RC": ("RC",)})
PEDIATRIC = LabelScheme(
    labels={"ET": 1, "NET": 2, "CC": 3, "ED": 4},
    regions={
        **{"WT": ("ET", "NET", "CC", "ED"), "TC": ("ET", "NET", "CC"), "ET": ("ET",)},
        **{"NET": ("NET",), "CC": ("CC",), "ED": ("ED",)},
    },
)

# value in the file -> label of the engine; msd as its dataset.json has it (some tutorials swap its 2 and 3). The labels
# of brats2024 beyond the engine's, and what brats-ped tells apart besides, are in SCHEMES.
CONVENTIONS = {
    "brats2023": {1: 1, 2: 2, 3: 3},
    "brats2021": {1: 1, 2: 2, 4: 3},
    "msd": {1: 2, 2: 1, 3: 3},
    "brats2024": {1: 1, 2: 2, 3: 3},
    "brats-ped": {1: 3, 2: 1, 3: 1, 4: 2},
    "brats-men": {1: 1, 2: 2, 3: 3},
    "brats-met": {1: 1, 2: 2, 3: 3},
    "brats-ssa": {1: 1, 2: 2, 3: 3},
}
# conventions with labels of their own: the values in the file are those of the scheme
SCHEMES = {"brats2024": POST_TREATMENT, "brats-ped": PEDIATRIC}
# cohort, how its cases are named -> what it may follow, with a 4 in any of its label maps and without
_COHORTS = (
    (
        "BraTS 2017 to 2021",
        r"brats(?:20)?(?:1[7-9]|2[01])(?:_training|_validation)?[-_]",
        ("brats2021",),
        ("brats2021",),
    ),
    ("UPENN-GBM", r"upenn-gbm-\d", ("brats2021",), ("brats2021",)),
    ("UCSF-PDGM", r"ucsf-pdgm-\d", ("brats2021",), ("brats2021",)),
    ("BraTS-GLI", r"brats-gli-\d", ("brats2024",), ("brats2023",)),
    (
        "BraTS-PED",
        r"brats-ped-\d",
        ("brats-ped",),
        ("brats2023", "brats-ped"),
    ),  # the release of 2023 has no 4 and other values
    ("BraTS-MEN", r"brats-men-\d", (), ("brats-men",)),
    ("BraTS-MET", r"brats-met-\d", ("brats2024",), ("brats-met",)),  # with cavities since 2025
    ("BraTS-SSA", r"brats-ssa-\d", (), ("brats-ssa",)),
)


def values_of(convention: str) -> frozenset[int]:
    """The label values that a file in `convention` may hold."""
    return frozenset(SCHEMES[convention].labels.values() if convention in SCHEMES else CONVENTIONS[convention])


def convention_with(labels: Mapping[str, int]) -> str:
    """The convention whose names and values are exactly these, the engine's own before others; '' for none."""
    schemes = {"brats2023": GLIOMA, **SCHEMES}
    return next((convention for convention, scheme in schemes.items() if scheme.labels == dict(labels)), "")


def cohort_of(name: str) -> str:
    """The cohort that the name of a case or a file tells, such as 'BraTS-GLI', or ''."""
    return next((cohort for cohort, pattern, *_ in _COHORTS if re.match(pattern, name, re.IGNORECASE)), "")


def find_convention(values: Iterable[float], name: str = "") -> str:
    """The convention of label maps that hold `values` (0 is ignored), of the cohort that `name` (of a case) tells.

    Without any label all conventions agree, and the answer is the engine's own. Raises InputError where values and
    name leave a choice, where the values fit no convention, or are not whole numbers.
    """
    found = {float(v) for v in values} - {0.0}
    broken = sorted(str(v) for v in found if not v.is_integer())
    if broken:
        raise InputError(f"label values {', '.join(broken[:8])} are not whole numbers; expected a label map")
    labels = sorted(int(v) for v in found)
    if not labels:
        return "brats2023"
    fitting = [convention for convention in CONVENTIONS if values_of(convention).issuperset(labels)]
    if not fitting:
        raise InputError(f"label values {labels[:8]} fit no known convention: {_describe()}")
    for cohort, _pattern, with_4, without_4 in _COHORTS:
        if cohort == cohort_of(name):
            told = [c for c in (with_4 if 4 in labels else without_4) if c in fitting]
            if len(told) == 1:
                return told[0]
            fitting = told or fitting
    raise InputError(
        f"label values {labels} fit several conventions ({', '.join(fitting)}), which give them "
        "different meanings; say which one the file follows"
    )


def to_standard(label_map: np.ndarray, convention: str) -> np.ndarray:
    """A label map of a convention in the engine's labels 0 to 3.

    Args:
        label_map: of any shape.
        convention: a name of CONVENTIONS.

    Returns:
        Of the same shape, uint8.

    Raises:
        InputError: for an unknown convention, a value outside it, or a value that is not a whole number.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"unknown label convention {convention!r}; known are {_describe()}")
    try:
        return renumber(label_map, CONVENTIONS[convention])
    except InputError as error:
        raise InputError(f"{error} in convention {convention!r}: {_describe()}") from None


def renumber(label_map: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """A label map with other numbers for its labels; 0 stays 0.

    Args:
        label_map: of any shape.
        mapping: value -> value of the result.

    Returns:
        Of the same shape, uint8.

    Raises:
        InputError: for a value that `mapping` does not have.
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
    schemes = {convention: SCHEMES.get(convention, GLIOMA) for convention in CONVENTIONS}
    parts = []
    for convention, mapping in CONVENTIONS.items():
        own = {v: v for v in values_of(convention)} if convention in SCHEMES else mapping
        names = {label: name for name, label in schemes[convention].labels.items()}
        parts.append(f"{convention}: " + ", ".join(f"{value} {names[own[value]]}" for value in sorted(own)))
    return "; ".join(parts)
