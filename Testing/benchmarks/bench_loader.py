"""`make bench-loader`: seconds of one core for a training patch, for each augmentation set; nothing is trained.

Beside a GPU a worker reads a box of a case as it is stored, and the GPU makes a batch of boxes; on a CPU one core does
both. Then cores beside one GPU, from the seconds measured here: all cores but one read, batches of two, a step of
0.25 s, handed out as torch's DataLoader does; the share of the time in which the GPU would wait.
Seconds are those of the process, which others on the machine do not lengthen. Writes results/loader.json.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from measure import HERE, describe, print_table, progress, write_results

CONFIG = HERE.parents[1] / "Training" / "configs" / "segmamba.toml"
SETS = ("none", "released", "paper", "segmamba")
CORES, AHEAD = (4, 16), 4  # beside a GPU; batches that each worker may have waiting (training.loop)
BATCH, STEP, STEPS = 2, 0.25, 2000  # patches and seconds of a step of the GPU


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of the training's data path, and what they mean for a GPU.")
    parser.add_argument("--rounds", type=int, default=12, help="patches of each set; means are shown, for few are dear")
    parser.add_argument("--patch", type=int, default=128, help="side of the patch at 1 mm")
    options = parser.parse_args()
    facts = describe()
    with TemporaryDirectory() as folder:
        rows = _measure(Path(folder), options.rounds, options.patch)
    facts["loader"] = {"patch": options.patch, "spacing_mm": 1.0, "modalities": 4, "rows": rows}
    cells = [
        [
            row["set"],
            f"{mean(row['read']):.3f}",
            f"{mean(row['made']):.3f}",
            f"{mean(row['stored_mb']):.0f} of {row['batch_mb']:.0f}",
            *(f"{row['stall'][cores]:.1%}" for cores in CORES),
        ]
        for row in rows
    ]
    header = (
        "augmentation",
        "read, s",
        "made on a core, s",
        "MB to the GPU",
        *(f"GPU waits, {n} cores" for n in CORES),
    )
    print_table("a training patch, one core", header, cells)
    write_results("loader", facts)


def share_waited(seconds: Sequence[float], workers: int, batch: int, step: float, steps: int, ahead: int) -> float:
    """Of the time of a training, how much its GPU waits for batches.

    Batch k is made by worker k modulo their number, once batch k - workers x ahead was taken, and taken in order.
    seconds: of a patch, drawn from for each.
    """
    draw = random.Random(0)
    ready: list[float] = []
    taken: list[float] = []
    now = waited = 0.0
    for k in range(steps):
        handed_out = taken[k - workers * ahead] if k >= workers * ahead else 0.0
        begun = max(handed_out, ready[k - workers] if k >= workers else 0.0)
        ready.append(begun + sum(draw.choices(seconds, k=batch)))
        if k >= workers:  # the first batches of a training are not waited for again
            waited += max(0.0, ready[k] - now)
        now = max(now, ready[k])
        taken.append(now)
        now += step
    return waited / now


def _measure(folder: Path, rounds: int, side: int) -> list[dict]:
    """Interleaved: a patch of each set in turn, after one that is not counted."""
    import torch
    from segmamba.datasets.collect import init_dataset
    from segmamba.datasets.phantom import make_phantom, save_phantom
    from segmamba.training.config import load_config
    from segmamba.training.distributed import World
    from segmamba.training.experiment import load_experiment

    torch.set_num_threads(1)
    for seed in range(2):
        progress(f"phantom {seed + 1} of 2")
        case = folder / "cases" / f"phantom-{seed}"
        case.mkdir(parents=True)
        save_phantom(make_phantom(seed, spacing=(1, 1, 1)), case, case.name)
    init_dataset(folder / "cases", convention="brats2023")
    config = load_config(
        CONFIG,
        [
            f"sources.0.dataset={str(folder / 'cases')!r}",
            "sources.0.validate=false",
            f"cache={str(folder / 'cache')!r}",
            f"patch=[{side}, {side}, {side}]",
        ],
    )
    experiments = {
        name: load_experiment(replace(config, augment=replace(config.augment, set=name)), World()) for name in SETS
    }
    rows = {name: {"set": name, "read": [], "made": [], "stored_mb": []} for name in SETS}
    for index in range(rounds + 1):
        for name, experiment in experiments.items():
            start = time.process_time()
            sample = experiment.samples[index]
            middle = time.process_time()
            batch = experiment.samples.augmentation.make_batch([sample])
            end = time.process_time()
            if index:
                rows[name]["read"].append(middle - start)
                rows[name]["made"].append(end - middle)
                rows[name]["stored_mb"].append(megabytes(sample))
            rows[name]["batch_mb"] = megabytes(batch)
        progress(f"round {index} of {rounds}")
    for row in rows.values():
        row["stall"] = {n: share_waited(row["read"], n - 1, BATCH, STEP, STEPS, AHEAD) for n in CORES}
    return list(rows.values())


def megabytes(tensors: dict) -> float:
    return sum(getattr(tensor, "nbytes", 0) for tensor in tensors.values()) / 1e6


if __name__ == "__main__":
    main()
