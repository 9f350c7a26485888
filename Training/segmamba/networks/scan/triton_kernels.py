"""The selective scan in Triton: chunks in parallel, a walk over their ends, chunks again from their true starts.

Notation and formulas are those of `kernels`. The decay of a whole chunk is exp(A sum dt), so a chunk is known by the
state at its end and the sum of its dt. A program walks through one chunk of one block of channels, a tile of tokens at
a time. A tile (tokens, states, channels) lies in one warp with channels across its threads: the recurrence and the
sums over states stay inside a thread. Backward, e_t = C_t g_t + K_{t+1} with K_t = a_t e_t, and K is passed from chunk
to chunk as states are, from the end. Tokens are read where they lie, by an index map (`orders`), and counted in 64
bits. Sums over channels are kept apart by block, for torch to add, not added by atomics: two runs are equal bit by bit.

Arguments: `x_row` is the step from token to token of x, channels side by side. Arrays of states are (B, chunks, N, d).
Importing this file imports Triton: only ``triton_backend`` does, at first use.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The values of an index map and of lengths make no other program.
_WALK = ("L", "period", "stride", "step", "first", "chunks", "tiles")
_LOG2E = tl.constexpr(1.4426950408889634)
# log1p(e) = 2 s p(s^2), s = e / (2 + e), on 0 <= e <= 1; the coefficients of `simd`, which needs numba
_LOG1P = tl.constexpr((0.1408931220831, 0.1398027310884, 0.2001245683466, 0.3333315730941, 1.0))


@triton.jit
def softplus_and_slope(x):
    """max(x, 0) + log1p(exp(-|x|)), without cancellation, and its derivative sigmoid(x)."""
    e = tl.exp2(-tl.abs(x) * _LOG2E)
    s = e / (e + 2.0)
    p = tl.full(x.shape, _LOG1P[0], tl.float32)
    for k in tl.static_range(1, 5):
        p = p * (s * s) + _LOG1P[k]
    return tl.maximum(x, 0.0) + 2.0 * s * p, tl.where(x < 0.0, e, 1.0) / (e + 1.0)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(-x * _LOG2E))


@triton.jit
def rows_of(t, period, stride, step, first):
    """Rows of the t-th tokens of the walk (`orders.IndexMap`)."""
    return first + (t % period) * stride + (t // period) * step


@triton.jit
def load_tile(x, r, x_row, columns, mask):
    """Rows `r` of `x` as a float32 tile, 0 where masked."""
    return tl.load(x + r[:, None] * x_row + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _join(a, x, a_next, x_next):
    """h -> a h + x, then the next."""
    return a * a_next, a_next * x + x_next


@triton.jit
def _join_shifted(a, x, q, e, a_next, x_next, q_next, e_next):
    """The same for K_t = a_t K_{t+1} + x_t, with e_t = q K_{t+1} + e beside it."""
    return a * a_next, a_next * x + x_next, a * q_next, q_next * x + e_next


@triton.jit(do_not_specialize=_WALK)
def chunk_ends(
    u, u_row, delta, delta_row, b, b_row, z, z_row, A, bias, end, total,
    L, period, stride, step, first, chunks, tiles, D, N,
    BD: tl.constexpr, BN: tl.constexpr, BT: tl.constexpr, ADJOINT: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """The state at the end of each chunk that starts from zero, and the sum of its dt.

    ADJOINT: K at the start of each chunk behind which it is zero, with g for u and C for b, and no sum.
    """
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d, n, i = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BT)
    in_d, in_n = d < D, n < N
    states, of_states = n[:, None] * D + d[None, :], in_n[:, None] & in_d[None, :]
    a2 = tl.load(A + states, mask=of_states, other=0.0) * _LOG2E
    offset = tl.load(bias + d, mask=in_d, other=0.0)
    h = tl.zeros([BN, BD], tl.float32)
    dt_sum = tl.zeros([BD], tl.float32)
    for k in range(tiles):
        t = (chunk * tiles + k) * BT + i
        if ADJOINT:
            t = (chunk * tiles + tiles - k) * BT - 1 - i  # back to front
        r = batch * L + rows_of(t, period, stride, step, first)
        mask, mask_n = (t < L)[:, None] & in_d[None, :], (t < L)[:, None] & in_n[None, :]
        dt, _ = softplus_and_slope(load_tile(delta, r, delta_row, d, mask) + offset[None, :])
        dt = tl.where(mask, dt, 0.0)
        v = load_tile(u, r, u_row, d, mask)
        if ADJOINT:
            if GATED:
                gate = load_tile(z, r, z_row, d, mask)
                v *= gate * sigmoid(gate)
        else:
            v *= dt
            dt_sum += tl.sum(dt, axis=0)
        x = v[:, None, :] * load_tile(b, r, b_row, n, mask_n)[:, :, None]
        a = tl.exp2(dt[:, None, :] * a2[None, :, :])
        if ADJOINT:
            x *= a
        x = tl.where((i == 0)[:, None, None], a * h[None, :, :] + x, x)
        _, x = tl.associative_scan((a, x), 0, _join)
        h = tl.sum(tl.where((i == BT - 1)[:, None, None], x, 0.0), axis=0)
    place = batch * chunks + chunk
    tl.store(end + place * N * D + states, h, mask=of_states)
    if not ADJOINT:
        tl.store(total + place * D + d, dt_sum, mask=in_d)


@triton.jit(do_not_specialize=("chunks",))
def pass_on(A, end, total, start, chunks, D, N, BJ: tl.constexpr, BC: tl.constexpr, ADJOINT: tl.constexpr):
    """From the ends of chunks that started from zero to the true start of each, from the last one back if ADJOINT."""
    batch = tl.program_id(1).to(tl.int64)
    j, i = tl.program_id(0) * BJ + tl.arange(0, BJ), tl.arange(0, BC)
    in_j = j < N * D
    a2 = tl.load(A + j, mask=in_j, other=0.0) * _LOG2E
    h = tl.zeros([BJ], tl.float32)
    zeros_at = chunks - 1 if ADJOINT else 0
    tl.store(start + (batch * chunks + zeros_at) * N * D + j, h, mask=in_j)
    for k in range(tl.cdiv(chunks, BC)):
        c = k * BC + i
        place = batch * chunks + (chunks - 1 - c if ADJOINT else c)
        mask = (c < chunks)[:, None] & in_j[None, :]
        w = tl.load(total + place[:, None] * D + (j % D)[None, :], mask=mask, other=0.0)
        x = tl.load(end + place[:, None] * N * D + j[None, :], mask=mask, other=0.0)
        a = tl.exp2(w * a2[None, :])
        x = tl.where((i == 0)[:, None], a * h[None, :] + x, x)
        _, x = tl.associative_scan((a, x), 0, _join)
        after = place - 1 if ADJOINT else place + 1  # what leaves a chunk enters the next
        mask = (c + 1 < chunks)[:, None] & in_j[None, :]
        tl.store(start + after[:, None] * N * D + j[None, :], x, mask=mask)
        h = tl.sum(tl.where((i == BC - 1)[:, None], x, 0.0), axis=0)


@triton.jit(do_not_specialize=_WALK)
def forward(
    u, u_row, delta, delta_row, b, b_row, c, c_row, z, z_row, A, skip, bias, start, out, kept,
    L, period, stride, step, first, chunks, tiles, D, N,
    BD: tl.constexpr, BN: tl.constexpr, BT: tl.constexpr, GATED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The output of each chunk. KEEP: instead of it, the state before each tile, for `backward`."""
    chunk, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d, n, i = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BT)
    in_d, in_n = d < D, n < N
    states, of_states = n[:, None] * D + d[None, :], in_n[:, None] & in_d[None, :]
    a2 = tl.load(A + states, mask=of_states, other=0.0) * _LOG2E
    offset = tl.load(bias + d, mask=in_d, other=0.0)
    direct = tl.load(skip + d, mask=in_d, other=0.0)
    place = batch * chunks + chunk
    h = tl.load(start + place * N * D + states, mask=of_states, other=0.0)
    for tile in range(tiles):
        if KEEP:
            tl.store(kept + (place * tiles + tile) * N * D + states, h, mask=of_states)
        t = (chunk * tiles + tile) * BT + i
        r = batch * L + rows_of(t, period, stride, step, first)
        mask, mask_n = (t < L)[:, None] & in_d[None, :], (t < L)[:, None] & in_n[None, :]
        dt, _ = softplus_and_slope(load_tile(delta, r, delta_row, d, mask) + offset[None, :])
        dt = tl.where(mask, dt, 0.0)
        v = load_tile(u, r, u_row, d, mask)
        x = (dt * v)[:, None, :] * load_tile(b, r, b_row, n, mask_n)[:, :, None]
        a = tl.exp2(dt[:, None, :] * a2[None, :, :])
        x = tl.where((i == 0)[:, None, None], a * h[None, :, :] + x, x)
        _, x = tl.associative_scan((a, x), 0, _join)
        h = tl.sum(tl.where((i == BT - 1)[:, None, None], x, 0.0), axis=0)
        if not KEEP:
            y = tl.sum(x * load_tile(c, r, c_row, n, mask_n)[:, :, None], axis=1) + direct[None, :] * v
            if GATED:
                gate = load_tile(z, r, z_row, d, mask)
                y *= gate * sigmoid(gate)
            tl.store(out + r[:, None] * D + d[None, :], y.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_WALK)
