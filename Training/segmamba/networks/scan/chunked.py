"""The portable scan: torch alone, any device, any floating dtype.

The sequence is walked in segments. A segment is cut into pieces that advance together, step by step, each
from a state of zero; then the true states at their starts are carried from piece to piece and added, weighted
by the product of the decays passed since. Every factor is in (0, 1]: nothing is divided, no logarithm is
summed, so nothing can overflow (the log-space cumulative sum that is often used here gives NaN).
Memory beyond the inputs: a few tensors of segment x d x N, forward and backward; of the states only those at
the starts of segments are kept. The idea is Blelloch's (1990, prefix sums), its use here Gu and Dao's (2023).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Values of a segment's states (B x tokens x d x N): what fits the caches of a CPU. A GPU waits for launches, so there a
# segment is as large as memory lets it be, within these bounds.
SEGMENT_VALUES = {"cpu": 1 << 18}
LEAST_VALUES, MOST_VALUES = 1 << 20, 1 << 26
_BYTES_A_VALUE = 32  # of a segment's states, backward: eight tensors of float32
_SHORT = 16  # tokens of a piece on a GPU; pieces are then walked through likewise: launches grow with log L


def unavailable_reason(device: torch.device) -> str:
    """See `SelectiveScan.unavailable_reason`."""
    return ""


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, z: Tensor | None
) -> Tensor:
    """See `SelectiveScan.selective_scan`."""
    dtype = u.dtype
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C, D, delta_bias = (x.to(exact) for x in (u, delta, A, B, C, D, delta_bias))
        y = _Scan.apply(F.softplus(delta + delta_bias), u, A, B, C) + D * u
        return (y if z is None else y * F.silu(z.to(exact))).to(dtype)


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `SelectiveScan.causal_conv1d_silu`.

    A sum of shifted rows: needs no transposes, and no library that would round float32 to TF32.
    """
    dtype = x.dtype
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    x, length, taps = x.to(exact), x.shape[1], weight.shape[2]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    y = bias.to(exact).expand_as(x)
    for k in range(taps):
        y = torch.addcmul(y, padded[:, k : k + length], weight[:, 0, k].to(exact))
    return F.silu(y).to(dtype)


