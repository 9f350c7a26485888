"""The CPU kernel of a 3x3x3 convolution by Winograd's F(4,3) on each axis: WIDTH channels a vector.

    On one axis y = A' [(G g) . (B' x)]: four sums from six values and three weights by six products instead of twelve,
    on three axes 64 by 216 instead of 1728 (Lavin and Gray 2015, arXiv 1509.09308). The points are 0, +-NEAR, +-FAR and
    infinity with NEAR FAR = 1: rounding is a tenth of that with the usual +-1, +-2, some 3e-6 of the output's scale.

A kernel does some tiles of 4^3 voxels of one sample, a block of them at a time: their transforms (v), for each point a
matrix product over the channels (m), and back. Rows of channels are read and written where they lie; what is outside
of the grid is read from a row of zeros, and written to a row that nobody reads. Where each row lies is worked out once
a tile, for all of its channels. v and m lie by block of channels, then by point, then by tile: what is written and read
together stays within some pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmamba.networks.scan.simd import CELL, WIDTH, Emitter, Fields, Value

NEAR, FAR = 0.5**0.5, 2.0**0.5
TILE = 4  # voxels of a tile on each axis
PATCH = 6  # of what a tile is computed from; as many points
POINTS = PATCH**3
PAD = 64  # bytes between two points in v and in m: without them whole pages lie between, and share one cache line
LANES = WIDTH  # channels in a vector
TOGETHER = max(1, 64 // CELL)  # tiles whose vectors fill a cache line of v
OUTSIDE = 1 << 44  # bytes; more than any tensor has

# tiles [first, first + tiles), `block` at a time. Blocks of channels: of x, and of another input that lies beside it.
# weights: (spans, POINTS, groups, input channels, output channels of a group). A span's m is done before the next.
FIELDS = (
    "first tiles block depth height width tiles_h tiles_w x_blocks x x_row other_blocks other other_row zeros "
    "weights spans groups bias out out_row nowhere v m lines places"
)


def group_of(channels: int) -> int:
    """Vectors of output channels in the innermost product."""
    vectors = channels // WIDTH
    return next(group for group in ((2, 3, 1) if WIDTH == 8 else (3, 2, 1)) if vectors % group == 0)


def rows_of(group: int) -> int:
    """Tiles in the innermost product: their sums, the weights and one value fill the registers (AVX2 has 16)."""
    return min(12, ((16 if WIDTH == 8 else 32) - group - 1) // group)


def emit_convolution(emitter: Emitter, f: Fields, group: int) -> None:
    """Writes the convolution of some tiles.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in FIELDS.
        group: vectors of output channels in the innermost product.
    """
    channels, wide, rows = (f.x_blocks + f.other_blocks) * WIDTH, group * CELL, rows_of(group)
    v_point, m_point = f.block * CELL + PAD, f.block * wide + PAD
    v_lanes, m_group = v_point * POINTS, m_point * POINTS
    with emitter.loop((f.tiles + f.block - 1) / f.block) as number:
        first = f.first + number * f.block
        count = emitter.smaller(f.block, f.tiles - number * f.block)
        inputs = (f.x, f.x_row, f.x_blocks, f.v), (f.other, f.other_row, f.other_blocks, f.v + f.x_blocks * v_lanes)
        with emitter.loop((count + TOGETHER - 1) / TOGETHER) as several:
            start = several * TOGETHER  # tiles beyond the last are of no use; what they write stays within v's PAD
            for x, x_row, x_blocks, v in inputs:
                with emitter.loop(TOGETHER) as i, emitter.loop(emitter.smaller(x_blocks, 1)):
                    corner = [place - 1 for place in _corner(f, first + start + i)]
                    _places(emitter, f, corner, PATCH, (x, x_row, f.zeros), f.places + i * (POINTS * 8))
                with emitter.loop(x_blocks) as b, emitter.loop(TOGETHER) as i:
                    place = v + b * v_lanes + (start + i) * CELL
                    _to_points(emitter, f, f.places + i * (POINTS * 8), b * CELL, place, v_point)
        with emitter.loop(f.spans) as span:
            with emitter.loop(POINTS) as point, emitter.loop(f.groups) as g:
                weights = f.weights + ((span * POINTS + point) * f.groups + g) * channels * wide
                with emitter.loop((count + rows - 1) / rows) as r:  # the last ones may be of no tile: nobody reads them
                    v = f.v + point * v_point + r * rows * CELL
                    m = f.m + point * m_point + g * m_group + r * rows * wide
                    _product(emitter, f.x_blocks + f.other_blocks, (v, v_lanes), weights, m, (rows, group))
            with emitter.loop(count) as t:
                _places(emitter, f, _corner(f, first + t), TILE, (f.out, f.out_row, f.nowhere), f.places)
                with emitter.loop(f.groups) as g, emitter.loop(group) as b:
                    m = f.m + t * wide + g * m_group + b * CELL
                    _to_voxels(emitter, f, ((span * f.groups + g) * group + b) * CELL, m, m_point)


def _corner(f: Fields, tile: Value) -> list[Value]:
    """The first voxel of a tile, on each axis."""
    line = tile / f.tiles_w
    slab = line / f.tiles_h
    return [slab * TILE, (line - slab * f.tiles_h) * TILE, (tile - line * f.tiles_w) * TILE]


def _offset(emitter: Emitter, place: Value, side: Value, step: Value) -> Value:
    """Bytes to a place on one axis; where it is outside, so far below zero that the sum over the axes is, too."""
    outside = emitter.smaller(place, 0) + emitter.smaller(side - 1 - place, 0)
    return place * step + outside * OUTSIDE


def _places(
    emitter: Emitter, f: Fields, corner: Sequence[Value], side: int, rows: tuple[Value, Value, Value], places: Value
) -> None:
    """Writes the addresses of a cube's rows to `places`. rows: the first one's, their step, and that of one outside."""
    start, row, outside = rows
    d, h, w = corner
    slabs = [_offset(emitter, d + i, f.depth, f.width * f.height * row) for i in range(side)]
    with emitter.loop(side) as i:
        line = _offset(emitter, h + i, f.height, f.width * row)
        with emitter.loop(side) as j:
            column = line + _offset(emitter, w + j, f.width, row)
            for number, slab in enumerate(slabs):
                offset = column + slab
                place = emitter.where(emitter.smaller(offset, 0), outside, start + offset)
                emitter.store_word(place, places + ((i * side + j) * side + number) * 8)


def _to_points(emitter: Emitter, f: Fields, places: Value, lane: Value, v: Value, v_point: Value) -> None:
    """The transform of one tile of one block of channels, which begins `lane` bytes after the start of a row."""
    with emitter.loop(PATCH**2) as i:
        values = [emitter.load(emitter.load_word(places + (i * PATCH + n) * 8) + lane) for n in range(PATCH)]
        _store(emitter, _six(emitter, values), f.lines + i * CELL, PATCH**2 * CELL)
    with emitter.loop(PATCH) as k, emitter.loop(PATCH) as j:
        at, step = f.lines + (k * PATCH**2 + j) * CELL, PATCH * CELL
        _store(emitter, _six(emitter, _load(emitter, at, step)), at, step)
    with emitter.loop(PATCH**2) as i:
        values = _load(emitter, f.lines + i * (PATCH * CELL), CELL)
        _store(emitter, _six(emitter, values), v + i * PATCH * v_point, v_point)


def _product(
    emitter: Emitter, blocks: Value, v: tuple[Value, Value], weights: Value, m: Value, shape: tuple[int, int]
) -> None:
    """m = v weights for one point, some tiles (rows) and vectors of output channels. v: address, step to a block."""
    rows, group = shape
    sums = [[emitter.variable() for _ in range(group)] for _ in range(rows)]
    with emitter.loop(blocks) as block, emitter.loop(WIDTH) as lane:
        w = _load(emitter, weights + (block * WIDTH + lane) * (group * CELL), CELL, group)
        for number, line in enumerate(sums):
            value = emitter.load_all(v[0] + block * v[1] + lane * 4 + CELL * number)
            for total, factor in zip(line, w):
                total.set(emitter.fma(value, factor, total.get()))
    for number, line in enumerate(sums):
        _store(emitter, [total.get() for total in line], m + group * CELL * number, CELL)


def _to_voxels(emitter: Emitter, f: Fields, lane: Value, m: Value, m_point: Value) -> None:
    """The output of one tile in one block of channels, which begins `lane` bytes after the start of a row."""
    bias = emitter.load(f.bias + lane)
    with emitter.loop(PATCH**2) as i:
        values = _load(emitter, m + i * PATCH * m_point, m_point)
        _store(emitter, _four(emitter, values), f.lines + i * (TILE * CELL), CELL)
    with emitter.loop(PATCH) as k, emitter.loop(TILE) as j:
        at, step = f.lines + (k * (PATCH * TILE) + j) * CELL, TILE * CELL
        _store(emitter, _four(emitter, _load(emitter, at, step)), at, step)
    with emitter.loop(TILE**2) as i:
        values = _load(emitter, f.lines + i * CELL, PATCH * TILE * CELL)
        for number, value in enumerate(_four(emitter, values)):
            emitter.store(value + bias, emitter.load_word(f.places + (i * TILE + number) * 8) + lane)


def _six(emitter: Emitter, x: Sequence[Value]) -> list[Value]:
    """B' x: six values of one axis to the points."""
    fma, near, far = emitter.fma, NEAR * NEAR, FAR * FAR
    even_near, odd_near = fma(x[2], -far, x[4]), fma(x[1], -far, x[3])
    even_far, odd_far = fma(x[2], -near, x[4]), fma(x[1], -near, x[3])
    return [
        fma(x[2], -(near + far), x[0] + x[4]),
        fma(odd_near, NEAR, even_near),
        fma(odd_near, -NEAR, even_near),
        fma(odd_far, FAR, even_far),
        fma(odd_far, -FAR, even_far),
        fma(x[3], -(near + far), x[1] + x[5]),
    ]


def _four(emitter: Emitter, m: Sequence[Value]) -> list[Value]:
    """A' m: the points of one axis to its four voxels."""
    fma = emitter.fma
    sum_near, off_near, sum_far, off_far = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    return [
        m[0] + sum_near + sum_far,
        fma(off_near, NEAR, off_far * FAR),
        fma(sum_near, NEAR**2, sum_far * FAR**2),
        fma(off_near, NEAR**3, fma(off_far, FAR**3, m[5])),
    ]


def _load(emitter: Emitter, address: Value, step: Value | int, count: int = PATCH) -> list[Value]:
    return [emitter.load(address + step * i) for i in range(count)]


def _store(emitter: Emitter, values: Sequence[Value], address: Value, step: Value | int) -> None:
    for i, value in enumerate(values):
        emitter.store(value, address + step * i)


KERNELS = {"winograd": (emit_convolution, FIELDS)}
