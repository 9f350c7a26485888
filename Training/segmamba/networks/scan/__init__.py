"""The selective scan of Mamba and its causal convolution: one function each, several back ends, both passes.

    dt_t = softplus(delta_t + delta_bias), h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = <C_t, h_t> + D u_t
    (Gu and Dao 2023, arXiv 2312.00752, algorithm 2; here with the gate: y_t SiLU(z_t))

back end    runs on                  what it is
cuda        NVIDIA, mamba-ssm        the fused kernels of mamba-ssm and causal-conv1d
triton      NVIDIA, Triton           kernels for any order of tokens, chunks in parallel; needs no CUDA toolkit
cpu         CPU, numba               SIMD kernels, threads split over batch and channels; float32
torch       any device, any float    chunk after chunk, parallel inside the chunk; memory bounded by the chunk
reference   any device               a plain float64 loop over the tokens: the oracle of the tests

The best usable one is chosen by device. The environment variable SEGMAMBA_SCAN or the argument ``backend``
overrides it. While torch.export records a network it is torch, for a program holds torch's operators alone.
Numba, Triton, mamba-ssm and causal-conv1d are imported at first use, never before.
The tokens are those of a grid, and are walked through in one of three orders (`orders`).
"""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

from segmamba.errors import InputError

from . import chunked, cpu, cuda, reference, triton_backend
from .interface import SelectiveScan
from .orders import ORDERS, index_map, unwalk, walk

__all__ = [
    "BACKENDS",
    "ORDERS",
    "SelectiveScan",
    "available_backends",
    "causal_conv1d_silu",
    "choose_backend",
    "keeps_order",
    "selective_scan",
]

BACKENDS: dict[str, SelectiveScan] = {
    "cuda": cuda,
    "triton": triton_backend,
    "cpu": cpu,
    "torch": chunked,
    "reference": reference,
}
OVERRIDE = "SEGMAMBA_SCAN"
_PREFERENCE = {"cuda": ("cuda", "triton", "torch"), "cpu": ("cpu", "torch")}  # by device type; others: torch

