"""What kernels share that take a convolution's place in float32 without gradients: when they may, and how they read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmamba.networks.scan import choose_backend


def kernels_can_take(inputs: Sequence[Tensor], conv: nn.Module) -> bool:
    """Whether all is float32 on a CPU for which numba compiles, and nobody asks for a gradient."""
    tensors = (*inputs, *conv.parameters())
    if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
        return False
    if torch.is_autocast_enabled("cpu") or choose_backend("cpu") != "cpu":
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


def rows_of_channels(x: Tensor) -> Tensor:
    """(B, C, D, H, W), channels last -> (B, N, C), the same memory."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)
