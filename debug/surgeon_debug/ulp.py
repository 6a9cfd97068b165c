"""How many representable numbers apart: distance in units in the last place of the type that was computed in.

The bits of a floating-point number, read as an integer with the sign folded in, count the representable numbers from
zero. A distance of one is the smallest error there is, whatever the magnitude; infinity is the neighbour of the
largest finite number. A value stored in a finer type than it was computed in is rounded to that type first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from surgeon_debug.histogram import LogHistogram
from surgeon_debug.values import is_foreign
from surgeon_debug.widen import Array, epsilon

TF32 = "tf32"
"""float32 whose products are taken with ten bits of fraction; not a type of numpy's."""

_TF32_BITS = 13  # bits of fraction that float32 has and tf32 has not


@dataclasses.dataclass(frozen=True)
class Ulp:
    """Distances in units in the last place."""

    dtype: str
    """The type whose units these are."""
    max: float
    """The largest distance; exact below 2**53."""
    p50: float
    """The median; exact below 32, else within 6.3 %."""
    p99: float
    """The distance that 99 of 100 elements do not exceed, as exact."""
    beyond_1: float
    """Share of elements that are more than one unit apart."""
    beyond_4: float
    """Share of elements that are more than four units apart."""
    beyond_16: float
    """Share of elements that are more than 16 units apart."""


class UlpTally:
    """Takes in pairs of floating-point chunks.

    Args:
        compute: Name of the type that was computed in; empty for the coarser of the first two that are added.
    """

    def __init__(self, compute: str = "") -> None:
        self.compute = compute
        self.largest = 0.0
        self.distances = LogHistogram()

    def add(self, reference: Array, target: Array) -> None:
        """Take in two flat arrays of floating-point numbers that are all finite."""
        if not self.compute:
            self.compute = coarser(reference.dtype, target.dtype).name
        if not reference.size:
            return
        one, two = ordinals(reference, self.compute), ordinals(target, self.compute)
        # Wraps around into the magnitude where the two are of opposite sign and 64 bits wide.
        apart = np.where(one > two, one - two, two - one).view(np.uint64).astype(np.float64)
        self.largest = max(self.largest, float(apart.max()))
        self.distances.add(apart)

    def add_equal(self, count: int, dtype: np.dtype[Any]) -> None:
        """Take in elements that are equal.

        Args:
            count: How many.
            dtype: Their type.
        """
        self.compute = self.compute or dtype.name
        self.distances.zeros += count

    def merge(self, other: UlpTally) -> bool:
        """Add what another has seen; False, and nothing is added, if that was in another type."""
        if self.compute and other.compute and self.compute != other.compute:
            return False
        self.compute = self.compute or other.compute
        self.largest = max(self.largest, other.largest)
        self.distances.merge(other.distances)
        return True

    def result(self) -> Ulp | None:
        """The distances; None if there were no numbers."""
        total = self.distances.total
        if not total or not self.compute:
            return None
        p50, p99 = (min(x, self.largest) for x in self.distances.quantiles((0.5, 0.99), whole=True))
        shares = [self.distances.beyond(limit) / total for limit in (1, 4, 16)]
        return Ulp(self.compute, self.largest, p50, p99, *shares)


def coarser(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any]:
    """The floating-point type of two with the larger gap after 1; the first of equals."""
    return other if epsilon(other) > epsilon(one) else one


def float_dtype(name: str) -> np.dtype[Any] | None:
    """The floating-point dtype of a name, numpy's or one that numpy lacks; None if there is none."""
    import ml_dtypes

    try:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
    except TypeError:
        return None
    return dtype if epsilon(dtype) else None


def ordinals(array: Array, compute: str) -> Array:
    """Numbers of the representable numbers from zero, int64, negative for negative ones; both zeros are 0.

    Args:
        array: Floating-point numbers, no NaN; rounded to ``compute`` if that is another type.
        compute: The name of a floating-point type, or ``tf32``.
    """
    dtype = np.dtype(np.float32) if compute == TF32 else float_dtype(compute)
    if dtype is None:
        raise ValueError(f"{compute} is not a floating-point type")
    native = array.astype(dtype, copy=False)
    width = dtype.itemsize
    codes = np.ascontiguousarray(native).view(f"u{width}")
    bits = 8 * width
    if is_foreign(dtype) and width == 1:
        bits = next((b for b in (4, 6) if dtype.name.startswith(f"float{b}")), 8)
    if dtype.name == "float8_e8m0fnu":
        codes = codes.view(np.uint8) & np.uint8(0xFF)
        return np.asarray(codes, np.int64)  # has no sign
    sign = codes.dtype.type(1 << (bits - 1))
    magnitude = (codes & (sign - codes.dtype.type(1))).astype(np.int64)
    if compute == TF32:
        magnitude = (magnitude + (1 << (_TF32_BITS - 1))) >> _TF32_BITS
    folded: Array = np.where(codes & sign, -magnitude, magnitude)
    return folded