class _Scan(torch.autograd.Function):
    """y_t = <C_t, h_t>, h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t; backward computes the states again."""

    @staticmethod
    def forward(ctx: Any, dt: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        state, starts, y = dt.new_zeros(len(dt), *A.shape), [], torch.empty_like(dt)
        for part in _segments(dt, A):
            starts.append(state)
            x = _inputs(dt[:, part] * u[:, part], B[:, part])
            h = _recurrence(_decays(dt[:, part], A), x, state, _short(dt))
            y[:, part] = (h @ C[:, part, :, None]).squeeze(-1)
            state = h[:, -1].clone()
        ctx.save_for_backward(dt, u, A, B, C, torch.stack(starts))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """With e_t = dL/dh_t = C_t g_t + a_{t+1} e_{t+1}: the same recurrence, walked backwards."""
        dt, u, A, B, C, starts = ctx.saved_tensors
        dt_grad, u_grad, B_grad, C_grad = (torch.empty_like(x) for x in (dt, u, B, C))
        A_grad, carry = torch.zeros_like(A), torch.zeros_like(starts[0])
        with torch.autocast(u.device.type, enabled=False):
            for part, start in reversed(list(zip(_segments(dt, A), starts))):
                dt_, x, g = dt[:, part], dt[:, part] * u[:, part], grad[:, part]
                a = _decays(dt_, A)
                h = _recurrence(a.clone(), _inputs(x, B[:, part]), start, _short(dt))
                # a_{t+1}, last token first: the carry already holds the decay after the segment
                later = torch.cat([torch.ones_like(a[:, :1]), a[:, 1:].flip(1)], dim=1)
                e = _recurrence(later, _inputs(g, C[:, part]).flip(1), carry, _short(dt)).flip(1)
                carry = a[:, 0] * e[:, 0]
                C_grad[:, part] = (g[:, :, None] @ h).squeeze(2)
                B_grad[:, part] = (x[:, :, None] @ e).squeeze(2)
                x_grad = (e @ B[:, part, :, None]).squeeze(-1)
                through = a.mul_(e)  # e_t a_t h_{t-1}
                through[:, 1:].mul_(h[:, :-1])
                through[:, 0].mul_(start)
                A_grad += torch.einsum("bld,bldn->dn", dt_, through)
                dt_grad[:, part] = (through * A).sum(-1) + u[:, part] * x_grad
                u_grad[:, part] = dt_ * x_grad
        return dt_grad, u_grad, A_grad, B_grad, C_grad


def _segments(dt: Tensor, A: Tensor) -> list[slice]:
    """Pieces of the sequence whose states fill SEGMENT_VALUES; on a GPU of powers of 2 tokens, which leave no tails."""
    a_token = len(dt) * A.numel()
    if dt.device.type in SEGMENT_VALUES and not torch.compiler.is_exporting():
        tokens = max(16, SEGMENT_VALUES[dt.device.type] // a_token)
    else:
        tokens = max(16, 1 << ((_room(dt.device) // a_token).bit_length() - 1))
    return [slice(start, min(start + tokens, dt.shape[1])) for start in range(0, dt.shape[1], tokens)]


def _room(device: torch.device) -> int:
    """Values of a segment's states, by the memory that is free; a power of 2, so that it seldom changes."""
    if device.type == "meta" or torch.compiler.is_exporting():  # each launch is an entry of the program
        return MOST_VALUES
    if device.type != "cuda":
        return 1 << 23
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    values = 1 << max(0, (free // 2 // _BYTES_A_VALUE).bit_length() - 1)
    return min(MOST_VALUES, max(LEAST_VALUES, values))


def _decays(dt: Tensor, A: Tensor) -> Tensor:
    """a = exp(dt A): (B, tokens, d, N)."""
    return (dt[..., None] * A).exp_()


def _inputs(rows: Tensor, columns: Tensor) -> Tensor:
    """Outer products: (B, tokens, d), (B, tokens, N) -> (B, tokens, d, N)."""
    return rows[..., None] * columns[:, :, None]


def _short(dt: Tensor) -> int | None:
    return None if dt.device.type == "cpu" and not torch.compiler.is_exporting() else _SHORT


def _recurrence(a: Tensor, x: Tensor, state: Tensor, short: int | None) -> Tensor:
    """h_t = a_t h_{t-1} + x_t from h_{-1} = state, for every t. a, x: (B, tokens, d, N), both overwritten.

    short: tokens of a piece; None: near the root of their number, and the pieces' starts one after another.
    """
    batch, tokens = a.shape[:2]
    steps = min(tokens, short) if short else 1 << max(0, round(math.log2(tokens) / 2))
    whole = tokens // steps * steps
    if whole < tokens:  # the tail, shorter than one piece
        head = _recurrence(a[:, :whole], x[:, :whole], state, short)
        previous = head[:, -1]
        for t in range(whole, tokens):
            previous = x[:, t].addcmul_(a[:, t], previous)
        return x
    a_pieces, h = a.view(batch, -1, steps, *a.shape[2:]), x.view(batch, -1, steps, *x.shape[2:])
    for i in range(1, steps):
        h[:, :, i].addcmul_(a_pieces[:, :, i], h[:, :, i - 1])
        a_pieces[:, :, i].mul_(a_pieces[:, :, i - 1])  # now the product of the decays since the piece's start
    h.addcmul_(a_pieces, _starts(a_pieces[:, :, -1], h[:, :, -1], state, short)[:, :, None])
    return x


def _starts(a: Tensor, ends: Tensor, state: Tensor, short: int | None) -> Tensor:
    """The true states before each piece, from the ends of pieces that started from zero; a: decays over a piece."""
    pieces = a.shape[1]
    if short and pieces > short:
        after = _recurrence(a.clone(), ends.clone(), state, short)
        return torch.cat([state[:, None], after[:, :-1]], dim=1)
    starts = [state]
    for piece in range(pieces - 1):
        starts.append(torch.addcmul(ends[:, piece], a[:, piece], starts[-1]))
    return torch.stack(starts, dim=1)
