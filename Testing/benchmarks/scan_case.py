"""The selective scan put to the test: inputs like Mamba's, a pass with gradients, an exact answer, errors.

The plain float64 loop of `reference` is the definition, but at 262,144 tokens its gradients would take tens
of GB. So the exact answer is the chunked form in float64, and `exactness` says how far that is from the loop
on the first tokens of the same input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from segmamba.networks.scan import selective_scan
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))
from scan_inputs import NAMES, doubles, inputs

TOKENS = {"u", "delta", "B", "C", "z"}  # in the network's own precision; A, D and the bias are always float32
LOOP_LENGTH = 2048


def make_inputs(
    length: int, d: int, device: torch.device, dtype: torch.dtype, gate: bool = True
) -> list[Tensor | None]:
    """u, delta, A, B, C, D, delta_bias, z of one sequence, with 16 states."""
    values = inputs(1, length, d, gate=gate)
    return [
        None if x is None else x.to(device, dtype if name in TOKENS else torch.float32)
        for name, x in zip(NAMES, values)
    ]


def passes(function: Callable[..., Tensor], values: list[Tensor | None], **options) -> list[Tensor]:
    """The output, then the gradient of every input, for a fixed weighting of the output."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in values]
    out = function(*leaves, **options)
    return [out.detach(), *torch.autograd.grad(out, [x for x in leaves if x is not None], weights(out))]


def weights(out: Tensor) -> Tensor:
    """What the gradients are taken of: sum(out * weights); 1 or -1, exact in every precision."""
    generator = torch.Generator().manual_seed(7)
    return (torch.randint(0, 2, out.shape, generator=generator) * 2 - 1).to(out)


def exact_scan(values: list[Tensor | None]) -> list[Tensor]:
    """`passes` of the scan in float64."""
    return passes(selective_scan, doubles(values), backend="torch")


def exactness(values: list[Tensor | None]) -> float:
    """Largest error of `exact_scan` against the float64 loop, output and gradients, on the first tokens."""
    start = [x[:, :LOOP_LENGTH] if name in TOKENS and x is not None else x for name, x in zip(NAMES, values)]
    loop = passes(selective_scan, doubles(start), backend="reference")
    return worst(errors(exact_scan(start), loop))


def errors(got: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Largest difference of each pair as a share of the exact one's largest magnitude; NaN stays NaN."""
    return [((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-15)).item() for a, b in zip(got, exact)]


def worst(values: list[float]) -> float:
    """The largest; NaN if there is one."""
    return torch.tensor(values, dtype=torch.float64).max().item()
