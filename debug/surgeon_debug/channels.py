"""Where along each axis the error sits: energies by index, summed over all other axes.

One pass gives them for every axis, because a box of an array is summed once along its last axis and the rest works on
the shorter sums.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from surgeon_debug.widen import Array, column_sums, row_sums

_LONGEST = 1 << 18  # an axis beyond is no axis of channels, and would take megabytes of sums
_SAFE = 480  # powers of two; squares of numbers within are safe to sum


@dataclasses.dataclass(frozen=True)
class Share:
    """One index of an axis."""

    index: int
    """Which."""
    error: float
    """Its share of the error energy, from 0 to 1."""
    reference: float
    """Its share of the energy of the reference."""


@dataclasses.dataclass(frozen=True)
class AxisShares:
    """The indices of one axis that hold most of the error."""

    axis: int
    """The axis, from 0."""
    size: int
    """Its length."""
    top: tuple[Share, ...]
    """At most eight, the largest share of the error energy first."""


@dataclasses.dataclass
class AxisSums:
    """Sums along one axis, one number an index, float64."""

    error: Array
    """Energy of the error: the sum of d*d."""
    reference: Array
    """Energy of the reference: the sum of r*r."""
    dot: Array
    """The sum of r*d."""
    drift: Array
    """The sum of d."""

    @classmethod
    def zeros(cls, size: int) -> AxisSums:
        """Sums of nothing."""
        return cls(*np.zeros((4, size)))

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        """The four sums."""
        return self.error, self.reference, self.dot, self.drift


class AxisEnergies:
    """Sums along every axis of arrays of one shape.

    Args:
        shape: The dimensions.
        peak: The largest magnitude expected; numbers are divided by a power of two if squares would overflow.
    """

    def __init__(self, shape: Sequence[int], peak: float = 1.0) -> None:
        self.shape = tuple(shape)
        exponent = math.frexp(peak)[1] if 0.0 < peak < math.inf else 0
        self.exponent = exponent if abs(exponent) > _SAFE else 0
        self.axes = {axis: AxisSums.zeros(size) for axis, size in enumerate(self.shape) if size <= _LONGEST}

    def add(self, index: tuple[int | slice, ...], reference: Array, error: Array) -> None:
        """Take in one box.

        Args:
            index: The box as :func:`surgeon_debug.widen.boxes` gives it.
            reference: Its elements of the reference, flat, float64, all finite.
            error: The errors.
        """
        if self.exponent:
            reference, error = np.ldexp(reference, -self.exponent), np.ldexp(error, -self.exponent)
        outer = sum(isinstance(i, int) for i in index)
        inner = list(self.shape[len(index) :])
        if len(index) > outer:
            along = index[-1]
            assert isinstance(along, slice)
            inner.insert(0, along.stop - along.start)
        lines = [error * error, reference * reference, reference * error, error]
        for axis in range(len(self.shape) - 1, outer - 1, -1):
            size = inner[axis - outer]
            where = index[axis] if axis < len(index) else slice(None)
            grids = [line.reshape(-1, size) for line in lines]
            if axis in self.axes:
                for total, grid in zip(self.axes[axis].parts, grids, strict=True):
                    total[where] += column_sums(grid)
            lines = [row_sums(grid) for grid in grids]
        sums = [float(line.sum()) for line in lines]
        for axis, at in enumerate(index[:outer]):
            if axis in self.axes:
                for total, number in zip(self.axes[axis].parts, sums, strict=True):
                    total[at] += number

    def merge(self, other: AxisEnergies) -> bool:
        """Add what another has seen; False, and nothing is added, if its shape or its scale is another."""
        if self.shape != other.shape or self.exponent != other.exponent:
            return False
        for axis, sums in self.axes.items():
            for total, more in zip(sums.parts, other.axes[axis].parts, strict=True):
                total += more
        return True

    def shares(self, axes: Sequence[int], count: int = 8) -> tuple[AxisShares, ...]:
        """The indices with the largest shares of the error, for some axes.

        Args:
            axes: Which; those too long for sums are left out.
            count: Most indices of an axis.
        """
        found = []
        for axis in axes:
            if axis not in self.axes:
                continue
            sums = self.axes[axis]
            whole, energy = float(sums.error.sum()), float(sums.reference.sum())
            if whole <= 0.0:
                continue
            order = np.argsort(-sums.error, kind="stable")[:count]
            top = [
                Share(int(i), float(sums.error[i]) / whole, float(sums.reference[i]) / energy if energy else 0.0)
                for i in order
                if sums.error[i] > 0.0
            ]
            found.append(AxisShares(axis, sums.error.size, tuple(top)))
        return tuple(found)
