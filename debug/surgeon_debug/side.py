"""One side of a chunk in float64, with whatever is asked of it computed once and only if it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import numpy as np

from surgeon_debug.values import is_foreign
from surgeon_debug.widen import CHUNK, Array, inner, unequal_bits, widener

_TINY = 1e-200  # below it a sum of squares may have lost squares to underflow
_FAR = 256  # powers of two; squares of numbers within 2**-256 and 2**256 are safe
_EXACT = 2.0**53  # integers up to here are exact in float64


_T = TypeVar("_T")


class _Once(Generic[_T]):
    """A property that is computed once; functools has one that takes a lock, which here costs as much as the sums."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> _Once[_T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...
    def __get__(self, instance: object | None, owner: type) -> _Once[_T] | _T:
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value


class Side:
    """Turns the chunks of one array into float64, in one buffer; a chunk is void once the next is taken.

    Args:
        dtype: Element type of the array.
        size: Most elements of a chunk.
    """

    def __init__(self, dtype: np.dtype[Any], size: int = CHUNK) -> None:
        self._convert = widener(dtype)
        self._buffer = np.empty(size)

    def take(self, chunk: Array) -> Widened:
        """A flat contiguous chunk, to be widened when its numbers are asked for."""
        return Widened(chunk, self._buffer[: chunk.size], self._convert)


class Widened:
    """A chunk and its numbers.

    Args:
        chunk: Flat and contiguous.
        buffer: Where its numbers go, float64; the chunk itself if it is float64 and may be used as it is.
        convert: Writes the chunk into the buffer; None if it is there already.
        exponent: The numbers are the buffer times ``2**exponent``.
    """

    def __init__(
        self, chunk: Array, buffer: Array, convert: Callable[[Array, Array], None] | None = None, exponent: int = 0
    ) -> None:
        self.chunk = chunk
        self.size = chunk.size
        self._buffer = buffer
        self._convert = convert
        self._exponent = exponent

    @_Once
    def values(self) -> Array:
        """The numbers in float64, in units of a power of two."""
        if self._convert is not None:
            if self.chunk.dtype == np.float64 and self.chunk.dtype.isnative:
                return self.chunk
            self._convert(self.chunk, self._buffer)
        return self._buffer

    @_Once
    def _square(self) -> float:
        return inner(self.values, self.values)

    @_Once
    def special(self) -> bool:
        """Whether there is any NaN or Inf."""
        if self.chunk.dtype.kind in "biu":
            return False
        return not math.isfinite(self._square) and not bool(np.isfinite(self.values).all())

    @_Once
    def classes(self) -> tuple[Array, Array, Array]:
        """Where NaN, +Inf and -Inf are."""
        return np.isnan(self.values), self.values == np.inf, self.values == -np.inf

    @_Once
    def clean(self) -> Widened:
        """The chunk with zeros in place of NaN and Inf."""
        return self.without(~np.isfinite(self.values)) if self.special else self

    @_Once
    def finite(self) -> int:
        """Number of finite elements."""
        return int(np.count_nonzero(np.isfinite(self.values))) if self.special else self.size

    def without(self, mask: Array) -> Widened:
        """The chunk with zeros where a mask says so."""
        values = np.where(mask, 0.0, self.values)
        return Widened(values, values, None, self._exponent)

    @_Once
    def _magnitude(self) -> float:
        # Fewer bytes where the chunk itself tells.
        dtype = self.chunk.dtype
        if dtype.name in ("float16", "bfloat16") and dtype.isnative:
            return float((self.chunk.view(np.uint16) & np.uint16(0x7FFF)).max(keepdims=True).view(dtype)[0])
        plain = dtype.kind in "iu" or dtype == np.float32
        source = self.chunk if plain and not is_foreign(dtype) else self.values
        return max(float(source.max()), -float(source.min()))

    @_Once
    def peak(self) -> float:
        """The largest finite magnitude."""
        return self.clean.peak if self.special else math.ldexp(self._magnitude, self._exponent)

    @_Once
    def _shift(self) -> int:
        """The power of two to divide by, so that squares neither overflow nor vanish."""
        if _TINY < self._square < math.inf:
            return 0
        shift = math.frexp(self._magnitude)[1]
        return shift if abs(shift) > _FAR else 0

    @_Once
    def energy(self) -> tuple[float, int]:
        """The sum of squares of the finite elements, as a number and its power of two."""
        if self.special:
            return self.clean.energy
        if not self._shift:
            return self._square, 2 * self._exponent
        small = np.ldexp(self.values, -self._shift)
        return inner(small, small), 2 * (self._shift + self._exponent)

    def dot(self, other: Widened) -> tuple[float, int]:
        """The dot product with another chunk, as a number and its power of two; neither has special values."""
        exponent = self._exponent + other._exponent
        if not self._shift and not other._shift:
            return inner(self.values, other.values), exponent
        product = inner(np.ldexp(self.values, -self._shift), np.ldexp(other.values, -other._shift))
        return product, exponent + self._shift + other._shift

    def same_as(self, other: Widened) -> bool:
        """Whether the bits are those of another chunk."""
        return self is other or not unequal_bits(self.chunk, other.chunk)

    @property
    def unit(self) -> float:
        """What the numbers of :attr:`values` are to be multiplied by; 1 almost always."""
        return 2.0**self._exponent

    @property
    def short(self) -> bool:
        """Whether these are integers so short that sums of their squares are exact."""
        return self.chunk.dtype.kind in "iu" and self.chunk.itemsize <= 2

    def unequal(self, other: Widened, error: Widened) -> int:
        """How many elements differ from those of another chunk; neither has special values.

        Args:
            other: The other chunk.
            error: The differences, which tell where neither type is of 64 bits: none of theirs is subnormal.
        """
        ours, theirs = self.chunk.dtype, other.chunk.dtype
        if ours.kind in "biu" and theirs.kind in "biu":
            return int(np.count_nonzero(self.chunk != other.chunk))
        if ours.itemsize < 8 and theirs.itemsize < 8:
            return int(np.count_nonzero(error.values != 0.0))
        return int(np.count_nonzero(self.values != other.values))


