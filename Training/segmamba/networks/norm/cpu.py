"""The norm on the CPU by numba kernels: two passes over memory forward, two backward, nothing kept but the inputs.

A tensor is read as rows of channels. Where the channels do not fill whole vectors, several voxels are taken for one
wider row: 24 channels are rows of 48. Tiles and the order of sums depend on the shapes alone, so results are
the same bits whatever the number of threads.
"""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segmamba.networks.scan import choose_backend
from segmamba.networks.scan.work import Call, parts, run

from .residual import Residual

EPS = 1e-5
TILE = 1 << 17  # bytes of one tile of a sum: half of a small second-level cache
TYPES = (torch.float32, torch.bfloat16)


@cache
def _kernels() -> ModuleType:
    from segmamba.networks.scan import jit

    from . import kernels

    jit.KERNELS.update(kernels.KERNELS)
    return kernels


def fits(x: Tensor, r: Tensor | None) -> bool:
    """Whether the kernels can take x and r: type, layout, whole vectors, and numba where it works."""
    if x.device.type != "cpu" or x.dtype not in TYPES or x.numel() == 0 or not _is_rows(x):
        return False
    if r is not None and (r.dtype != x.dtype or r.shape != x.shape or r.device != x.device):
        return False
    if choose_backend(x.device) != "cpu":
        return False
    return math.prod(x.shape[2:]) % _fold(x.shape[1]) == 0


