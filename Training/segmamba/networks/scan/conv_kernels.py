"""The CPU kernels of the causal depthwise convolution with SiLU: rows of tokens, WIDTH channels a vector.

    p_t = bias + sum_k w_k x_{t-K+1+k},  y_t = SiLU(p_t);  with q_t = dL/dp_t = SiLU'(p_t) dL/dy_t:
    dx_t = sum_k w_k q_{t+K-1-k},  dw_k = sum_t q_t x_{t-K+1+k},  dbias = sum_t q_t

A kernel does one tile of tokens, [first, first + count), of one item of the batch; it reads up to K - 1
tokens beyond the tile, so tiles are independent. Its arguments are those named in its ``*_FIELDS``.
"""

from __future__ import annotations

from .simd import CELL, Emitter, Fields

FORWARD_FIELDS = "first count blocks x x_row weight weight_row bias out out_row"
# after: tokens between the tile's end and the sequence's, at most K - 1. weight, weight_grad: (K, d).
BACKWARD_FIELDS = (
    "first count after blocks x x_row weight weight_row bias grad grad_row "
    "x_grad x_grad_row weight_grad weight_grad_row bias_grad"
)


def emit_forward(pen: Emitter, f: Fields, taps: int) -> None:
    with pen.loop(f.blocks) as block:
        lane = block * CELL
        w, bias = _weights(pen, f, lane, taps)
        past = [pen.variable(_row(pen, f, f.first - j, lane)) for j in range(1, taps)]  # x_{t-1}, x_{t-2}, ...
        with pen.loop(f.count) as i:
            t = f.first + i
            window = [pen.load(f.x + t * f.x_row + lane), *(x.get() for x in past)]
            p = _dot(pen, w, window, bias)
            pen.store(p * pen.sigmoid(p), f.out + t * f.out_row + lane)
            _push(past, window)


def emit_backward(pen: Emitter, f: Fields, taps: int) -> None:
    with pen.loop(f.blocks) as block:
        lane = block * CELL
        w, bias = _weights(pen, f, lane, taps)
        last = f.first + f.count + f.after - 1
        # Going back in time: window holds x_t, x_{t-1}, ...; later holds q_{t+1}, q_{t+2}, ...
        ahead = [pen.variable(_row(pen, f, last - j, lane)) for j in range(taps - 1)]
        later = [pen.variable() for _ in range(taps - 1)]
        w_grad, bias_grad = [pen.variable() for _ in range(taps)], pen.variable()

        def step(t):
            window = [*(x.get() for x in ahead), _row(pen, f, t - (taps - 1), lane)]
            p = _dot(pen, w, window, bias)
            s = pen.sigmoid(p)
            q = pen.load(f.grad + t * f.grad_row + lane) * s * pen.fma(p, 1.0 - s, 1.0)
            gradients = [q, *(x.get() for x in later)]
            for x, shifted in zip(ahead, window[1:]):
                x.set(shifted)
            _push(later, gradients)
            return window, gradients

        with pen.loop(f.after) as i:  # the tokens after the tile: only their q is wanted
            step(last - i)
        with pen.loop(f.count, backwards=True) as i:
            t = f.first + i
            window, gradients = step(t)
            pen.store(_dot(pen, w, gradients, pen.lanes(0.0)), f.x_grad + t * f.x_grad_row + lane)
            for total, x in zip(w_grad, window):
                total.set(pen.fma(gradients[0], x, total.get()))
            bias_grad.set(bias_grad.get() + gradients[0])
        for j, total in enumerate(w_grad):
            pen.store(total.get(), f.weight_grad + f.weight_grad_row * (taps - 1 - j) + lane)
        pen.store(bias_grad.get(), f.bias_grad + lane)


def _weights(pen: Emitter, f: Fields, lane, taps: int):
    """w[j] weighs the token j steps back."""
    return [pen.load(f.weight + f.weight_row * (taps - 1 - j) + lane) for j in range(taps)], pen.load(f.bias + lane)


def _dot(pen: Emitter, w, window, start):
    for a, b in zip(w, window):
        start = pen.fma(a, b, start)
    return start


def _row(pen: Emitter, f: Fields, t, lane):
    """x_t, or 0 before the sequence's start."""
    inside = pen.load(f.x + pen.larger(t, 0) * f.x_row + lane)
    return pen.where(pen.larger(t, -1) + 1, inside, pen.lanes(0.0))


def _push(variables, values) -> None:
    """Shifts a window by one: the first value enters, the last one leaves."""
    for variable, value in zip(variables, values):
        variable.set(value)
