"""Networks that find the brain, where the user has installed one: HD-BET or SynthStrip, run as programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from segmamba.errors import Cancelled, InputError
from segmamba.files.shares import work_folder

_PATIENCE = 1800  # seconds; HD-BET takes some minutes on a CPU
_LOOK = 0.2


@dataclass(frozen=True)
class Tool:
    """A program that cuts the brain out, and how it is called."""

    name: str
    """As its authors write it."""
    program: str
    """That is looked for on the PATH."""
    arguments: tuple[str, ...]
    """After the program's name; {input}, {output} and {mask} stand for files in a folder of its own."""
    on_gpu: tuple[str, ...]
    """Further arguments where there is a GPU."""
    on_cpu: tuple[str, ...]
    """Further arguments where there is none."""
    mask: str
    """File that it writes the mask to, in that folder."""


TOOLS = {
    # HD-BET 2: github.com/MIC-DKFZ/HD-BET; the mask lies beside the output it was asked for
    "hd-bet": Tool(
        "HD-BET",
        "hd-bet",
        ("-i", "{input}", "-o", "{output}", "--save_bet_mask", "--no_bet_image"),
        ("-device", "cuda"),
        ("-device", "cpu", "--disable_tta"),
        "brain_bet.nii.gz",
    ),
    # FreeSurfer's: surfer.nmr.mgh.harvard.edu/docs/synthstrip
    "synthstrip": Tool(
        "SynthStrip",
        "mri_synthstrip",
        ("-i", "{input}", "-o", "{output}", "-m", "{mask}"),
        ("-g",),
        (),
        "mask.nii.gz",
    ),
}


def find() -> str | None:
    """The first tool whose program is on the PATH."""
    return next((key for key, tool in TOOLS.items() if shutil.which(tool.program)), None)


def run(key: str, image: np.ndarray, affine: np.ndarray, cancelled: Callable[[], bool] | None = None) -> np.ndarray:
    """What another program takes for brain.

    Args:
        key: of TOOLS.
        image: (X, Y, Z), a head with its skull on.
        affine: (4, 4), voxel indices to RAS mm.
        cancelled: asked several times a second while the program runs.

    Returns:
        (X, Y, Z) bool.

    Raises:
        InputError: where it is not installed, fails, or gives no mask of this grid.
        Cancelled: where `cancelled` said so, after the program was ended.
    """
    tool = TOOLS[key]
    program = shutil.which(tool.program)
    if program is None:
        raise InputError(f"brain extraction: {tool.name}'s program {tool.program} is not on the PATH; install it first")
    with work_folder("segmamba-brain-") as name:
        folder = Path(name)
        files = {"input": folder / "head.nii.gz", "output": folder / "brain.nii.gz", "mask": folder / tool.mask}
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), files["input"])
        line = [program, *(part.format(**files) for part in tool.arguments), *(tool.on_gpu if _gpu() else tool.on_cpu)]
        _wait(tool, line, folder, cancelled)
        if not files["mask"].is_file():
            raise InputError(
                f"brain extraction: {tool.name} ended well but wrote no mask; try it by hand: {tool.program}"
            )
        mask = np.asarray(cast(SpatialImage, nib.load(files["mask"])).dataobj)
    if mask.shape != image.shape:
        raise InputError(f"brain extraction: {tool.name} gave a mask of {mask.shape} voxels; expected {image.shape}")
    return mask > 0.5


def _wait(tool: Tool, line: list[str], folder: Path, cancelled: Callable[[], bool] | None) -> None:
    log = folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            line,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # HD-BET starts processes of its own, which must end with it
        )
        try:
            end = time.monotonic() + _PATIENCE
            while process.poll() is None:
                if cancelled and cancelled():
                    raise Cancelled("brain extraction was cancelled")
                if time.monotonic() > end:
                    raise InputError(f"brain extraction: {tool.name} did not end within {_PATIENCE // 60} minutes")
                time.sleep(_LOOK)
        finally:
            if process.poll() is None:
                _end(process)
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "without a word"
        raise InputError(f"brain extraction: {tool.name} failed with exit code {process.returncode} ({last})")


def _end(process: subprocess.Popen) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _gpu() -> bool:
    import torch  # here: the atlas needs none of it

    return torch.cuda.is_available()
