"""nnU-Net's two networks for 3D, and U-Mamba, which puts Mamba layers into such a one. Written from the papers.

Isensee et al., nnU-Net, Nature Methods 18 (2021): "plain". Isensee et al., nnU-Net Revisited, arXiv 2404.09556: the
residual encoder, size M. Ma et al., U-Mamba, arXiv 2401.04722: "bot", one Mamba layer below, and "enc", one after each
stage of the encoder. Six stages with 1, 2, 4, 8, 10 and 10 times `width` channels, as nnU-Net plans them for 128^3;
without its deep supervision, which serves training alone (networks.deep).

With fresh weights "enc" makes a small change of its input 1400 times as large (12 channels first, 64^3), "plain" and
"bot" 10 times at most, which is why it is computed in fp32. No layer of it stands out: every block of the encoder makes
the change 1.2 to 1.5 times as large, and so does every Mamba layer, around which the authors have no residual (3 times
where it has 3 channels). That is 125 over six stages; the stem doubles it, the decoder makes it 6 times as large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmamba.networks.blocks import MambaLayer
from segmamba.networks.mamba import TriMamba

WIDTHS = (1, 2, 4, 8, 10, 10)
_RESENC_M = (1, 3, 4, 6, 6, 6)  # residual blocks of each stage


class ConvBlock(nn.Module):
    """Convolution, instance norm, and, where `active`, LeakyReLU."""

    def __init__(self, a: int, b: int, kernel: int = 3, stride: int = 1, active: bool = True, bias: bool = True):
        super().__init__()
        self.conv = nn.Conv3d(a, b, kernel, stride, kernel // 2, bias=bias)
        self.norm = nn.InstanceNorm3d(b, affine=True)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        x = self.norm(self.conv(x))
        return F.leaky_relu(x, 0.01) if self.active else x


class ResidualBlock(nn.Module):
    """Two convolutions and their input, averaged where the block halves the grid, projected where channels differ.

    He et al., Bag of Tricks, arXiv 1812.01187, the variant D.
    """

    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__()
        self.conv1 = ConvBlock(a, b, stride=stride)
        self.conv2 = ConvBlock(b, b, active=False)
        self.pool = nn.AvgPool3d(stride) if stride > 1 else nn.Identity()
        self.project = ConvBlock(a, b, 1, active=False, bias=False) if a != b else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.project(self.pool(x)), 0.01)


class ProjectedBlock(nn.Module):
    """U-Mamba's residual block: the input is always projected, in strides, without a norm."""

    def __init__(self, a: int, b: int, stride: int = 1):
        super().__init__()
        self.conv1 = ConvBlock(a, b, stride=stride)
        self.conv2 = ConvBlock(b, b, active=False)
        self.project = nn.Conv3d(a, b, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.project(x), 0.01)


class ChannelMamba(nn.Module):
    """LayerNorm and Mamba with the channels for tokens, each a vector of its whole grid.

    U-Mamba has it where the grid has fewer voxels than channels.
    """

    def __init__(self, voxels: int):
        super().__init__()
        self.norm = nn.LayerNorm(voxels)
        self.mamba = TriMamba(voxels, ("forward",))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        return self.mamba(self.norm(x.flatten(2)), slices=1).unflatten(2, x.shape[2:])


