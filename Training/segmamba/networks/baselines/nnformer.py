"""nnFormer: a U-shaped transformer with attention inside local volumes, and attention in place of skip connections.

Zhou et al., "nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer", arXiv 2109.03201. Its section on
the method has one part each for the encoder (embedding, local volumes, down-sampling), the bottleneck (global
volumes) and the decoder (skip attention).

Shape legend: tokens_BDHWC on a grid of tokens; inside the attention n windows of T tokens each, h heads.

    input -> embedding, /4 -> stage 0 -> /8 -> stage 1 -> /16 -> stage 2 -> /32 -> stage 3
                                | keys, values   |                  |                |
    logits <- expanding <--- stage 0 <-- up --- stage 1 <-- up --- stage 2 <-- up ---'

A stage is a pair of blocks: volumes of 4x4x4 tokens, then the same volumes shifted by half. In stages 2 and 3 the
volume is the whole grid, as it is in every configuration that the authors trained, so nothing is shifted.

The published 150.5 M parameters are those of CT with 14 classes: one channel in, 64x128x128, an embedding of stride
2x4x4, and two more output layers for deep supervision, which has no place here.
The authors' code ties unrelated entries of the relative position table together (its strides are 3w - 1 and 2w - 1 for
(2w - 1)^2 and 2w - 1); here each offset has its own.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn

from segmamba.errors import InputError

VOLUME = 4  # tokens along a side of a local volume, in stages 0 and 1
DEPTH = 2  # blocks of a stage: plain, shifted
MLP_RATIO = 4
STAGES = 4

Grid = tuple[int, int, int]


def partition(x_BDHWC: Tensor, window: Grid) -> Tensor:
    """Tokens by place to tokens by window: (B, D, H, W, C) -> (B, n, T, C), both in C order. Sides must divide."""
    x = x_BDHWC.unflatten(3, (-1, window[2])).unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def reverse(x_BnTC: Tensor, window: Grid, grid: Grid) -> Tensor:
    """The inverse of `partition`: tokens by window to tokens by place.

    Args:
        x_BnTC: (B, n, T, C), the n windows in C order, the T tokens of each in C order.
        window: (d, h, w), tokens of a window along each axis.
        grid: (D, H, W), tokens along each axis, multiples of `window`.

    Returns:
        (B, D, H, W, C).
    """
    counts = [side // width for side, width in zip(grid, window)]
    x = x_BnTC.unflatten(2, window).unflatten(1, counts)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def relative_index(window: Grid) -> Tensor:
    """Which of the prod(2w - 1) offsets belongs to each pair of a window's tokens: (T, T)."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, window), indexing="ij")).flatten(1)  # (3, T)
    offsets = places[:, :, None] - places[:, None, :] + torch.tensor(window)[:, None, None] - 1
    index = torch.zeros_like(offsets[0])
    for offset, width in zip(offsets, window):
        index = index * (2 * width - 1) + offset
    return index


