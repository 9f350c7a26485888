"""The CPU kernels of the causal depthwise convolution with SiLU: rows of tokens, WIDTH channels a vector.

    p_t = bias + sum_k w_k x_{t-K+1+k},  y_t = SiLU(p_t);  with q_t = dL/dp_t = SiLU'(p_t) dL/dy_t:
    dx_t = sum_k w_k q_{t+K-1-k},  dw_k = sum_t q_t x_{t-K+1+k},  dbias = sum_t q_t

A kernel does one tile of tokens, [first, first + count), of one item of the batch; it reads up to K - 1
tokens beyond the tile, so tiles are independent. Its arguments are those named in its ``*_FIELDS``.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import order_kernels
from .order_kernels import noted_row, row_of, write_rows
from .simd import CELL, Emitter, Fields, Value, Variable

PIECE = 64  # tokens: they stay in the cache while one block of channels after the other is done

FORWARD_FIELDS = f"first count blocks x x_row weight weight_row bias out out_row {order_kernels.FIELDS}"
# after: tokens between the tile's end and the sequence's, at most K - 1. weight, weight_grad: (K, d).
BACKWARD_FIELDS = (
    "first count after blocks x x_row weight weight_row bias grad grad_row "
    "x_grad x_grad_row weight_grad weight_grad_row bias_grad"
)


def emit_forward(emitter: Emitter, f: Fields, taps: int) -> None:
    """Writes the output of one tile.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in FORWARD_FIELDS.
        taps: K of the convolution.
    """
    with emitter.loop((f.count + (PIECE - 1)) / PIECE) as piece:
        start = piece * PIECE
        first, count = f.first + start, emitter.smaller(f.count - start, PIECE)
        write_rows(emitter, f, first, count + PIECE)
        with emitter.loop(f.blocks) as block:
            lane = block * CELL
            w, bias = _weights(emitter, f, lane, taps)
            before = [(first - j, row_of(f, first - j)) for j in range(1, taps)]
            past = [emitter.variable(_load(emitter, f, t, row, lane)) for t, row in before]  # x_{t-1}, x_{t-2}, ...
            with emitter.loop(count) as i:
                window = [emitter.load(f.x + noted_row(emitter, f, i) * f.x_row + lane), *(x.get() for x in past)]
                emitter.prefetch(f.x + noted_row(emitter, f, i + PIECE) * f.x_row + lane)
                p = _dot(emitter, w, window, bias)
                emitter.store(p * emitter.sigmoid(p), f.out + (first + i) * f.out_row + lane)
                _push(past, window)


def emit_backward(emitter: Emitter, f: Fields, taps: int) -> None:
    """Writes the gradients of one tile.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in BACKWARD_FIELDS.
        taps: K of the convolution.
    """
    with emitter.loop(f.blocks) as block:
        lane = block * CELL
        w, bias = _weights(emitter, f, lane, taps)
        last = f.first + f.count + f.after - 1
        # Going back in time: window holds x_t, x_{t-1}, ...; later holds q_{t+1}, q_{t+2}, ...
        ahead = [emitter.variable(_load(emitter, f, last - j, last - j, lane)) for j in range(taps - 1)]
        later = [emitter.variable() for _ in range(taps - 1)]
        w_grad, bias_grad = [emitter.variable() for _ in range(taps)], emitter.variable()

        def step(t: Value) -> tuple[list[Value], list[Value]]:
            window = [*(x.get() for x in ahead), _load(emitter, f, t - (taps - 1), t - (taps - 1), lane)]
            p = _dot(emitter, w, window, bias)
            s = emitter.sigmoid(p)
            q = emitter.load(f.grad + t * f.grad_row + lane) * s * emitter.fma(p, 1.0 - s, 1.0)
            gradients = [q, *(x.get() for x in later)]
            for x, shifted in zip(ahead, window[1:]):
                x.set(shifted)
            _push(later, gradients)
            return window, gradients

        with emitter.loop(f.after) as i:  # the tokens after the tile: only their q is wanted
            step(last - i)
        with emitter.loop(f.count, backwards=True) as i:
            t = f.first + i
            window, gradients = step(t)
            emitter.store(_dot(emitter, w, gradients, emitter.lanes(0.0)), f.x_grad + t * f.x_grad_row + lane)
            for total, x in zip(w_grad, window):
                total.set(emitter.fma(gradients[0], x, total.get()))
            bias_grad.set(bias_grad.get() + gradients[0])
        for j, total in enumerate(w_grad):
            emitter.store(total.get(), f.weight_grad + f.weight_grad_row * (taps - 1 - j) + lane)
        emitter.store(bias_grad.get(), f.bias_grad + lane)


def _weights(emitter: Emitter, f: Fields, lane: Value, taps: int) -> tuple[list[Value], Value]:
    """w[j] weighs the token j steps back."""
    return [emitter.load(f.weight + f.weight_row * (taps - 1 - j) + lane) for j in range(taps)], emitter.load(
        f.bias + lane
    )


def _dot(emitter: Emitter, w: Sequence[Value], window: Sequence[Value], start: Value) -> Value:
    for a, b in zip(w, window):
        start = emitter.fma(a, b, start)
    return start


def _load(emitter: Emitter, f: Fields, t: Value, row: Value, lane: Value) -> Value:
    """x_t, which lies in `row`, or 0 before the sequence's start."""
    inside = emitter.larger(t, -1) + 1  # 0 before it
    x = emitter.load(f.x + emitter.where(inside, row, emitter.word(0)) * f.x_row + lane)
    return emitter.where(inside, x, emitter.lanes(0.0))


def _push(variables: Sequence[Variable], values: Sequence[Value]) -> None:
    """Shifts a window by one: the first value enters, the last one leaves."""
    for variable, value in zip(variables, values):
        variable.set(value)
