"""How long a request will take: from its own measured windows, and from what earlier runs took on this machine."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segmamba.files.atomic import write_aside
from segmamba.settings import read_json

log = logging.getLogger(__name__)

STAGES = ("load", "prepare", "preprocess", "inference", "postprocess", "write")
_RECORDED = ("load", "preprocess", "postprocess", "write")  # how much there is to prepare depends on the images
_TYPICAL_HEAD_MM = (145, 180, 140)  # what is left of a skull-stripped adult head after cropping
# Rough guesses until a run was measured. Seconds a million voxels of a window, for a network with 16 channels at full
# resolution: quick takes 1.3 on two cores of 2023; a GPU is about 50 times as fast.
_SECONDS_A_MEGAVOXEL = {"cpu": 2.6 / (os.cpu_count() or 1), "cuda": 0.03, "mps": 0.3}
_GUESS = {"load": 9.0, "preprocess": 1.0, "postprocess": 1.5, "write": 0.3}
_GUESS_PREPARE = 30.0  # four series of a clinic, registered and stripped on two cores


def record_file() -> Path:
    """Where the record of earlier runs is kept: the user's folder for caches."""
    home = Path.home()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = home / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return root / "segmamba" / "worker-times.json"


class Record:
    """Seconds of earlier runs by model and device; keeps no word about cases. A record that is broken is begun anew.

    An entry: seconds of each stage but prepare and inference, `pass` (seconds a forward pass) and `passes` (those
    without mirrorings), each a mean in which the last run weighs half. Beside them: seconds that preparing raw images
    took, which is the same work for every model and device.
    """

    def __init__(self, file: Path | None = None):
        self._file = file or record_file()
        self._runs: dict[str, dict[str, float]] = {}
        self._prepare: float | None = None
        try:
            known = read_json(self._file, optional=True) or {"runs": {}}
            runs = {key: _checked(run) for key, run in known["runs"].items()}
            self._prepare = _seconds(known["prepare"]) if known.get("prepare") is not None else None
            self._runs = runs
        except (OverflowError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.info("the record of earlier runs cannot be read (%s); it is begun anew", type(error).__name__)

    def add(
        self,
        model: str,
        device: str,
        seconds: Mapping[str, float],
        passes: int,
        mirrorings: int,
        cold: bool,
        prepared: bool = False,
    ) -> None:
        """Adds a run, the newest counting most. A record that cannot be written is no reason to fail.

        Args:
            model: its id.
            device: as torch names it.
            seconds: of each stage.
            passes: of the network.
            mirrorings: extra passes over each window that are among them.
            cold: whether libraries or the model had to be loaded.
            prepared: whether the images were raw, so that the stage "prepare" did its work.
        """
        run = {stage: float(seconds[stage]) for stage in _RECORDED}
        run |= {"pass": seconds["inference"] / passes, "passes": passes / (mirrorings + 1)}
        old = self._runs.get(f"{model} | {device}", run if cold else {**run, "load": _GUESS["load"]})
        if not cold:
            run["load"] = old["load"]
        self._runs[f"{model} | {device}"] = {name: (old[name] + value) / 2 for name, value in run.items()}
        if prepared:
            now = float(seconds["prepare"])
            self._prepare = now if self._prepare is None else (self._prepare + now) / 2
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            known = {"runs": self._runs, "prepare": self._prepare}
            write_aside(self._file, (json.dumps(known, indent=1) + "\n").encode())
        except OSError as error:
            log.info("the record of this run cannot be kept (%s)", error.strerror)

    def preparation(self) -> float:
        """Seconds that it takes to prepare raw images; a guess until it was measured here."""
        return _GUESS_PREPARE if self._prepare is None else self._prepare

    def expect(self, model: Mapping, device: str, mirrorings: int) -> tuple[dict[str, float], bool]:
        """How long a run will take.

        Args:
            model: its manifest, as JSON.
            device: as torch names it.
            mirrorings: extra passes over each window.

        Returns:
            Seconds of each stage, and whether they were measured here; otherwise they are a guess.
        """
        run = self._runs.get(f"{model.get('id')} | {device}")
        measured = run is not None
        run = run or {**_GUESS, **_guess_passes(model, device)}
        stages = {stage: run.get(stage, 0.0) for stage in _RECORDED}
        return {**stages, "inference": run["pass"] * run["passes"] * (mirrorings + 1)}, measured


def _checked(run: dict) -> dict[str, float]:
    return {name: _seconds(run[name]) for name in (*_RECORDED, "pass", "passes")}


def _seconds(value: Any) -> float:
    value = float(value)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("no seconds")
    return value


def _guess_passes(model: Mapping, device: str) -> dict[str, float]:
    try:
        window, overlap = model["inference"]["window"], model["inference"]["overlap"]
        size = [mm / step for mm, step in zip(_TYPICAL_HEAD_MM, model["preprocess"]["spacing"])]
        steps = [max(1, math.ceil((n - w) / max(1, w * (1 - overlap))) + 1) for n, w in zip(size, window)]
        voxels = math.prod(min(n, w) for n, w in zip(size, window))
        width = model["network"].get("full_features", 48)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        steps = [2, 2, 2]
        voxels = 128**3
        width = 48
    rate = _SECONDS_A_MEGAVOXEL.get(device.partition(":")[0], 1.0)
    return {"pass": rate * voxels / 1e6 * (width / 16) ** 2, "passes": math.prod(steps)}


class Estimate:
    """Where a request stands: the stages follow each other, and inference reports the fraction that is done.

    expected: seconds of each stage, 0 where there is none. measured: whether they come from earlier runs here; where
    they are guessed, no time left is promised before some of the inference was measured. Thread-safe, for a clock asks
    while the work goes on.
    """

    def __init__(
        self, expected: Mapping[str, float], clock: Callable[[], float] = time.monotonic, measured: bool = True
    ):
        self._expected, self._measured = dict(expected), measured
        self._clock = clock
        self._lock = threading.Lock()
        self._start = self._entered = clock()
        self._stage = STAGES[0]
        self._done = 0.0
        self._done_at = self._start
        self._fraction = 0.0
        self.seconds: dict[str, float] = {stage: 0.0 for stage in STAGES}

    @property
    def stage(self) -> str:
        """The stage that runs."""
        return self._stage

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def enter(self, stage: str) -> None:
        """A stage begins; the seconds of the one before are kept. The present one begins only once."""
        with self._lock:
            if stage != self._stage:
                now = self._clock()
                self.seconds[self._stage] += now - self._entered
                self._stage = stage
                self._entered = now
                self._done = 0.0
                self._done_at = now

    def report(self, fraction: float) -> None:
        """How much of the present stage is done."""
        with self._lock:
            if fraction < self._done:  # begun again, with less memory: what was measured no longer holds
                self._entered = self._clock()
            self._done, self._done_at = fraction, self._clock()
            self._measured = self._measured or (self._stage == "inference" and fraction > 0)

    def expect(self, expected: Mapping[str, float], measured: bool = True) -> None:
        """Replaces what is expected, once more is known."""
        with self._lock:
            self._expected, self._measured = dict(expected), measured

    def finish(self) -> dict[str, float]:
        """Ends the last stage, and returns the seconds of each."""
        with self._lock:
            now = self._clock()
            self.seconds[self._stage] += now - self._entered
            self._entered = now
            return dict(self.seconds)

    def now(self) -> tuple[float, float | None]:
        """The fraction of the whole request that is done, never falling, and the seconds left.

        The latter is None where nothing honest can be said.
        """
        with self._lock:
            now = self._clock()
            left = self._left(now)
            if left is not None:
                left += sum(self._expected.get(stage, 0.0) for stage in STAGES[STAGES.index(self._stage) + 1 :])
                elapsed = now - self._start
                fraction = min(0.99, elapsed / (elapsed + left)) if elapsed + left > 0 else 0.0
                self._fraction = max(self._fraction, fraction)
            return self._fraction, left if self._measured else None

    def _left(self, now: float) -> float | None:
        """Seconds left of the present stage."""
        if self._done:
            rate = (self._done_at - self._entered) / self._done
            return max(0.0, rate * (1 - self._done) - (now - self._done_at))
        elapsed, expected = now - self._entered, self._expected.get(self._stage, 0.0)
        if elapsed > 2 * expected + 2:
            return None
        return max(0.0, expected - elapsed)
