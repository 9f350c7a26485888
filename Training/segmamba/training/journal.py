"""What a training tells while it works: lines of run/log.jsonl, the same for TensorBoard, each step to who asked."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segmamba.evaluation.report import TensorBoardLog
from segmamba.training.distributed import World
from segmamba.training.run_folder import append_log

log = logging.getLogger(__name__)

_EVERY, _LINES = 25, 40  # a step line every 25 steps; more often in a run that would not have 40


class Journal:
    """Only the first process of `world` writes.

    There on_step(step, loss) is called after every step, on_line(line) with every line of the log.
    """

    def __init__(
        self,
        run: Path,
        world: World,
        steps: int,
        on_step: Callable[[int, float], None] | None = None,
        on_line: Callable[[dict], None] | None = None,
    ):
        self.run = run
        self.world = world
        self.steps = steps
        self.on_step = on_step or (lambda step, loss: None)
        self.on_line = on_line or (lambda line: None)
        self.every = max(1, min(_EVERY, steps // _LINES))
        self.board = TensorBoardLog(run / "tensorboard") if world.is_first else None
        self.begin()

    def begin(self) -> None:
        """Forgets the steps that no line tells of yet: the training begins, or goes back."""
        self._losses: list[float] = []
        self._count = 0
        self._seconds = 0.0
        self._waited = 0.0
        self.go_on()

    def go_on(self) -> None:
        """What was done since the last step was no step: a validation, a checkpoint."""
        self._mark = time.perf_counter()

    def step(self, step: int, loss: float, norm: float, rate: float, waited: float, skipped: int) -> None:
        """Notes a step. All processes call it alike, after every step.

        Args:
            step: its number, from 1.
            loss: of this process.
            norm: of the gradient; where it is not finite the step was skipped.
            rate: of learning.
            waited: seconds for the batch.
            skipped: steps so far.
        """
        now = time.perf_counter()
        self._count += 1
        self._seconds = self._seconds + now - self._mark
        self._waited += waited
        self._mark = now
        if math.isfinite(norm):
            self._losses.append(loss)
        if self.world.is_first:
            self.on_step(step, loss)
        if step % self.every and step != self.steps:
            return
        mean = self.world.mean(sum(self._losses) / len(self._losses) if self._losses else math.nan)
        if self.world.is_first:
            each = self._seconds / self._count
            stall = min(1.0, self._waited / self._seconds)
            values = {"learning_rate": rate, "gradient_norm": norm, "seconds_per_step": each, "stall": stall}
            self.write("step", step, loss=mean, **values, skipped=skipped)
            left = (self.steps - step) * each / 60
            log.info("step %d/%d loss %.3f, %.0f min left", step, self.steps, mean, left)
        self.begin()

    def note(self, step: int, text: str) -> None:
        """An event: something that a person should know."""
        if self.world.is_first:
            log.warning(text)
            self.write("event", step, text=text)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Logs one line, for TensorBoard too where it is installed."""
        line = append_log(self.run, kind, step=step, **values)
        if self.board:
            self.board.write(line)
        self.on_line(line)
