"""Which device a request means. Loads torch."""

from __future__ import annotations

import torch

from segmamba.errors import InputError


def choose(name: str) -> str:
    """The first NVIDIA GPU, else the CPU, for "auto"; "cuda" is "cuda:0". Raises InputError for what cannot be used."""
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        device = torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used: {reason}; choose auto or cpu") from None
    return "cuda:0" if str(device) == "cuda" else str(device)


def empty_cache(device: str) -> None:
    """Gives the GPU's memory back to the others, for one case is over: pictures are drawn on it too."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
