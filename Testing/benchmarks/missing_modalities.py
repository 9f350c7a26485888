"""`python Testing/benchmarks/missing_modalities.py CASES MODEL0 MODEL1 ...`: Dice with modalities missing.

CASES is a data set with folds (`segmamba dataset split --folds`), MODELk a package that has not seen fold k. Each case
is segmented with all modalities, with each set that lacks one, and with t1c and t2f alone, as a case that comes without
them is. Writes results/missing_modalities.json: for each set of what is missing the mean Dice of WT, TC and ET on
the cases' own grids, which is what a manifest's `incomplete` holds (segmamba.cases.incomplete).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measure import describe, print_table, progress, write_results

REGIONS = ("WT", "TC", "ET")
KEPT_ALONE = ("t1c", "t2f")


def main() -> None:
    import torch
    from segmamba.cases.case import load_case, load_label_map
    from segmamba.cases.labels import to_regions
    from segmamba.datasets.manifest import read_dataset
    from segmamba.datasets.split import validation_cases
    from segmamba.evaluation.metrics import dice
    from segmamba.models.package import load_package
    from segmamba.prediction.segment import segment

    parser = argparse.ArgumentParser(description="Dice with modalities missing.")
    parser.add_argument("cases", type=Path)
    parser.add_argument("models", type=Path, nargs="+", help="model of fold 0, of fold 1, ...")
    parser.add_argument("--name", default="missing_modalities", help="of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = read_dataset(options.cases)
    found: dict[str, dict[str, list[float]]] = {}
    for fold, folder in enumerate(options.models):
        model = load_package(folder)
        manifest = model.manifest
        modalities = manifest.preprocess.modalities
        for entry in validation_cases(dataset, fold):
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
