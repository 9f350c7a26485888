"""InstanceNorm3d without parameters or running statistics, eps 1e-5, as SegMamba uses it everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def instance_norm(x: Tensor) -> Tensor:
    """(B, C, D, H, W) -> each channel of each sample to mean 0 and variance 1.

    On the CPU torch's instance norm copies channels-last tensors back and forth; its batch norm of one sample at a
    time is the same function without the copies (2x16x64^3: half the time forward, a third backward). It sums
    naively in float32, so the mean is taken off first, by a better sum; as the norm does not see a shift, no
    gradient need pass through that. (The group norm squares before it subtracts: at a mean of 1000 standard
    deviations its results are off by hundreds.)
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last_3d):
        centred = x - x.detach().mean(dim=(2, 3, 4), keepdim=True)
        samples = [F.batch_norm(sample, None, None, training=True) for sample in centred.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)
    return F.instance_norm(x)


class InstanceNorm(nn.Module):
    """`instance_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)


def use_instance_norm(module: nn.Module) -> nn.Module:
    """Puts `InstanceNorm` in place of every nn.InstanceNorm3d below `module`; neither has state."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm3d):
                setattr(parent, name, InstanceNorm())
    return module
