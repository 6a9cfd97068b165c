"""What kinds of numbers stand where: zero, subnormal, saturated, Inf and NaN, of both sides against each other.

A saturated target beside a finite reference is an overflow, a zero beside a subnormal number was flushed, and a NaN
may come from either. Errors are about numbers that are finite on both sides; this is about all.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from surgeon_debug.values import is_foreign, kind_of
from surgeon_debug.widen import Array, largest_finite


class ElementClass(enum.StrEnum):
    """What kind of number an element is."""

    FINITE = "finite"
    """None of the others."""
    ZERO = "zero"
    """0 or -0."""
    SUBNORMAL = "subnormal"
    """Not 0, and below the smallest normal number of the type that was computed in."""
    SATURATED = "saturated"
    """As large as its type's largest finite number, or as that of the type that was computed in."""
    POSINF = "+inf"
    """+Inf."""
    NEGINF = "-inf"
    """-Inf."""
    NAN = "nan"
    """Not a number."""


_ORDER = tuple(ElementClass)

ZERO = _ORDER.index(ElementClass.ZERO)
"""The code of zeros."""
SUBNORMAL = _ORDER.index(ElementClass.SUBNORMAL)
"""The code of subnormal numbers."""
SATURATED = _ORDER.index(ElementClass.SATURATED)
"""The code of saturated numbers."""
_POSINF, _NEGINF, _NAN = (_ORDER.index(kind) for kind in (ElementClass.POSINF, ElementClass.NEGINF, ElementClass.NAN))


@dataclasses.dataclass(frozen=True)
class ClassCell:
    """How many elements are of one class in the reference and of one, perhaps another, in the target."""

    reference: ElementClass
    """The class in the reference."""
    target: ElementClass
    """The class in the target."""
    count: int
    """Number of elements."""


class Classifier:
    """Tells the classes of the elements of one type.

    Args:
        dtype: The type that the elements are stored in.
        compute: The floating-point type that was computed in; None for the same.
        emulated: The values were computed in ``compute`` even if they are stored in a finer type, so that its
            largest number counts as saturated too.
    """

    def __init__(self, dtype: np.dtype[Any], compute: np.dtype[Any] | None, *, emulated: bool) -> None:
        self._tops = [largest_finite(dtype)] if dtype.kind != "b" else []
        self._bottom = 0.0  # the least integer of a signed type
        if kind_of(np.zeros(0, dtype)) == "int":
            unsigned = dtype.name.startswith("u")
            self._bottom = 0.0 if unsigned else -self._tops[0] - 1.0
        elif compute is not None and emulated and compute != dtype:
            self._tops.append(largest_finite(compute))
        self._most = min([math.inf, *self._tops])
        self._tiny = smallest_normal(compute) if compute is not None else 0.0
        self._least = self._tiny or 5e-324

    def codes(self, values: Array) -> Array | None:
        """Positions in :class:`ElementClass`, uint8; None if all are ordinary.

        Args:
            values: The elements in float64.
        """
        magnitude = np.abs(values)
        # NaN fails every comparison.
        if magnitude.min() >= self._least and magnitude.max() < self._most:
            return None
        codes: Array = (magnitude == 0.0).view(np.uint8)  # the code of zeros is 1, that of ordinary numbers 0
        if self._tiny:
            small = magnitude < self._tiny
            small &= magnitude > 0.0
            codes[small] = SUBNORMAL
        for top in self._tops:
            codes[magnitude == top] = SATURATED
        if self._bottom:
            codes[values == self._bottom] = SATURATED
        special = ~(magnitude < np.inf)
        if special.any():
            numbers = values[special]
            codes[special] = np.where(np.isnan(numbers), _NAN, np.where(numbers > 0, _POSINF, _NEGINF))
        return codes


class Confusion:
    """A matrix of counts: class in the reference by class in the target."""

    def __init__(self) -> None:
        self.counts = np.zeros((len(_ORDER), len(_ORDER)), np.int64)

    def add(self, reference: Array | None, target: Array | None, size: int, counts: Array | None = None) -> None:
        """Take in two chunks.

        Args:
            reference: The codes of the reference; None if all are ordinary.
            target: Those of the target, likewise.
            size: Number of elements in them.
            counts: How many elements each of these stands for; None for one.
        """
        if reference is None and target is None:
            self.counts[0, 0] += size if counts is None else int(counts.sum())
            return
        reference, target = (np.zeros(size, np.uint8) if codes is None else codes for codes in (reference, target))
        pairs = np.bincount(reference * np.uint8(len(_ORDER)) + target, counts, minlength=self.counts.size)
        self.counts += pairs.astype(np.int64).reshape(self.counts.shape)

    def merge(self, other: Confusion) -> None:
        """Add the counts of another."""
        self.counts += other.counts

    def cells(self) -> tuple[ClassCell, ...]:
        """All pairs of classes that occur."""
        return tuple(
            ClassCell(_ORDER[int(r)], _ORDER[int(t)], int(self.counts[r, t])) for r, t in np.argwhere(self.counts)
        )

    def of(self, kind: ElementClass) -> tuple[int, int, int]:
        """How many elements are of a class in the reference, in the target, and on one side only."""
        at = _ORDER.index(kind)
        ours, theirs = int(self.counts[at].sum()), int(self.counts[:, at].sum())
        return ours, theirs, ours + theirs - 2 * int(self.counts[at, at])


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest normal number of a floating-point type."""
    if not is_foreign(dtype):
        return float(np.finfo(dtype).smallest_normal)
    import ml_dtypes

    limits: Any = ml_dtypes.finfo
    return float(limits(dtype).smallest_normal)
