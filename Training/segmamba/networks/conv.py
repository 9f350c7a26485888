"""Convolutions of the U-shape as the CPU does them fastest; elsewhere they are torch's own.

Without gradients 3x3x3 kernels go by Winograd where that is faster (segmamba.networks.winograd), otherwise by oneDNN,
and transposed ones that double the sides by a matrix product (segmamba.networks.transposed).
For batch 1 torch takes its slow_conv3d for 1x1x1 kernels and for small grids, 10 to 30 times slower than oneDNN or
a matrix product; and it copies, where channels lie last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmamba.networks import transposed, winograd


def pointwise(inputs: Sequence[Tensor], conv: nn.Conv3d, room: Tensor | None = None) -> Tensor:
    """A 1x1x1 convolution of the inputs put side by side as channels: a matrix product of rows of channels.

    Args:
        inputs: each (B, C_i, D, H, W).
        conv: of kernel 1.
        room: of the result's shape, and needed no more: the result may be written there, which spares new memory.

    Returns:
        (B, out_channels, D, H, W).
    """
    if not all(_is_rows(x) for x in inputs):
        return conv(side_by_side(inputs))
    weights = conv.weight.flatten(1).split([x.shape[1] for x in inputs], dim=1)
    rows = [x.permute(0, 2, 3, 4, 1) for x in inputs]
    if torch.is_grad_enabled() or torch.is_autocast_enabled(inputs[0].device.type):
        y = F.linear(rows[0], weights[0], conv.bias)
        for x, weight in zip(rows[1:], weights[1:]):
            y = y + F.linear(x, weight)
        return y.permute(0, 4, 1, 2, 3)
    if room is not None and _is_rows(room) and room.dtype == rows[0].dtype:
        y = room.permute(0, 2, 3, 4, 1)
        torch.mm(rows[0].flatten(0, -2), weights[0].T, out=y.flatten(0, -2))
        if conv.bias is not None:
            y += conv.bias
    else:
        y = F.linear(rows[0], weights[0], conv.bias)
    for x, weight in zip(rows[1:], weights[1:]):
        y.flatten(0, -2).addmm_(x.flatten(0, -2), weight.T)
    return y.permute(0, 4, 1, 2, 3)


def convolution(inputs: Sequence[Tensor], conv: nn.Conv3d) -> Tensor:
    """A convolution of the inputs put side by side as channels."""
    if winograd.fits(inputs, conv):
        return winograd.convolution(inputs, conv)
    if not _onednn(inputs[0], conv):
        return conv(side_by_side(inputs))
    return by_onednn(inputs, conv)


def transposed_convolution(x: Tensor, conv: nn.ConvTranspose3d) -> Tensor:
    """A transposed convolution; channels last where a kernel of its own takes it."""
    return transposed.convolution(x, conv) if transposed.fits(x, conv) else conv(x)


def by_onednn(inputs: Sequence[Tensor], conv: nn.Conv3d) -> Tensor:
    """The same by oneDNN, float32 on a CPU.

    Several inputs are convolved one after the other into one sum: putting them side by side costs half as much as a
    convolution (0.65 s for 96 channels of 128^3, most of it for touching new memory).
    """
    weights = conv.weight.split([x.shape[1] for x in inputs], dim=1)
    shape = cast(tuple[int, ...], conv.padding), conv.stride, conv.dilation, conv.groups
    y = torch.mkldnn_convolution(inputs[0], weights[0], conv.bias, *shape)
    for x, weight in zip(inputs[1:], weights[1:]):
        y += torch.mkldnn_convolution(x, weight, None, *shape)
    return y


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """The inputs as one tensor, their channels one after the other."""
    return inputs[0] if len(inputs) == 1 else torch.cat(tuple(inputs), dim=1)


def _is_rows(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.permute(0, 2, 3, 4, 1).is_contiguous()


def _onednn(x: Tensor, conv: nn.Conv3d) -> bool:
    """Whether oneDNN can be called by name: where torch would also take it, or should."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_exporting()  # an exported program runs on other devices too
        and x.dtype == conv.weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )
