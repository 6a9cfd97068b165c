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

    def add(self, reference: Array, target: Array, counts: Array | None = None) -> None:
        """Take in two flat arrays of floating-point numbers that are all finite.

        Args:
            reference: The reference.
            target: The target.
            counts: How many elements each of these stands for; None for one.
        """
        if not self.compute:
            self.compute = coarser(reference.dtype, target.dtype).name
        if not reference.size:
            return
        one, two = ordinals(reference, self.compute), ordinals(target, self.compute)
        # Wraps around into the magnitude where the two are of opposite sign and take all the bits.
        apart = np.subtract(np.maximum(one, two), np.minimum(one, two))
        apart = apart.view(f"u{apart.itemsize}").astype(np.float64)
        self.largest = max(self.largest, float(apart.max()))
        self.distances.add(apart, counts)

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
    """Numbers of the representable numbers from zero, negative for negative ones; both zeros are 0.

    They are int64 for types of 64 bits, else int32.

    Args:
        array: Floating-point numbers, no NaN; rounded to ``compute`` if that is another type.
        compute: The name of a floating-point type, or ``tf32``.
    """
    dtype = np.dtype(np.float32) if compute == TF32 else float_dtype(compute)
    if dtype is None:
        raise ValueError(f"{compute} is not a floating-point type")
    native = array.astype(dtype, copy=False)
    width = dtype.itemsize
    codes: Array = np.ascontiguousarray(native).view(f"i{width}")
    if dtype.name == "float8_e8m0fnu":
        return codes.view(np.uint8).astype(np.int32)  # has no sign
    unused = next((8 - bits for bits in (4, 6) if dtype.name.startswith(f"float{bits}_")), 0)
    if unused:
        codes = codes << np.int8(unused)
    wide: Array = codes.astype(np.int64 if width == 8 else np.int32, copy=False)
    sign = wide >> (8 * wide.itemsize - 1)  # -1 for negative numbers, else 0
    magnitude: Array = wide & ((1 << (8 * width - 1)) - 1)
    if unused:
        magnitude >>= unused
    if compute == TF32:
        magnitude = (magnitude + (1 << (_TF32_BITS - 1))) >> _TF32_BITS
    magnitude ^= sign
    magnitude -= sign
    return magnitude
