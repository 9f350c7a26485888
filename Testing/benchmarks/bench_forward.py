"""One process of `bench.py`: one forward pass of one network on the CPU. Prints JSON.

`released` runs through segmamba.prediction.windows.predict, as every case does, its softmax and entropy included; the
others are called directly. The parent reads this process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import time

import peers
import torch
from segmamba.models.specs import InferenceSpec
from segmamba.prediction.windows import predict


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("format", choices=("engine", *peers.FORMATS))
    parser.add_argument("size", type=int)
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = peers.build(options.network, options.size).eval()
    image = torch.randn(4, *(options.size,) * 3, generator=torch.Generator().manual_seed(1))
    if options.format == "engine":
        spec = InferenceSpec(window=(options.size,) * 3, bf16=False)
        predict(network, image[:, :32, :32, :32].contiguous(), spec)  # loads or compiles the scan's kernels
        start = time.perf_counter()
        predict(network, image, spec)
    else:
        chosen = peers.FORMATS[options.format]
        network, batch = network.to(memory_format=chosen), image[None].contiguous(memory_format=chosen)
        start = time.perf_counter()
        network(batch)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "parameters": peers.parameters(network)}))


if __name__ == "__main__":
    main()
