"""What a network frees on the CPU is kept for its next tensor (Linux with glibc; others do as they think best)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}  # large blocks too come from the heap, whose end is never cut off
# glibc ceases to adapt its thresholds once one is set: these are where it would end after large tensors
_AFTERWARDS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}

# by which an environment sets what is set here
_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, freed memory stays with the process; at the end the system has it back.

    A pass makes and frees the same large tensors over and over. glibc gives each one's pages back, and Linux clears
    them where the next one touches them: a seventh of the CPU time of five 64^3 windows of `released`. The heap has
    gaps, so that a peak is mostly 15 to 30 % higher, at the worst seen 60 % (4.2 GB for two windows of 128^3). It
    counts for the whole process, and helps in its main thread; of two at a time the first to end ends it for both.
    Where the environment says how malloc is to work, nothing is done: what was set could not be set back.
    """
    mallopt, malloc_trim = _glibc("mallopt"), _glibc("malloc_trim")
    if mallopt is None or malloc_trim is None or _is_tuned():
        yield
        return
    for parameter, value in _KEEP.items():
        mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _AFTERWARDS.items():
            mallopt(parameter, value)
        malloc_trim(0)


def _is_tuned() -> bool:
    """Whether somebody has set malloc by the environment, in either of glibc's two ways."""
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _VARIABLES)


def _glibc(name: str) -> Any:
    """A function of the C library; None where that is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
