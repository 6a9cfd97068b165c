"""How far apart two values are: every measure that needs no knowledge of the model, and no opinion.

:class:`Tally` takes pairs of values, one a sample; :class:`Difference` is what came out. Whether a difference is too
large is decided elsewhere (:mod:`surgeon_debug.verdict`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from surgeon_debug.accumulate import ClassCount, Spot, Sums, epsilon
from surgeon_debug.values import Value, dtype_name, kind_of

_OUTSIZED = 2e4
"""Elements this many times the tenth percentile are left out of the error among ordinary elements."""


@dataclasses.dataclass(frozen=True)
class Classes:
    """How often one special value (NaN, +Inf or -Inf) occurs."""

    reference: int
    """Elements of the reference that are it."""
    target: int
    """Elements of the target that are it."""
    mismatched: int
    """Elements that are it on one side only."""


@dataclasses.dataclass(frozen=True)
class Element:
    """One element of a value, as both sides have it."""

    index: tuple[int | str, ...]
    """Where: the index in the tensor; in a sequence or map, its position or key first."""
    reference: Any
    """A Python number, bool or text."""
    target: Any
    """A Python number, bool or text."""
    sample: int
    """The sample it was seen in, from 0."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """The result of comparing one value over all samples; errors are target minus reference, in float64."""

    mismatch: str
    """Why the two cannot be compared number by number (other shape, kind or length), as a phrase; empty if they can."""
    reference_dtype: str
    """Element type, or the kind of value (``sequence``, ``map``, ``none``)."""
    target_dtype: str
    """Element type, or the kind of value."""
    shape: tuple[int, ...]
    """Shape of the reference in the first sample; of a sequence its length."""
    exact: bool
    """Whether the values are integers, booleans or text, which have no rounding."""
    coarse_epsilon: float
    """The gap after 1 of the coarser of the two element types; 0 where exact."""
    elements: int
    """Elements compared."""
    unequal: int
    """Elements that are not equal; NaN equals NaN."""
    finite: int
    """Numbers that are finite on both sides: those that the errors are about."""
    nan: Classes
    """Counts of NaN."""
    posinf: Classes
    """Counts of +Inf."""
    neginf: Classes
    """Counts of -Inf."""
    max_abs: float
    """Largest absolute error; this and what follows is over elements finite on both sides, and 0 if there are none."""
    mean_abs: float
    """Mean absolute error."""
    max_rel: float
    """Largest relative error; the denominator is not below the coarser type's epsilon of the largest reference."""
    mean_rel: float
    """Mean relative error, with the same floor."""
    rel_l2: float
    """Norm of the error over norm of the reference."""
    rel_linf: float
    """Largest absolute error over the largest reference."""
    outsized: int
    """Elements of the reference above 20,000 times its tenth percentile: masks of -1e9, above all. In :attr:`rel_l2`
    they hide whatever happens to the others."""
    ordinary_l2: float | None
    """Relative L2 among the other elements, of the samples that have outsized ones; None if none has."""
    angle: float | None
    """1 - cosine, computed without cancellation; None where one side is all zero."""
    gain: float | None
    """<target, reference> / <reference, reference> - 1; None where the reference is all zero."""
    beyond_one: int
    """For integers: elements that are off by more than one."""
    outside: int | None
    """Elements outside the given rtol and atol; None if neither was given."""
    worst: Element | None
    """The element with the largest error, a NaN or Inf on one side before any number; None if all are equal."""

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the two; read :attr:`gain` with it, a wrong scale leaves it at 1."""
        return None if self.angle is None else 1.0 - self.angle

    @property
    def special_mismatches(self) -> int:
        """Elements whose class (finite, NaN, +Inf, -Inf) differs; one that is NaN here and Inf there counts twice."""
        return self.nan.mismatched + self.posinf.mismatched + self.neginf.mismatched

    @property
    def equal(self) -> bool:
        """Whether every element is equal and nothing else differs."""
        return not self.mismatch and self.unequal == 0


class Tally:
    """Takes pairs of values and adds them up.

    Args:
        rtol: Count elements whose error exceeds ``atol + rtol * |reference|``; None for no counting, or for 0 if
            ``atol`` is given.
        atol: See ``rtol``.
    """

    def __init__(self, *, rtol: float | None = None, atol: float | None = None) -> None:
        self._sums = Sums(rtol, atol)
        self._ordinary = Sums()
        self._outsized = 0
        self._mismatch = ""
        self._dtypes: tuple[str, str] | None = None
        self._shape: tuple[int, ...] = ()
        self._exact = True
        self._epsilon = 0.0
        self._worst: Element | None = None
        self._worst_error = 0.0

    def add(self, reference: Value, target: Value, *, sample: int = 0) -> None:
        """Take in one pair.

        Args:
            reference: As :func:`surgeon_debug.values.normalise` returns it.
            target: Likewise.
            sample: Number of the sample, for :attr:`Element.sample`.
        """
        if self._dtypes is None:
            self._dtypes = (dtype_name(reference), dtype_name(target))
            self._shape = _shape_of(reference)
        self._pair(reference, target, (), sample)

    def _pair(self, reference: Value, target: Value, where: tuple[int | str, ...], sample: int) -> None:
        kind = kind_of(reference)
        if kind != kind_of(target) or kind == "raw":
            self._differs(f"{dtype_name(reference)} against {dtype_name(target)}", where, sample)
        elif kind == "none":
            return
        elif kind in ("sequence", "map"):
            self._container(reference, target, where, sample)
        elif reference.shape != target.shape:
            self._differs(f"shape {_dims(reference)} against {_dims(target)}", where, sample)
        elif kind == "text":
            self._text(reference, target, where, sample)
        else:
            self._numbers(reference, target, where, sample)

    def _differs(self, reason: str, where: tuple[int | str, ...], sample: int) -> None:
        if not self._mismatch:
            place = f" at {'/'.join(map(str, where))}" if where else ""
            self._mismatch = f"{reason}{place}{f' in sample {sample}' if sample else ''}"

    def _container(self, reference: Value, target: Value, where: tuple[int | str, ...], sample: int) -> None:
        if isinstance(reference, Mapping):
            if reference.keys() != target.keys():
                self._differs(f"a map of {len(reference)} keys against one with other keys", where, sample)
                return
            for key, item in reference.items():
                self._pair(item, target[key], (*where, str(key)), sample)
        elif len(reference) != len(target):
            self._differs(f"{len(reference)} items against {len(target)}", where, sample)
        else:
            for i, (r, t) in enumerate(zip(reference, target, strict=True)):
                self._pair(r, t, (*where, i), sample)

    def _text(self, reference: Value, target: Value, where: tuple[int | str, ...], sample: int) -> None:
        different = (reference != target).reshape(-1).astype(bool)
        count = int(np.count_nonzero(different))
        self._sums.elements += reference.size
        self._sums.unequal += count
        if count:
            self._note(reference, target, Spot(int(different.argmax()), 1.0), where, sample)

    def _numbers(self, reference: Value, target: Value, where: tuple[int | str, ...], sample: int) -> None:
        if kind_of(reference) in ("float", "complex"):
            self._exact = False
        self._epsilon = max(self._epsilon, epsilon(reference.dtype), epsilon(target.dtype))
        spot = self._sums.add(reference, target)
        if not self._exact:
            self._look_past_outsized(reference, target)
        if spot is not None:
            if kind_of(reference) == "complex":
                spot = Spot(spot.flat // 2, spot.error)
            self._note(reference, target, spot, where, sample)

    def _look_past_outsized(self, reference: Value, target: Value) -> None:
        limit = _OUTSIZED * _typical(reference)
        if not 0.0 < limit < self._sums.peak:
            return
        with np.errstate(invalid="ignore"):
            ordinary = np.abs(reference.astype(np.float64)) <= limit
        self._outsized += int(ordinary.size - np.count_nonzero(ordinary))
        self._ordinary.add(reference[ordinary], target[ordinary])

    def _note(self, reference: Value, target: Value, spot: Spot, where: tuple[int | str, ...], sample: int) -> None:
        if self._worst is None or spot.error > self._worst_error:
            index = tuple(int(i) for i in np.unravel_index(spot.flat, reference.shape))
            self._worst_error = spot.error
            self._worst = Element((*where, *index), _plain(reference[index]), _plain(target[index]), sample)

    def difference(self) -> Difference:
        """The result so far."""
        sums = self._sums
        dtypes = self._dtypes or ("none", "none")
        return Difference(
            mismatch=self._mismatch,
            reference_dtype=dtypes[0],
            target_dtype=dtypes[1],
            shape=self._shape,
            exact=self._exact,
            coarse_epsilon=self._epsilon,
            elements=sums.elements,
            unequal=sums.unequal,
            finite=sums.finite,
            nan=_frozen(sums.nan),
            posinf=_frozen(sums.posinf),
            neginf=_frozen(sums.neginf),
            max_abs=sums.max_abs,
            mean_abs=sums.mean_abs,
            max_rel=sums.max_rel,
            mean_rel=sums.mean_rel,
            rel_l2=sums.rel_l2,
            rel_linf=sums.rel_linf,
            outsized=self._outsized,
            ordinary_l2=self._ordinary.rel_l2 if self._outsized else None,
            angle=sums.angle,
            gain=sums.gain,
            beyond_one=sums.beyond_one,
            outside=sums.outside if sums.tolerances else None,
            worst=self._worst,
        )


def compare(reference: Value, target: Value, *, rtol: float | None = None, atol: float | None = None) -> Difference:
    """Compare two values; see :class:`Tally` for the arguments."""
    tally = Tally(rtol=rtol, atol=atol)
    tally.add(reference, target)
    return tally.difference()


def _typical(array: np.ndarray[Any, Any]) -> float:
    """The tenth percentile of the magnitudes that are neither zero nor special, from at most some 4096 elements.

    Not the median: more than half of a row may be masked.
    """
    if kind_of(array) != "float":
        return 0.0
    flat = array.reshape(-1)
    some = np.abs(flat[:: max(1, flat.size // 4096)].astype(np.float64))
    some = some[np.isfinite(some) & (some > 0.0)]
    return float(np.quantile(some, 0.1)) if some.size else 0.0


def _frozen(count: ClassCount) -> Classes:
    return Classes(count.reference, count.target, count.mismatched)


def _shape_of(value: Value) -> tuple[int, ...]:
    kind = kind_of(value)
    if kind in ("sequence", "map"):
        return (len(value),)
    return () if kind == "none" else tuple(value.shape)


def _dims(array: np.ndarray[Any, Any]) -> str:
    return "x".join(str(d) for d in array.shape) or "scalar"


def _plain(item: Any) -> Any:
    """A numpy or ml_dtypes scalar as Python has it."""
    kind = kind_of(item)
    plain: Any = {"float": float, "int": int, "bool": bool, "complex": complex}.get(kind, str)(item)
    return plain
