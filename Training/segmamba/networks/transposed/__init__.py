"""2x2x2 transposed convolutions of stride 2, which double the sides, for inference in float32 on a CPU.

The kernel (kernels.py) is numba's, as wide as the processor. On one core it comes to the processor's peak: the largest
one of `released` takes half of oneDNN's time with AVX2; its others, and all of them with AVX-512, 0.9 of it to as much.
It is taken by rule: where channels lie last and output channels fill whole vectors, and there are voxels enough to be
worth the weights' new order. That is made anew in each call: kept weights could be those of weights that have changed.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from segmamba.networks.inference import kernels_can_take, rows_of_channels
from segmamba.networks.scan.work import Call, parts, run

_LEAST_VOXELS = 512  # of one input; with 64 oneDNN is up to a third faster
_BLOCK = 96  # voxels; a multiple of every `rows_of`


@cache
def _kernels() -> ModuleType:
    from segmamba.networks.scan import jit

    from . import kernels

    jit.KERNELS.update(kernels.KERNELS)
    return kernels


def fits(x: Tensor, conv: nn.ConvTranspose3d) -> bool:
    """Whether `convolution` can take these, and is no slower than oneDNN."""
    shape = conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation, conv.groups
    if shape != ((2,) * 3, (2,) * 3, (0,) * 3, (0,) * 3, (1,) * 3, 1):
        return False
    if x.ndim != 5 or x.shape[1] != conv.in_channels or x.shape[2:].numel() < _LEAST_VOXELS:
        return False
    if not kernels_can_take([x], conv) or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return False
    return conv.in_channels % _kernels().STEP == 0 and _kernels().group_of(conv.out_channels) > 0


def convolution(x: Tensor, conv: nn.ConvTranspose3d) -> Tensor:
    """(B, C, D, H, W) -> (B, out_channels, 2D, 2H, 2W), channels last, for what `fits`.

    The same bits whatever the number of threads.
    """
    k = _kernels()
    batch, _, depth, height, width = x.shape
    group, pair = k.group_of(conv.out_channels), 2 * conv.out_channels
    wide, rows = group * k.LANES, k.rows_of(group)
    bias = torch.zeros(pair) if conv.bias is None else conv.bias.detach().repeat(2)
    weights = _by_groups(conv.weight.detach(), wide)
    y = torch.empty((batch, conv.out_channels, 2 * depth, 2 * height, 2 * width), memory_format=torch.channels_last_3d)
    places = _places(y)
    calls = []
    for voxels, out in zip(rows_of_channels(x.detach()), rows_of_channels(y)):
        for share in parts(len(voxels), min(torch.get_num_threads(), len(voxels) // rows)):
            fields = {
                "voxels": share.stop - share.start,
                "block": _BLOCK,
                "steps": conv.in_channels // k.STEP,
                "x": voxels[share],
                "places": places[share],
                "weights": weights,
                "bias": bias,
                "groups": pair // wide,
                "out": out,
                "line": y.stride(3) * y.element_size(),
                "slab": y.stride(2) * y.element_size(),
            }
            calls.append(Call("transposed", group, **fields))
    run(calls, y.numel())
    return y


def _by_groups(weight: Tensor, wide: int) -> Tensor:
    """(in, out, 2, 2, 2) -> the weights as the kernel reads them: `wide` outputs of every input lie together."""
    return weight.permute(0, 2, 3, 4, 1).reshape(len(weight), -1, wide).transpose(0, 1).contiguous()


def _places(y: Tensor) -> Tensor:
    """For each voxel of the input, bytes from the start of `y` to the first of its eight."""
    d, h, w = (torch.arange(0, y.shape[axis], 2) * (y.stride(axis) * y.element_size()) for axis in (2, 3, 4))
    return (d[:, None, None] + h[:, None] + w).flatten()
