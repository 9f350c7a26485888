"""The stages that a case goes through: who watches is told, and how long each takes is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float], None]
STAGES = ("read", "check", "prepare", "preprocess", "network", "restore", "write")


class Stages:
    """The stages of a prediction, and the seconds that each takes.

    `progress` is called with a stage, and the fraction of it that is done, in the order of STAGES.
    """

    def __init__(self, progress: Progress | None = None):
        self._progress = progress
        self._begin = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def report(self, stage: str, fraction: float) -> None:
        """Says that a fraction (0 to 1) of a stage is done."""
        if self._progress:
            self._progress(stage, fraction)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """What happens inside counts for `stage`, beside what counted before."""
        if stage not in STAGES:
            raise ValueError(f"stage {stage!r}: expected one of {', '.join(STAGES)}")
        if stage not in self._seconds:
            self.report(stage, 0.0)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - begin

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, 0 for one that was not needed, and in total since the beginning."""
        total = time.perf_counter() - self._begin
        return {**{stage: self._seconds.get(stage, 0.0) for stage in STAGES}, "total": total}
