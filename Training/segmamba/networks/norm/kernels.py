"""The CPU kernels of the instance norm with what stands around it: rows of voxels, WIDTH channels a vector.

    x^ = (x - mean) scale;  p = x^ [+ r] [+ r^];  y = p where p > 0, else slope p  [+ after]
    with q = dL/dp, and means over a sample's voxels:
    dx = scale (q - mean(q) - x^ mean(q x^)),  dr = q or, normed, r_scale (q - mean(q) - r^ mean(q r^))

A kernel does some rows of one sample. Sums are written tile by tile, each tile's in float32 about a centre of its
own, and put together in float64 by cpu.py: exact however far the mean lies from zero.
Half: x, r, grad and what is written are bfloat16, everything in between is float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmamba.networks.scan.simd import CELL, WIDTH, Emitter, Fields, Value

from .residual import Residual

HALF = len(Residual)  # added to the variant
KINDS = HALF
LANES = WIDTH  # channels in a vector
AT_ONCE = (6, 2, 1)  # vectors of a row whose sums are taken side by side, while there are as many

STATISTICS_FIELDS = "tiles tile rows blocks x x_row sums sums_row"
FORWARD_FIELDS = "rows blocks x x_row r r_row mean scale r_mean r_scale slope out out_row"
SUMS_FIELDS = "tiles tile rows blocks x x_row r r_row mean scale r_mean r_scale slope grad grad_row sums sums_row"
BACKWARD_FIELDS = (
    "rows blocks x x_row r r_row mean scale r_mean r_scale slope grad grad_row "
    "m_grad m_along m_r_along x_grad x_grad_row r_grad r_grad_row"
)


def emit_statistics(emitter: Emitter, f: Fields, variant: int) -> None:
    """For each tile: its mean c as far as float32 holds it, then the sums of x - c and of (x - c)^2.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in STATISTICS_FIELDS: counts, addresses, and steps between rows in bytes.
        variant: a number of Residual, more by HALF for bfloat16.
    """
    io = _InOut(emitter, variant)
    with emitter.loop(f.tiles) as number:
        first = emitter.word(0)
        for at_once in AT_ONCE:
            groups = (f.blocks - first) / at_once
            with emitter.loop(groups) as group:
                blocks = [first + group * at_once + i for i in range(at_once)]
                _tile_statistics(emitter, f, io, number, blocks)
            first = first + groups * at_once


def _tile_statistics(emitter: Emitter, f: Fields, io: _InOut, number: Value, blocks: Sequence[Value]) -> None:
    """Those of some blocks of channels side by side: memory is read in order, and sums do not wait for one another."""
    start = number * f.tile
    count = emitter.smaller(f.rows - start, f.tile)
    totals, offs, squares = ([emitter.variable() for _ in blocks] for _ in range(3))
    with emitter.loop(count) as i:
        for block, total in zip(blocks, totals):
            total.set(total.get() + io.load(f.x + (start + i) * f.x_row, block))
    centres = [total.get() / emitter.to_lanes(count) for total in totals]
    with emitter.loop(count) as i:  # the tile is still in the cache
        for block, centre, off, square in zip(blocks, centres, offs, squares):
            x = io.load(f.x + (start + i) * f.x_row, block) - centre
            off.set(off.get() + x)
            square.set(emitter.fma(x, x, square.get()))
    for block, centre, off, square in zip(blocks, centres, offs, squares):
        place = f.sums + number * f.sums_row + block * CELL
        _store(emitter, (centre, off.get(), square.get()), place, f.blocks)


def emit_forward(emitter: Emitter, f: Fields, variant: int) -> None:
    """Writes y for each row.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in FORWARD_FIELDS: counts, addresses, and steps between rows in bytes.
        variant: a number of Residual, more by HALF for bfloat16.
    """
    io, kind = _InOut(emitter, variant), Residual(variant % KINDS)
    slope = emitter.load_all(f.slope)
    with emitter.loop(f.rows) as i, emitter.loop(f.blocks) as block:
        r = io.load(f.r + i * f.r_row, block) if kind is not Residual.NONE else emitter.lanes(0.0)
        _, _, p = _inner(emitter, f, kind, block, io.load(f.x + i * f.x_row, block), r)
        y = emitter.where_positive(p, p, p * slope)
        io.store(y + r if kind is Residual.AFTER_ACT else y, f.out + i * f.out_row, block)


def emit_sums(emitter: Emitter, f: Fields, variant: int) -> None:
    """For each tile the sums of q, q x^ and, for Residual.NORMED_BEFORE_ACT, q r^.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in SUMS_FIELDS: counts, addresses, and steps between rows in bytes.
        variant: a number of Residual, more by HALF for bfloat16.
    """
    io, kind = _InOut(emitter, variant), Residual(variant % KINDS)
    slope = emitter.load_all(f.slope)
    with emitter.loop(f.tiles) as number, emitter.loop(f.blocks) as block:
        start, lane = number * f.tile, block * CELL
        totals = [emitter.variable() for _ in range(3 if kind is Residual.NORMED_BEFORE_ACT else 2)]
        with emitter.loop(emitter.smaller(f.rows - start, f.tile)) as i:
            q, x, r = _outer(emitter, f, io, kind, slope, start + i, block)
            for total, factor in zip(totals, (1.0, x, r)):
                total.set(emitter.fma(q, factor, total.get()))
        _store(emitter, [total.get() for total in totals], f.sums + number * f.sums_row + lane, f.blocks)


def emit_backward(emitter: Emitter, f: Fields, variant: int) -> None:
    """Writes the gradients of x and, where it joins before the nonlinearity, of the residual.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in BACKWARD_FIELDS: counts, addresses, and steps between rows in bytes.
        variant: a number of Residual, more by HALF for bfloat16.
    """
    io, kind = _InOut(emitter, variant), Residual(variant % KINDS)
    slope = emitter.load_all(f.slope)
    with emitter.loop(f.rows) as i, emitter.loop(f.blocks) as block:
        lane = block * CELL
        q, x, r = _outer(emitter, f, io, kind, slope, i, block)
        centred = q - emitter.load(f.m_grad + lane)
        io.store(
            (centred - x * emitter.load(f.m_along + lane)) * emitter.load(f.scale + lane),
            f.x_grad + i * f.x_grad_row,
            block,
        )
        if kind is Residual.NORMED_BEFORE_ACT:
            r_grad = (centred - r * emitter.load(f.m_r_along + lane)) * emitter.load(f.r_scale + lane)
            io.store(r_grad, f.r_grad + i * f.r_grad_row, block)
        if kind is Residual.BEFORE_ACT:
            io.store(q, f.r_grad + i * f.r_grad_row, block)


class _InOut:
    """Loads and stores of one vector, in the type of the variant. The row's address, and the vector's number in it."""

    def __init__(self, emitter: Emitter, variant: int):
        self.half = variant >= HALF
        self.load_vector, self.store_vector = (
            (emitter.load_half, emitter.store_half) if self.half else (emitter.load, emitter.store)
        )

    def load(self, row: Value, block: Value) -> Value:
        return self.load_vector(row + block * self._step)

    def store(self, value: Value, row: Value, block: Value) -> None:
        self.store_vector(value, row + block * self._step)

    @property
    def _step(self) -> int:
        return CELL // 2 if self.half else CELL


def _inner(emitter: Emitter, f: Fields, kind: Residual, block: Value, x: Value, r: Value) -> tuple[Value, Value, Value]:
    """x^, r^ (or r) and p."""
    lane = block * CELL
    x = (x - emitter.load(f.mean + lane)) * emitter.load(f.scale + lane)
    if kind is Residual.NORMED_BEFORE_ACT:
        r = (r - emitter.load(f.r_mean + lane)) * emitter.load(f.r_scale + lane)
    return x, r, x + r if kind.is_before_act else x


def _outer(
    emitter: Emitter, f: Fields, io: _InOut, kind: Residual, slope: Value, i: Value, block: Value
) -> tuple[Value, Value, Value]:
    """q, x^ and r^ (or r) of row i; what is added after the nonlinearity changes none of them."""
    r = io.load(f.r + i * f.r_row, block) if kind.is_before_act else emitter.lanes(0.0)
    x, r, p = _inner(emitter, f, kind, block, io.load(f.x + i * f.x_row, block), r)
    g = io.load(f.grad + i * f.grad_row, block)
    return emitter.where_positive(p, g, g * slope), x, r


def _store(emitter: Emitter, vectors: Sequence[Value], address: Value, blocks: Value) -> None:
    for number, vector in enumerate(vectors):
        emitter.store(vector, address + blocks * (number * CELL))


KERNELS = {
    "norm statistics": (emit_statistics, STATISTICS_FIELDS),
    "norm forward": (emit_forward, FORWARD_FIELDS),
    "norm sums": (emit_sums, SUMS_FIELDS),
    "norm backward": (emit_backward, BACKWARD_FIELDS),
}
