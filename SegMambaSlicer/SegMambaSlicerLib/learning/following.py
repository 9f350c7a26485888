"""A run as its files tell of it: status.json and, read piece by piece as it grows, log.jsonl. No process is needed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

ACTIVE = ("preparing", "training", "judging")
RESUMABLE = ("stopped", "failed", "lost")
STATUS, LOG = "status.json", "log.jsonl"


@dataclass
class Curve:
    """losses: (step, loss). dice: region -> (step, mean Dice of the validation cases). note: text of the last event,
    until the next step."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    dice: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    note: str = ""

    def add(self, line: object) -> None:
        """A line of log.jsonl. A run that was resumed goes through some steps again: the newer value stays."""
        if not isinstance(line, dict):
            return
        kind, step = line.get("kind"), line.get("step")
        if kind == "event" and isinstance(line.get("text"), str):
            self.note = line["text"]
        if isinstance(step, bool) or not isinstance(step, int):
            return
        if kind == "step":
            self.note = ""
            _put(self.losses, step, number(line.get("loss")))
            for points in self.dice.values():
                while points and points[-1][0] > step:
                    points.pop()
        elif kind == "validation" and isinstance(line.get("mean"), dict):
            for region, scores in line["mean"].items():
                value = number(scores.get("dice")) if isinstance(scores, dict) else None
                _put(self.dice.setdefault(str(region), []), step, value)

    @classmethod
    def of(cls, lines) -> Curve:
        curve = cls()
        for line in lines if isinstance(lines, list) else []:
            curve.add(line)
        return curve


class LogReader:
    """What has been added to a file of JSON lines since the last time."""

    def __init__(self, path: Path):
        self._path, self._offset = path, 0

    def poll(self) -> tuple[list, bool]:
        """-> new lines, whether they are all there are: the file has been replaced by another one.

        A line that is still being written waits for its end; one that is no JSON is passed over. Raises OSError.
        """
        try:
            with self._path.open("rb") as file:
                anew = file.seek(0, 2) < self._offset
                self._offset = 0 if anew else self._offset
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            anew, self._offset = self._offset > 0, 0
            return [], anew
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = []
        for line in complete.splitlines():
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
        return lines, anew


class Follower:
    """One run folder on a disk or share: `poll` it, and look at `status` (None before the first) and `curve`."""

    def __init__(self, folder: Path):
        self._folder, self._log = folder, LogReader(folder / LOG)
        self.status: dict | None = None
        self.curve = Curve()
        self.seconds = 0.0  # that the last look took: a share can be slow

    def poll(self) -> bool:
        """True where something is new. Raises OSError where the folder is out of reach."""
        start = time.monotonic()
        try:
            status = readObject(self._folder / STATUS)
            lines, anew = self._log.poll()
        finally:
            self.seconds = time.monotonic() - start
        changed = bool(lines) or anew or (status is not None and status != self.status)
        if status is not None:
            self.status = status
        if anew:
            self.curve = Curve()
        for line in lines:
            self.curve.add(line)
        return changed


def readObject(path: Path) -> dict | None:
    """A JSON object; None where the file is not there or, for the moment, not whole. Raises other OSError."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def number(value: object) -> float | None:
    """A finite number, or None: what comes from files can be anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _put(points: list[tuple[int, float]], step: int, value: float | None) -> None:
    while points and points[-1][0] >= step:
        points.pop()
    if value is not None:
        points.append((step, value))
