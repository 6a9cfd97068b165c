"""Quantiles of magnitudes without keeping them: a histogram with 16 bins an octave, whatever the range.

A bin is what stands in the exponent and the first four bits of the fraction of a float64, so that sorting a number into
its bin is a shift. Bins divide an octave evenly: a bin is 1/16 to 1/32 of its numbers wide, its middle is within 3.2 %
of each of them, and whole numbers below 32 have bins of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_SHIFT = 48  # 52 bits of fraction less the four that count


@dataclasses.dataclass
class LogHistogram:
    """Counts of numbers from 0 upwards by their binary logarithm; histograms merge by adding up."""

    zeros: int = 0
    """How many are 0, or below 2**-1026."""
    infinite: int = 0
    """How many are infinite."""
    first: int = 0
    """The number of the first bin kept."""
    counts: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    """Numbers in each bin from there on."""

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Sort in an array.

        Args:
            values: float64, none negative, no NaN.
            counts: How often each of them counts; None for once.
        """
        if not values.size:
            return
        keys = np.ascontiguousarray(values).view(np.int64) >> _SHIFT
        low, high = int(keys.min()), int(keys.max())
        if high == _KEY_OF_INF:
            kept = keys != _KEY_OF_INF
            self.infinite += int(np.count_nonzero(~kept) if counts is None else counts[~kept].sum())
            keys, counts = keys[kept], None if counts is None else counts[kept]
            if not keys.size:
                return
        found = np.bincount(keys - low, counts).astype(np.int64)
        if low == 0:
            self.zeros += int(found[0])
            found[0] = 0
        self._include(low, found)

    def _include(self, first: int, counts: Array) -> None:
        used = np.flatnonzero(counts)
        if not used.size:
            return
        first, counts = first + int(used[0]), counts[used[0] : used[-1] + 1]
        if not self.counts.size:
            self.first, self.counts = first, counts.astype(np.int64)
            return
        low = min(self.first, first)
        high = max(self.first + self.counts.size, first + counts.size)
        if high - low > self.counts.size:
            wider = np.zeros(high - low, np.int64)
            wider[self.first - low : self.first - low + self.counts.size] = self.counts
            self.first, self.counts = low, wider
        self.counts[first - self.first : first - self.first + counts.size] += counts

    def merge(self, other: LogHistogram) -> None:
        """Add the counts of another."""
        self.zeros += other.zeros
        self.infinite += other.infinite
        self._include(other.first, other.counts)

    @property
    def total(self) -> int:
        """How many numbers were sorted in."""
        return self.zeros + self.infinite + int(self.counts.sum())

    def quantiles(self, shares: Sequence[float], *, whole: bool = False) -> list[float]:
        """The numbers that shares of all numbers do not exceed; 0 where there are none.

        Args:
            shares: Each from 0 to 1.
            whole: The numbers are integers: the lowest of a bin stands for it, else its middle.
        """
        total = self.total
        reached = self.zeros + np.cumsum(self.counts)
        found = []
        for share in shares:
            rank = max(1, math.ceil(share * total))
            if total == 0 or rank <= self.zeros:
                found.append(0.0)
                continue
            at = int(np.searchsorted(reached, rank))
            found.append(self._value(at, whole) if at < self.counts.size else math.inf)
        return found

    def _value(self, at: int, whole: bool) -> float:
        low, high = (float(np.int64((self.first + at + i) << _SHIFT).view(np.float64)) for i in (0, 1))
        return low if whole else low / 2 + (high / 2 if high < math.inf else low / 2)

    def beyond(self, limit: int) -> int:
        """How many are above a limit.

        Args:
            limit: From 1 to 31, where whole numbers have bins of their own; the numbers are taken as whole.
        """
        key = int(np.float64(limit + 1).view(np.int64)) >> _SHIFT
        return self.infinite + int(self.counts[max(0, key - self.first) :].sum())

    def to_state(self) -> list[Any]:
        """Plain numbers for :meth:`from_state`."""
        return [self.zeros, self.infinite, self.first, self.counts.tolist()]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> LogHistogram:
        """The inverse of :meth:`to_state`."""
        return cls(state[0], state[1], state[2], np.asarray(state[3], np.int64))


_KEY_OF_INF = int(np.float64(math.inf).view(np.int64)) >> _SHIFT
