"""The NVIDIA back end: the fused kernels of mamba-ssm (the scan) and causal-conv1d (the convolution).

Both are optional: without mamba-ssm the torch back end takes over, without causal-conv1d its convolution.
The scan wants one dtype for u, delta, B, C and z, float32 for A, D and the bias of delta, and tokens last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from . import chunked

_KERNELS = "selective_scan_cuda"  # mamba-ssm's compiled module, beside its package


def unavailable_reason(device: torch.device) -> str:
    """See `SelectiveScan.unavailable_reason`."""
    if device.type != "cuda":
        return f"it needs tensors on an NVIDIA GPU, not on {device.type}"
    return _scan_function()[1]


@lru_cache(maxsize=1)
def _scan_function() -> tuple[Callable[..., Tensor] | None, str]:
    """mamba-ssm's scan and "", or None and the reason why it is missing.

    Since 2.3.2 mamba-ssm can be installed, and imported, without the kernels of this scan: they are asked for first.
    """
    if find_spec("mamba_ssm") is None:
        return None, "mamba-ssm is not installed (pip install mamba-ssm causal-conv1d)"
    if find_spec(_KERNELS) is None:
        return None, (
            f"mamba-ssm is installed without its CUDA kernels, the module {_KERNELS}; "
            "build it with them: MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-binary :all: mamba-ssm"
        )
    try:
        import_module(_KERNELS)
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a library built for another torch, a missing symbol
        return None, f"mamba-ssm cannot be imported: {type(error).__name__}: {error}"
    return selective_scan_fn, ""


@lru_cache(maxsize=1)
def _conv_function() -> Callable[..., Tensor] | None:
    try:
        from causal_conv1d import causal_conv1d_fn  # pyright: ignore[reportMissingImports]
    except Exception:  # not installed, or built for another torch
        return None
    return causal_conv1d_fn


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, z: Tensor | None
) -> Tensor:
    """See `SelectiveScan.selective_scan`."""
    dtype = u.dtype
    # (B, L, d) -> (B, d, L) with L contiguous, as the kernel reads it
    u, delta, B, C = (x.to(dtype).transpose(1, 2).contiguous() for x in (u, delta, B, C))
    z = None if z is None else z.to(dtype).transpose(1, 2).contiguous()
    scan, reason = _scan_function()
    assert scan is not None, reason
    y = scan(u, delta, A.float(), B, C, D=D.float(), z=z, delta_bias=delta_bias.float(), delta_softplus=True)
    return y.transpose(1, 2)


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `SelectiveScan.causal_conv1d_silu`."""
    taps, d = weight.shape[2], x.shape[2]
    function = _conv_function()
    if function is None or not 2 <= taps <= 4 or d % 8:  # the kernel's limits for channels that lie side by side
        return chunked.causal_conv1d_silu(x, weight, bias)
    # contiguous (B, L, d) seen as (B, d, L): the kernel reads channels-last as it is
    y = function(x.contiguous().transpose(1, 2), weight[:, 0], bias, activation="silu")
    return y.transpose(1, 2)
