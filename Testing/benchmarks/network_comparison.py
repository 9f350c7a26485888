"""`python Testing/benchmarks/network_comparison.py NAME=RUN_FOLDER,RUN_FOLDER NAME=RUN_FOLDER ...`.

Networks trained alike (Training/configs/quick-comparison.toml says how), each on the folds that its validation has not
seen: Dice and HD95 of every region after the last step, on the cases' own grids without post-processing, and how Dice
differs from that of the first network on the cases that both have. Beside it parameters, and the CPU seconds of
forward and backward pass of a training step, interleaved, in one thread.

Writes results/network_comparison.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
from measure import describe, print_table, write_results

REGIONS = ("WT", "TC", "ET")
ROUNDS = 5
PATCH, BATCH = (64, 64, 64), 2


def main() -> None:
    from segmamba.models.package import load_package

    parser = argparse.ArgumentParser(description="Scores of networks that were trained alike, and what a step costs.")
    parser.add_argument("networks", nargs="+", metavar="NAME=RUN,RUN", help="run folders of its folds")
    options = parser.parse_args()
    runs = {}
    for text in options.networks:
        name, _, folders = text.partition("=")
        runs[name] = [Path(folder) for folder in folders.split(",")]
    first = next(iter(runs))
    cases = {
        name: {case: s for folder in folders for case, s in scored(folder).items()} for name, folders in runs.items()
    }
    packages = {name: load_package(folders[0] / "model") for name, folders in runs.items()}
    steps = step_seconds(packages)
    facts, rows = {}, []
    for name, package in packages.items():
        parameters = sum(p.numel() for p in package.network.parameters())
        facts[name] = {
            "folds": len(runs[name]),
            "parameters": parameters,
            "step_seconds": steps[name],
            "mean": {r: {m: mean(s[r][m] for s in cases[name].values()) for m in ("dice", "hd95")} for r in REGIONS},
            "against_first": against(cases[name], cases[first]),
            "cases": {case: {r: round(s[r]["dice"], 4) for r in REGIONS} for case, s in cases[name].items()},
        }
        rows.append([name, str(len(cases[name])), f"{parameters / 1e6:.1f} M"])
        rows[-1].append(f"{median(steps[name]) / median(steps[first]):.2f}")
        rows[-1] += [f"{facts[name]['mean'][region]['dice']:.3f}" for region in REGIONS]
        rows[-1] += ["{:+.3f} ({:+.3f} to {:+.3f})".format(*facts[name]["against_first"][r]) for r in REGIONS]
    header = (
        "network",
        "n",
        "size",
        "step",
        *(f"Dice {r}" for r in REGIONS),
        *(f"{r} against {first}" for r in REGIONS),
    )
    print_table("networks trained alike", header, rows)
    write_results("network_comparison", {**describe(), "first": first, "networks": facts})


def scored(run: Path) -> dict[str, dict]:
    """Case -> region -> metric -> value, of the run's last validation."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "validation"][-1]["cases"]


def mean(values) -> float:
    return round(float(np.mean(list(values))), 4)


def against(scores: dict[str, dict], base: dict[str, dict]) -> dict[str, list[float]]:
    """Region -> the mean of the cases' differences of Dice, with a 95 % bootstrap interval."""
    from segmamba.evaluation.confidence import mean_interval

    both = [case for case in scores if case in base]
    found = {}
    for region in REGIONS:
        differences = np.array([scores[case][region]["dice"] - base[case][region]["dice"] for case in both])
        low, high = mean_interval(differences, rng=np.random.default_rng(2023))
        found[region] = [round(float(v), 4) for v in (differences.mean(), low, high)]
    return found


def step_seconds(packages: dict) -> dict[str, list[float]]:
    """CPU seconds of forward and backward pass in the precision of a training, the first round left out."""
    import torch
    from segmamba.training.optimize import HeadLoss, uses_bf16

    torch.set_num_threads(1)
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
