"""The definition itself: a float64 loop over the tokens. Slow, and the oracle of the tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unavailable_reason(device: torch.device) -> str:
    """See `SelectiveScan.unavailable_reason`."""
    return "this device has no float64" if device.type == "mps" else ""


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, z: Tensor | None
) -> Tensor:
    """See `SelectiveScan.selective_scan`."""
    dtype = u.dtype
    u, delta, A, B, C, D, delta_bias = (x.double() for x in (u, delta, A, B, C, D, delta_bias))
    dt = F.softplus(delta + delta_bias)
    h = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    rows = []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        rows.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
    y = torch.stack(rows, dim=1)
    return (y if z is None else y * F.silu(z.double())).to(dtype)


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `SelectiveScan.causal_conv1d_silu`."""
    taps = weight.shape[2]
    padded = F.pad(x.double(), (0, 0, taps - 1, 0))
    length = x.shape[1]
    y = bias.double() + sum(weight[:, 0, k].double() * padded[:, k : k + length] for k in range(taps))
    return F.silu(y).to(x.dtype)
