"""The CPU kernels of the selective scan: rows of tokens, WIDTH channels a vector, GROUP states in registers.

The sequence is walked in chunks of CHUNK tokens. Forward, a chunk starts from the state the last one left.
Backward (chunks in reverse), the states inside a chunk are computed again from the saved state at its start,
so the memory kept for backward is d N / CHUNK floats a token. Notation of the Mamba paper (arXiv 2312.00752):

    h_t = a_t h_{t-1} + dt_t B_t u_t,  y_t = <C_t, h_t> + D u_t,  o_t = y_t SiLU(z_t)
    a_t = exp(dt_t A) = exp2(dt_t A log2(e))

and with g_t = dL/dy_t and e_t = dL/dh_t = C_t g_t + a_{t+1} e_{t+1}:

    dC_t = g_t h_t,  dB_t = e_t dt_t u_t,  dA = sum_t dt_t e_t a_t h_{t-1},
    ddt_t = sum_n e_t (A a_t h_{t-1} + B_t u_t),  du_t = D g_t + dt_t sum_n e_t B_t,  dD = sum_t g_t u_t.

A kernel's arguments are those named in its ``*_FIELDS``: counts, addresses, and strides in bytes.
"""

from __future__ import annotations

from . import order_kernels
from .order_kernels import noted_row, write_rows
from .simd import CELL, LN2, WIDTH, Emitter, Fields, Value

CHUNK = 64  # tokens between saved states
GROUP = max(8, WIDTH)  # states held in registers at a time; the number of states is padded to a multiple

# *_row: the step from one row (of tokens, or of states) to the next.
# a: (N, d) = A log2(e); state: (chunks + 1, N, d), with state_step = 0 where nothing need be kept.
FORWARD_FIELDS = (
    "tokens blocks groups u u_row delta delta_row b b_row c c_row z z_row out out_row "
    f"a a_row skip bias state state_step scratch {order_kernels.FIELDS}"
)
GATED, ADDED = 1, 2  # bits of the forward kernel's variant
# b_grad, c_grad: (L, N), this task's own sums over its channels; a_grad, carry: (N, d), rows as in a;
# carry: a_{t+1} e_{t+1} at the end of the chunk.
BACKWARD_FIELDS = (
    "tokens blocks groups u u_row delta delta_row b b_row c c_row z z_row grad grad_row "
    "a a_row skip bias state state_step carry u_grad u_grad_row delta_grad delta_grad_row z_grad z_grad_row "
    "b_grad b_grad_row c_grad c_grad_row a_grad skip_grad bias_grad scratch"
)
FORWARD_SCRATCH = 2 * CHUNK * WIDTH  # floats
BACKWARD_SCRATCH = WIDTH * (CHUNK * (8 + 2 * GROUP) + GROUP)


def emit_forward(emitter: Emitter, f: Fields, variant: int) -> None:
    """Writes the output of one sequence, and the states at the starts of chunks.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in FORWARD_FIELDS.
        variant: GATED where there is a gate, more by ADDED where the output is added to what is there.
    """
    s_dt, s_y = f.scratch, f.scratch + CHUNK * CELL
    with emitter.loop((f.tokens + (CHUNK - 1)) / CHUNK) as chunk:
        start = chunk * CHUNK
        count = emitter.smaller(f.tokens - start, CHUNK)
        write_rows(emitter, f, start, count)
        with emitter.loop(f.blocks) as block:
            lane, most = block * CELL, emitter.variable()
            skip, bias = emitter.load(f.skip + lane), emitter.load(f.bias + lane)
            with emitter.loop(count) as i:
                delta, u = (p + (start + i) * row + lane for p, row in ((f.delta, f.delta_row), (f.u, f.u_row)))
                dt, _ = emitter.softplus_and_slope(emitter.load(delta) + bias)
                most.set(emitter.at_least(most.get(), dt))
                emitter.store(dt, s_dt + i * CELL)
                emitter.store(skip * emitter.load(u), s_y + i * CELL)
                row = noted_row(emitter, f, i)
                later = [delta + f.delta_row * CHUNK, u + f.u_row * CHUNK, f.out + row * f.out_row + lane]
                for address in [*later, f.z + row * f.z_row + lane] if variant & GATED else later:
                    emitter.prefetch(address)
            with emitter.loop(f.groups) as group:
                _states(emitter, f, (chunk, group), (start, count), lane, (s_dt, s_y), most.get())
            with emitter.loop(count) as i:
                row, y = noted_row(emitter, f, i), emitter.load(s_y + i * CELL)
                out = f.out + row * f.out_row + lane
                if variant & GATED:
                    z = emitter.load(f.z + row * f.z_row + lane)
                    y = y * (z * emitter.sigmoid(z))
                emitter.store(emitter.load(out) + y if variant & ADDED else y, out)


