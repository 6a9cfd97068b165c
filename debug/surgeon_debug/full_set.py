"""The closer look at a tensor whose values differ: every measure that needs no knowledge of the model.

Histograms, classes, distances in the last place, the worst elements and energies along every axis, in one pass over
chunks that fit a core's cache. What the screen has measured already is not measured again.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from surgeon_debug.channels import AxisEnergies
from surgeon_debug.element_classes import SATURATED, ZERO, Classifier, Confusion
from surgeon_debug.histogram import LogHistogram
from surgeon_debug.leaves import Leaf
from surgeon_debug.side import Side, Widened, error_between
from surgeon_debug.total import Total
from surgeon_debug.ulp import UlpTally, coarser, float_dtype
from surgeon_debug.values import kind_of
from surgeon_debug.widen import CHUNK, Array, as_real, boxes, epsilon, is_exact
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
        with np.errstate(all="ignore"):
            for start, index in boxes(r.shape, CHUNK):
                parts = [np.ascontiguousarray(array[index] if index else array).reshape(-1) for array in (r, t)]
                ours, theirs = (side.take(part) for side, part in zip(sides, parts, strict=True))
                if ours.same_as(theirs):
                    self._equal(pair, index, ours)
                else:
                    self._unequal(pair, start, index, ours, theirs, space)
        self._keep(pair.energies)
        return pair.energies

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

    def _equal(self, pair: _Pair, index: tuple[int | slice, ...], side: Widened) -> None:
        codes = pair.classifiers[0].codes(side.values)
        self.confusion.add(codes, codes)
        self.absolute.zeros += side.finite
        self.relative.zeros += side.finite
        if self.ulp is not None and not pair.exact:
            self.ulp.add_equal(side.finite, side.chunk.dtype)
        values = side.clean.values
        if pair.energies is not None:
            pair.energies.add(index, values, np.zeros(values.size))
        if pair.ordinary:
            self._ordinary(pair, values, np.zeros(values.size))

    def _unequal(
        self, pair: _Pair, start: int, index: tuple[int | slice, ...], r: Widened, t: Widened, space: Array
    ) -> None:
        codes = [one.codes(side.values) for one, side in zip(pair.classifiers, (r, t), strict=True)]
        self.confusion.add(*codes)
        both: Array | None = None
        parts = (r.chunk, t.chunk)
        apart: Array | None = None
        if r.special or t.special:
            both = np.isfinite(r.values) & np.isfinite(t.values)
            apart = ~both & ~((r.values == t.values) | (np.isnan(r.values) & np.isnan(t.values)))
            parts = (r.chunk[both], t.chunk[both])
            r, t = r.without(~both), t.without(~both)
        error, _ = error_between(r, t, space)
        if self.ulp is not None and not pair.exact:
            self.ulp.add(*parts)
        if pair.energies is not None:
            pair.energies.add(index, r.values, error.values * error.unit)
        if pair.ordinary:
            self._ordinary(pair, r.values, error.values)
        self._by_class(codes, error)
        sizes = np.abs(error.values, out=error.values)
        self._sizes(pair, r, sizes, error.unit, both, 0 if apart is None else int(np.count_nonzero(apart)))
        sizes = sizes * error.unit
        if apart is not None:
            sizes[apart] = math.inf
        self.worst.add(pair.leaf, start, sizes, pair.sample)

    def _sizes(self, pair: _Pair, r: Widened, sizes: Array, unit: float, both: Array | None, apart: int) -> None:
        """Everything that follows from magnitudes of errors alone, which are 0 where ``both`` is False."""
        if float(sizes.max()) < 1e290 and unit == 1.0:
            self.sum_abs.add(float(sizes.sum()))
        else:
            self.sum_abs.add(float((sizes * 2.0**-64).sum()) * unit, 64)
        scale = np.abs(r.values)
        if self.tolerances is not None:
            rtol, atol = self.tolerances
            self.outside += apart + int(np.count_nonzero(sizes * unit > atol + rtol * scale))
        if pair.exact:
            self.beyond_one += int(np.count_nonzero(sizes > 1.0))
        relative = sizes / np.maximum(scale, pair.floor)
        relative *= unit
        if pair.floor == 0.0:
            relative[np.isnan(relative)] = 0.0
        sizes = sizes * unit if unit != 1.0 else sizes
        if both is not None:
            sizes, relative = sizes[both], relative[both]
        if relative.size:
            self.max_rel = max(self.max_rel, float(relative.max()))
            self.sum_rel.add(float(relative.sum()))
        self.absolute.add(sizes)
        self.relative.add(relative)

    def _by_class(self, codes: list[Array], error: Widened) -> None:
        for total, code in ((self.saturated_dd, SATURATED), (self.zeroed_dd, ZERO)):
            there = (codes[1] == code) & (codes[0] != code)
            if there.any():
                kept = np.where(there, error.values, 0.0)
                energy, exponent = Widened(kept, kept).energy
                total.add(energy * error.unit * error.unit, exponent)

    def _ordinary(self, pair: _Pair, r: Array, d: Array) -> None:
        ordinary = np.abs(r) <= pair.ordinary
        self.outsized += int(ordinary.size - np.count_nonzero(ordinary))
        for total, values in ((self.ordinary_dd, d), (self.ordinary_rr, r)):
            kept = np.where(ordinary, values, 0.0)
            total.add(*Widened(kept, kept).energy)

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
