"""One process of `bench.py`: one forward pass of one network on the CPU. Prints JSON.

`released` runs through segmamba.prediction.windows.predict, as every case does, its softmax and entropy included, once
as the engine would have it and once with all its convolutions by oneDNN; the others are called directly, in the memory
format that was the faster one at half the side, and what they free is kept as well. The parent reads this process's
peak memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import peers
import torch
from segmamba.models.specs import InferenceSpec
from segmamba.networks import transposed, winograd
from segmamba.prediction import memory
from segmamba.prediction.windows import predict

ENGINE, ONEDNN, DIRECT = "engine", "oneDNN alone", "direct"
_LEAST = 64  # side of a trial: on fewer voxels some of the networks end at one


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("way", choices=(ENGINE, ONEDNN, DIRECT))
    parser.add_argument("size", type=int)
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way == ONEDNN:
        winograd.fits = transposed.fits = lambda inputs, conv: False
    form = "engine"
    if options.way == DIRECT:
        half = max(_LEAST, options.size // 2)
        form = min(peers.FORMATS, key=lambda name: _warm_seconds(_directly(options.network, half, name)))
        run = _directly(options.network, options.size, form)
    else:
        network, image = peers.build(options.network, options.size).eval(), _image(options.size)
        spec = InferenceSpec(window=(options.size,) * 3, bf16=False)
        predict(network, image[:, :32, :32, :32].contiguous(), spec)  # loads or compiles the kernels

        def run() -> object:
            return predict(network, image, spec)

    seconds, cpu_s = _seconds(run)
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "format": form}))


def _directly(name: str, size: int, form: str) -> Callable[[], object]:
    """A pass of a network in one of the two memory formats."""
    network = peers.build(name, size).eval().to(memory_format=peers.FORMATS[form])
    batch = _image(size)[None].contiguous(memory_format=peers.FORMATS[form])

    def run() -> object:
        with memory.kept():  # as the engine has it
            return network(batch)

    return run


def _image(size: int) -> torch.Tensor:
    return torch.randn(4, *(size,) * 3, generator=torch.Generator().manual_seed(1))


def _warm_seconds(function: Callable[[], object]) -> float:
    """Of the second call: the first one chooses and compiles oneDNN's kernels, for whichever format it is."""
    function()
    return _seconds(function)[0]


def _seconds(function: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the CPU, which other work on the machine disturbs less."""
    start, before = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - before


if __name__ == "__main__":
    main()
