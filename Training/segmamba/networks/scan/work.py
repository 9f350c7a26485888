"""Handing work to the kernels: tensors become addresses, pieces of work go to a few threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 15  # values below which a second thread costs more than it gains


class Call:
    """One kernel on one piece of the work. Keeps the tensors alive until it is done.

    fields: by the kernel's names, integers or tensors (None for one that the variant does not read).
    A field `x_row` is the step in bytes along the first axis of the tensor `x`.
    """

    def __init__(self, kernel: str, variant: int, **fields: Tensor | int | None):
        from . import jit

        self.kernel, self.fields = jit.build(kernel, int(variant)), fields
        self.arguments = np.array([self._value(name) for name in jit.fields_of(kernel)], dtype=np.int64)

    def _value(self, name: str) -> int:
        if name.endswith("_row"):
            x = self.fields[name.removesuffix("_row")]
            return x.element_size() * x.stride(0) if isinstance(x, Tensor) else 0
        x = self.fields[name]
        return x.data_ptr() if isinstance(x, Tensor) else int(x or 0)

    def __call__(self) -> None:
        """Runs the kernel in this thread."""
        self.kernel(self.arguments)


def run(calls: list[Call], size: int) -> None:
    """Runs the calls in up to torch.get_num_threads() threads; in one if the output has few values (size)."""
    threads = min(torch.get_num_threads(), len(calls))
    if threads <= 1 or size < SMALL:
        for call in calls:
            call()
    else:
        list(_pool(threads, os.getpid()).map(Call.__call__, calls))


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept, for threads are slow to start; `process` is in the key because threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="segmamba-scan")


def parts(count: int, pieces: int, unit: int = 1) -> list[slice]:
    """range(count * unit) cut at multiples of unit into at most `pieces` nearly equal slices."""
    pieces = max(1, min(count, pieces))
    edges = [count * p // pieces * unit for p in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def rows(x: Tensor) -> Tensor:
    """x as kernels read it: float32, any step from token to token, channels side by side."""
    x = x.detach().float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
