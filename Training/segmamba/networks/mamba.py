"""ToM, the tri-orientated Mamba: one input projection, up to three scans, one output projection.

Shape legend: B batch, L tokens, C channels, d inner channels (= 2 C), N states, R rank of dt,
S slices (the depth of the grid), P tokens in a slice (L = S P).

    tokens_BLC -> in_proj -> [x | z]_BL2d
      forward  (""):   tokens as they are                               s0p0 s0p1 .. s1p0 ..
      reverse  ("_b"): tokens back to front                             .. s1p0 .. s0p1 s0p0
      slices   ("_s"): for each place in the plane, through the slices  s0p0 s1p0 .. s0p1 ..
      each: causal conv, SiLU -> u; x_proj -> r, B, C; scan; gate by SiLU(z); put back in place
    sum over directions -> out_proj -> tokens_BLC

Mamba: Gu and Dao 2023 (arXiv 2312.00752), algorithm 2. Directions: Xing et al. 2024 (arXiv 2401.13560), figure 3b.
Parameter names are those of the published checkpoints: the direction's letter stands in the middle of
``A_b_log`` and at the end elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmamba.networks.scan import causal_conv1d_silu, keeps_order, selective_scan

# direction -> the letter in the names of its parameters
DIRECTIONS = {"forward": "", "reverse": "_b", "slices": "_s"}
D_STATE = 16
D_CONV = 4
EXPAND = 2


class TriMamba(nn.Module):
    """ToM over the tokens of one grid.

    channels: C. directions: which of DIRECTIONS are scanned, each with its own conv1d, x_proj, dt_proj, A and D.
    """

    def __init__(self, channels: int, directions: tuple[str, ...] = tuple(DIRECTIONS)):
        super().__init__()
        self.directions = directions
        d = EXPAND * channels
        self.dt_rank = math.ceil(channels / 16)
        self.in_proj = nn.Linear(channels, 2 * d, bias=False)
        for direction in directions:
            self._add_direction(DIRECTIONS[direction], d)
        self.out_proj = nn.Linear(d, channels, bias=False)

    def _add_direction(self, letter: str, d: int) -> None:
        """Parameters of one direction, initialised as Mamba does (published code: no dt bias for "_b" and "_s").

        They are called A_log, D, conv1d, x_proj and dt_proj, with the letter at the end but for A_b_log and A_s_log.
        """
        states = torch.arange(1, D_STATE + 1, dtype=torch.float32)
        setattr(self, f"A{letter}_log", nn.Parameter(torch.log(states).repeat(d, 1)))
        setattr(self, f"D{letter}", nn.Parameter(torch.ones(d)))
        setattr(self, f"conv1d{letter}", nn.Conv1d(d, d, D_CONV, groups=d, padding=D_CONV - 1))
        setattr(self, f"x_proj{letter}", nn.Linear(d, self.dt_rank + 2 * D_STATE, bias=False))
        dt_proj = nn.Linear(self.dt_rank, d)
        nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = torch.exp(torch.rand(d) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        with torch.no_grad():
            dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
        setattr(self, f"dt_proj{letter}", dt_proj)

    def forward(self, tokens_BLC: Tensor, slices: int) -> Tensor:
        """tokens_BLC: (B, L, C) in C order of the grid; slices: S, the grid's depth, a divisor of L. -> (B, L, C)."""
        xz_BLd = self.in_proj(tokens_BLC)
        total = None
        for direction in self.directions:
            total = self._scan(xz_BLd, direction, slices, onto=total)
        return self.out_proj(total)

    def _scan(self, xz_BLd: Tensor, direction: str, slices: int, onto: Tensor | None) -> Tensor:
        """One direction, (B, L, 2d) -> (B, L, d), gated, added to what the others gave (onto)."""
        letter = DIRECTIONS[direction]
        order: Any = {"order": direction, "slices": slices, "walked": not keeps_order(xz_BLd)}
        conv, x_proj, dt_proj = (getattr(self, name + letter) for name in ("conv1d", "x_proj", "dt_proj"))
        x, z = xz_BLd.chunk(2, dim=-1)
        u = causal_conv1d_silu(x, conv.weight, conv.bias, **order)
        r, B, C = x_proj(u).split([self.dt_rank, D_STATE, D_STATE], dim=-1)
        delta = F.linear(r, dt_proj.weight)  # its bias goes into the scan, where softplus is taken in fp32
        A = -torch.exp(_at_least_float32(getattr(self, f"A{letter}_log")))
        D = _at_least_float32(getattr(self, f"D{letter}"))
        return selective_scan(u, delta, A, B, C, D, _at_least_float32(dt_proj.bias), z, onto=onto, **order)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def parameters_without_decay(module: nn.Module) -> set[str]:
    """Names of the parameters that stay fp32 and out of weight decay: A, D and the dt bias."""
    names = set()
    for name, _ in module.named_parameters():
        leaf = name.rpartition(".")[2]
        if (
            (leaf.startswith("A") and leaf.endswith("_log"))
            or leaf in {"D", "D_b", "D_s"}
            or (".dt_proj" in f".{name}" and leaf == "bias")
        ):
            names.add(name)
    return names
