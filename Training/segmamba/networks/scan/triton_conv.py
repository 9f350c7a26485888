"""The causal depthwise convolution with SiLU in Triton, in any order of tokens. Formulas: `conv_kernels`.

A program does a tile of tokens of a block of channels. weight: (K, d). Importing this file imports Triton: only
``triton_backend`` does, at first use.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import load_tile, rows_of, sigmoid

_WALK = ("L", "period", "stride", "step", "first")


@triton.jit
def _load_tokens(x, x_row, t, start, d, in_d, L, period, stride, step, first):
    """The t-th tokens of the walk as a tile, zeros before the first and after the last."""
    inside = (t >= 0) & (t < L)
    r = start + rows_of(tl.where(inside, t, 0), period, stride, step, first)
    return load_tile(x, r, x_row, d, inside[:, None] & in_d[None, :])


@triton.jit(do_not_specialize=_WALK)
def conv_forward(
    x, x_row, weight, bias, out, L, period, stride, step, first, D,
    K: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """The output of one tile of tokens and channels."""
    start = tl.program_id(2).to(tl.int64) * L
    d, t = tl.program_id(0) * BD + tl.arange(0, BD), tl.program_id(1) * BT + tl.arange(0, BT)
    in_d = d < D
    p = tl.zeros([BT, BD], tl.float32) + tl.load(bias + d, mask=in_d, other=0.0)[None, :]
    for k in tl.static_range(K):
        w = tl.load(weight + k * D + d, mask=in_d, other=0.0)
        p += w[None, :] * _load_tokens(x, x_row, t - (K - 1) + k, start, d, in_d, L, period, stride, step, first)
    r = start + rows_of(t, period, stride, step, first)
    mask = (t < L)[:, None] & in_d[None, :]
    tl.store(out + r[:, None] * D + d[None, :], (p * sigmoid(p)).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_WALK)
def conv_backward(
    x, x_row, weight, bias, g, g_row, x_grad, sums, L, period, stride, step, first, D,
    K: tl.constexpr, BD: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """sums: (B, tiles, K + 1, d), of each tile the gradient of the weight, then of the bias.

    The gradient of a token comes from its own q and those of the K - 1 tokens after it, which are computed again.
    """
    tile, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    start = batch * L
    d, t = tl.program_id(0) * BD + tl.arange(0, BD), tile * BT + tl.arange(0, BT)
    in_d = d < D
    place = sums + (batch * tl.num_programs(1) + tile) * (K + 1) * D + d
    offset = tl.load(bias + d, mask=in_d, other=0.0)[None, :]
    total = tl.zeros([BT, BD], tl.float32)
    for j in tl.static_range(K):
        p = tl.zeros([BT, BD], tl.float32) + offset
        for k in tl.static_range(K):
            w = tl.load(weight + k * D + d, mask=in_d, other=0.0)
            p += w[None, :] * _load_tokens(
                x, x_row, t + (j + k - K + 1), start, d, in_d, L, period, stride, step, first
            )
        s = sigmoid(p)
        grad = _load_tokens(g, g_row, t + j, start, d, in_d, L, period, stride, step, first)
        q = grad * s * (1.0 + p * (1.0 - s))
        total += tl.load(weight + (K - 1 - j) * D + d, mask=in_d, other=0.0)[None, :] * q
        if j == 0:
            for k in tl.static_range(K):
                value = _load_tokens(x, x_row, t - (K - 1) + k, start, d, in_d, L, period, stride, step, first)
                tl.store(place + k * D, tl.sum(q * value, axis=0), mask=in_d)
            tl.store(place + K * D, tl.sum(q, axis=0), mask=in_d)
    r = start + rows_of(t, period, stride, step, first)
    mask = (t < L)[:, None] & in_d[None, :]
    tl.store(x_grad + r[:, None] * D + d[None, :], total.to(x_grad.dtype.element_ty), mask=mask)
