"""Vectors for numba: arithmetic on WIDTH floats at a time, written as formulas, emitted as LLVM IR.

Numba leaves vectorising to LLVM, which does not find this code's best shape (one block of channels in a
vector, the states in registers). So the kernels emit LLVM vector instructions themselves, through llvmlite,
which every platform numba runs on understands. ``Emitter`` is a thin layer over llvmlite's IRBuilder and
``Value`` gives its results operators, so that a kernel reads like the formula it computes.
Importing this file imports numba: only ``cpu.py`` does, at first use.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target


def _native_width() -> int:
    """Floats in one vector register of what numba compiles for: this processor, or what NUMBA_CPU_FEATURES names."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 4
    context: Any = cpu_target.target_context
    _, _, features = context.codegen().magic_tuple()
    return 16 if {"+avx512f", "+avx512vl"} <= set(features.split(",")) else 8


WIDTH = _native_width()  # the one constant every kernel is written in: 4, 8 or 16
CELL = 4 * WIDTH  # bytes of one vector

WORD = ir.IntType(64)
FLOAT = ir.FloatType()
LANES = ir.VectorType(FLOAT, WIDTH)
LANE_BITS = ir.VectorType(ir.IntType(32), WIDTH)
HALF_BITS = ir.VectorType(ir.IntType(16), WIDTH)
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453

# exp2(f) = 1 + f q(f) on |f| <= 1/2, relative error 9.2e-8, exact at 0 (decay factors near 1 stay unbiased).
# log1p(e) = 2 s p(s^2), s = e / (2 + e), on 0 <= e <= 1, relative error 4.0e-9.
# Both are minimax fits of the relative error, found by linear programming.
EXP2_COEFFICIENTS = (0.0013264727630, 0.0096715126462, 0.0555073374176, 0.2402224208526, 0.6931469776003)
LOG1P_COEFFICIENTS = (0.1408931220831, 0.1398027310884, 0.2001245683466, 0.3333315730941, 1.0)
ROUNDER = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in a float's low bits


class Value:
    """One LLVM value (a vector of floats or a 64-bit integer) with operators; plain numbers join in."""

    __slots__ = ("emitter", "ir")

    def __init__(self, emitter: Emitter, value: Any):
        self.emitter = emitter
        self.ir = value

    def _emit(self, other: Operand, on_floats: str, on_words: str, swap: bool = False) -> Value:
        vector = self.ir.type == LANES
        left, right = self.ir, self.emitter.like(other, self).ir
        if swap:
            left, right = right, left
        return Value(self.emitter, getattr(self.emitter.builder, on_floats if vector else on_words)(left, right))

    def __add__(self, other: Operand) -> Value:
        return self._emit(other, "fadd", "add")

    def __mul__(self, other: Operand) -> Value:
        return self._emit(other, "fmul", "mul")

    def __sub__(self, other: Operand) -> Value:
        return self._emit(other, "fsub", "sub")

    def __rsub__(self, other: Operand) -> Value:
        return self._emit(other, "fsub", "sub", swap=True)

    def __truediv__(self, other: Operand) -> Value:
        return self._emit(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: Operand) -> Value:
        return self._emit(other, "fdiv", "sdiv", swap=True)

    __radd__ = __add__
    __rmul__ = __mul__


Operand = Value | float


class Variable:
    """A vector that changes inside loops; LLVM keeps it in a register."""

    def __init__(self, emitter: Emitter, start: Operand):
        self.emitter = emitter
        self.slot = cgutils.alloca_once(emitter.builder, LANES)
        self.set(start)

    def get(self) -> Value:
        """The present value."""
        return Value(self.emitter, self.emitter.builder.load(self.slot))

    def set(self, value: Operand) -> None:
        """Replaces the value."""
        self.emitter.builder.store(self.emitter.lanes(value).ir, self.slot)


class Emitter:
    """Writes LLVM IR at the builder's place. Addresses are 64-bit integers in bytes."""

    def __init__(self, builder: Any):
        self.builder = builder

    # --- constants, memory, loops
    def lanes(self, x: Operand) -> Value:
        """A number in every lane; a value as it is."""
        return x if isinstance(x, Value) else Value(self, ir.Constant(LANES, [float(x)] * WIDTH))

    def word(self, x: Operand) -> Value:
        """A whole number as a 64-bit integer; a value as it is."""
        return x if isinstance(x, Value) else Value(self, ir.Constant(WORD, int(x)))

    def value(self, raw: Any) -> Value:
        """What llvmlite gave, with operators."""
        return Value(self, raw)

    def like(self, x: Operand, model: Value) -> Value:
        """`x` in the type of `model`."""
        return self.lanes(x) if model.ir.type == LANES else self.word(x)

    def _pointer(self, address: Value, kind: Any) -> Any:
        return self.builder.inttoptr(self.word(address).ir, kind.as_pointer())

    def load(self, address: Value) -> Value:
        """WIDTH floats from an address."""
        return Value(self, self.builder.load(self._pointer(address, LANES), align=4))

    def load_half(self, address: Value) -> Value:
        """WIDTH bfloat16, the upper halves of floats, from an address."""
        b = self.builder
        bits = b.zext(b.load(self._pointer(address, HALF_BITS), align=2), LANE_BITS)
        return Value(self, b.bitcast(b.shl(bits, ir.Constant(LANE_BITS, [16] * WIDTH)), LANES))

    def load_word(self, address: Value) -> Value:
        """One 64-bit integer from an address."""
        return Value(self, self.builder.load(self._pointer(address, WORD), align=8))

    def store_word(self, value: Value, address: Value) -> None:
        """Writes a 64-bit integer to an address."""
        self.builder.store(value.ir, self._pointer(address, WORD), align=8)

    def load_all(self, address: Value) -> Value:
        """One float from an address, in every lane."""
        return self._everywhere(self.builder.load(self._pointer(address, FLOAT), align=4))

    def _everywhere(self, one: Any) -> Value:
        empty = ir.Constant(LANES, ir.Undefined)
        first = self.builder.insert_element(empty, one, ir.Constant(ir.IntType(32), 0))
        return Value(self, self.builder.shuffle_vector(first, empty, ir.Constant(LANE_BITS, [0] * WIDTH)))

    def store(self, value: Operand, address: Value) -> None:
        """Writes WIDTH floats to an address."""
        self.builder.store(self.lanes(value).ir, self._pointer(address, LANES), align=4)

    def store_half(self, value: Operand, address: Value) -> None:
        """Rounded to the nearest bfloat16, ties to even. Infinities stay; so do the NaNs that arithmetic makes."""
        b = self.builder
        bits = b.bitcast(self.lanes(value).ir, LANE_BITS)
        sixteen, one, almost = (ir.Constant(LANE_BITS, [n] * WIDTH) for n in (16, 1, 0x7FFF))
        odd = b.and_(b.lshr(bits, sixteen), one)
        rounded = b.lshr(b.add(bits, b.add(odd, almost)), sixteen)
        b.store(b.trunc(rounded, HALF_BITS), self._pointer(address, HALF_BITS), align=2)

    def prefetch(self, address: Value) -> None:
        """Asks for the cache line of an address, which need not be there: it is wanted soon."""
        word, pointer = ir.IntType(32), self._pointer(address, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        call = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        self.builder.call(call, [pointer, *(ir.Constant(word, n) for n in (0, 3, 1))])  # to read, near, data

    @contextmanager
    def loop(self, count: Operand, backwards: bool = False) -> Iterator[Value]:
        """for i in range(count), or from count - 1 down to 0."""
        count = self.word(count)
        with cgutils.for_range(self.builder, count.ir) as turn:
            index = Value(self, turn.index)
            yield (count - 1) - index if backwards else index

    def larger(self, a: Operand, b: Operand) -> Value:
        """The larger of two integers."""
        a, b = self.word(a), self.word(b)
        return Value(self, self.builder.select(self.builder.icmp_signed(">", a.ir, b.ir), a.ir, b.ir))

    def smaller(self, a: Operand, b: Operand) -> Value:
        """The smaller of two integers."""
        a, b = self.word(a), self.word(b)
        return Value(self, self.builder.select(self.builder.icmp_signed("<", a.ir, b.ir), a.ir, b.ir))

    def where(self, word: Value, yes: Value, no: Value) -> Value:
        """`yes` where the integer `word` is not 0, else `no`."""
        condition = self.builder.icmp_signed("!=", word.ir, ir.Constant(WORD, 0))
        return Value(self, self.builder.select(condition, yes.ir, no.ir))

    def to_lanes(self, word: Value) -> Value:
        """An integer as a float, in every lane."""
        return self._everywhere(self.builder.sitofp(word.ir, FLOAT))

    def where_positive(self, x: Operand, yes: Operand, no: Operand) -> Value:
        """Lane by lane `yes` where x > 0, else `no`."""
        return self._select(">", x, 0.0, yes, no)

    def variable(self, start: Operand = 0.0) -> Variable:
        """A variable that begins as `start`."""
        return Variable(self, start)

    # --- arithmetic
    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a b + c, fused where the processor can."""
        kind = ir.FunctionType(LANES, [LANES] * 3)
        call = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32")
        return Value(self, self.builder.call(call, [self.lanes(x).ir for x in (a, b, c)]))

    def _select(self, test: str, a: Operand, b: Operand, yes: Operand, no: Operand) -> Value:
        condition = self.builder.fcmp_ordered(test, self.lanes(a).ir, self.lanes(b).ir)
        return Value(self, self.builder.select(condition, self.lanes(yes).ir, self.lanes(no).ir))

    def at_least(self, x: Operand, floor: Operand) -> Value:
        """max(x, floor), lane by lane."""
        return self._select("<", x, floor, floor, x)  # a NaN stays NaN

    def at_most(self, x: Operand, ceiling: Operand) -> Value:
        """min(x, ceiling), lane by lane."""
        return self._select(">", x, ceiling, ceiling, x)

    def polynomial(self, x: Operand, coefficients: Sequence[float]) -> Value:
        """Horner, highest power first."""
        total = self.lanes(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, c)
        return total

    def any_below(self, x: Value, floor: float) -> Any:
        """Whether a lane is less than `floor`, or no number; a condition for `either`."""
        b = self.builder
        lanes = b.fcmp_unordered("<", x.ir, self.lanes(floor).ir)
        return b.icmp_unsigned("!=", b.bitcast(lanes, ir.IntType(WIDTH)), ir.Constant(ir.IntType(WIDTH), 0))

    def either(self, condition: Any, yes: Callable[[], None], no: Callable[[], None]) -> None:
        """A branch.

        Args:
            condition: as `any_below` gives it.
            yes: writes what runs where it holds.
            no: writes what runs elsewhere.
        """
        with self.builder.if_else(condition) as (then, otherwise):
            with then:
                yes()
            with otherwise:
                no()

    def exp2(self, x: Value, clamped: bool = True) -> Value:
        """2^x for x <= 127; below 2^-126 it stays there, which is as good as 0. Not clamped: for x >= -126 alone."""
        b = self.builder
        x = self.at_least(x, -126.0) if clamped else x
        shifted = x + ROUNDER
        fraction = x - (shifted - ROUNDER)
        power = b.shl(b.bitcast(shifted.ir, LANE_BITS), ir.Constant(LANE_BITS, [23] * WIDTH))
        mantissa = self.fma(self.polynomial(fraction, EXP2_COEFFICIENTS), fraction, 1.0)
        return Value(self, b.bitcast(b.add(b.bitcast(mantissa.ir, LANE_BITS), power), LANES))

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x)), lane by lane."""
        return 1.0 / (self.exp2(self.at_most(x * -LOG2E, 126.0)) + 1.0)

    def softplus_and_slope(self, x: Value) -> tuple[Value, Value]:
        """softplus(x) = max(x, 0) + log1p(exp(-|x|)), without cancellation, and its derivative sigmoid(x)."""
        positive = self.at_least(x, 0.0)
        e = self.exp2((x - positive * 2.0) * LOG2E)  # -|x|
        s = e / (e + 2.0)
        log1p = s * 2.0 * self.polynomial(s * s, LOG1P_COEFFICIENTS)
        slope = self._select("<", x, 0.0, e, 1.0) / (e + 1.0)
        return positive + log1p, slope

    def sums(self, vectors: list[Value]) -> list[Value]:
        """The sum over the lanes of each vector; the sums of WIDTH vectors come packed in one, in order."""
        stride = 1
        while stride < WIDTH:
            vectors = [self._pairwise(a, b, stride) for a, b in zip(vectors[::2], vectors[1::2])]
            stride *= 2
        return vectors

    def _pairwise(self, a: Value, b: Value, stride: int) -> Value:
        """Sums of neighbours: first inside groups of 4 lanes (cheap on x86), then of the groups."""
        group, unit = (4, 1) if stride < 4 else (WIDTH, 4)
        even, odd = [], []
        for start in range(0, WIDTH, group):
            for source in (0, WIDTH):
                for cell in range(start // unit, (start + group) // unit):
                    lanes = [source + cell * unit + k for k in range(unit)]
                    (odd if (cell - start // unit) % 2 else even).extend(lanes)

        def pick(mask: list[int]) -> Value:
            shuffle = ir.Constant(LANE_BITS, mask)
            return Value(self, self.builder.shuffle_vector(a.ir, b.ir, shuffle))

        return pick(even) + pick(odd)


class Fields:
    """The kernel's arguments by name."""

    def __init__(self, emitter: Emitter, names: Sequence[str], address: Value):
        self._values = {name: emitter.load_word(address + 8 * i) for i, name in enumerate(names)}

    def __getattr__(self, name: str) -> Value:
        return self._values[name]
