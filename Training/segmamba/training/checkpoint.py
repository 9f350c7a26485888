"""Checkpoints of a training: everything needed to go on, written aside and renamed, loaded with weights_only.

The newest is last.pt, the one before it previous.pt: whatever moment a run is killed at, one of them is whole.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import torch

from segmamba.errors import InputError, explain_pickle
from segmamba.files.atomic import write_aside
from segmamba.models.package import MANIFEST

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.pt", "previous.pt"


def save_checkpoint(run: Path, **state: Any) -> None:
    """Writes the state of a run as its newest checkpoint, and keeps the one before.

    state: tensors, state dicts, numbers and strings only, which `weights_only` loading accepts.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    new = run / "new.pt"
    write_aside(new, buffer.getvalue())
    if (run / LAST).exists():
        (run / LAST).replace(run / PREVIOUS)
    new.replace(run / LAST)


def has_checkpoint(run: Path) -> bool:
    """Whether a run can be resumed."""
    return any((run / name).exists() for name in (LAST, PREVIOUS))


def is_resumed(run: Path, resume: str) -> bool:
    """Whether a training in this folder goes on from a checkpoint.

    resume: "never", "auto" or "must", as of `training.loop.train`. Raises InputError where it does not suit the folder,
    and for a finished model without a checkpoint, which a new training would overwrite.
    """
    there = has_checkpoint(run)
    if there and resume == "never":
        raise InputError(f"run folder {run} holds a training already; go on with --resume auto, or name another")
    if not there and (run / "model" / MANIFEST).exists():
        raise InputError(
            f"run folder {run} holds a finished model and no checkpoint; name another folder, or move the model away"
        )
    if resume == "must" and not there:
        load_checkpoint(run)  # says what is missing
    return there


def load_checkpoint(run: Path) -> tuple[dict, str]:
    """The newest that can be read, and what to say about it, where it is not the last one written.

    Raises InputError where there is none, or none can be read.
    """
    reasons = []
    for name in (LAST, PREVIOUS):
        try:
            state = torch.load(run / name, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:  # the pickle module promises no end to what a broken file raises
            reason = f"{name} cannot be read ({explain_pickle(error)})"
            log.warning("%s: %s", run, reason)
            reasons.append(reason)
            continue
        return state, "; ".join([*reasons, f"went back to {name}"] if reasons else [])
    if reasons:
        raise InputError(f"run {run}: {'; '.join(reasons)}; start again in another folder")
    raise InputError(f"run {run} has no checkpoint to resume from; start it without --resume must")