def norm_act(x: Tensor, r: Tensor | None, kind: Residual, slope: float, *, reuse: bool = False) -> Tensor:
    """As `segmamba.networks.norm.norm_act`, for what `fits`. r: the residual; kind: where it is added."""
    r = None if r is None else _as_rows(r)
    if torch.is_grad_enabled() and (x.requires_grad or (r is not None and r.requires_grad)):
        return _Norm.apply(x, r, kind, slope)
    return _forward(_Inputs(x, r, kind, slope), x if reuse else torch.empty_like(x))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor | None, kind: Residual, slope: float) -> Tensor:
        inputs = _Inputs(x, r, kind, slope)
        ctx.save_for_backward(x, r if kind.is_before_act else None, *inputs.statistics)
        ctx.kind, ctx.slope = kind, slope
        return _forward(inputs, torch.empty_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, r, *statistics = ctx.saved_tensors
        after = ctx.kind is Residual.AFTER_ACT
        kind = Residual.NONE if after else ctx.kind
        x_grad, r_grad = _backward(_Inputs(x, r, kind, ctx.slope, statistics), _as_rows(grad))
        return x_grad, grad if after else r_grad, None, None


class _Inputs:
    """x and r as rows, and their statistics, by the names that the kernels give them."""

    def __init__(self, x: Tensor, r: Tensor | None, kind: Residual, slope: float, statistics: list | None = None):
        k = _kernels()
        self.channels, self.fold = x.shape[1], _fold(x.shape[1])
        self.x, self.r = self.rows(x), None if r is None else self.rows(r)
        self.half = k.HALF if x.dtype == torch.bfloat16 else 0
        self.variant = kind + self.half
        self.blocks = self.x.shape[2] // k.LANES
        if statistics is None:
            statistics = [*self._statistics(self.x), None, None]
            if self.r is not None and kind is Residual.NORMED_BEFORE_ACT:
                statistics[2:] = self._statistics(self.r)
        self.statistics = statistics
        self.slope = torch.tensor([slope], dtype=torch.float32)

    def rows(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W), channels last -> (B, N, C'), the same memory."""
        return x.detach().permute(0, 2, 3, 4, 1).reshape(len(x), -1, self.fold * self.channels)

    def fields(self, i: int) -> dict:
        """What every kernel reads of sample i, but for x and r."""
        names = ("mean", "scale", "r_mean", "r_scale")
        values = (None if s is None else s[i] for s in self.statistics)
        return {"blocks": self.blocks, "slope": self.slope, **dict(zip(names, values))}

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / sqrt(variance + eps), float32, (B, C')."""
        sums = self.sums("norm statistics", self.half, 3, x=x)
        count = self.tile_sizes[:, None]
        centre, off, square = sums.unbind(2)
        mean_t = centre + off / count
        square_t = square - off * off / count
        mean = self.over_tiles(mean_t * count)
        variance = self.over_tiles(square_t + count * (mean_t - mean[:, None]) ** 2)
        return mean.float(), torch.rsqrt(variance + EPS).float()

    def over_tiles(self, sums: Tensor) -> Tensor:
        """(B, tiles, C') -> the mean over the voxels, (B, C'), alike in every fold."""
        total = sums.sum(1).unflatten(1, (self.fold, self.channels)).sum(1)
        return (total / (self.x.shape[1] * self.fold)).repeat(1, self.fold)

    @property
    def tile(self) -> int:
        return max(1, TILE // (self.x.element_size() * self.x.shape[2]))

    @property
    def tile_sizes(self) -> Tensor:
        length, tile = self.x.shape[1], self.tile
        starts = torch.arange(0, length, tile, dtype=torch.float64)
        return (length - starts).clamp(max=tile)

    def sums(self, kernel: str, variant: int, kinds: int, **tensors: Tensor | None) -> Tensor:
        """The sums that a kernel writes, (B, tiles, kinds, C') in float64. tensors: (B, N, C') each."""
        (batch, length, wide), tile = self.x.shape, self.tile
        tiles = -(-length // tile)
        sums = torch.empty(batch, tiles, kinds, wide)
        calls = []
        for i in range(batch):
            for share in parts(tiles, _pieces(batch)):
                rows = slice(share.start * tile, min(share.stop * tile, length))
                cut = {name: None if t is None else t[i, rows] for name, t in tensors.items()}
                calls.append(
                    Call(
                        kernel,
                        variant,
                        tiles=share.stop - share.start,
                        tile=tile,
                        rows=rows.stop - rows.start,
                        sums=sums[i, share],
                        **cut,
                        **({"blocks": self.blocks} if kernel == "norm statistics" else self.fields(i)),
                    )
                )
        run(calls, self.x.numel())
        return sums.double()

    def each_row(self, kernel: str, **tensors: Tensor | None) -> None:
        """Runs a kernel over all rows. tensors: rows, (B, N, C'), or one row a sample, (B, C')."""
        batch, length, _ = self.x.shape
        calls = []
        for i in range(batch):
            for share in parts(length, _pieces(batch)):
                cut = {n: t if t is None else t[i, share] if t.ndim == 3 else t[i] for n, t in tensors.items()}
                calls.append(Call(kernel, self.variant, rows=share.stop - share.start, **cut, **self.fields(i)))
        run(calls, self.x.numel())


def _forward(inputs: _Inputs, out: Tensor) -> Tensor:
    inputs.each_row("norm forward", x=inputs.x, r=inputs.r, out=inputs.rows(out))
    return out


def _backward(inputs: _Inputs, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and, unless r is None, of r."""
    normed = inputs.statistics[2] is not None
    rows = {"x": inputs.x, "r": inputs.r, "grad": inputs.rows(grad)}
    sums = inputs.sums("norm sums", inputs.variant, 3 if normed else 2, **rows)
    means = [inputs.over_tiles(s).float() for s in sums.unbind(2)] + [None]
    x_grad, r_grad = torch.empty_like(grad), None if inputs.r is None else torch.empty_like(grad)
    inputs.each_row(
        "norm backward",
        **rows,
        **dict(zip(("m_grad", "m_along", "m_r_along"), means)),
        x_grad=inputs.rows(x_grad),
        r_grad=None if r_grad is None else inputs.rows(r_grad),
    )
    return x_grad, r_grad


def _pieces(batch: int) -> int:
    """Of each sample: as many as give every thread one."""
    threads = torch.get_num_threads()
    return 1 if batch % threads == 0 else threads


def _is_rows(x: Tensor) -> bool:
    return x.permute(0, 2, 3, 4, 1).is_contiguous()


def _as_rows(x: Tensor) -> Tensor:
    return x if _is_rows(x) else x.contiguous(memory_format=torch.channels_last_3d)


@cache
def _fold(channels: int) -> int:
    """Voxels in a row, so that it holds whole vectors."""
    return _kernels().LANES // math.gcd(channels, _kernels().LANES)