def error_between(r: Widened, t: Widened, space: Array) -> tuple[Widened, float]:
    """The errors of a chunk without special values, target minus reference, and the largest magnitude among them.

    Args:
        r: The reference.
        t: The target.
        space: Where the errors may go, float64.
    """
    if r.short and t.short:
        whole = np.subtract(t.chunk, r.chunk, dtype=np.int16 if r.chunk.itemsize == t.chunk.itemsize == 1 else np.int32)
        d = space[: r.size]
        d[...] = whole
        return Widened(d, d), float(max(int(whole.max()), -int(whole.min())))
    if _beyond_float64(r) or _beyond_float64(t):
        d = _exact_errors(r, t)
    else:
        d = np.subtract(t.values, r.values, out=space[: r.size])
    worst = max(float(d.max()), -float(d.min()))
    if worst < math.inf:
        return Widened(d, d), worst
    # Two numbers near the end of float64 and of opposite sign: their difference is beyond it.
    d = np.subtract(t.values / 4, r.values / 4, out=space[: r.size])
    return Widened(d, d, None, 2), worst


def position_of(error: Widened) -> int:
    """Where the largest error is."""
    high, low = float(error.values.max()), float(error.values.min())
    return int(error.values.argmax() if high >= -low else error.values.argmin())


def _beyond_float64(side: Widened) -> bool:
    """Whether these are integers too large to be exact in float64."""
    dtype = side.chunk.dtype
    return dtype.kind in "iu" and dtype.itemsize == 8 and side.peak >= _EXACT


def _exact_errors(r: Widened, t: Widened) -> Array:
    """Differences of integers of 64 bits, each rounded once."""
    rough: Array = t.values - r.values
    one, two = r.chunk, t.chunk
    if is_foreign(one.dtype) or is_foreign(two.dtype):
        return rough
    # Unsigned differences wrap around into the magnitude, which may take 65 bits only between two types.
    larger = two > one
    low, high = one.astype(np.uint64), two.astype(np.uint64)
    magnitude = np.where(larger, high - low, low - high).astype(np.float64)
    return np.where(np.abs(rough) < 2.0**63.99, np.where(larger, magnitude, -magnitude), rough)
