"""What went wrong, as a kind, a plain sentence and a detail (kinds: PROTOCOL.md)."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from segmamba.errors import FORBIDDEN, FULL, Cancelled, InputError, is_out_of_memory


class ModelError(Exception):
    """The model cannot be used; says why and what to do."""


def describe(error: BaseException) -> tuple[str, str, str]:
    """What to say of an error: kind, message, and detail, a traceback where the sentence cannot say all."""
    if isinstance(error, Cancelled):
        return "cancelled", "Cancelled; no files were written", ""
    if isinstance(error, ModelError):
        return "model", str(error), ""
    if isinstance(error, InputError):
        return "input", str(error), ""
    detail = "".join(traceback.format_exception(error))
    if is_out_of_memory(error):
        return "memory", "There was not enough memory; close other programs, or use a smaller model", detail
    if isinstance(error, OSError):
        where = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes | Path) else "a file"
        if error.errno in FULL:
            return "input", "The disk of the output folder is full; free some space on it, and try again", detail
        if error.errno in FORBIDDEN:
            return "input", f"No permission for {where}; choose a folder that may be written to", detail
        return "input", f"{where}: {error.strerror or error}; check the disk, and try again", detail
    if isinstance(error, ImportError):
        return "internal", f"A library cannot be loaded ({error}); install the dependencies again", detail
    what = f"{type(error).__name__}: {error}"
    return "internal", f"Something unforeseen failed ({what}); run it again, and report it", detail
