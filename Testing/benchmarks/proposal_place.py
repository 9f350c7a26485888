"""`python Testing/benchmarks/proposal_place.py CLINIC PROPOSALS`: is a moved label map found beside its proposal?

CLINIC is a data set of cases with labels, PROPOSALS a folder of CASE-seg.nii.gz by a model that never saw them, as
clinic_curve.py leaves in WORK/proposals/sound and, of cases that it scores, in WORK/before/unseen-answers. Each label
map is held against its proposal as it is and damaged as by poisoned_corrections.py, by what intake uses. Writes
results/proposal_place.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from clinic_cases import read_cases, read_label
from measure import describe, print_table, write_results
from poisoned_corrections import LABELS
from segmamba.learning.submissions.changes import best_place
from segmamba.learning.submissions.checks import is_moved

DAMAGES = ("sound", "label moved by 15 mm", "label mirrored")


def main() -> None:
    parser = argparse.ArgumentParser(description="Is a moved label map found beside its proposal?")
    parser.add_argument("clinic", type=Path)
    parser.add_argument("proposals", type=Path, nargs="+")
    options = parser.parse_args()
    rows = []
    for case in read_cases(options.clinic):
        found = [path for place in options.proposals if (path := place / f"{case.id}-seg.nii.gz").exists()]
        if not found:
            raise SystemExit(f"no proposal {case.id}-seg.nii.gz in {', '.join(map(str, options.proposals))}")
        proposal = np.asarray(nib.load(found[0]).dataobj)
        label, affine = read_label(case)
        for damage in DAMAGES:
            here, there, away = best_place(proposal, LABELS[damage](label), affine)
            row = {"here": here, "there": there, "away_mm": away}
            row = {name: round(value, 4) for name, value in row.items()}
            rows.append({"case": case.id, "damage": damage, **row, "moved": is_moved(here, there)})
    write_results("proposal_place", {**describe(), "rows": rows})
    table = []
    for damage in DAMAGES:
        moved = [row["moved"] for row in rows if row["damage"] == damage]
        table.append([damage, f"{sum(moved)} of {len(moved)}"])
    print_table("found to be moved", ("the label map", "of them"), table)


if __name__ == "__main__":
    main()
