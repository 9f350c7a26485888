"""The orders in which a scan walks through the tokens of a grid of S slices, kept in C order.

forward    token after token                               s0p0 s0p1 .. s1p0 ..
reverse    back to front                                   .. s1p0 .. s0p1 s0p0
slices     for each place in the plane, through the slices s0p0 s1p0 .. s0p1 ..

Tokens can be put into an order (`walk`) and back (`unwalk`), or a kernel reads them where they lie by the index map.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

ORDERS = ("forward", "reverse", "slices")


class IndexMap(NamedTuple):
    """The row of the t-th token of a walk: first + (t % period) * stride + (t // period) * step."""

    period: int
    """Tokens after which the walk begins another row of them."""
    stride: int
    """Rows from token to token within a period."""
    step: int
    """Rows from period to period."""
    first: int
    """Row of the first token."""


def index_map(order: str, length: int, slices: int) -> IndexMap:
    """Where a walk finds its tokens.

    Args:
        order: of ORDERS.
        length: L, tokens of the grid.
        slices: of the grid, a divisor of L.

    Returns:
        The row of each token of the walk, as a formula.
    """
    if order == "reverse":
        return IndexMap(1, 0, -1, length - 1)
    if order == "slices":
        return IndexMap(slices, length // slices, 1, 0)
    return IndexMap(1, 0, 1, 0)


def walk(x_BLd: Tensor, order: str, slices: int) -> Tensor:
    """Tokens in the order in which they are walked through.

    Args:
        x_BLd: (B, L, d), as in the grid.
        order: of ORDERS.
        slices: of the grid, a divisor of L.

    Returns:
        (B, L, d).
    """
    if order == "reverse":
        return x_BLd.flip(1)
    if order == "slices":
        return x_BLd.unflatten(1, (slices, -1)).transpose(1, 2).flatten(1, 2)
    return x_BLd


def unwalk(x_BLd: Tensor, order: str, slices: int) -> Tensor:
    """Tokens as in the grid again: the inverse of `walk`.

    Args:
        x_BLd: (B, L, d), as they were walked through.
        order: of ORDERS.
        slices: of the grid, a divisor of L.

    Returns:
        (B, L, d).
    """
    if order == "reverse":
        return x_BLd.flip(1)
    if order == "slices":
        return x_BLd.unflatten(1, (-1, slices)).transpose(1, 2).flatten(1, 2)
    return x_BLd
