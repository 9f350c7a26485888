"""From formulas to machine code: numba functions whose whole body is what one of the emitters writes."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from . import conv_kernels, kernels, order_kernels, simd
from .simd import Emitter, Fields

log = logging.getLogger(__name__)

_COLD = "kernels are being compiled for this CPU, which takes some seconds; the next start finds them"
_NO_CACHE = (
    "kernels are compiled anew at every start, which takes some seconds: numba has no folder to keep them in; let "
    "NUMBA_CACHE_DIR name one that can be written"
)

# name -> what writes the body (given the emitter, the arguments and the variant), and the names of its arguments.
# Other packages add theirs (segmamba.networks.norm).
KERNELS = {
    "scan forward": (kernels.emit_forward, kernels.FORWARD_FIELDS),
    "scan backward": (kernels.emit_backward, kernels.BACKWARD_FIELDS),
    "conv forward": (conv_kernels.emit_forward, conv_kernels.FORWARD_FIELDS),
    "conv backward": (conv_kernels.emit_backward, conv_kernels.BACKWARD_FIELDS),
}


@intrinsic(prefer_literal=True)
def _body(typing_context: Any, arguments: Any, recipe: Any) -> tuple[Any, Callable]:
    name, variant, _ = recipe.literal_value.split("|")
    emit, _ = KERNELS[name]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        emitter = Emitter(builder)
        address = emitter.value(builder.ptrtoint(array.data, simd.WORD))
        emit(emitter, Fields(emitter, fields_of(name), address), int(variant))
        return context.get_dummy_value()

    return types.void(arguments, recipe), generate


def fields_of(name: str) -> list[str]:
    """The names of a kernel's arguments, in order."""
    return KERNELS[name][1].split()


@cache
def build(name: str, variant: int) -> Callable[[np.ndarray], None]:
    """The compiled kernel: a function of one int64 array, its fields in order. Releases the GIL.

    variant: what the kernel's emitter says; for the causal convolution its number of taps.
    Compiling takes a second or so, once: numba keeps the result beside this file, or in the user's cache
    folder where this one is read-only. Without either, every process compiles anew. Either is said, once.
    """
    recipe = f"{name}|{variant}|{_sources(KERNELS[name][0].__module__)}"

    def kernel(arguments: np.ndarray) -> None:
        # numba gives the typing context itself. Its cache tells closures apart by the values they hold: the recipe must
        # be the only one, for another, such as _body, is a new value in every process, and would never be found.
        _body(arguments, recipe)  # pyright: ignore[reportCallIssue]

    try:
        compiled = njit("void(int64[::1])", nogil=True, cache=True)(kernel)
        if not compiled.stats.cache_hits:
            _say(_COLD)
    except (RuntimeError, OSError):  # no folder for the cache, or none that can be written
        compiled = njit("void(int64[::1])", nogil=True)(kernel)
        _say(_NO_CACHE)
    return compiled


@cache
def _say(text: str) -> None:
    """Once a process."""
    log.warning(text)


@cache
def _sources(module: str) -> str:
    """A digest of the files that a module's kernels are made of: of those numba watches only this one."""
    digest = hashlib.sha256(str(simd.WIDTH).encode())
    for name in (simd.__name__, order_kernels.__name__, module):
        digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()[:16]
