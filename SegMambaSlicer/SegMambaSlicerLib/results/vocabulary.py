"""The structures of a glioma: their names, colours and codes, and how labels and regions make each other up.

Labels are those of the engine (1 NCR, 2 ED, 3 ET) and do not overlap. Regions do: WT holds TC, TC holds ET.

Codes are those of Slicer's own terminology "Segmentation category and type - DICOM master list". It has neither
"enhancing" nor "tumor core", so each structure has a type of its own, and the segment's name says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..i18n import _

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
MODES = {"labels": tuple(LABELS), "regions": tuple(REGIONS)}

_CONTEXT = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^49755003^Morphologically Altered Structure"
_ANATOMY = "Anatomic codes - DICOM master list"
_BRAIN = "SCT^12738006^Brain"


@dataclass(frozen=True)
class Structure:
    """One label or region. `color` is RGB, 0 to 1; `code` the SNOMED CT type with its meaning."""

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str]

    @property
    def terminology(self) -> str:
        """The entry as Slicer writes it into the segment's tag (context, category, type, modifier, anatomy)."""
        kind = "SCT^{}^{}".format(*self.code)
        return "~".join((_CONTEXT, _CATEGORY, kind, "^^", _ANATOMY, _BRAIN, "^^"))


def structure(segmentId: str) -> Structure:
    """What `segmentId` (NCR, ED, ET, WT, TC) stands for, with its name in the user's language."""
    return {
        "NCR": Structure(_("Necrotic core (NCR)"), (0.85, 0.25, 0.25), ("6574001", "Necrosis")),
        "ED": Structure(_("Edema (ED)"), (0.30, 0.75, 0.35), ("79654002", "Edema")),
        "ET": Structure(_("Enhancing tumor (ET)"), (0.98, 0.85, 0.25), ("108369006", "Neoplasm")),
        "WT": Structure(_("Whole tumor (WT)"), (0.30, 0.75, 0.35), ("4147007", "Mass")),
        "TC": Structure(_("Tumor core (TC)"), (0.85, 0.25, 0.25), ("86049000", "Neoplasm, Primary")),
    }[segmentId]
