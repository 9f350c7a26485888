"""`python Testing/benchmarks/network_comparison.py DATASET ... --network NAME FOLD MODEL --network NAME FOLD MODEL`...

Networks trained alike (Training/configs/quick-comparison.toml says how), each on the folds that it has not seen: Dice,
HD95 and false spots of every region, without post-processing, and how they differ from the first network's, case by
case. Beside it parameters, and the CPU seconds of a training step of each, interleaved, in one thread.

Writes results/network_comparison.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
from cross_validation import REGIONS, scores_of, segment_case, summarize
from held_out import held_out_cases
from measure import describe, print_table, progress, write_results
from segmamba.models.specs import PostprocessSpec

ROUNDS = 5
PATCH, BATCH = (64, 64, 64), 2


def main() -> None:
    import torch
    from segmamba.models.package import load_package

    parser = argparse.ArgumentParser(description="Scores of networks that were trained alike, and what a step costs.")
    parser.add_argument("datasets", type=Path, nargs="+", help="data sets with folds, each a cohort")
    parser.add_argument(
        "--network",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "FOLD", "MODEL"),
        help="a package of network NAME that has not seen the cases of that fold; repeat",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    models: dict[str, list[tuple[str, str]]] = {}
    for name, fold, folder in options.network:
        models.setdefault(name, []).append((fold, folder))
    scores, cohorts = {}, {}
    for name, of_folds in models.items():
        progress(name)
        asked = SimpleNamespace(datasets=options.datasets, model=of_folds, mirrorings=0, keep=None)
        held = [segment_case(one, asked) for one in held_out_cases(asked)]
        scores[name] = {case.id: scores_of(case, PostprocessSpec()) for case in held}
        cohorts |= {case.id: case.cohort for case in held}
    first = next(iter(models))
    packages = {name: load_package(of_folds[0][1]) for name, of_folds in models.items()}
    steps = step_seconds(packages)
    facts = {}
    for name, package in packages.items():
        seen = {case: cohorts[case] for case in scores[name]}
        facts[name] = {
            "parameters": sum(p.numel() for p in package.network.parameters()),
            "step_seconds": steps[name],
            "mean": summarize(scores[name], seen)["all"],
            "against_first": against(scores[name], scores[first]),
            "cases": scores[name],
        }
    rows = [
        [
            name,
            f"{entry['parameters'] / 1e6:.1f} M",
            f"{median(entry['step_seconds']) / median(steps[first]):.2f}",
            *(f"{entry['mean'][region]['dice'][0]:.3f}" for region in REGIONS),
            *("{:+.3f} ({:+.3f} to {:+.3f})".format(*entry["against_first"][region]) for region in REGIONS),
        ]
        for name, entry in facts.items()
    ]
    header = ("network", "size", "step", *(f"Dice {r}" for r in REGIONS), *(f"{r} against {first}" for r in REGIONS))
    print_table("networks trained alike", header, rows)
    write_results("network_comparison", {**describe(), "first": first, "networks": facts})


def against(scores: dict[str, dict], base: dict[str, dict]) -> dict[str, list[float]]:
    """Region -> the mean of the cases' differences of Dice, with a 95 % bootstrap interval."""
    from segmamba.evaluation.confidence import mean_interval

    found = {}
    for region in REGIONS:
        differences = np.array([scores[case][region]["dice"] - base[case][region]["dice"] for case in scores])
        low, high = mean_interval(differences, rng=np.random.default_rng(2023))
        found[region] = [round(float(v), 4) for v in (differences.mean(), low, high)]
    return found


def step_seconds(packages: dict) -> dict[str, list[float]]:
    """CPU seconds of forward and backward pass in the precision of a training, the first round left out."""
    import torch
    from segmamba.training.optimize import HeadLoss, uses_bf16

    generator = torch.Generator().manual_seed(0)
    image = torch.randn(BATCH, 4, *PATCH, generator=generator).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.randint(4, (BATCH, *PATCH), generator=generator)
    shares = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    bf16 = uses_bf16(SimpleNamespace(precision="bf16", patch=PATCH), "cpu")
    seconds: dict[str, list[float]] = {name: [] for name in packages}
    for number in range(ROUNDS + 1):
        for name, package in packages.items():
            network = package.network.train().requires_grad_().to(memory_format=torch.channels_last_3d)
            loss_of = HeadLoss("dice_ce", package.manifest.inference.nested)
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = network(image)
            loss_of(logits.float(), shares).backward()
            if number:
                seconds[name].append(round(time.process_time() - start, 3))
    return seconds


if __name__ == "__main__":
    main()
