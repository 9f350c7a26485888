"""The NVIDIA back end that needs torch and Triton alone: kernels made at first use, for any order of tokens.

Tensors are read where they lie: (B, L, d) as slices of wider rows, in the order of an index map, in float32 or half
precision. Sums and states are float32. For backward only the states at the starts of chunks are kept.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .orders import IndexMap, index_map

MOST_STATES = 16  # a tile's states stay in registers; more go to torch
MOST_TAPS = 8  # a kernel is made for each number of taps
# Channels and tokens of a tile of the scan (one warp does it forward; backward, with more to hold, it is spread over
# four), sequences and chunks of `pass_on`, a tile of the convolution. Fixed, not tuned at run time, so that results
# depend on the shapes alone.
SCAN = {"BD": 16, "BT": 8}
WARPS, BACKWARD_WARPS = 1, 4
PASS = {"BJ": 32, "BC": 32, "num_warps": 1}
CONV = {"BD": 32, "BT": 64, "num_warps": 4}
SHORT_CHUNK, LONG_CHUNK = 64, 256  # tokens
# num_stages: with more than one, Triton 3.5 to 3.7 made wrong recurrences on Blackwell (mamba issue #997).
COMMON = {"num_stages": 1, "enable_fp_fusion": True}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def unavailable_reason(device: torch.device) -> str:
    """See `SelectiveScan.unavailable_reason`."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own way to run on a CPU, for tests
    if device.type != ("cpu" if interpreted else "cuda"):
        return f"it needs tensors on an NVIDIA GPU, not on {device.type}"
    if torch.version.hip:
        return "it was not tried on AMD's GPUs"
    return _problem(interpreted)


@lru_cache(maxsize=1)
def _problem(interpreted: bool) -> str:
    """Imports Triton and, on a GPU, makes and runs the scan once: its launcher may need a C compiler."""
    try:
        from . import triton_conv, triton_kernels  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error}); pip install triton, on Windows triton-windows"
    if interpreted:
        return ""
    try:
        x, A = torch.ones(1, 8, 16, device="cuda"), -torch.ones(16, 16, device="cuda")
        selective_scan(x, x, A, x, x, A[0], A[0], None, index_map("forward", 8, 1)).sum().item()
    except Exception as error:  # whatever Triton, the C compiler or this GPU may raise: torch takes over
        return f"Triton cannot make kernels here ({type(error).__name__}: {str(error).strip()[:200]})"
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
) -> Tensor:
    """As `segmamba.networks.scan.selective_scan`, in the order of an index map."""
    inputs = (u, delta, A.float(), B, C, D.float(), delta_bias.float(), z)
    places = places or index_map("forward", u.shape[1], 1)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        return _Scan.apply(places, *inputs)
    return _scan_forward(places, *inputs)[0]


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor, places: IndexMap | None = None) -> Tensor:
    """As `segmamba.networks.scan.causal_conv1d_silu`, in the order of an index map."""
    inputs = (x, weight[:, 0].T.float().contiguous(), bias.float())
    return _Conv.apply(places or index_map("forward", x.shape[1], 1), *inputs)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, places: IndexMap, *inputs: Any) -> Tensor:
        y, starts, sums = _scan_forward(places, *inputs)
        ctx.places = places
        ctx.save_for_backward(*inputs, starts, sums)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, bias, z, starts, sums = ctx.saved_tensors
        return None, *_scan_backward(ctx.places, u, delta, A, B, C, D, bias, z, starts, sums, grad)


