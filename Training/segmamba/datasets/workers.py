"""The same function over many cases, in other processes where more than one job is wanted, in order of the cases."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from segmamba.errors import InputError

Given = TypeVar("Given")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # (cases done, cases in all)


def map_cases(
    function: Callable[[Given], Result], items: Sequence[Given], jobs: int, progress: Progress | None
) -> Iterator[Result]:
    """The same function over many cases, in the order of the cases.

    Args:
        function: it, what it takes and what it gives are picklable where `jobs` is above 1.
        items: what it is given, one after the other.
        jobs: processes, 1 or more; 1: in this process.
        progress: called as progress(done, total) after each.

    Yields:
        Its results. Whoever stops early stops the processes too.

    Raises:
        InputError: where `jobs` is below 1, or a process was ended from outside.
    """
    if jobs < 1:
        raise InputError(f"{jobs} jobs: expected 1 or more")
    if jobs == 1 or len(items) < 2:
        for done, item in enumerate(items, start=1):
            yield function(item)
            if progress:
                progress(done, len(items))
        return
    # spawned: a forked child of a process with threads, as torch and SimpleITK start them, may hang
    with ProcessPoolExecutor(min(jobs, len(items)), multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for done, future in enumerate(futures, start=1):
                yield future.result()
                if progress:
                    progress(done, len(items))
        except BrokenProcessPool:
            raise InputError(
                f"a process that read cases was ended, most likely because memory ran out; use fewer than {jobs} jobs"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
