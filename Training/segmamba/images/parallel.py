"""The images of a case side by side, each in a thread of its own: zlib, numpy, SimpleITK and torch let Python go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def for_each(images: Mapping[str, Given], work: Callable[[str, Given], Made]) -> dict[str, Made]:
    """The same work for each of several images, with as many at once as this process may use cores.

    `work` is given the name and the image, and shares nothing that it changes. Returns what it makes, in the order of
    `images`. Raises what it raises for the first in that order.
    """
    threads = min(len(images), _cores())
    if threads <= 1:
        return {name: work(name, image) for name, image in images.items()}
    with ThreadPoolExecutor(threads, thread_name_prefix="segmamba-image") as pool:
        return dict(zip(images, pool.map(work, images, images.values())))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