class UpConv(nn.Module):
    """Twice the grid: a transposed convolution (nnU-Net), or nearest neighbours and a projection (U-Mamba)."""

    def __init__(self, a: int, b: int, transposed: bool):
        super().__init__()
        self.conv = nn.ConvTranspose3d(a, b, 2, 2) if transposed else nn.Conv3d(a, b, 1)
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        return self.conv(x if self.transposed else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """A U-Net of given stages: (B, in, D, H, W) -> logits (B, out, D, H, W); sides are multiples of 32.

    stem: before the first stage. encoder: six stages, each but the first halving the grid. decoder: five, of twice the
    skip's channels, the coarsest first.
    """

    def __init__(
        self,
        channels: Sequence[int],
        out_channels: int,
        stem: nn.Module,
        encoder: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        transposed: bool,
    ):
        super().__init__()
        self.stem = stem
        self.encoder = nn.ModuleList(encoder)
        self.up = nn.ModuleList(UpConv(below, skip, transposed) for skip, below in reversed(list(pairwise(channels))))
        self.decoder = nn.ModuleList(decoder)
        self.decoder_channels = tuple(channels[:-1])  # the finest first
        self.out = nn.Conv3d(channels[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in and out."""
        x = self.stem(x)
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.up, self.decoder):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
        return self.out(x)


def plain(in_channels: int, out_channels: int, width: int) -> UNet:
    """nnU-Net's plain network: two convolutions a stage, down and up.

    Args:
        in_channels: of the input.
        out_channels: of the logits.
        width: channels of the first stage; those of the others are its multiples by WIDTHS.

    Returns:
        The network with fresh weights.
    """
    channels = [width * times for times in WIDTHS]

    def stage(a: int, b: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(ConvBlock(a, b, stride=stride), ConvBlock(b, b))

    encoder = [stage(in_channels, channels[0]), *(stage(a, b, 2) for a, b in pairwise(channels))]
    decoder = [stage(2 * c, c) for c in reversed(channels[:-1])]
    return UNet(channels, out_channels, nn.Identity(), encoder, decoder, transposed=True)


def residual_encoder(in_channels: int, out_channels: int, width: int) -> UNet:
    """nnU-Net's residual encoder of size M: 1, 3, 4, 6, 6, 6 residual blocks down, one convolution a stage up.

    Args:
        in_channels: of the input.
        out_channels: of the logits.
        width: channels of the first stage; those of the others are its multiples by WIDTHS.

    Returns:
        The network with fresh weights.
    """
    channels = [width * times for times in WIDTHS]

    def stage(a: int, b: int, stride: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(ResidualBlock(a, b, stride), *(ResidualBlock(b, b) for _ in range(blocks - 1)))

    halving = (stage(a, b, 2, blocks) for (a, b), blocks in zip(pairwise(channels), _RESENC_M[1:]))
    encoder = [stage(channels[0], channels[0], 1, _RESENC_M[0]), *halving]
    decoder = [ConvBlock(2 * c, c) for c in reversed(channels[:-1])]
    return UNet(channels, out_channels, ConvBlock(in_channels, channels[0]), encoder, decoder, transposed=True)


def u_mamba(in_channels: int, out_channels: int, width: int, patch: Sequence[int], everywhere: bool) -> UNet:
    """U-Mamba: residual blocks, two in each of the finer half of the stages and one in the others, and Mamba layers.

    Args:
        in_channels: of the input.
        out_channels: of the logits.
        width: channels of the first stage; those of the others are its multiples by WIDTHS.
        patch: (D, H, W) of the input in voxels. Where its grid at a stage has no more voxels than channels, "enc" takes
            the channels for tokens, and so knows that patch alone.
        everywhere: a Mamba layer after each stage of the encoder ("enc"), else after the last alone ("bot").

    Returns:
        The network with fresh weights.
    """
    channels = [width * times for times in WIDTHS]

    def blocks(a: int, b: int, stride: int, two: bool) -> nn.Sequential:
        return nn.Sequential(ProjectedBlock(a, b, stride), *([ResidualBlock(b, b)] if two else []))

    encoder = []
    for number, (a, b) in enumerate(pairwise([channels[0], *channels])):
        stage = blocks(a, b, 2 if number else 1, two=number < 3)
        if everywhere or number == len(channels) - 1:
            voxels = math.prod(side // 2**number for side in patch)
            by_channel = everywhere and voxels <= b
            stage.append(ChannelMamba(voxels) if by_channel else MambaLayer(b, ("forward",), residual=False))
        encoder.append(stage)
    decoder = [blocks(2 * c, c, 1, two=number < 3) for number, c in enumerate(reversed(channels[:-1]))]
    stem = blocks(in_channels, channels[0], 1, two=True)
    return UNet(channels, out_channels, stem, encoder, decoder, transposed=False)
