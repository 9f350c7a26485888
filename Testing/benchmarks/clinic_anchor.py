"""`python Testing/benchmarks/clinic_anchor.py MODEL --work WORK`: what would patients as anchor have told the gate?

The rows of clinic_curve.py below WORK were scored on cases of OTHERs that nobody sent, for what was forgotten. Here
these stand as the anchor set, in place of phantoms: the gate's own criteria on their Dice, for every candidate and
every share of the way to the fine-tuned one. False spots were not kept, and count as unchanged; nothing is asked of
local cases. Writes results/clinic_anchor.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from clinic_cases import BRATS_2021
from clinic_curve import REGIONS
from clinic_plan import ROW, read_rows
from measure import describe, print_table, write_results
from segmamba.learning.gate.rules import Criteria, judge
from segmamba.learning.gate.scores import Scored, kept_mm3
from segmamba.models.package import load_package

INSIDE = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}


def main() -> None:
    parser = argparse.ArgumentParser(description="The gate's verdict, had the held-out patients been its anchor.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/clinic"), help="of clinic_curve.py")
    options = parser.parse_args()
    before = json.loads((options.work / "before" / ROW).read_text(encoding="utf-8"))
    spots = kept_mm3((load_package(options.model),))
    volumes = {
        case: read_volumes(options.work / "before" / "others-truths" / f"{case}-seg.nii.gz")
        for case in before["others"]["cases"]
    }
    champion = as_scored(before, volumes)
    rows = []
    for name, found in candidates(options.work):
        judged = judge((champion, as_scored(found, volumes)), ({}, {}), spots, Criteria())
        checks = [check for check in judged.checks if check.name != "local Dice"]
        failed = {check.name: check.text for check in checks if not check.holds}
        refused = any(check.otherwise == "refuse" for check in checks if not check.holds)
        verdict = "worse" if refused else "not worse" if failed else "no loss"
        changes = [np.mean(found[part]["mean"]) - np.mean(before[part]["mean"]) for part in ("unseen", "others")]
        rows.append({"candidate": name, "changes": changes, "verdict": verdict, "failed": failed})
    write_results("clinic_anchor", {**describe(), "anchor": list(volumes), "rows": rows})
    table = [[row["candidate"], *(f"{c:+.3f}" for c in row["changes"]), row["verdict"]] for row in rows]
    print_table("patients as anchor", ("candidate", "unseen", "others", "verdict"), table)


def candidates(work: Path) -> Iterator[tuple[str, dict]]:
    """(name, scores) of every sound candidate below a work folder, and of its further shares."""
    for row in read_rows(work):
        if row["damage"] == "sound":
            name = f"order {row['order']}, {row['sent']} sent"
            yield f"{name}, share {row['share']:g}", row
            yield from ((f"{name}, share {part} tried", scores) for part, scores in row["shares"].items())


def read_volumes(label: Path) -> dict[str, float]:
    """Region -> true mm3."""
    image = nib.load(label)
    voxels, voxel = np.asarray(image.dataobj), float(abs(np.linalg.det(image.affine[:3, :3])))
    inside = {region: np.isin(voxels, [BRATS_2021[name] for name in names]) for region, names in INSIDE.items()}
    return {region: float(np.count_nonzero(mask) * voxel) for region, mask in inside.items()}


def as_scored(found: dict, volumes: dict[str, dict[str, float]]) -> dict[str, Scored]:
    """Scores as the gate takes them, of the others."""
    scored = {}
    for case, values in found["others"]["cases"].items():
        dice = dict(zip(REGIONS, values))
        scores = {"dice": dice, "lesion_dice": dice, "false_positives": dict.fromkeys(REGIONS, 0.0)}
        scored[case] = Scored(scores, True, 1.0, volumes[case])
    return scored


if __name__ == "__main__":
    main()