def backward(
    u, u_row, delta, delta_row, b, b_row, c, c_row, z, z_row, g, g_row, A, skip, bias, kept, carry,
    u_grad, delta_grad, z_grad, b_grad, c_grad, A_grad, skip_grad, bias_grad,
    L, period, stride, step, first, chunks, tiles, D, N,
    BD: tl.constexpr, BN: tl.constexpr, BT: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """The gradients. b_grad, c_grad: (blocks of channels, B, L, N); those of A, skip and bias are of each chunk."""
    block, chunk, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    d, n, i = block * BD + tl.arange(0, BD), tl.arange(0, BN), tl.arange(0, BT)
    in_d, in_n = d < D, n < N
    states, of_states = n[:, None] * D + d[None, :], in_n[:, None] & in_d[None, :]
    decay = tl.load(A + states, mask=of_states, other=0.0)
    offset = tl.load(bias + d, mask=in_d, other=0.0)
    direct = tl.load(skip + d, mask=in_d, other=0.0)
    place, of_block = batch * chunks + chunk, block.to(tl.int64) * tl.num_programs(2) * L
    K = tl.load(carry + place * N * D + states, mask=of_states, other=0.0)
    A_sum = tl.zeros([BN, BD], tl.float32)
    skip_sum, bias_sum = tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    for k in range(tiles):
        tile = tiles - 1 - k
        t = (chunk * tiles + tile + 1) * BT - 1 - i  # back to front: the states, of fewer tensors, are what is turned
        r = batch * L + rows_of(t, period, stride, step, first)
        mask, mask_n = (t < L)[:, None] & in_d[None, :], (t < L)[:, None] & in_n[None, :]
        dt, slope = softplus_and_slope(load_tile(delta, r, delta_row, d, mask) + offset[None, :])
        dt = tl.where(mask, dt, 0.0)
        v, w = load_tile(u, r, u_row, d, mask), load_tile(g, r, g_row, d, mask)
        bb, cc = load_tile(b, r, b_row, n, mask_n), load_tile(c, r, c_row, n, mask_n)
        here, partial = r[:, None] * D + d[None, :], (of_block + r)[:, None] * N + n[None, :]
        a = tl.exp2(dt[:, None, :] * (decay * _LOG2E)[None, :, :])
        before = tl.load(kept + (place * tiles + tile) * N * D + states, mask=of_states, other=0.0)
        # What is left of the state before, a_t h_{t-1}, by itself: h - x would lose it where a_t is small.
        earlier = (t < L) & (i < BT - 1)
        r_1 = batch * L + rows_of(tl.where(earlier, t - 1, 0), period, stride, step, first)
        mask_d, mask_b = earlier[:, None] & in_d[None, :], earlier[:, None] & in_n[None, :]
        was, _ = softplus_and_slope(load_tile(delta, r_1, delta_row, d, mask_d) + offset[None, :])
        was *= load_tile(u, r_1, u_row, d, mask_d)
        left = was[:, None, :] * load_tile(b, r_1, b_row, n, mask_b)[:, :, None]
        left = a * tl.where((i == BT - 1)[:, None, None], before[None, :, :], left)
        _, left = tl.associative_scan((a, left), 0, _join, reverse=True)
        h = left + (dt * v)[:, None, :] * bb[:, :, None]
        if GATED:
            gate = load_tile(z, r, z_row, d, mask)
            s = sigmoid(gate)
            y = tl.sum(h * cc[:, :, None], axis=1) + direct[None, :] * v
            tl.store(z_grad + here, (w * y * s * (1.0 + gate * (1.0 - s))).to(z_grad.dtype.element_ty), mask=mask)
            w *= gate * s
        tl.store(c_grad + partial, tl.sum(h * w[:, None, :], axis=2), mask=mask_n)
        e = w[:, None, :] * cc[:, :, None]
        e = tl.where((i == 0)[:, None, None], e + K[None, :, :], e)
        ones = tl.full([BT, BN, BD], 1.0, tl.float32)
        _, back, _, e = tl.associative_scan((a, a * e, ones, e), 0, _join_shifted)
        K = tl.sum(tl.where((i == BT - 1)[:, None, None], back, 0.0), axis=0)
        tl.store(b_grad + partial, tl.sum(e * (dt * v)[:, None, :], axis=2), mask=mask_n)
        v_grad = tl.sum(e * bb[:, :, None], axis=1)
        tl.store(u_grad + here, (dt * v_grad + direct[None, :] * w).to(u_grad.dtype.element_ty), mask=mask)
        through = e * left
        slope *= tl.sum(through * decay[None, :, :], axis=1) + v * v_grad
        slope = tl.where(mask, slope, 0.0)
        tl.store(delta_grad + here, slope.to(delta_grad.dtype.element_ty), mask=mask)
        A_sum += tl.sum(through * dt[:, None, :], axis=0)
        skip_sum += tl.sum(w * v, axis=0)
        bias_sum += tl.sum(slope, axis=0)
    tl.store(A_grad + place * N * D + states, A_sum, mask=of_states)
    tl.store(skip_grad + place * D + d, skip_sum, mask=in_d)
    tl.store(bias_grad + place * D + d, bias_sum, mask=in_d)
