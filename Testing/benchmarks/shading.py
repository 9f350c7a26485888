"""`python Testing/benchmarks/shading.py DATASET ... --model 0 MODEL ...`: what the brightness of coils does.

Each held-out case (held_out.py) is segmented as it is, and as it is cut out of a simulated head with coils
(datasets/phantom/head.py): a brain brighter near the surface and on one side, by some 12 %, alike in all modalities,
with a little noise. Writes results/shading.json: Dice of WT, TC and ET on the cases' own grids.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from held_out import add_arguments, held_out_cases
from measure import describe, print_table, progress, write_results

REGIONS = ("WT", "TC", "ET")
SEED = 5


def shaded(case, label):
    """The case out of its heads, and its label map, on the heads' grid."""
    from segmamba.datasets.phantom.head import add_head
    from segmamba.preparation.grids import upright

    images, anywhere = {}, np.any([image > 0 for image in case.images.values()], axis=0)
    for modality, image in case.images.items():
        # one outline, or the heads would differ in size
        brain, affine = upright(np.where(anywhere, np.maximum(image, 1e-3 * image.max()), 0), case.affine)
        head, mask, before = add_head(brain, 1.0, np.random.default_rng(SEED), modality)  # the same coils
        images[modality] = np.where(mask, head, 0).astype(np.float32)
    turned, _ = upright(label, case.affine)
    there = np.zeros(mask.shape, np.uint8)
    there[tuple(slice(start, start + size) for start, size in zip(before, turned.shape))] = turned
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array(before)
    return replace(case, images=images, affine=affine), there


def main() -> None:
    import torch
    from segmamba.cases.case import load_case, load_label_map
    from segmamba.cases.labels import to_regions
    from segmamba.evaluation.metrics import dice
    from segmamba.prediction.segment import segment

    parser = argparse.ArgumentParser(description="Dice with the brightness of coils.")
    add_arguments(parser)
    parser.add_argument("--name", default="shading", help="of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for fold, model, dataset, entry in held_out_cases(options):
        manifest = model.manifest
        case = load_case(dataset.sources(entry), entry.id)
        label = load_label_map(dataset.path(entry.label), dataset.renumbering, case)
        for name, (images, truth) in {"as it is": (case, label), "shaded": shaded(case, label)}.items():
            progress(f"fold {fold}, {entry.id} {name}")
            result = segment(images, model.network, manifest.preprocess, manifest.inference)
            ours, true = (to_regions(labels, manifest.scheme) for labels in (result.label_map, truth))
            found.setdefault(name, {})[entry.id] = [round(dice(ours[r], true[r]), 4) for r in REGIONS]
    rows = {name: np.mean(list(cases.values()), axis=0).round(4).tolist() for name, cases in found.items()}
    print_table("mean Dice", ("images", *REGIONS), [[n, *(f"{v:.3f}" for v in mean)] for n, mean in rows.items()])
    write_results(options.name, {**describe(), "regions": REGIONS, "mean_dice": rows, "cases": found})


if __name__ == "__main__":
    main()
