"""The CPU back end: torch tensors in, the numba kernels run over them, gradients out.

Work is split over batch and channels (the scan) or batch and tokens (the convolution) and handed to a few
Python threads; the kernels release the GIL. Numba's own parallel loops are not used: their default layer may
not be entered from two threads at once, and its OpenMP layer clashes with torch's.
Sums over channels are kept apart in a partition that depends on the shapes alone and added in a fixed order,
so results are the same bits whatever the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import chunked
from .orders import IndexMap, index_map
from .work import Call, parts, rows, run

CONV_TILE = 2048  # tokens of one piece of the convolution
MOST_TAPS = 8  # a kernel is compiled for each number of taps; longer convolutions go to torch


def unavailable_reason(device: torch.device) -> str:
    """See `SelectiveScan.unavailable_reason`."""
    if device.type != "cpu":
        return f"it needs tensors on the CPU, not on {device.type}"
    return _problem()


@lru_cache(maxsize=1)
def _problem() -> str:
    """Imports numba and compiles the scan, or finds it in its cache; says what went wrong, if anything."""
    try:
        from . import jit

        for kernel in ("scan forward", "scan backward"):
            jit.build(kernel, 1)
    except ImportError as error:
        return f"numba cannot be imported ({error}); pip install numba"
    except Exception as error:  # whatever numba, LLVM or this processor may raise: torch takes over
        return f"numba cannot compile here ({type(error).__name__}: {str(error).strip()[:200]})"
    return ""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None,
    places: IndexMap | None = None,
    onto: Tensor | None = None,
) -> Tensor:
    """See `SelectiveScan.selective_scan`.

    Where it `scans_in_place` it takes also places, where the walk has the tokens of z and of the result (u, delta, B
    and C lie in its order), and onto, to which the result is added, and which it may overwrite.
    """
    from . import kernels

    if bool((A > 0).any()):  # states that grow: the kernels' exponential is made for decay
        return chunked.selective_scan(u, delta, A, B, C, D, delta_bias, z)
    dtype, d = u.dtype, u.shape[2]
    pad_channels, pad_states = -d % kernels.WIDTH, -A.shape[1] % kernels.GROUP
    # Whole vectors only: channels and states of zeros are added, and change nothing.
    u, delta, D, delta_bias = (_padded(x, pad_channels) for x in (u, delta, D, delta_bias))
    z = None if z is None else _padded(z, pad_channels)
    B, C = _padded(B, pad_states), _padded(C, pad_states)
    A = F.pad(A.float(), (0, pad_states, 0, pad_channels)) if pad_channels or pad_states else A.float()
    inputs = (u, delta, A, B, C, D, delta_bias, z)
    if needs_gradients(*inputs):
        return _cut(_Scan.apply(*inputs), d, dtype)
    within = onto is not None and onto.dtype == dtype == torch.float32 and not pad_channels and onto.is_contiguous()
    y, _ = _scan_forward(*inputs, keep=False, places=places, onto=onto if within else None)
    y = _cut(y, d, dtype)
    return y if onto is None or within else onto + y


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor, places: IndexMap | None = None) -> Tensor:
    """See `SelectiveScan.causal_conv1d_silu`; where it `convolves_in_place`, places: where the walk finds x's tokens.

    The result lies in the order of the walk.
    """
    from . import kernels

    taps = weight.shape[2]
    if taps > MOST_TAPS:
        return chunked.causal_conv1d_silu(x, weight, bias)
    dtype, d = x.dtype, x.shape[2]
    pad_channels = -d % kernels.WIDTH
    inputs = (_padded(x, pad_channels), _padded(weight[:, 0].T, pad_channels), _padded(bias, pad_channels))
    return _cut(_Conv.apply(*inputs) if needs_gradients(*inputs) else _conv_forward(*inputs, places), d, dtype)


def scans_in_place(A: Tensor, *inputs: Tensor | None) -> bool:
    """Whether `selective_scan` of such inputs takes places and onto."""
    return not (needs_gradients(A, *inputs) or bool((A > 0).any()))


def convolves_in_place(weight: Tensor, *inputs: Tensor) -> bool:
    """Whether `causal_conv1d_silu` of such inputs takes places."""
    return weight.shape[2] <= MOST_TAPS and not needs_gradients(weight, *inputs)


def needs_gradients(*inputs: Tensor | None) -> bool:
    """Whether a backward pass may follow: its kernels know one order only."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def _cut(y: Tensor, d: int, dtype: torch.dtype) -> Tensor:
    return (y if y.shape[2] == d else y[..., :d]).to(dtype)


