"""The same records in TensorBoard, where the package `tensorboard` is installed."""

from __future__ import annotations

import importlib.util
import logging
import math
from pathlib import Path

log = logging.getLogger(__name__)


class TensorBoardLog:
    """Opened on a folder; takes the records of run/log.jsonl. Without `tensorboard` it says so and does nothing."""

    def __init__(self, folder: Path | str):
        self._writer = None
        if importlib.util.find_spec("tensorboard") is None:
            log.info("TensorBoard is not written: the package tensorboard is not installed (pip install tensorboard)")
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, record: dict) -> None:
        """A record of kind step, validation or event; numbers that are not finite are left out."""
        if self._writer is None:
            return
        step, time = record.get("step", 0), record.get("time")
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, step, walltime=time)
        if record.get("kind") == "event":
            self._writer.add_text("event", str(record.get("text", "")), step, walltime=time)
        if record.get("kind") != "step":
            self._writer.flush()

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if self._writer is not None:
            self._writer.close()


def _scalars(record: dict) -> dict[str, float]:
    if record.get("kind") == "step":
        found = {f"train/{name}": value for name, value in record.items() if name not in ("kind", "step", "time")}
    elif record.get("kind") == "validation":
        mean = record.get("mean") or {}
        found = {f"{metric}/{region}": value for region, scores in mean.items() for metric, value in scores.items()}
        found["validation/seconds"] = record.get("seconds")
    else:
        found = {}
    return {name: float(v) for name, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}
