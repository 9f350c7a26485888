"""The error that users see, and what the system says in words that they understand."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# What torch's allocators, CUDA's driver and libraries and Apple's GPUs say in a RuntimeError, in small letters.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")


class InputError(ValueError):
    """Something given from outside is wrong: a file, a folder, a value, a configuration.

    The text names the file or value at fault, what was expected, and what to do next.
    """


class Cancelled(Exception):
    """The caller asked to stop; nothing was written."""


class Stopped(Exception):
    """A training was asked to end by a signal, and has saved its state after `step`; None: it had not begun."""

    def __init__(self, step: int | None, signal_number: int):
        when = "before training" if step is None else f"after step {step}"
        super().__init__(f"stopped {when} by signal {int(signal_number)}")
        self.step = step
        self.signal_number = int(signal_number)


def explain(error: OSError) -> str:
    """What the system said, in one line that names the file: 'x/y.json: no permission; ...'."""
    names = [str(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    where = " and ".join(names) or "a file"
    if error.errno in FULL:
        return f"{where}: the disk is full, or a quota is reached; free some space, and try again"
    if error.errno in FORBIDDEN:
        return f"{where}: no permission ({error.strerror}); ask its owner, or choose another place"
    if error.errno == errno.ENAMETOOLONG:
        return f"{where[:80]}...: the name is too long; choose a shorter one"
    return f"{where}: {error.strerror or error or type(error).__name__}; check the path and the disk, and try again"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, a GPU's or the machine's, in whatever words it was said. Needs no torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def explain_pickle(error: Exception) -> str:
    """What stopped torch.load in one line, without torch's advice to load the file with all that it would run."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of tensors, or holds Python objects beside them"
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def blame(path: object, what: str) -> Iterator[None]:
    """Whatever a library raises while it reads `path` becomes an InputError: '<path>: <what> (<its last words>); ...'.

    No library promises which errors a crafted file brings out of it. Want of memory is not the file's fault.
    """
    try:
        yield
    except (InputError, Cancelled, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path}: {what} ({last_line(error)}); copy or export it again") from error


def last_line(error: BaseException) -> str:
    """The last line of an error's text: ITK puts what matters there, below its source file and address."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
