"""When kernels that know float32 and no gradients may take a convolution's place."""

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
