"""One process of `bench.py`: steps of the training that made `quick`, on two patches of noise. Prints JSON.

The training's own step: loss, gradient, optimizer, averaged weights, in bfloat16 where the CPU multiplies that. What
makes patches is not in it. THP_MEM_ALLOC_ENABLE is the parent's to set.
"""

from __future__ import annotations

import argparse
import json
import time
from types import SimpleNamespace

import torch
from measure import HERE
from segmamba.networks.choice import build
from segmamba.networks.presets import preset_config
from segmamba.training.config import load_config
from segmamba.training.distributed import World
from segmamba.training.stepper import Stepper

CONFIG = HERE.parents[1] / "Training" / "configs" / "quick.toml"
NESTED = (2, 1, 3)  # the head that quick has


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("steps", "side", "threads"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = load_config(CONFIG)
    network_config = preset_config("quick", out_channels=len(NESTED))
    network, head = build(network_config), SimpleNamespace(nested=NESTED)
    experiment = SimpleNamespace(network=network, network_config=network_config, inference=head, classes=4)
    stepper = Stepper(config, experiment, World())
    shape = (config.batch, 4, *(options.side,) * 3)
    image, label = torch.randn(shape), torch.randint(0, 4, (shape[0], *shape[2:]))
    shares = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    seconds, cpu_s = [], []
    for number in range(1 + options.steps):  # the first one loads or compiles the kernels
        start, before = time.perf_counter(), time.process_time()
        stepper.step(image, shares, config.optimizer.learning_rate, number)
        if number:
            seconds.append(time.perf_counter() - start)
            cpu_s.append(time.process_time() - before)
    print(json.dumps({"batch": config.batch, "bf16": stepper.autocast, "seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
