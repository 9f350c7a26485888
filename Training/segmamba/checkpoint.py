"""Checkpoints of a training: everything needed to go on, written aside and renamed, loaded with weights_only."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from segmamba.errors import InputError
from segmamba.files import write_aside


def save_checkpoint(path: Path, **state) -> None:
    """state: tensors, state dicts, numbers and strings only, which `weights_only` loading accepts."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_aside(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict:
    """Raises InputError where the file is missing or broken."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path} to resume from; start without --resume") from None
    except Exception as error:  # the pickle module promises no end to what a broken file raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"checkpoint {path} cannot be read ({reason}); start without --resume") from None
