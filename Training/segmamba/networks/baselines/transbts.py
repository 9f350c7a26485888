"""TransBTS: a convolutional encoder, a transformer over all voxels of its coarsest grid, a convolutional decoder.

Wang et al., "TransBTS: Multimodal Brain Tumor Segmentation Using Transformer", arXiv 2103.04430 (MICCAI 2021). What the
text leaves open (numbers of blocks, kernels, where norms stand) is as in the authors' code.

    input -> width -> 1 block ------------------------------------- skip -> up, block -> logits
               /2, 2 width -> 2 blocks ------------------- skip -> up, block ^
                  /4, 4 width -> 2 blocks -------- skip -> up, block ^
                     /8, 8 width -> 4 blocks -> 32 width, tokens, 4 transformer layers -> 8 width ^

The published 32.99 M parameters are with a linear embedding and a norm that the authors' code makes and never uses,
and without the bias of queries, keys and values.

Two things are otherwise: group norm stands everywhere, where the authors have batch norm from the tokens on, for with
that what is learnt would depend on how many processes and micro-batches share a batch; and dropout ends with training,
which in the authors' first layer it does not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_GROUPS, _HEADS, _LAYERS = 8, 8, 4
_DROPOUT, _FIRST_DROPOUT = 0.1, 0.2
_BLOCKS = (1, 2, 2, 4)  # of each level of the encoder

Grid = tuple[int, int, int]


class EncoderBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, channels: int):
        super().__init__()
        halves = [[nn.GroupNorm(_GROUPS, channels), nn.ReLU(), _conv(channels, channels)] for _ in range(2)]
        self.layers = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return x + self.layers(x)


class DecoderBlock(nn.Module):
    """x + relu(norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(*_normed(channels, channels), *_normed(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return x + self.layers(x)


class Up(nn.Module):
    """Half the channels on twice the grid, beside the skip, mixed."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.up = nn.Sequential(nn.Conv3d(channels, half, 1), nn.ConvTranspose3d(half, half, 2, stride=2))
        self.mix = nn.Conv3d(channels, half, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B, C, D, H, W), skip (B, C / 2, 2D, 2H, 2W) -> the shape of skip."""
        return self.mix(torch.cat([skip, self.up(x)], dim=1))


class Tokens(nn.Module):
    """(B, 8 width, *grid) -> the same shape: a transformer with a learnt vector for each place of the grid."""

    def __init__(self, channels: int, grid: Grid):
        super().__init__()
        wide = 4 * channels
        self.embed = nn.Sequential(nn.GroupNorm(_GROUPS, channels), nn.ReLU(), _conv(channels, wide))
        self.place = nn.Parameter(torch.zeros(1, math.prod(grid), wide))
        self.dropout = nn.Dropout(_DROPOUT)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                wide, _HEADS, 8 * wide, _DROPOUT, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(_LAYERS)
        )
        self.back = nn.Sequential(*_normed(wide, channels), *_normed(channels, channels), DecoderBlock(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *grid) -> the same shape."""
        x = self.embed(x)
        tokens = self.dropout(x.flatten(2).mT + self.place)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.back(tokens.mT.unflatten(2, x.shape[2:]))


class TransBTS(nn.Module):
    """(B, in_channels, *patch) -> logits (B, out_channels, *patch); sides are multiples of 8."""

    def __init__(self, in_channels: int, out_channels: int, patch: Grid, width: int = 16):
        super().__init__()
        channels = [width * 2**level for level in range(len(_BLOCKS))]
        stem = nn.Sequential(_conv(in_channels, width), nn.Dropout3d(_FIRST_DROPOUT))
        entrances = [stem, *(_conv(a, 2 * a, stride=2) for a in channels[:-1])]
        self.encoder = nn.ModuleList(
            nn.Sequential(entrance, *(EncoderBlock(c) for _ in range(count)))
            for entrance, c, count in zip(entrances, channels, _BLOCKS)
        )
        depth, height, breadth = (side // 8 for side in patch)
        self.tokens = Tokens(channels[-1], (depth, height, breadth))
        self.up = nn.ModuleList(Up(c) for c in reversed(channels[1:]))
        self.decoder = nn.ModuleList(DecoderBlock(c) for c in reversed(channels[:-1]))
        self.out = nn.Conv3d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *patch) -> logits (B, out_channels, *patch)."""
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        x = self.tokens(skips.pop())
        for up, block in zip(self.up, self.decoder):
            x = block(up(x, skips.pop()))
        return self.out(x)


def _conv(a: int, b: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(a, b, 3, stride, 1)


def _normed(a: int, b: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return _conv(a, b), nn.GroupNorm(_GROUPS, b), nn.ReLU()
