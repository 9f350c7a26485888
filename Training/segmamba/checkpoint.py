"""Checkpoints of a training: everything needed to go on, written aside and renamed, loaded with weights_only."""

from __future__ import annotations

import io
import pickle
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
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"checkpoint {path} cannot be read: {error}") from None