def _states(
    emitter: Emitter,
    f: Fields,
    place: tuple[Value, Value],
    tokens: tuple[Value, Value],
    lane: Value,
    scratch: tuple[Value, Value],
    most: Value,
) -> None:
    """A chunk of a group of states: adds <C_t, h_t> to y.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments.
        place: numbers of the chunk and of the group.
        tokens: the chunk's first one, and how many.
        lane: bytes before the block of channels.
        scratch: addresses of the chunk's dt and y.
        most: the largest dt of the chunk.
    """
    (chunk, group), (start, count), (s_dt, s_y) = place, tokens, scratch
    first = group * GROUP
    state = f.state + chunk * f.state_step + first * f.a_row + lane
    a = f.a + first * f.a_row + lane
    h = [emitter.variable(emitter.load(state + f.a_row * n)) for n in range(GROUP)]

    def steps(clamped: bool) -> None:
        with emitter.loop(count) as i:
            t = start + i
            dt = emitter.load(s_dt + i * CELL)
            x = dt * emitter.load(f.u + t * f.u_row + lane)
            b, c = (p + t * row + first * 4 for p, row in ((f.b, f.b_row), (f.c, f.c_row)))
            y = [emitter.load(s_y + i * CELL), emitter.lanes(0.0)]
            for n in range(GROUP):
                decay = emitter.exp2(dt * emitter.load(a + f.a_row * n), clamped)
                new = emitter.fma(decay, h[n].get(), x * emitter.load_all(b + 4 * n))
                h[n].set(new)
                y[n % 2] = emitter.fma(new, emitter.load_all(c + 4 * n), y[n % 2])
            emitter.store(y[0] + y[1], s_y + i * CELL)

    fastest = most * emitter.load(a)
    for n in range(1, GROUP):
        fastest = emitter.at_most(most * emitter.load(a + f.a_row * n), fastest)
    # decay so fast that it must be clamped is rare: the comparison is a tenth of a step
    emitter.either(emitter.any_below(fastest, -126.0), lambda: steps(clamped=True), lambda: steps(clamped=False))
    for n in range(GROUP):
        emitter.store(h[n].get(), state + f.state_step + f.a_row * n)