def shifted_neighbours(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """Which pairs of a window's tokens may attend once the grid was rolled back by `shift`.

    The roll brings the first `shift` tokens of an axis behind the last: in one window with them, but no neighbours.

    Args:
        grid: (D, H, W), tokens along each axis, multiples of `window`.
        window: (d, h, w), tokens of a window along each axis.
        shift: tokens that each axis was rolled by; 0 for an axis that was not.

    Returns:
        (n, T, T) bool, True where the pair may attend.
    """
    region = torch.zeros(grid, dtype=torch.long)
    for axis, (side, step) in enumerate(zip(grid, shift)):
        came_round = torch.arange(side) >= side - step  # places that hold the first tokens after the roll
        region = 2 * region + came_round.view([-1 if a == axis else 1 for a in range(3)])
    region_nT = partition(region[None, ..., None], window)[0, ..., 0]
    return region_nT[:, :, None] == region_nT[:, None, :]


class VolumeAttention(nn.Module):
    """Multi-head attention inside the windows of a grid, with a learnt bias for each relative position.

    crossed: skip attention. Keys and values are projections of the encoder's tokens, the queries are the decoder's as
    they are. Otherwise all three are projections of the same tokens.
    """

    def __init__(self, channels: int, heads: int, grid: Grid, window: Grid, shift: Grid, crossed: bool):
        super().__init__()
        self.heads = heads
        self.grid = grid
        self.window = window
        self.shift = shift
        self.project = nn.Linear(channels, (2 if crossed else 3) * channels)
        self.out = nn.Linear(channels, channels)
        self.index: Tensor
        self.mask: Tensor | None
        offsets = math.prod(2 * width - 1 for width in window)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(offsets, heads), std=0.02))
        self.register_buffer("index", relative_index(window), persistent=False)
        mask = shifted_neighbours(grid, window, shift) if any(shift) else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, tokens_BDHWC: Tensor, queries_BDHWC: Tensor | None = None) -> Tensor:
        """Both (B, D, H, W, C) on the grid -> the same shape."""
        parts = self.project(self._windows(tokens_BDHWC))
        if queries_BDHWC is not None:
            parts = torch.cat([self._windows(queries_BDHWC).to(parts.dtype), parts], dim=-1)
        q, k, v = parts.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # each (B, n, h, T, C / h)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + self.bias[self.index].movedim(-1, 0)
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask[:, None], -torch.inf)
        y = (scores.softmax(-1).to(v.dtype) @ v).transpose(2, 3).flatten(3)
        y = reverse(self.out(y), self.window, self.grid)
        return y.roll(self.shift, (1, 2, 3))

    def _windows(self, x_BDHWC: Tensor) -> Tensor:
        back = [-step for step in self.shift]
        return partition(x_BDHWC.roll(back, (1, 2, 3)), self.window)


class Block(nn.Module):
    """y = x + attention(norm(x)), y + MLP(norm(y)); with skip attention x is the sum of the skip and the tokens."""

    def __init__(self, attention: VolumeAttention, channels: int, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = attention
        self.mlp = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels), nn.GELU(), nn.Linear(MLP_RATIO * channels, channels)
        )
        self.drop = DropPath(drop_path)

    def forward(self, tokens: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, D, H, W, C) -> the same shape; skip: the encoder's tokens, for skip attention."""
        if skip is None:
            x = tokens + self.drop(self.attention(self.norm1(tokens)))
        else:
            x = tokens + skip + self.drop(self.attention(self.norm1(skip), self.norm1(tokens)))
        return x + self.drop(self.mlp(self.norm2(x)))


class TokenConv(nn.Module):
    """A convolution of (B, C, D, H, W), applied to (B, D, H, W, C)."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x_BDHWC: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D', H', W', C')."""
        return self.conv(x_BDHWC.movedim(-1, 1)).movedim(1, -1)


