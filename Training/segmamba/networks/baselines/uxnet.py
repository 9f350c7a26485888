"""3D UX-Net: a Swin UNETR whose attention became a depth-wise convolution with a large kernel.

Lee et al., "3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for Medical Image
Segmentation", arXiv 2209.15076 (ICLR 2023). Encoder: its section on the depth-wise convolution encoder, figure 2;
decoder: the section after it.

    input ------------------------------- residual block -> skip 0
      stem, /2   -> stage 0 (48)  -- norm, residual block -> skip 1
      /4         -> stage 1 (96)  -- norm, residual block -> skip 2
      /8         -> stage 2 (192) -- norm, residual block -> skip 3
      /16        -> stage 3 (384) -- norm, residual block -> up, up, up, up -> residual block -> logits
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from segmamba.networks.blocks import ChannelLayerNorm

KERNEL = 7
RATIO = 4  # of the depth-wise scaling
LAYER_SCALE = 1e-6


class LargeKernelBlock(nn.Module):
    """x + gamma * scale(LayerNorm(depth-wise convolution of kernel 7 (x))), on (B, C, D, H, W).

    The depth-wise scaling stands where Swin has its MLP: each channel alone becomes RATIO values, GELU, and one value
    again; 1x1x1 convolutions with one group a channel. gamma, one value a channel, begins at 1e-6.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = ChannelLayerNorm(channels)
        self.widen = nn.Conv3d(channels, RATIO * channels, 1, groups=channels)
        self.narrow = nn.Conv3d(RATIO * channels, channels, 1, groups=channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.norm(self.depthwise(x))
        return x + self.gamma.view(-1, 1, 1, 1) * self.narrow(F.gelu(self.widen(y)))


class UXEncoder(nn.Module):
    """The encoder: the normed outputs of its stages, at 1/2, 1/4, ... of the input's grid."""

    def __init__(self, in_channels: int, features: tuple[int, ...], depths: tuple[int, ...]):
        super().__init__()
        stem = nn.Conv3d(in_channels, features[0], KERNEL, stride=2, padding=KERNEL // 2)
        halvings = [nn.Sequential(ChannelLayerNorm(a), nn.Conv3d(a, b, 2, stride=2)) for a, b in pairwise(features)]
        self.downsample = nn.ModuleList([nn.Sequential(stem, ChannelLayerNorm(features[0])), *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(*(LargeKernelBlock(c) for _ in range(depth))) for c, depth in zip(features, depths)
        )
        self.norms = nn.ModuleList(ChannelLayerNorm(c) for c in features)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, D, H, W) -> one output a stage, the finest first."""
        outputs = []
        for downsample, stage, norm in zip(self.downsample, self.stages, self.norms):
            x = stage(downsample(x))
            outputs.append(norm(x))
        return outputs


class UXNet(nn.Module):
    """3D UX-Net: (B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W).

    Sides are multiples of 16, one 32 or more. features: channels of the stages, each twice those of the one before. The
    coarsest has twice as many again behind its residual block, the input's own resolution as many as the first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: tuple[int, ...] = (48, 96, 192, 384),
        depths: tuple[int, ...] = (2, 2, 2, 2),
    ):
        super().__init__()
        self.encoder = UXEncoder(in_channels, features, depths)
        wide = [*features, 2 * features[-1]]  # channels behind the residual blocks, the input's resolution first
        self.lateral = nn.ModuleList(_residual(a, b) for a, b in zip([in_channels, *features], wide))
        self.up = nn.ModuleList(_up(b, a) for a, b in pairwise(wide))
        self.last = _residual(features[0], features[0])
        self.out = UnetOutBlock(3, features[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> logits (B, out_channels, D, H, W)."""
        *skips, y = [block(z) for block, z in zip(self.lateral, [x, *self.encoder(x)])]
        for up, skip in zip(reversed(self.up), reversed(skips)):
            y = up(y, skip)
        return self.out(self.last(y))


def _residual(in_channels: int, out_channels: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(3, in_channels, out_channels, 3, stride=1, norm_name="instance", res_block=True)


def _up(in_channels: int, out_channels: int) -> UnetrUpBlock:
    """Transposed convolution, concatenation with the skip, residual block."""
    return UnetrUpBlock(3, in_channels, out_channels, 3, upsample_kernel_size=2, norm_name="instance", res_block=True)