def emit_backward(emitter: Emitter, f: Fields, gated: int) -> None:
    """Writes the gradients of one sequence.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in BACKWARD_FIELDS.
        gated: 1 with a gate, 0 without.
    """
    size = CHUNK * CELL
    s_dt, s_slope, s_x, s_g, s_y, s_a, s_b = (f.scratch + k * size for k in range(7))
    s_decay, s_h = f.scratch + 8 * size, f.scratch + (8 + GROUP) * size
    with emitter.loop((f.tokens + (CHUNK - 1)) / CHUNK, backwards=True) as chunk, emitter.loop(f.blocks) as block:
        start, lane = chunk * CHUNK, block * CELL
        count = emitter.smaller(f.tokens - start, CHUNK)
        skip, bias = emitter.load(f.skip + lane), emitter.load(f.bias + lane)
        with emitter.loop(count) as i:
            t, cell = start + i, i * CELL
            dt, slope = emitter.softplus_and_slope(emitter.load(f.delta + t * f.delta_row + lane) + bias)
            u, g = emitter.load(f.u + t * f.u_row + lane), emitter.load(f.grad + t * f.grad_row + lane)
            if gated:
                z = emitter.load(f.z + t * f.z_row + lane)
                g = g * (z * emitter.sigmoid(z))
                emitter.store(skip * u, s_y + cell)
            for value, place in (
                (dt, s_dt),
                (slope, s_slope),
                (dt * u, s_x),
                (g, s_g),
                (0.0, s_a),
                (0.0, s_b),
            ):
                emitter.store(value, place + cell)
        with emitter.loop(f.groups) as group:
            first = group * GROUP
            state = f.state + chunk * f.state_step + first * f.a_row + lane
            carry, a_grad = (p + first * f.a_row + lane for p in (f.carry, f.a_grad))
            a = f.a + first * f.a_row + lane
            _states_again(emitter, f, gated, start, count, group, a, state, (s_dt, s_x, s_y, s_decay, s_h))
            e = [emitter.variable(emitter.load(carry + f.a_row * n)) for n in range(GROUP)]
            da = [emitter.variable() for _ in range(GROUP)]
            with emitter.loop(count, backwards=True) as i:
                t, cell = start + i, i * CELL
                dt, x, g = (emitter.load(s + cell) for s in (s_dt, s_x, s_g))
                b, c = (p + t * row + group * (4 * GROUP) for p, row in ((f.b, f.b_row), (f.c, f.c_row)))
                sum_a, sum_b, db, dc = emitter.load(s_a + cell), emitter.load(s_b + cell), [], []
                for n in range(GROUP):
                    now = s_h + (i * GROUP + n) * CELL + GROUP * CELL  # h_t; h_{t-1} lies one row before
                    grad = emitter.fma(g, emitter.load_all(c + 4 * n), e[n].get())
                    back = grad * emitter.load(s_decay + (i * GROUP + n) * CELL)
                    e[n].set(back)
                    through = back * emitter.load(now - GROUP * CELL)
                    da[n].set(emitter.fma(dt, through, da[n].get()))
                    sum_a = emitter.fma(emitter.load(a + f.a_row * n), through, sum_a)
                    sum_b = emitter.fma(grad, emitter.load_all(b + 4 * n), sum_b)
                    db.append(grad * x)
                    dc.append(g * emitter.load(now))
                emitter.store(sum_a, s_a + cell)
                emitter.store(sum_b, s_b + cell)
                for v, base, row in ((db, f.b_grad, f.b_grad_row), (dc, f.c_grad, f.c_grad_row)):
                    for k, value in enumerate(emitter.sums(v)):
                        place = base + t * row + group * (4 * GROUP) + k * CELL
                        emitter.store(emitter.where(block, emitter.load(place) + value, value), place)
            for n in range(GROUP):
                emitter.store(e[n].get(), carry + f.a_row * n)
                emitter.store(emitter.load(a_grad + f.a_row * n) + da[n].get(), a_grad + f.a_row * n)
        skip_grad, bias_grad = emitter.variable(), emitter.variable()
        with emitter.loop(count) as i:
            t, cell = start + i, i * CELL
            dt, slope, g, sum_a, sum_b = (emitter.load(s + cell) for s in (s_dt, s_slope, s_g, s_a, s_b))
            u = emitter.load(f.u + t * f.u_row + lane)
            emitter.store(emitter.fma(dt, sum_b, g * skip), f.u_grad + t * f.u_grad_row + lane)
            delta_grad = emitter.fma(sum_a, LN2, u * sum_b) * slope
            emitter.store(delta_grad, f.delta_grad + t * f.delta_grad_row + lane)
            skip_grad.set(emitter.fma(g, u, skip_grad.get()))
            bias_grad.set(bias_grad.get() + delta_grad)
            if gated:
                z, y = emitter.load(f.z + t * f.z_row + lane), emitter.load(s_y + cell)
                s = emitter.sigmoid(z)
                slope_z = s * emitter.fma(z, 1.0 - s, 1.0)
                emitter.store(
                    emitter.load(f.grad + t * f.grad_row + lane) * y * slope_z, f.z_grad + t * f.z_grad_row + lane
                )
        for total, base in ((skip_grad, f.skip_grad), (bias_grad, f.bias_grad)):
            emitter.store(emitter.load(base + lane) + total.get(), base + lane)


def _states_again(
    emitter: Emitter,
    f: Fields,
    gated: int,
    start: Value,
    count: Value,
    group: Value,
    a: Value,
    state: Value,
    places: tuple[Value, Value, Value, Value, Value],
) -> None:
    """Forward through one chunk: decays and states go to the scratch, and the output if the gate needs it."""
    s_dt, s_x, s_y, s_decay, s_h = places
    h = [emitter.variable(emitter.load(state + f.a_row * n)) for n in range(GROUP)]
    for n in range(GROUP):
        emitter.store(h[n].get(), s_h + n * CELL)
    with emitter.loop(count) as i:
        t, cell = start + i, i * CELL
        dt, x = emitter.load(s_dt + cell), emitter.load(s_x + cell)
        b, c = (p + t * row + group * (4 * GROUP) for p, row in ((f.b, f.b_row), (f.c, f.c_row)))
        y = [emitter.load(s_y + cell), emitter.lanes(0.0)] if gated else []
        for n in range(GROUP):
            decay = emitter.exp2(dt * emitter.load(a + f.a_row * n))
            new = emitter.fma(decay, h[n].get(), x * emitter.load_all(b + 4 * n))
            h[n].set(new)
            emitter.store(decay, s_decay + (i * GROUP + n) * CELL)
            emitter.store(new, s_h + (i * GROUP + n) * CELL + GROUP * CELL)
            if gated:
                y[n % 2] = emitter.fma(new, emitter.load_all(c + 4 * n), y[n % 2])
        if gated:
            emitter.store(y[0] + y[1], s_y + cell)
