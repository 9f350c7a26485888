"""Loads the CPU kernels that a training uses, as it is imported: once in the server of processes, for all it starts."""

from segmamba.networks.norm import cpu  # noqa: F401 - which adds its kernels to the table
from segmamba.networks.scan import jit

VARIANTS = {
    "scan forward": [1],
    "scan backward": [1],
    "conv forward": [4],
    "conv backward": [4],
    "norm statistics": [0],
    "norm forward": [0, 1, 2, 3],
    "norm sums": [0, 1, 2],
    "norm backward": [0, 1, 2],
}

for name, variants in VARIANTS.items():
    for variant in variants:
        jit.build(name, variant)