class _Walk:
    """How the programs of the scan share its work: chunks of tokens, blocks of channels, items of the batch.

    The length of a chunk follows from the length alone: enough chunks for a GPU, few enough for `pass_on`.
    """

    def __init__(self, u: Tensor, A: Tensor, places: IndexMap):
        self.batch, length, self.d = u.shape
        self.states, self.device = A.shape[1], u.device
        chunk = min(length, SHORT_CHUNK if length <= 1 << 16 else LONG_CHUNK)
        self.tiles = -(-chunk // SCAN["BT"])
        self.chunks = -(-length // (self.tiles * SCAN["BT"]))
        self.grid = (-(-self.d // SCAN["BD"]), self.chunks, self.batch)
        self.sizes = (length, *places, self.chunks, self.tiles, self.d, self.states)
        self.options = {**SCAN, **COMMON, "BN": 1 << (self.states - 1).bit_length(), "num_warps": WARPS}

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device, dtype=torch.float32)

    def starts(
        self, v: Tensor, delta: Tensor, b: Tensor, z: Tensor | None, A: Tensor, bias: Tensor, sums: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """States at the starts of chunks (B, chunks, N, d), and the sums of dt in them (B, chunks, d).

        With those sums given: the adjoint's K at the ends of chunks instead, v being the gradient and b C.
        """
        from . import triton_kernels

        kernels: Any = triton_kernels  # called as kernels.name[grid](...)

        adjoint = sums is not None
        ends, starts = (self.new(self.batch, self.chunks, self.states, self.d) for _ in range(2))
        sums = sums if adjoint else self.new(self.batch, self.chunks, self.d)
        given = (*_rows(v), *_rows(delta), *_rows(b), *_rows(z), A, bias, ends, sums)
        options = {"ADJOINT": adjoint, "GATED": adjoint and z is not None}
        kernels.chunk_ends[self.grid](*given, *self.sizes, **self.options, **options)
        grid = (-(-self.states * self.d // PASS["BJ"]), self.batch)
        sizes = (self.chunks, self.d, self.states)
        kernels.pass_on[grid](A, ends, sums, starts, *sizes, ADJOINT=adjoint, **PASS, **COMMON)
        return starts, sums


def _scan_forward(
    places: IndexMap,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    z: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and what `starts` gives."""
    from . import triton_kernels

    kernels: Any = triton_kernels  # called as kernels.name[grid](...)

    work, A = _Walk(u, A, places), A.T.contiguous()
    starts, sums = work.starts(u, delta, B, None, A, bias)
    y = torch.empty(u.shape, device=u.device, dtype=u.dtype)
    rows = (*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z))
    options = {**work.options, "GATED": z is not None, "KEEP": False}
    kernels.forward[work.grid](*rows, A, D, bias, starts, y, None, *work.sizes, **options)
    return y, starts, sums


def _scan_backward(
    places: IndexMap,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    z: Tensor | None,
    starts: Tensor,
    sums: Tensor,
    grad: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradients of u, delta, A, B, C, D, bias and z."""
    from . import triton_kernels

    kernels: Any = triton_kernels  # called as kernels.name[grid](...)

    work, A = _Walk(u, A, places), A.T.contiguous()
    batch, chunks, states, d = starts.shape
    rows = (*_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z))
    kept = work.new(batch, chunks, work.tiles, states, d)
    options = {**work.options, "GATED": False, "KEEP": True}
    kernels.forward[work.grid](*rows, A, D, bias, starts, None, kept, *work.sizes, **options)
    carry, _ = work.starts(grad, delta, C, z, A, bias, sums)
    u_grad, delta_grad, z_grad = (
        None if x is None else torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in (u, delta, z)
    )
    B_grad, C_grad = (work.new(work.grid[0], *B.shape) for _ in range(2))
    A_grad, D_grad, bias_grad = work.new(*starts.shape), work.new(*sums.shape), work.new(*sums.shape)
    grads = (u_grad, delta_grad, z_grad, B_grad, C_grad, A_grad, D_grad, bias_grad)
    given = (*rows, *_rows(grad), A, D, bias, kept, carry, *grads)
    options = {**work.options, "GATED": z is not None, "num_warps": BACKWARD_WARPS}
    kernels.backward[work.grid](*given, *work.sizes, **options)
    A_grad, D_grad, bias_grad = (x.sum((0, 1)) for x in (A_grad, D_grad, bias_grad))
    return u_grad, delta_grad, A_grad.T, B_grad.sum(0).to(B.dtype), C_grad.sum(0).to(C.dtype), D_grad, bias_grad, z_grad


class _Conv(torch.autograd.Function):
    """x (B, L, d), weight (K, d), bias (d,); backward computes the convolution again."""

    @staticmethod
    def forward(ctx: Any, places: IndexMap, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from . import triton_conv

        kernels: Any = triton_conv  # called as kernels.name[grid](...)

        ctx.places = places
        ctx.save_for_backward(x, weight, bias)
        out = torch.empty(x.shape, device=x.device, dtype=x.dtype)
        kernels.conv_forward[_conv_grid(x)](
            *_rows(x), weight, bias, out, *_conv_sizes(x, places, weight), **CONV, **COMMON
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from . import triton_conv

        kernels: Any = triton_conv  # called as kernels.name[grid](...)

        x, weight, bias = ctx.saved_tensors
        grid, taps = _conv_grid(x), len(weight)
        x_grad = torch.empty(x.shape, device=x.device, dtype=x.dtype)
        sums = torch.empty(grid[2], grid[1], taps + 1, x.shape[2], device=x.device, dtype=torch.float32)
        given = (*_rows(x), weight, bias, *_rows(grad), x_grad, sums)
        kernels.conv_backward[grid](*given, *_conv_sizes(x, ctx.places, weight), **CONV, **COMMON)
        total = sums.sum((0, 1))
        return None, x_grad, total[:taps], total[taps]


def _conv_grid(x: Tensor) -> tuple[int, int, int]:
    batch, length, d = x.shape
    return -(-d // CONV["BD"]), -(-length // CONV["BT"]), batch


def _conv_sizes(x: Tensor, places: IndexMap, weight: Tensor) -> tuple[int, ...]:
    return (x.shape[1], *places, x.shape[2], len(weight))


def _rows(x: Tensor | None) -> tuple[Tensor | None, int]:
    """x as kernels read it, channels side by side and items of the batch end to end, and the step between tokens."""
    if x is None:
        return None, 0
    x = x if x.dtype in _FLOATS else x.float()
    if x.stride(2) != 1 or x.stride(0) != x.shape[1] * x.stride(1):
        x = x.contiguous()
    return x, x.stride(1)