def _padded(x: Tensor, extra: int) -> Tensor:
    x = x.float()
    return F.pad(x, (0, extra)) if extra else x


class _Scan(torch.autograd.Function):
    """Keeps its inputs and the states at the starts of chunks; backward computes the rest again."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, states = _scan_forward(*inputs, keep=True, places=None, onto=None)
        ctx.save_for_backward(*inputs, states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, bias, z, state = ctx.saved_tensors
        return _scan_backward(u, delta, A, B, C, D, bias, z, state, grad)


def _scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    z: Tensor | None,
    *,
    keep: bool,
    places: IndexMap | None,
    onto: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y, and the states (batch, chunks + 1, N, d) at the starts of chunks when `keep`, else only the last."""
    from . import kernels as k
    from .simd import LOG2E

    (batch, length, d), states = u.shape, A.shape[1]
    u, delta, B, C, D, bias = (rows(x) for x in (u, delta, B, C, D, bias))
    z = None if z is None else rows(z)
    a, out = (A.detach() * LOG2E).T.contiguous(), torch.empty(batch, length, d) if onto is None else onto
    state = torch.empty(batch, -(-length // k.CHUNK) + 1 if keep else 1, states, d)
    state[:, 0] = 0.0
    threads = torch.get_num_threads()
    calls = [
        Call(
            "scan forward",
            (0 if z is None else k.GATED) + (0 if onto is None else k.ADDED),
            **_walk(places, length, k.CHUNK),
            tokens=length,
            blocks=(lanes.stop - lanes.start) // k.WIDTH,
            groups=states // k.GROUP,
            u=u[i, :, lanes],
            delta=delta[i, :, lanes],
            b=B[i],
            c=C[i],
            z=None if z is None else z[i, :, lanes],
            out=out[i, :, lanes],
            a=a[:, lanes],
            skip=D[lanes],
            bias=bias[lanes],
            state=state[i, :, :, lanes],
            state_step=4 * states * d if keep else 0,
            scratch=torch.empty(k.FORWARD_SCRATCH),
        )
        for i in range(batch)
        for lanes in parts(d // k.WIDTH, 1 if batch % threads == 0 else threads, k.WIDTH)
    ]
    run(calls, out.numel())
    return out, state


def _walk(places: IndexMap | None, length: int, run_length: int) -> dict[str, Any]:
    """The fields that order_kernels reads, with room for the rows of a run of tokens."""
    period, stride, step, origin = places or index_map("forward", length, 1)
    room = torch.empty(run_length, dtype=torch.int64)
    return {"period": period, "stride": stride, "step": step, "origin": origin, "places": room}


def _scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    z: Tensor | None,
    state: Tensor,
    grad: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradients of u, delta, A, B, C, D, bias and z."""
    from . import kernels as k
    from .simd import LOG2E

    (batch, length, d), states = u.shape, A.shape[1]
    u, delta, B, C, D, bias, grad = (rows(x) for x in (u, delta, B, C, D, bias, grad))
    z = None if z is None else rows(z)
    a = (A * LOG2E).T.contiguous()
    u_grad, delta_grad = torch.empty(batch, length, d), torch.empty(batch, length, d)
    z_grad = None if z is None else torch.empty(batch, length, d)
    a_grad, carry = torch.zeros(batch, states, d), torch.zeros(batch, states, d)
    skip_grad, bias_grad = torch.zeros(batch, d), torch.zeros(batch, d)
    shares = parts(d // k.WIDTH, max(2, d // 48), k.WIDTH)  # by shape alone, never by the number of threads
    b_grad, c_grad = (torch.empty(batch, len(shares), length, states) for _ in range(2))
    calls = [
        Call(
            "scan backward",
            z is not None,
            tokens=length,
            blocks=(lanes.stop - lanes.start) // k.WIDTH,
            groups=states // k.GROUP,
            u=u[i, :, lanes],
            delta=delta[i, :, lanes],
            b=B[i],
            c=C[i],
            z=None if z is None else z[i, :, lanes],
            grad=grad[i, :, lanes],
            a=a[:, lanes],
            skip=D[lanes],
            bias=bias[lanes],
            state=state[i, :, :, lanes],
            state_step=4 * states * d,
            carry=carry[i, :, lanes],
            u_grad=u_grad[i, :, lanes],
            delta_grad=delta_grad[i, :, lanes],
            z_grad=None if z_grad is None else z_grad[i, :, lanes],
            b_grad=b_grad[i, share],
            c_grad=c_grad[i, share],
            a_grad=a_grad[i, :, lanes],
            skip_grad=skip_grad[i, lanes],
            bias_grad=bias_grad[i, lanes],
            scratch=torch.empty(k.BACKWARD_SCRATCH),
        )
        for i in range(batch)
        for share, lanes in enumerate(shares)
    ]
    run(calls, u.numel())
    for total in (b_grad, c_grad):
        for share in range(1, len(shares)):
            total[:, 0] += total[:, share]
    sums = a_grad.sum(0).T, b_grad[:, 0], c_grad[:, 0], skip_grad.sum(0), bias_grad.sum(0)
    return u_grad, delta_grad, *sums, z_grad


class _Conv(torch.autograd.Function):
    """x (B, L, d), weight (K, d), bias (d,); backward computes the convolution again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _conv_forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        return _conv_backward(x, weight, bias, grad)


def _conv_forward(x: Tensor, weight: Tensor, bias: Tensor, places: IndexMap | None = None) -> Tensor:
    from . import conv_kernels
    from . import kernels as k

    batch, length, d = x.shape
    x, weight, bias, out = rows(x), rows(weight), rows(bias), torch.empty(batch, length, d)
    calls = [
        Call(
            "conv forward",
            len(weight),
            **_walk(places, length, 2 * conv_kernels.PIECE),
            first=tile.start,
            count=tile.stop - tile.start,
            blocks=d // k.WIDTH,
            x=x[i],
            weight=weight,
            bias=bias,
            out=out[i],
        )
        for i in range(batch)
        for tile in parts(length, -(-length // CONV_TILE))
    ]
    run(calls, out.numel())
    return out


def _conv_backward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from . import kernels as k

    (batch, length, d), taps = x.shape, len(weight)
    x, weight, bias, grad, x_grad = (
        rows(x),
        rows(weight),
        rows(bias),
        rows(grad),
        torch.empty(batch, length, d),
    )
    tiles = parts(length, -(-length // CONV_TILE))
    sums = torch.empty(batch, len(tiles), taps + 1, d)
    calls = [
        Call(
            "conv backward",
            taps,
            first=tile.start,
            count=tile.stop - tile.start,
            after=min(taps - 1, length - tile.stop),
            blocks=d // k.WIDTH,
            x=x[i],
            weight=weight,
            bias=bias,
            grad=grad[i],
            x_grad=x_grad[i],
            weight_grad=sums[i, n],
            bias_grad=sums[i, n, taps],
        )
        for i in range(batch)
        for n, tile in enumerate(tiles)
    ]
    run(calls, x.numel())
    total = sums.sum((0, 1))
    return x_grad, total[:taps], total[taps]
