"""3x3x3 convolutions of stride 1 by Winograd's F(4,3), for inference in float32 on a CPU.

An eighth of the products of a plain convolution; with the transforms and AVX2, over the convolutions of `released` at
64^3, 1.9 times as fast as oneDNN, on large grids 2.3 times (Testing/benchmarks/bench_conv.py). The kernel
(kernels.py) is numba's, as wide as the processor. It is taken by rule: where channels fill whole vectors and lie last,
at least those of one input, and there are tiles enough to be worth the transform of the weights. That is done anew in
each call: kept weights would take eight times the memory, and could be those of weights that have changed since.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from segmamba.networks.inference import kernels_can_take, rows_of_channels
from segmamba.networks.scan import choose_backend
from segmamba.networks.scan.work import Call, parts, run

_LEAST_TILES = {4: 64, 8: 64, 16: 128}  # by LANES; with 64 tiles AVX-512 is 1.0 to 0.7 times as fast as oneDNN there
_LEAST_BLOCK, _TILES_PER_CHANNEL = 12, 1 / 8  # of a block: more channels have more weights, read once a block
_NARROW = 96  # input channels up to which a block's tiles stay in the second-level cache


@cache
def _kernels() -> ModuleType:
    from segmamba.networks.scan import jit

    from . import kernels

    jit.KERNELS.update(kernels.KERNELS)
    return kernels


def rule() -> str:
    """When the CPU takes it, in words for `segmamba info`."""
    if (backend := choose_backend("cpu")) != "cpu":
        return f"oneDNN (Winograd has the numba kernels of the scan's back end 'cpu', and {backend!r} was chosen)"
    return (
        f"Winograd F(4,3) for inference in float32 where channels are multiples of {_kernels().LANES} and a window has "
        f"{_least_tiles()} tiles of 4x4x4 voxels or more, else oneDNN"
    )


def fits(inputs: Sequence[Tensor], conv: nn.Conv3d) -> bool:
    """Whether `convolution` can take these, and is faster than oneDNN."""
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    if shape != ((3,) * 3, (1,) * 3, (1,) * 3, (1,) * 3, 1, "zeros") or len(inputs) > 2:
        return False
    x = inputs[0]
    if not kernels_can_take(inputs, conv):
        return False
    if not any(t.is_contiguous(memory_format=torch.channels_last_3d) for t in inputs):
        return False
    tiles, voxels = math.prod(_tiles(x)), math.prod(x.shape[2:])
    if tiles < _least_tiles() or 2 * voxels < tiles * _kernels().TILE ** 3:  # or most of a tile is outside
        return False
    return all(channels % _kernels().LANES == 0 for channels in (conv.out_channels, *(t.shape[1] for t in inputs)))


def convolution(inputs: Sequence[Tensor], conv: nn.Conv3d) -> Tensor:
    """The convolution of one or two inputs side by side, for what `fits`.

    Each (B, C_i, D, H, W) -> (B, out_channels, D, H, W), channels last. The same bits whatever the
    number of threads.
    """
    k = _kernels()
    x, out_channels = inputs[0].detach(), conv.out_channels
    channels, (depth, height, width) = conv.in_channels, x.shape[2:]
    group = k.group_of(out_channels)
    groups = out_channels // (group * k.LANES)
    span = 1 if channels <= _NARROW else groups  # wide ones stream through the cache anyway: each input once
    rows = k.rows_of(group)
    block = rows * math.ceil(max(_LEAST_BLOCK, (channels + out_channels) * _TILES_PER_CHANNEL) / rows)

    weights = _transform(conv.weight.detach(), group * k.LANES, span)
    bias = torch.zeros(out_channels) if conv.bias is None else conv.bias.detach()
    y = torch.empty((len(x), out_channels, depth, height, width), memory_format=torch.channels_last_3d)
    # torch's transposed convolution gives channels first, whatever it is given
    first, *others = (rows_of_channels(t.detach().contiguous(memory_format=torch.channels_last_3d)) for t in inputs)
    tiles_d, tiles_h, tiles_w = _tiles(x)
    calls = []
    for i, out in enumerate(rows_of_channels(y)):
        for share in parts(tiles_d * tiles_h * tiles_w, torch.get_num_threads()):
            fields = {
                "first": share.start,
                "tiles": share.stop - share.start,
                "block": block,
                "depth": depth,
                "height": height,
                "width": width,
                "tiles_h": tiles_h,
                "tiles_w": tiles_w,
                "x_blocks": first.shape[2] // k.LANES,
                "x": first[i],
                "other_blocks": others[0].shape[2] // k.LANES if others else 0,
                "other": others[0][i] if others else None,
                "zeros": torch.zeros(channels),
                "weights": weights,
                "spans": groups // span,
                "groups": span,
                "bias": bias,
                "out": out,
                "nowhere": torch.empty(out_channels),
                "v": torch.empty(channels // k.LANES * k.POINTS * (block * k.LANES + k.PAD // 4)),
                "m": torch.empty(span * k.POINTS * (block * group * k.LANES + k.PAD // 4)),
                "lines": torch.empty(k.POINTS * k.LANES),
                "places": torch.empty(k.TOGETHER * k.POINTS, dtype=torch.int64),
            }
            calls.append(Call("winograd", group, **fields))
    run(calls, y.numel())
    return y


def _transform(weight: Tensor, wide: int, span: int) -> Tensor:
    """(out, in, 3, 3, 3) -> the weights at each point as the kernel reads them: `span` times `wide` outputs."""
    out, channels = weight.shape[:2]
    taps = weight.reshape(out // (wide * span), span, wide, channels, 27).permute(0, 4, 1, 3, 2)
    return _to_points() @ taps.reshape(len(taps), 27, -1)


@cache
def _to_points() -> Tensor:
    """G on three axes as one matrix, (216, 27)."""
    k = _kernels()
    near, far = k.NEAR**2, k.FAR**2
    lines = [[1.0, 0.0, 0.0]]
    for point, square, other in ((k.NEAR, near, far), (k.FAR, far, near)):
        lines += [[1.0, sign * point, square] for sign in (1, -1)]
        lines[-2:] = [[value / (2 * square * (square - other)) for value in line] for line in lines[-2:]]
    g = torch.tensor([*lines, [0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.kron(torch.kron(g, g), g).float()


def _least_tiles() -> int:
    return _LEAST_TILES[_kernels().LANES]


def _tiles(x: Tensor) -> tuple[int, int, int]:
    d, h, w = (-(-side // _kernels().TILE) for side in x.shape[2:])
    return d, h, w
