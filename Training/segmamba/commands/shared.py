"""What several commands need: progress on a terminal, the choice of a device, what a device is called."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

# The names in cases.labels.CONVENTIONS, for helps that do not wait for numpy; a test holds the two together
LABEL_CONVENTIONS = (
    *("brats2023", "brats2021", "msd", "brats2024", "brats-ped"),
    *("brats-men", "brats-met", "brats-ssa"),
)


class AddCommand(Protocol):
    """What the command line hands to a command, by which it joins in."""

    def __call__(self, name: str, run: Callable[[Namespace], int], help: str) -> ArgumentParser:
        """A parser for `segmamba NAME ...`, to which the command adds its arguments. run: gives the exit code."""
        ...


class Bar:
    """Progress of a prediction: a bar on a terminal, a plain line a stage elsewhere; on standard error."""

    def __init__(self) -> None:
        self._case: str | None = None
        self._stage: str | None = None
        self._bar: tqdm | None = None

    def __call__(self, stage: str, fraction: float) -> None:
        """Shows that a fraction (0 to 1) of a stage is done."""
        self.batch("", stage, fraction)

    def batch(self, case: str, stage: str, fraction: float) -> None:
        """Shows how far one case of several is.

        Args:
            case: its id.
            stage: that runs.
            fraction: of the stage that is done, 0 to 1.
        """
        if not sys.stderr.isatty():
            if (case, stage) != (self._case, self._stage):
                print(f"{case} {stage}".strip(), file=sys.stderr, flush=True)
        else:
            self._show(f"{case} {stage}".strip(), fraction, (case, stage) != (self._case, self._stage))
        self._case, self._stage = case, stage

    def _show(self, text: str, fraction: float, fresh: bool) -> None:
        from tqdm import tqdm

        if fresh:
            self.close()
            self._bar = tqdm(
                total=100, desc=text, leave=False, bar_format="{desc} {bar} {percentage:3.0f}% {remaining}"
            )
        if self._bar is not None:
            self._bar.n = round(100 * fraction)
            self._bar.refresh()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def choose_device(name: str) -> str:
    """See segmamba.prediction.devices, which loads torch."""
    from segmamba.prediction import devices

    return devices.choose_device(name)


def device_name(device: str) -> str:
    """What a device is called, and how much memory it has free."""
    import torch

    if device == "cpu":
        return f"{os.cpu_count()} logical cores"
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return f"{properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def ready_for_output(folder: Path | str) -> Path:
    """Checks that files can be made in a folder, there or not: before the work, not after it.

    What a command that was killed left half-written there is taken away. Returns its path. Raises InputError.
    """
    from segmamba.files.atomic import check_output_folder, sweep

    folder = Path(folder)
    check_output_folder(folder)
    sweep(folder)
    return folder