_log = logging.getLogger(__name__)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    z: Tensor | None = None,
    *,
    order: str = "forward",
    slices: int = 1,
    walked: bool = False,
    onto: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The selective scan, differentiable with respect to every tensor.

    B: batch, L: tokens, d: channels, which lie last, N: states. Half precision is computed in float32, also under
    autocast. float64 goes to the torch back end even where another is asked for, for their kernels have no float64.

    Args:
        u: (B, L, d), the input.
        delta: (B, L, d), the step sizes before delta_bias and softplus.
        A: (d, N), negative.
        B: (B, L, N), how the input enters the states.
        C: (B, L, N), how the states are read.
        D: (d,), the share of the input that goes past the states.
        delta_bias: (d,), added to delta.
        z: (B, L, d), the gate before SiLU; None: no gate.
        order: one of ORDERS, in which the tokens are walked through; they lie, and the result does, as in the grid.
        slices: of the grid, a divisor of L.
        walked: u, delta, B and C lie in the order of the walk already; z and the result, still as in the grid.
        onto: (B, L, d), what the result is added to; it may be overwritten where no gradient is asked for.
        backend: one of BACKENDS; None: the best that can be used.

    Returns:
        (B, L, d), in u's dtype.

    Raises:
        InputError: for shapes that do not fit, an empty sequence, and a back end that cannot be used.
    """
    _check_scan(u, delta, A, B, C, D, delta_bias, z)
    _check_order(u, order, slices)
    if onto is not None:
        _expect("onto", onto, tuple(u.shape), u)
    name, places = _backend_for(u, backend), index_map(order, u.shape[1], slices)
    if name == "triton" and A.shape[1] > triton_backend.MOST_STATES:
        name = "torch"
    if name == "triton":
        if walked:
            u, delta, B, C = (unwalk(x, order, slices) for x in (u, delta, B, C))
        y = triton_backend.selective_scan(u, delta, A, B, C, D, delta_bias, z, places)
        return y if onto is None else onto + y
    if not walked:
        u, delta, B, C = (walk(x, order, slices) for x in (u, delta, B, C))
    if name == "cpu" and cpu.scans_in_place(A, u, delta, B, C, D, delta_bias, z, onto):
        return cpu.selective_scan(u, delta, A, B, C, D, delta_bias, z, places, onto)
    z = None if z is None else walk(z, order, slices)
    y = unwalk(BACKENDS[name].selective_scan(u, delta, A, B, C, D, delta_bias, z), order, slices)
    return y if onto is None else onto + y


def causal_conv1d_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    order: str = "forward",
    slices: int = 1,
    walked: bool = False,
    backend: str | None = None,
) -> Tensor:
    """SiLU of the causal depthwise convolution: y_t = SiLU(bias + sum_k weight_k x_{t-K+1+k}), from zeros.

    Args:
        x: (B, L, d).
        weight: (d, 1, K), as nn.Conv1d(groups=d) keeps it.
        bias: (d,).
        order: as of the scan.
        slices: as of the scan.
        walked: the result is to lie in the order of the walk; x lies as in the grid.
        backend: as of the scan.

    Returns:
        (B, L, d), in x's dtype.

    Raises:
        InputError: as `selective_scan`.
    """
    d = _tokens("x", x)[2]
    if weight.ndim != 3 or weight.shape[:2] != (d, 1) or weight.shape[2] < 1:
        raise InputError(f"weight of the causal convolution has shape {tuple(weight.shape)}; expected ({d}, 1, K)")
    _expect("bias", bias, (d,), x)
    _check_order(x, order, slices)
    name, places = _backend_for(x, backend), index_map(order, x.shape[1], slices)
    if name == "triton" and weight.shape[2] > triton_backend.MOST_TAPS:
        name = "torch"
    if name == "triton":
        y = triton_backend.causal_conv1d_silu(x, weight, bias, places)
        return walk(y, order, slices) if walked else y
    if name == "cpu" and cpu.convolves_in_place(weight, x, bias):
        y = cpu.causal_conv1d_silu(x, weight, bias, places)
    else:
        y = BACKENDS[name].causal_conv1d_silu(walk(x, order, slices), weight, bias)
    return y if walked else unwalk(y, order, slices)


def keeps_order(x: Tensor) -> bool:
    """Whether the back end for such tokens has them, from convolution to scan, best where they lie in the grid.

    The others read them one after the other: between the two they are better left in the order of the walk.
    """
    return _backend_for(x, None) == "triton"


def available_backends(device: torch.device | str) -> dict[str, str]:
    """Every back end by name: "" if it can be used for tensors on `device`, else the reason why not."""
    device = torch.device(device)
    return {name: backend.unavailable_reason(device) for name, backend in BACKENDS.items()}


def choose_backend(device: torch.device | str) -> str:
    """The back end for tensors on `device`: what SEGMAMBA_SCAN says, else the fastest usable one.

    Raises InputError when SEGMAMBA_SCAN names one that is unknown or cannot be used there.
    """
    if torch.compiler.is_exporting():
        return "torch"
    device = torch.device(device)
    wanted = os.environ.get(OVERRIDE, "").strip().lower()
    if wanted:
        return _usable(wanted, device, f"the environment variable {OVERRIDE}")
    best, *others = _PREFERENCE.get(device.type, ("torch",))
    reasons = {}
    for name in (best, *others):
        reason = BACKENDS[name].unavailable_reason(device)
        if not reason:
            if name == "torch":  # every other has fast kernels
                for missing, why in reasons.items():
                    _notice(missing, device.type, why)
            return name
        reasons[name] = reason
    raise AssertionError("the torch back end runs everywhere")


def _backend_for(x: Tensor, backend: str | None) -> str:
    name = _usable(backend, x.device, "the argument backend") if backend else choose_backend(x.device)
    if name in ("cuda", "triton", "cpu") and x.dtype == torch.float64:
        return "torch"  # their kernels have no float64
    return name


def _usable(name: str, device: torch.device, source: str) -> str:
    if name not in BACKENDS:
        raise InputError(f"{source} asks for the unknown scan back end {name!r}; use one of {', '.join(BACKENDS)}")
    if reason := BACKENDS[name].unavailable_reason(device):
        raise InputError(
            f"{source} asks for the scan back end {name!r}, which cannot be used here: {reason}. "
            f"Remove the override to choose automatically, or use 'torch', which runs everywhere"
        )
    return name


@cache
def _notice(name: str, device: str, reason: str) -> None:
    """Says once that a faster back end is missing."""
    _log.warning(
        "selective scan on %s: %r cannot be used (%s); a slower back end takes its place",
        device,
        name,
        reason,
    )


def _tokens(name: str, x: Tensor) -> tuple[int, int, int]:
    if x.ndim != 3 or not x.is_floating_point():
        raise InputError(f"{name} of the scan has shape {tuple(x.shape)}, {x.dtype}; expected floating point (B, L, d)")
    if 0 in x.shape:
        raise InputError(f"{name} of the scan is empty, shape {tuple(x.shape)}; every one of B, L, d must be 1 or more")
    batch, length, d = x.shape
    return batch, length, d


def _check_order(x: Tensor, order: str, slices: int) -> None:
    if order not in ORDERS:
        raise InputError(f"order {order!r} of the scan must be one of {', '.join(ORDERS)}")
    if slices < 1 or x.shape[1] % slices:
        raise InputError(f"{x.shape[1]} tokens of the scan do not make {slices} slices of one size")


def _expect(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    if tuple(x.shape) != shape:
        raise InputError(
            f"{name} of the scan has shape {tuple(x.shape)}; expected {shape} for tokens {tuple(like.shape)}"
        )
    if x.device != like.device:
        raise InputError(
            f"{name} of the scan is on {x.device}, the tokens are on {like.device}; move them to one device"
        )


def _check_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, z: Tensor | None
) -> None:
    batch, length, d = _tokens("u", u)
    if A.ndim != 2 or A.shape[0] != d or A.shape[1] < 1:
        raise InputError(f"A of the scan has shape {tuple(A.shape)}; expected ({d}, N) to fit u {tuple(u.shape)}")
    states = A.shape[1]
    _expect("A", A, (d, states), u)
    _expect("delta", delta, (batch, length, d), u)
    _expect("B", B, (batch, length, states), u)
    _expect("C", C, (batch, length, states), u)
    _expect("D", D, (d,), u)
    _expect("delta_bias", delta_bias, (d,), u)
    if z is not None:
        _expect("z", z, (batch, length, d), u)
