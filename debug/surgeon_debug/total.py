"""A running sum that neither loses its low digits over many additions nor overflows where a square would.

Chunks are summed by the library that numpy brings along; their results, one a chunk, meet here. With the compensation
after Neumaier the error of the whole is that of one chunk, however many chunks, samples or processes there are.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(slots=True)
class Total:
    """The sum ``(high + low) * 2**exponent``."""

    high: float = 0.0
    """The sum, in units of ``2**exponent``."""
    low: float = 0.0
    """What rounding took away from it so far, in the same units."""
    exponent: int = 0
    """Even; other than 0 only where squares of the values themselves would overflow or vanish."""

    def add(self, value: float, exponent: int = 0) -> None:
        """Add ``value * 2**exponent``."""
        if exponent != self.exponent:
            value = self._aligned(value, exponent)
        total = self.high + value
        if not math.isfinite(total):
            self.high, self.low = total, 0.0
            return
        if abs(self.high) >= abs(value):
            self.low += (self.high - total) + value
        else:
            self.low += (value - total) + self.high
        self.high = total

    def merge(self, other: Total) -> None:
        """Add another sum."""
        self.add(other.high, other.exponent)
        self.add(other.low, other.exponent)

    def _aligned(self, value: float, exponent: int) -> float:
        if value == 0.0:
            return 0.0
        if self.high == 0.0:
            self.exponent = exponent
            return value
        if exponent < self.exponent:
            return math.ldexp(value, exponent - self.exponent)
        self.high = math.ldexp(self.high, self.exponent - exponent)
        self.low = math.ldexp(self.low, self.exponent - exponent)
        self.exponent = exponent
        return value

    @property
    def mantissa(self) -> float:
        """The sum in units of ``2**exponent``."""
        return self.high + self.low

    @property
    def value(self) -> float:
        """The sum; infinite where float64 cannot hold it."""
        return scaled(self.mantissa, self.exponent)

    def at(self, exponent: int) -> float:
        """The sum in units of ``2**exponent``."""
        return scaled(self.mantissa, self.exponent - exponent)

    def to_state(self) -> list[Any]:
        """Plain numbers for :meth:`from_state`."""
        return [self.high, self.low, self.exponent]

    @classmethod
    def from_state(cls, state: list[Any]) -> Total:
        """The inverse of :meth:`to_state`."""
        return cls(*state)


def scaled(value: float, exponent: int) -> float:
    """``value * 2**exponent``, infinite where float64 cannot hold it."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def root_ratio(top: Total, bottom: Total) -> float:
    """The square root of a quotient of two sums of squares; 0 for 0/0 and infinite where only the bottom is 0."""
    if top.mantissa <= 0.0:
        return 0.0
    if bottom.mantissa <= 0.0:
        return math.inf
    return scaled(math.sqrt(top.mantissa) / math.sqrt(bottom.mantissa), (top.exponent - bottom.exponent) // 2)
