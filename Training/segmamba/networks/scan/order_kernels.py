"""How the kernels find the token they walk to: by an index map (orders.py), worked out once for a run of tokens."""

from __future__ import annotations

from .simd import Emitter, Fields, Value

FIELDS = "period stride step origin places"  # an IndexMap, its `first` as origin; room for one word a token of the run


def row_of(f: Fields, t: Value) -> Value:
    """The row of the t-th token of the walk."""
    number = t / f.period
    return f.origin + (t - number * f.period) * f.stride + number * f.step


def write_rows(emitter: Emitter, f: Fields, start: Value, count: Value) -> None:
    """Notes the rows of a run of tokens.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments, FIELDS among them.
        start: number of the run's first token in the walk.
        count: tokens of the run.
    """
    with emitter.loop(count) as i:
        emitter.store_word(row_of(f, start + i), f.places + i * 8)


def noted_row(emitter: Emitter, f: Fields, i: Value) -> Value:
    """The row of a token of the run.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments, FIELDS among them.
        i: the token's number in the run.

    Returns:
        The row's number.
    """
    return emitter.load_word(f.places + i * 8)
