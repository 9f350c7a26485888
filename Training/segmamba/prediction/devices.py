"""Which device a name means. Loads torch."""

from __future__ import annotations

import re

import torch

from segmamba.errors import InputError

_KNOWN = re.compile(r"cpu|mps|cuda(:\d{1,2})?")


def choose_device(name: str) -> str:
    """The device by its name; for "auto" the first NVIDIA GPU, else the CPU. Raises InputError where there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not _KNOWN.fullmatch(name):  # torch knows more, such as "meta", on which weights vanish
        raise InputError(
            f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps; `segmamba info` lists what can be used"
        )
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {name!r} cannot be used: {reason}; choose auto or cpu, `segmamba info` lists what can"
        ) from None
    return name


def empty_cache(device: str) -> None:
    """Gives the GPU's memory back to the others, for one case is over: pictures are drawn on it too."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
