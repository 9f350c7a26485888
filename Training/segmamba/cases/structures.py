"""What the structures of a glioma are called, coded and coloured: in DICOM, in pictures and reports, and in Slicer.

The panel has its own table (SegMambaSlicerLib/results/vocabulary.py), on the other side of the boundary; a test holds
the two together. Codes are those of the DICOM master list of segmentation categories and types, which has neither
"enhancing" nor "tumor core": the segment's label says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

CATEGORY = ("49755003", "Morphologically Altered Structure")
ANATOMY = ("12738006", "Brain")


@dataclass(frozen=True)
class Structure:
    """What a label or a region is called, in words, codes and color."""

    name: str
    """In words, in English."""
    color: tuple[float, float, float]
    """RGB, 0 to 1."""
    code: tuple[str, str]
    """SNOMED CT value and meaning."""


STRUCTURES = {
    "NCR": Structure("Necrotic core (NCR)", (0.85, 0.25, 0.25), ("6574001", "Necrosis")),
    "ED": Structure("Edema (ED)", (0.30, 0.75, 0.35), ("79654002", "Edema")),
    "ET": Structure("Enhancing tumor (ET)", (0.98, 0.85, 0.25), ("108369006", "Neoplasm")),
    "WT": Structure("Whole tumor (WT)", (0.30, 0.75, 0.35), ("4147007", "Mass")),
    "TC": Structure("Tumor core (TC)", (0.85, 0.25, 0.25), ("86049000", "Neoplasm, Primary")),
}
