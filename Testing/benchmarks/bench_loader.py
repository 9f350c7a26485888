"""`make bench-loader`: training patches a second, alone on one core, for each augmentation set; nothing is trained.

A GPU that takes s seconds for a step of b patches waits for nothing while b / s stays under the cores given to workers
times the rate here. Writes results/loader.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from measure import HERE, describe, print_table, progress, write_results

CONFIG = HERE.parents[1] / "Training" / "configs" / "segmamba.toml"
SETS = ("none", "released", "paper", "segmamba")


def main() -> None:
    parser = argparse.ArgumentParser(description="Patches a second of the training's data path.")
    parser.add_argument("--rounds", type=int, default=5, help="patches of each set; medians are shown")
    parser.add_argument("--patch", type=int, default=128, help="side of the patch at 1 mm")
    options = parser.parse_args()
    facts = describe()
    with TemporaryDirectory() as folder:
        rows = _measure(Path(folder), options.rounds, options.patch)
    facts["loader"] = {"patch": options.patch, "spacing_mm": 1.0, "modalities": 4, "rows": rows}
    cells = [[row["set"], f"{median(row['seconds']):.3f}", f"{1 / median(row['seconds']):.1f}"] for row in rows]
    print_table("training patches, one core", ("augmentation", "seconds", "patches/s"), cells)
    write_results("loader", facts)


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
    seconds: dict[str, list[float]] = {name: [] for name in SETS}
    experiments = {
        name: load_experiment(replace(config, augment=replace(config.augment, set=name)), World()) for name in SETS
    }
    for index in range(rounds + 1):
        for name, experiment in experiments.items():
            start = time.perf_counter()
            experiment.samples[index]
            if index:
                seconds[name].append(time.perf_counter() - start)
        progress(f"round {index} of {rounds}")
    return [{"set": name, "seconds": values} for name, values in seconds.items()]


if __name__ == "__main__":
    main()
