"""`python Testing/benchmarks/missing_modalities.py DATASET ... --model 0 MODEL ...`: Dice with modalities missing.

Each held-out case (held_out.py) is segmented with all modalities, with each set that lacks one, and with t1c and t2f
alone, as a case that comes without them is. Writes results/missing_modalities.json: for each set of what is missing the
mean Dice of WT, TC and ET on the cases' own grids, which is what a manifest's `incomplete` holds (cases.incomplete).
"""

from __future__ import annotations

import argparse

import numpy as np
from held_out import add_arguments, held_out_cases
from measure import describe, print_table, progress, write_results

REGIONS = ("WT", "TC", "ET")
KEPT_ALONE = ("t1c", "t2f")


def main() -> None:
    import torch
    from segmamba.cases.case import load_case, load_label_map
    from segmamba.cases.labels import to_regions
    from segmamba.evaluation.metrics import dice
    from segmamba.prediction.segment import segment

    parser = argparse.ArgumentParser(description="Dice with modalities missing.")
    add_arguments(parser)
    parser.add_argument("--name", default="missing_modalities", help="of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for fold, model, dataset, entry in held_out_cases(options):
        manifest = model.manifest
        modalities = manifest.preprocess.modalities
        for absent in [(), *((m,) for m in modalities), tuple(m for m in modalities if m not in KEPT_ALONE)]:
            progress(f"fold {fold}, {entry.id} without {', '.join(absent) or 'nothing'}")
            present = tuple(m for m in modalities if m not in absent)
            sources = {m: dataset.sources(entry)[m] for m in present}
            case = load_case(sources, entry.id, present)
            result = segment(case, model.network, manifest.preprocess, manifest.inference, absent=absent)
            ours = to_regions(result.label_map, manifest.scheme)
            label = load_label_map(dataset.path(entry.label), dataset.renumbering, case)
            truth = to_regions(label, manifest.scheme)
            scores = [round(dice(ours[region], truth[region]), 4) for region in REGIONS]
            found.setdefault("+".join(absent), {})[entry.id] = scores
    rows = {absent: np.mean(list(cases.values()), axis=0).round(4).tolist() for absent, cases in found.items()}
    table = [[absent or "nothing", *(f"{v:.3f}" for v in mean)] for absent, mean in rows.items()]
    print_table("mean Dice", ("missing", *REGIONS), table)
    write_results(options.name, {**describe(), "regions": REGIONS, "mean_dice": rows, "cases": found})


if __name__ == "__main__":
    main()
