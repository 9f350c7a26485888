"""The CPU kernel of a 2x2x2 transposed convolution of stride 2: WIDTH channels a vector.

No two of its windows overlap, so that it is one matrix product: of each voxel's channels with the channels of its eight
in the output. A kernel does some voxels of one sample, a block of them at a time, and of a block one group of vectors
after the other: both the block and the group's weights stay in a near cache. Sums are stored where they belong.
"""

from __future__ import annotations

from segmamba.networks.scan.simd import CELL, WIDTH, Emitter, Fields, Value

LANES = WIDTH  # channels in a vector
STEP = 8  # input channels of one turn of the innermost loop

# voxels are done `block` at a time. places: of each, bytes from `out` to the first of its eight in the output. Of those
# two lie side by side (a pair), in `groups` groups of vectors; `line` and `slab` are bytes between pairs.
# weights: (2, 2, groups, input channels, output channels of a group); bias: (groups, output channels of a group).
FIELDS = "voxels block steps x x_row places weights bias groups out line slab"


def group_of(channels: int) -> int:
    """Vectors of output channels in the innermost product; 0 where they do not fill whole ones."""
    return next((group for group in ((2, 3) if WIDTH == 8 else (3, 2)) if 2 * channels % (group * WIDTH) == 0), 0)


def rows_of(group: int) -> int:
    """Voxels in the innermost product: their sums fill three quarters of the registers (AVX2 has 16)."""
    return (12 if WIDTH == 8 else 24) // group


def emit_convolution(emitter: Emitter, f: Fields, group: int) -> None:
    """Writes the eight voxels of each of at least `rows_of(group)`.

    Args:
        emitter: writes the instructions.
        f: the kernel's arguments by the names in FIELDS.
        group: vectors of output channels in the innermost product.
    """
    wide, rows = group * CELL, rows_of(group)
    with emitter.loop((f.voxels + f.block - 1) / f.block) as number:
        start = number * f.block
        tiles = (emitter.smaller(f.block, f.voxels - start) + rows - 1) / rows
        with emitter.loop(2) as i, emitter.loop(2) as j, emitter.loop(f.groups) as g:
            weights = f.weights + ((i * 2 + j) * f.groups + g) * (f.steps * STEP * wide)
            out = f.out + i * f.slab + j * f.line + g * wide
            with emitter.loop(tiles) as t:
                first = emitter.smaller(start + t * rows, f.voxels - rows)  # at the end some are done twice, alike
                _product(emitter, f, first, weights, (f.bias + g * wide, out), (rows, group))


def _product(
    emitter: Emitter, f: Fields, first: Value, weights: Value, ends: tuple[Value, Value], shape: tuple[int, int]
) -> None:
    """Some voxels (rows) and vectors of output channels. ends: the address of the bias, and of the output."""
    rows, group = shape
    bias, out = ends
    voxels = [f.x + (first + number) * f.x_row for number in range(rows)]
    sums = [[emitter.variable(emitter.load(bias + CELL * i)) for i in range(group)] for _ in range(rows)]
    with emitter.loop(f.steps) as step:
        for channel in range(STEP):
            w = [emitter.load(weights + (step * STEP + channel) * (group * CELL) + CELL * i) for i in range(group)]
            for x, line in zip(voxels, sums):
                value = emitter.load_all(x + (step * STEP + channel) * 4)
                for total, factor in zip(line, w):
                    total.set(emitter.fma(value, factor, total.get()))
    for number, line in enumerate(sums):
        place = out + emitter.load_word(f.places + (first + number) * 8)
        for i, total in enumerate(line):
            emitter.store(total.get(), place + CELL * i)


KERNELS = {"transposed": (emit_convolution, FIELDS)}
