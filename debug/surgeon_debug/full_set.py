"""The closer look at a tensor whose values differ: every measure that needs no knowledge of the model.

Histograms, classes, distances in the last place, the worst elements and energies along every axis, in one pass over
chunks that fit a core's cache. What the screen has measured already is not measured again.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from surgeon_debug.channels import AxisEnergies
from surgeon_debug.element_classes import SATURATED, ZERO, Classifier, Confusion
from surgeon_debug.histogram import LogHistogram
from surgeon_debug.leaves import Leaf
from surgeon_debug.side import Side, Widened, error_between
from surgeon_debug.total import Total
from surgeon_debug.ulp import UlpTally, coarser, float_dtype
from surgeon_debug.values import kind_of
from surgeon_debug.widen import CHUNK, Array, as_real, boxes, epsilon, inner, is_exact
from surgeon_debug.worst_elements import WorstElements, element_at

_OUTSIZED = 2e4
"""Elements this many times the tenth percentile are left out of the error among ordinary elements."""

_MERGED = (
    "sum_abs", "sum_rel", "ordinary_dd", "ordinary_rr", "saturated_dd", "zeroed_dd", "absolute", "relative",
    "confusion", "worst",
)  # fmt: skip


@dataclasses.dataclass
class _Pair:
    """What is known of one pair of arrays before its chunks are looked at."""

    leaf: Leaf
    sample: int
    floor: float
    exact: bool
    ordinary: float
    classifiers: tuple[Classifier, Classifier]
    energies: AxisEnergies | None


@dataclasses.dataclass
class _Gap:
    """The errors of a chunk."""

    reference: Widened
    """The reference, 0 where either side is special."""
    error: Widened
    """The errors, 0 there too."""
    both: Array | None
    """Where both sides are finite; None for everywhere."""
    apart: Array | None
    """Where the class of the two differs; None for nowhere."""

    def sizes(self) -> Array:
        """Magnitudes of the errors, infinite where the class differs."""
        sizes: Array = np.abs(self.error.values) * self.error.unit
        if self.apart is not None:
            sizes[self.apart] = math.inf
        return sizes


class FullSet:
    """Takes in pairs of arrays of numbers, and merges.

    Args:
        compute: Name of the floating-point type that was computed in; empty for the coarser of the two.
        rtol: Count elements whose error exceeds ``atol + rtol * |reference|``; None for no counting, or for 0 if
            ``atol`` is given.
        atol: See ``rtol``.
    """

    def __init__(self, *, compute: str = "", rtol: float | None = None, atol: float | None = None) -> None:
        self.tolerances = None if rtol is None and atol is None else (rtol or 0.0, atol or 0.0)
        self.compute = compute
        self.outside = self.beyond_one = self.outsized = 0
        self.max_rel = 0.0
        self.sum_abs, self.sum_rel = Total(), Total()
        self.ordinary_dd, self.ordinary_rr = Total(), Total()
        self.saturated_dd, self.zeroed_dd = Total(), Total()
        self.absolute, self.relative = LogHistogram(), LogHistogram()
        self.ulp: UlpTally | None = UlpTally(compute)
        self.confusion = Confusion()
        self.worst = WorstElements()
        self.energies: AxisEnergies | None = None
        self.shapes = 0  # how many shapes were seen; energies are of one

    def add(self, leaf: Leaf, peak: float, *, sample: int = 0) -> AxisEnergies | None:
        """Take in one pair of arrays; the energies along its axes.

        Args:
            leaf: Two arrays of numbers.
            peak: The largest finite magnitude of the reference.
            sample: Number of the sample.
        """
        r, t = as_real(leaf.reference), as_real(leaf.target)
        pair = self._pair(leaf, r, t, peak, sample)
        sides = [Side(array.dtype, min(array.size, CHUNK)) for array in (r, t)]
        space = np.empty(min(r.size, CHUNK))
        # Of types of a byte there are so few pairs of values that each is measured once, times its count.
        pairs = np.zeros(1 << 16, np.int64) if r.itemsize == t.itemsize == 1 and r.size > CHUNK else None
        with np.errstate(all="ignore"):
            for start, index in boxes(r.shape, CHUNK):
                parts = [np.ascontiguousarray(array[index] if index else array).reshape(-1) for array in (r, t)]
                ours, theirs = (side.take(part) for side, part in zip(sides, parts, strict=True))
                if pairs is not None:
                    pairs += _count_pairs(*parts)
                elif ours.same_as(theirs):
                    self._equal(pair, ours)
                if ours.same_as(theirs):
                    if pair.energies is not None:
                        pair.energies.add(index, ours.clean.values, np.zeros(ours.size))
                    continue
                gap = _gap(ours, theirs, space)
                if pair.energies is not None:
                    pair.energies.add(index, gap.reference.values, gap.error.values * gap.error.unit)
                if pairs is None:
                    self._measure(pair, (ours, theirs), gap)
                self.worst.add(pair.leaf, start, gap.sizes(), pair.sample)
            if pairs is not None:
                self._measure_pairs(pair, (r.dtype, t.dtype), pairs)
        self._keep(pair.energies)
        return pair.energies

    def _measure_pairs(self, pair: _Pair, dtypes: tuple[np.dtype[Any], np.dtype[Any]], pairs: Array) -> None:
        """Measure elements of a byte from the count of each pair of codes."""
        found = np.flatnonzero(pairs)
        counts = pairs[found]
        for start in range(0, found.size, CHUNK):
            some = found[start : start + CHUNK]
            codes = ((some >> 8).astype(np.uint8), some.astype(np.uint8))
            ours, theirs = (Side(d, some.size).take(c.view(d)) for d, c in zip(dtypes, codes, strict=True))
            gap = _gap(ours, theirs, np.empty(some.size))
            self._measure(pair, (ours, theirs), gap, counts[start : start + CHUNK])

    def add_text(self, leaf: Leaf, sample: int) -> None:
        """Keep some elements of a pair of arrays of text that differ."""
        different = np.flatnonzero((leaf.reference != leaf.target).reshape(-1).astype(bool))
        for at in different[: self.worst.count - len(self.worst.kept)]:
            self.worst.kept.append((1.0, element_at(leaf, int(at), sample)))

    def _pair(self, leaf: Leaf, r: Array, t: Array, peak: float, sample: int) -> _Pair:
        exact = is_exact(r) and is_exact(t)
        gap = max(epsilon(r.dtype), epsilon(t.dtype))
        compute = None if exact else (float_dtype(self.compute) or coarser(r.dtype, t.dtype))
        ordinary = 0.0 if exact else _OUTSIZED * _typical(r)
        return _Pair(
            leaf=leaf,
            sample=sample,
            floor=1.0 if exact else peak * gap,
            exact=exact,
            ordinary=ordinary if 0.0 < ordinary < peak else 0.0,
            classifiers=(Classifier(r.dtype, compute, emulated=False), Classifier(t.dtype, compute, emulated=True)),
            energies=AxisEnergies(r.shape, peak) if kind_of(leaf.reference) != "complex" else None,
        )

    def _keep(self, energies: AxisEnergies | None) -> None:
        if energies is None:
            return
        if self.energies is None:
            self.energies, self.shapes = energies, 1
        elif not self.energies.merge(energies):
            self.shapes += 1

    def _equal(self, pair: _Pair, side: Widened) -> None:
        codes = pair.classifiers[0].codes(side.values)
        self.confusion.add(codes, codes, side.size)
        self.absolute.zeros += side.finite
        self.relative.zeros += side.finite
        if self.ulp is not None and not pair.exact:
            self.ulp.add_equal(side.finite, side.chunk.dtype)
        if pair.ordinary:
            values = side.clean.values
            self._ordinary(pair, values, np.zeros(values.size), None)

    def _measure(self, pair: _Pair, sides: tuple[Widened, Widened], gap: _Gap, counts: Array | None = None) -> None:
        """Everything that does not depend on where the elements are.

        Args:
            pair: The arrays they are from.
            sides: The elements.
            gap: Their errors.
            counts: How many elements each of them stands for; None for one.
        """
        codes = [one.codes(side.values) for one, side in zip(pair.classifiers, sides, strict=True)]
        self.confusion.add(codes[0], codes[1], sides[0].size, counts)
        if self.ulp is not None and not pair.exact:
            both = gap.both
            parts = [side.chunk if both is None else side.chunk[both] for side in sides]
            self.ulp.add(parts[0], parts[1], counts if both is None or counts is None else counts[both])
        if pair.ordinary:
            self._ordinary(pair, gap.reference.values, gap.error.values, counts)
        self._by_class(codes, gap.error, counts)
        self._sizes(pair, gap, counts)

    def _sizes(self, pair: _Pair, gap: _Gap, counts: Array | None) -> None:
        """What follows from the magnitudes of errors."""
        unit, sizes, scale = gap.error.unit, np.abs(gap.error.values), np.abs(gap.reference.values)
        if self.tolerances is not None:
            rtol, atol = self.tolerances
            self.outside += _number(sizes * unit > atol + rtol * scale, counts)
            self.outside += 0 if gap.apart is None else _number(gap.apart, counts)
        if pair.exact:
            self.beyond_one += _number(sizes > 1.0, counts)
        small = 1.0 if unit == 1.0 and float(sizes.max()) < 1e290 else 2.0**-64
        self.sum_abs.add(_sum(sizes * small if small < 1.0 else sizes, counts) * unit, 0 if small == 1.0 else 64)
        relative = sizes / np.maximum(scale, pair.floor, out=scale)
        if unit != 1.0:
            sizes, relative = sizes * unit, relative * unit
        if pair.floor == 0.0:
            relative[np.isnan(relative)] = 0.0
        if gap.both is not None:
            sizes, relative = sizes[gap.both], relative[gap.both]
            counts = None if counts is None else counts[gap.both]
        if relative.size:
            self.max_rel = max(self.max_rel, float(relative.max()))
            self.sum_rel.add(_sum(relative, counts))
        self.absolute.add(sizes, counts)
        self.relative.add(relative, counts)

    def _by_class(self, codes: list[Array | None], error: Widened, counts: Array | None) -> None:
        ours, theirs = codes
        if theirs is None:
            return
        for total, code in ((self.saturated_dd, SATURATED), (self.zeroed_dd, ZERO)):
            there = theirs == code
            if ours is not None:
                there &= ours != code
            if there.any():
                energy, exponent = _energy(np.where(there, error.values, 0.0), counts)
                total.add(energy * error.unit * error.unit, exponent)

    def _ordinary(self, pair: _Pair, r: Array, d: Array, counts: Array | None) -> None:
        ordinary = np.abs(r) <= pair.ordinary
        self.outsized += _number(~ordinary, counts)
        for total, values in ((self.ordinary_dd, d), (self.ordinary_rr, r)):
            total.add(*_energy(np.where(ordinary, values, 0.0), counts))

    def merge(self, other: FullSet) -> None:
        """Add what another full set of the same tensor has seen."""
        for name in ("outside", "beyond_one", "outsized"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_rel = max(self.max_rel, other.max_rel)
        for name in _MERGED:
            getattr(self, name).merge(getattr(other, name))
        if self.ulp is None or other.ulp is None or not self.ulp.merge(other.ulp):
            self.ulp = None
        self._keep(other.energies)


def _typical(array: Array) -> float:
    """The tenth percentile of the magnitudes that are neither zero nor special, from at most some 4096 elements.

    Not the median: more than half of a row may be masked.
    """
    if not array.size:
        return 0.0
    array = np.atleast_1d(array)
    places = np.unravel_index(np.arange(0, array.size, max(1, array.size // 4096)), array.shape)
    some = np.abs(array[places].astype(np.float64))
    some = some[np.isfinite(some) & (some > 0.0)]
    return float(np.quantile(some, 0.1)) if some.size else 0.0


def _gap(r: Widened, t: Widened, space: Array) -> _Gap:
    if not r.special and not t.special:
        return _Gap(r, error_between(r, t, space)[0], None, None)
    both = np.isfinite(r.values) & np.isfinite(t.values)
    apart = ~both & ~((r.values == t.values) | (np.isnan(r.values) & np.isnan(t.values)))
    r, t = r.without(~both), t.without(~both)
    return _Gap(r, error_between(r, t, space)[0], both, apart if apart.any() else None)


def _count_pairs(one: Array, two: Array) -> Array:
    """How often each pair of codes occurs, of two flat arrays of a type of a byte; the first code counts 256."""
    codes = np.left_shift(one.view(np.uint8), 8, dtype=np.uint16)
    codes |= two.view(np.uint8)
    return np.bincount(codes, minlength=1 << 16)


def _number(mask: Array, counts: Array | None) -> int:
    return int(np.count_nonzero(mask)) if counts is None else int(counts[mask].sum())


def _sum(values: Array, counts: Array | None) -> float:
    return float(values.sum()) if counts is None else inner(values, counts.astype(np.float64))


def _energy(values: Array, counts: Array | None) -> tuple[float, int]:
    return Widened(values, values).energy if counts is None else (inner(values * values, counts.astype(np.float64)), 0)
