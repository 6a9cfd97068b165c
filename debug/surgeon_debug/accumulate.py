"""Error sums of two arrays of numbers, in float64, one cache-sized piece at a time.

Every sum can be continued with another pair of arrays, so that samples and batches add up to one result. The traps
this file exists for: infinities and NaN must be counted, not averaged; the angle between two nearly equal vectors
drowns when it is computed as 1 - cosine; squares of large float64 values overflow; integers above 2**53 are not
representable in float64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from surgeon_debug.values import is_foreign, kind_of

Array = np.ndarray[Any, Any]

_PIECE = 1 << 13  # elements; fits a core's cache, and BLAS takes no threads for a dot product this short
_SAFE_EXPONENT = 480  # 2**480 squared, summed 2**60 times, is still finite


def epsilon(dtype: np.dtype[Any]) -> float:
    """The gap between 1 and the next number of a floating-point type; 0 for integers."""
    if dtype.kind == "c":
        return epsilon(np.zeros(0, dtype).real.dtype)
    is_float = "float" in dtype.name if is_foreign(dtype) else dtype.kind == "f"
    return float(np.spacing(np.ones(1, dtype))[0]) if is_float else 0.0


@dataclasses.dataclass
class ClassCount:
    """How often one special value (NaN, +Inf or -Inf) occurs."""

    reference: int = 0
    """Elements of the reference that are it."""
    target: int = 0
    """Elements of the target that are it."""
    mismatched: int = 0
    """Elements that are it on one side only."""


@dataclasses.dataclass
class Spot:
    """One element and its error."""

    flat: int
    """Position in the flattened array."""
    error: float
    """The absolute error; infinite where one side is NaN or Inf and the other is not."""


class Sums:
    """Running sums over pairs of arrays; errors are target minus reference.

    Args:
        rtol: With ``atol``: count elements whose error exceeds ``atol + rtol * |reference|``; None for no counting.
        atol: See ``rtol``.
    """

    def __init__(self, rtol: float | None = None, atol: float | None = None) -> None:
        self.tolerances = None if rtol is None and atol is None else (rtol or 0.0, atol or 0.0)
        self.elements = self.finite = self.unequal = self.outside = self.beyond_one = 0
        self.nan, self.posinf, self.neginf = ClassCount(), ClassCount(), ClassCount()
        self.max_abs = self.max_rel = self.sum_rel = self.max_reference = 0.0
        self.peak = 0.0  # largest finite magnitude of the reference in the pair taken in last
        # Sums of |d|, d*d, r*r, r*d and t*t, of values divided by 2**shift.
        self.shift = 0
        self.sum_abs = self.dd = self.rr = self.rd = self.tt = 0.0

    def add(self, reference: Array, target: Array) -> Spot | None:
        """Take in two arrays of numbers of one shape; return the worst element of this pair, None if all are equal."""
        if kind_of(reference) == "complex":
            reference, target = _as_real(reference), _as_real(target)
        r, t = reference.reshape(-1), target.reshape(-1)
        exact = kind_of(r) != "float" and kind_of(t) != "float"
        peak_r, peak = _peaks(r, t)
        self.peak = peak_r
        self._rescale(peak)
        floor = 1.0 if exact else peak_r * max(epsilon(r.dtype), epsilon(t.dtype))
        self.max_reference = max(self.max_reference, peak_r)
        self.elements += r.size
        worst: Spot | None = None
        with np.errstate(all="ignore"):
            for start in range(0, r.size, _PIECE):
                found = self._piece(r[start : start + _PIECE], t[start : start + _PIECE], floor, exact)
                if found is not None and (worst is None or found.error > worst.error):
                    worst = Spot(found.flat + start, found.error)
        return worst

    def _piece(self, r: Array, t: Array, floor: float, exact: bool) -> Spot | None:
        first = None
        if exact:
            different = r != t
            count = int(np.count_nonzero(different))
            self.unequal += count
            if count and max(r.itemsize, t.itemsize) == 8:
                # float64 cannot tell 2**53 from 2**53 + 1.
                at = _widest_gap(r, t) if r.dtype == t.dtype else int(different.argmax())
                first = Spot(at, float(abs(int(t[at]) - int(r[at]))))
                self.max_abs = max(self.max_abs, first.error)
        big_r, big_t = r.astype(np.float64), t.astype(np.float64)
        both = np.isfinite(big_r) & np.isfinite(big_t) if not _all_finite(big_r, big_t) else None
        if both is None:
            spot = self._finite(big_r, big_t, floor, exact)
        else:
            mismatch = self._classes(big_r, big_t)
            where = np.flatnonzero(both)
            spot = self._finite(big_r[where], big_t[where], floor, exact) if where.size else None
            if mismatch is not None:
                return Spot(mismatch, math.inf)
            spot = Spot(int(where[spot.flat]), spot.error) if spot is not None else None
        if first is not None and (spot is None or spot.error < first.error):
            return first
        return spot

    def _classes(self, r: Array, t: Array) -> int | None:
        """Count special values of a piece; return the first element whose class differs."""
        differ = np.zeros(r.size, bool)
        for count, in_r, in_t in (
            (self.nan, np.isnan(r), np.isnan(t)),
            (self.posinf, r == np.inf, t == np.inf),
            (self.neginf, r == -np.inf, t == -np.inf),
        ):
            apart = in_r ^ in_t
            count.reference += int(np.count_nonzero(in_r))
            count.target += int(np.count_nonzero(in_t))
            count.mismatched += int(np.count_nonzero(apart))
            differ |= apart
        mismatches = int(np.count_nonzero(differ))
        self.unequal += mismatches
        self.outside += mismatches if self.tolerances else 0
        return int(differ.argmax()) if mismatches else None

    def _finite(self, r: Array, t: Array, floor: float, exact: bool) -> Spot | None:
        """Sums over elements that are finite on both sides; overwrites its arguments."""
        if not exact:
            self.unequal += int(np.count_nonzero(r != t))
        if self.shift:
            np.ldexp(r, -self.shift, out=r)
            np.ldexp(t, -self.shift, out=t)
        self.finite += r.size
        self.rr += float(r @ r)
        self.tt += float(t @ t)
        d = np.subtract(t, r, out=t)
        self.dd += float(d @ d)
        self.rd += float(r @ d)
        np.abs(d, out=d)
        self.sum_abs += float(d.sum())
        at = int(d.argmax())
        worst = float(np.ldexp(d[at], self.shift))
        np.abs(r, out=r)
        if self.tolerances:
            rtol, atol = self.tolerances
            self.outside += int(np.count_nonzero(d > np.ldexp(atol, -self.shift) + rtol * r))
        if worst == 0.0:
            return None
        self.max_abs = max(self.max_abs, worst)
        self.beyond_one += int(np.count_nonzero(d > 1.0)) if exact else 0
        if floor == 0.0:
            self.max_rel = self.sum_rel = math.inf
            return Spot(at, worst)
        np.maximum(r, np.ldexp(floor, -self.shift), out=r)
        np.divide(d, r, out=d)
        self.max_rel = max(self.max_rel, float(d.max()))
        self.sum_rel += float(d.sum())
        return Spot(at, worst)

    def _rescale(self, peak: float) -> None:
        """Choose the power of two by which values are divided, so that no square overflows or all vanish."""
        if peak == 0.0:
            return
        exponent = math.frexp(peak)[1]
        if self.rr == self.tt == 0.0:
            wanted = exponent if abs(exponent) > _SAFE_EXPONENT else 0
        else:
            wanted = exponent if exponent - self.shift > _SAFE_EXPONENT else self.shift
        if wanted != self.shift:
            step = self.shift - wanted
            self.sum_abs = math.ldexp(self.sum_abs, step)
            self.dd, self.rr, self.rd, self.tt = (math.ldexp(x, 2 * step) for x in (self.dd, self.rr, self.rd, self.tt))
            self.shift = wanted

    @property
    def mean_abs(self) -> float:
        """The mean absolute error over elements finite on both sides."""
        return _ldexp(self.sum_abs / self.finite, self.shift) if self.finite else 0.0

    @property
    def mean_rel(self) -> float:
        """The mean relative error over elements finite on both sides."""
        return self.sum_rel / self.finite if self.finite else 0.0

    @property
    def rel_l2(self) -> float:
        """The norm of the error over the norm of the reference; infinite if only the latter is 0."""
        if self.dd == 0.0:
            return 0.0
        return math.sqrt(self.dd) / math.sqrt(self.rr) if self.rr else math.inf

    @property
    def rel_linf(self) -> float:
        """The largest error over the largest reference; infinite if only the latter is 0."""
        if self.max_abs == 0.0:
            return 0.0
        return self.max_abs / self.max_reference if self.max_reference else math.inf

    @property
    def gain(self) -> float | None:
        """How much longer the target is along the reference: <t,r>/<r,r> - 1; None if the reference is 0."""
        return self.rd / self.rr if self.rr else None

    @property
    def angle(self) -> float | None:
        """1 - cosine, without cancellation; None if one side only is 0.

        From |d|**2 = (|r| - |t|)**2 + 2 |r| |t| (1 - cosine), where |r| - |t| comes from sums of d: its error is
        that of rounding times |d|**2, not times |r|**2.
        """
        if self.rr == 0.0 or self.tt == 0.0:
            return 0.0 if self.rr == self.tt else None
        norm_r, norm_t = math.sqrt(self.rr), math.sqrt(self.tt)
        apart = (2.0 * self.rd + self.dd) / (norm_r + norm_t)
        return min(2.0, max(0.0, (self.dd - apart * apart) / (2.0 * norm_r * norm_t)))


def _widest_gap(r: Array, t: Array) -> int:
    """Where two arrays of one 64-bit integer type are furthest apart; differences wrap around into their magnitude."""
    return int(np.where(t > r, t - r, r - t).view(np.uint64).argmax())


def _ldexp(value: float, exponent: int) -> float:
    with np.errstate(all="ignore"):
        return float(np.ldexp(value, exponent))


def _as_real(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.float32 if array.dtype.itemsize == 8 else np.float64)


def _all_finite(r: Array, t: Array) -> bool:
    """Whether no element is NaN or Inf; a sum tells in a fifth of the time of looking at each."""
    return math.isfinite(float(r.sum()) + float(t.sum())) or bool(np.isfinite(r).all() and np.isfinite(t).all())


def _finite_peak(array: Array) -> float:
    """The largest finite magnitude."""
    peak = 0.0
    for piece in _pieces(array):
        low, high = float(piece.min()), float(piece.max())
        if not math.isfinite(low + high):
            piece = np.where(np.isfinite(piece), piece, piece.dtype.type(0))
            low, high = float(piece.min()), float(piece.max())
        peak = max(peak, -low, high)
    return peak


def _pieces(array: Array) -> Iterator[Array]:
    """Pieces in a type whose minimum and maximum numpy finds fast."""
    plain = not is_foreign(array.dtype) and array.dtype.kind in "iuf" and array.dtype != np.float16
    for start in range(0, array.size, _PIECE):
        piece = array[start : start + _PIECE]
        yield piece if plain else piece.astype(np.float32)


def _peaks(r: Array, t: Array) -> tuple[float, float]:
    """The largest finite magnitude of the reference, and of both; the latter 0 if no sum can overflow or vanish."""
    with np.errstate(all="ignore"):
        peak_r = _finite_peak(r)
        wide = r.dtype == np.float64 or t.dtype == np.float64
        return peak_r, max(peak_r, _finite_peak(t)) if wide else 0.0
