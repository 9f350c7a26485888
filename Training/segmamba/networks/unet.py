"""The decoder's blocks: MONAI's UnetrBasicBlock, UnetrUpBlock and UnetOutBlock, by the names of their parameters.

MONAI runs norm, sum and LeakyReLU one after the other and puts two inputs side by side first: together half of the
time of `released` on a CPU. Here norm and what follows are one (norm.norm_act).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from segmamba.networks.conv import convolution, pointwise, side_by_side, transposed_convolution
from segmamba.networks.norm import Residual, norm_act

SLOPE = 0.01  # of LeakyReLU


class ResidualBlock(nn.Module):
    """lrelu(IN(conv(lrelu(IN(conv(x))))) + x), kernel 3; where the channels differ + IN(conv(x)), kernel 1.

    Inputs are taken as if side by side: `in_channels` is the sum of their channels.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = _Named(nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _Named(nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False))
        self.projected = in_channels != out_channels
        if self.projected:
            self.conv3 = _Named(nn.Conv3d(in_channels, out_channels, 1, bias=False))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Each (B, C_i, D, H, W) -> (B, out_channels, D, H, W)."""
        if torch.is_grad_enabled():  # once for both convolutions: their gradients then add up as wide rows
            inputs = (side_by_side(inputs),)
        between = norm_act(convolution(inputs, self.conv1.conv), slope=SLOPE, reuse=True)
        y = convolution([between], self.conv2.conv)
        residual, where = inputs[0], Residual.BEFORE_ACT
        if self.projected:
            residual, where = pointwise(inputs, self.conv3.conv, room=between), Residual.NORMED_BEFORE_ACT
        return norm_act(y, slope=SLOPE, residual=residual, residual_at=where, reuse=True)


class BasicBlock(nn.Module):
    """A residual block, in a `layer` as in MONAI's UnetrBasicBlock: its checkpoints have that name."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layer = ResidualBlock(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> (B, out_channels, D, H, W)."""
        return self.layer(x)


class UpBlock(nn.Module):
    """Twice the sides by a transposed convolution, then a residual block of that and the skip side by side."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.transp_conv = _Named(nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2, bias=False))
        self.conv_block = ResidualBlock(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B, in_channels, D, H, W), skip (B, out_channels, 2D, 2H, 2W) -> the shape of skip."""
        up = transposed_convolution(x, cast(nn.ConvTranspose3d, self.transp_conv.conv))
        if not torch.is_grad_enabled() and skip.is_contiguous(memory_format=torch.channels_last_3d):
            up = up.contiguous(memory_format=torch.channels_last_3d)  # torch's may have them first
        return self.conv_block(up, skip)


class OutBlock(nn.Module):
    """A 1x1x1 convolution, under `conv.conv` as in MONAI's UnetOutBlock: its checkpoints have these names."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = _Named(nn.Conv3d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> (B, out_channels, D, H, W)."""
        return pointwise([x], self.conv.conv)


class _Named(nn.Sequential):
    """A convolution as MONAI's Convolution holds it: the names of parameters are those of its checkpoints."""

    conv: nn.Conv3d

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.add_module("conv", conv)