class NNFormer(nn.Module):
    """nnFormer, for one size of input: (B, in_channels, *patch) -> logits (B, out_channels, *patch).

    patch: the one input size, multiples of 8 times the stride. embedding: channels of stage 0, doubled from stage to
    stage. heads: of each stage, the decoder's as the encoder's. stride: of the embedding, 1, 2 or 4 along an axis.
    drop_path: chance that the deepest block is skipped for a sample in training; 0 at the first, linear between.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: Grid,
        embedding: int = 192,
        heads: tuple[int, int, int, int] = (6, 12, 24, 48),
        stride: Grid = (4, 4, 4),
        drop_path: float = 0.2,
    ):
        super().__init__()
        if any(side % (8 * step) for side, step in zip(patch, stride)):
            raise InputError(f"patch {patch} of nnFormer must be multiples of {tuple(8 * step for step in stride)}")
        grids = [tuple(side // step // 2**stage for side, step in zip(patch, stride)) for stage in range(STAGES)]
        channels = [embedding * 2**stage for stage in range(STAGES)]
        stages = list(zip(channels, heads, grids, range(STAGES)))
        down_rates, up_rates = _drop_rates(STAGES, drop_path), _drop_rates(STAGES - 1, drop_path)
        self.embedding = _embedding(in_channels, embedding, stride)
        self.encoder = nn.ModuleList(_stage(*stage, rates) for stage, rates in zip(stages, down_rates))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.down = nn.ModuleList(_down(a, b) for a, b in pairwise(channels))
        self.up = nn.ModuleList(_up(b, a) for a, b in pairwise(channels))
        self.decoder = nn.ModuleList(
            _stage(*stage, rates, crossed=True) for stage, rates in zip(stages, reversed(up_rates))
        )
        self.expand = TokenConv(nn.ConvTranspose3d(embedding, out_channels, stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *patch) -> logits (B, out_channels, *patch)."""
        tokens = self.embedding(x.movedim(1, -1))
        skips = []
        for i, (stage, norm) in enumerate(zip(self.encoder, self.norms)):
            for block in cast(nn.ModuleList, stage):
                tokens = block(tokens)
            skips.append(norm(tokens))
            if i < len(self.down):
                tokens = self.down[i](tokens)
        tokens = skips.pop()
        for stage, up in zip(reversed(self.decoder), reversed(self.up)):
            plain, shifted = cast(nn.ModuleList, stage)
            tokens = shifted(plain(up(tokens), skips.pop()))
        return self.expand(tokens).movedim(-1, 1).contiguous()


def _drop_rates(stages: int, highest: float) -> list[list[float]]:
    """For each block of each stage, in the order in which they are run: from 0, linear, to `highest`."""
    last = DEPTH * stages - 1
    return [[highest * (DEPTH * stage + block) / last for block in range(DEPTH)] for stage in range(stages)]


def _stage(
    channels: int, heads: int, grid: Grid, stage: int, rates: list[float], crossed: bool = False
) -> nn.ModuleList:
    """The pair of blocks of one stage; in the decoder the first one attends to the skip."""
    window = cast(Grid, tuple(min(VOLUME, side) for side in grid)) if stage < 2 else grid
    half = tuple(0 if width == side else width // 2 for width, side in zip(window, grid))
    shifts = ((0, 0, 0), cast(Grid, half))
    return nn.ModuleList(
        Block(VolumeAttention(channels, heads, grid, window, shift, crossed and i == 0), channels, rate)
        for i, (shift, rate) in enumerate(zip(shifts, rates))
    )


def _embedding(in_channels: int, channels: int, stride: Grid) -> nn.Module:
    """Four 3x3x3 convolutions with GELU and LayerNorm between them; the first and the third share the stride."""
    first = cast(Grid, tuple(min(step, 2) for step in stride))
    third = cast(Grid, tuple(step // a for step, a in zip(stride, first)))
    half = channels // 2

    def conv(a: int, b: int, step: Grid | int) -> TokenConv:
        return TokenConv(nn.Conv3d(a, b, 3, stride=step, padding=1))

    return nn.Sequential(
        *(conv(in_channels, half, first), nn.GELU(), nn.LayerNorm(half)),
        *(conv(half, half, 1), nn.GELU(), nn.LayerNorm(half)),
        *(conv(half, channels, third), nn.GELU(), nn.LayerNorm(channels)),
        *(conv(channels, channels, 1), nn.LayerNorm(channels)),
    )


def _down(in_channels: int, out_channels: int) -> nn.Module:
    conv = nn.Conv3d(in_channels, out_channels, 3, stride=2, padding=1)
    return nn.Sequential(nn.GELU(), nn.LayerNorm(in_channels), TokenConv(conv))


def _up(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(in_channels), TokenConv(nn.ConvTranspose3d(in_channels, out_channels, 2, 2)))
