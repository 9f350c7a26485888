"""InstanceNorm3d without parameters or running statistics, eps 1e-5, and what follows it in SegMamba's blocks.

On the CPU torch (2.13) gets it wrong in two ways, so it is written here:
- F.instance_norm turns channels-last tensors round and back, and for a batch of one its gradient is wrong where the
  incoming gradient is channels last, as behind a convolution in that layout: off by its own size, silently.
- F.group_norm with one channel a group keeps the layout, but squares before it subtracts, in naive float32 sums: at a
  mean of 100 standard deviations it is off by a tenth, at 1000 by hundreds.
F.batch_norm of one sample at a time has neither fault, but its sums are as naive (1e-3 over a million voxels):
good for half precision.

Norm, sum and nonlinearity in passes of their own read and write memory six times or more, and take as long as the
convolutions between them; numba kernels (cpu.py) do them in two passes, forward and backward. They want channels
last and float32 or bfloat16; without numba, elsewhere or in another layout torch's own operations do the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import cpu
from .residual import Residual

__all__ = ["IDENTITY", "RELU", "InstanceNorm", "Residual", "instance_norm", "norm_act", "use_instance_norm"]

RELU = 0.0  # slopes of nonlinearities below 0
IDENTITY = 1.0
_GRID = (2, 3, 4)


def instance_norm(x: Tensor) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1: (B, C, D, H, W), in x's layout on the CPU."""
    return norm_act(x, slope=IDENTITY)


def norm_act(
    x: Tensor,
    *,
    slope: float,
    residual: Tensor | None = None,
    residual_at: Residual = Residual.NONE,
    reuse: bool = False,
) -> Tensor:
    """The instance norm of x with what follows it in one: a nonlinearity, and a sum with a residual.

    Args:
        x: (B, C, D, H, W), floating point.
        slope: of the nonlinearity below 0; RELU and IDENTITY are the ends of its range.
        residual: of x's shape; given where `residual_at` is not NONE, and only there.
        residual_at: where it is added.
        reuse: x is not needed any more, and may be overwritten where no gradient is asked for.

    Returns:
        (B, C, D, H, W), in the wider of the two dtypes.
    """
    assert (residual is None) == (residual_at is Residual.NONE)
    if residual is not None and residual.dtype != x.dtype:  # mixed precision: as torch's sum would have it
        wide = torch.promote_types(x.dtype, residual.dtype)
        x, residual = x.to(wide), residual.to(wide)
    if cpu.fits(x, residual):
        return cpu.norm_act(x, residual, residual_at, slope, reuse=reuse)
    y = _norm(x)
    if residual is not None and residual_at is Residual.BEFORE_ACT:
        y = y + residual
    if residual is not None and residual_at is Residual.NORMED_BEFORE_ACT:
        y = y + _norm(residual)
    if slope != IDENTITY:
        y = F.relu_(y) if slope == RELU else F.leaky_relu_(y, slope)
    if residual is not None and residual_at is Residual.AFTER_ACT:
        y = y + residual
    return y


def _norm(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return F.instance_norm(x, eps=cpu.EPS)
    if x.dtype in (torch.float32, torch.float64):
        return _InstanceNorm.apply(x)
    samples = [F.batch_norm(sample, None, None, training=True, eps=cpu.EPS) for sample in x.split(1)]
    return samples[0] if len(samples) == 1 else torch.cat(samples)


class _InstanceNorm(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps), by torch's pairwise sums.

    With g the gradient of y:

    dx = (g - mean(g) - y mean(g y)) / sqrt(variance + eps).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x.mean(_GRID, keepdim=True)
        y = x - mean
        scale = torch.rsqrt((y * y).mean(_GRID, keepdim=True) + cpu.EPS)
        ctx.save_for_backward(x, mean, scale)  # not y: what follows goes on in place
        return y.mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, mean, scale = ctx.saved_tensors
        y = (x - mean).mul_(scale)
        along = (g * y).mean(_GRID, keepdim=True)
        return torch.addcmul(g - g.mean(_GRID, keepdim=True), y, along, value=-1).mul_(scale)


class InstanceNorm(nn.Module):
    """The function `instance_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return instance_norm(x)


class AffineInstanceNorm(nn.Module):
    """The instance norm, then a factor and a summand a channel: those of an affine nn.InstanceNorm3d."""

    def __init__(self, norm: nn.InstanceNorm3d):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return instance_norm(x) * self.weight[:, None, None, None] + self.bias[:, None, None, None]


def use_instance_norm(module: nn.Module) -> nn.Module:
    """Puts `InstanceNorm`, or `AffineInstanceNorm`, in place of every nn.InstanceNorm3d below `module`."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm3d):
                setattr(parent, name, AffineInstanceNorm(child) if child.affine else InstanceNorm())
    return module
