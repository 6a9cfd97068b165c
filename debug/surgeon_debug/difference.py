"""The result of comparing one value over all samples."""

from __future__ import annotations

import dataclasses
import math

from surgeon_debug.channels import AxisShares
from surgeon_debug.element_classes import ClassCell
from surgeon_debug.screen import Element
from surgeon_debug.structure import Hint
from surgeon_debug.ulp import Ulp


@dataclasses.dataclass(frozen=True)
class Classes:
    """How often one class of numbers occurs."""

    reference: int
    """Elements of the reference that are it."""
    target: int
    """Elements of the target that are it."""
    mismatched: int
    """Elements that are it on one side only."""


@dataclasses.dataclass(frozen=True)
class Percentiles:
    """Numbers that a share of all elements do not exceed, within 3.2 %."""

    p50: float = 0.0
    """The median."""
    p90: float = 0.0
    """Of 90 %."""
    p99: float = 0.0
    """Of 99 %."""
    p99_9: float = 0.0
    """Of 99.9 %."""
    p99_99: float = 0.0
    """Of 99.99 %."""


@dataclasses.dataclass(frozen=True)
class UserNumber:
    """What a user's own metric came to over all samples."""

    name: str
    """The metric: ``FILE.py:FUNCTION``."""
    lowest: float
    """The least of all samples; NaN if it was NaN for any."""
    highest: float
    """The largest of all samples; NaN if it was NaN for any."""


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
    """Elements compared; a complex number counts as two."""
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
    sqnr: float | None = None
    """Signal to noise in dB, -20 log10 of :attr:`rel_l2`; infinite where all are equal, None where exact."""
    saturated: Classes = Classes(0, 0, 0)
    """Counts of elements as large as the type allows, integers included; the target's also by the type computed in."""
    subnormal: Classes = Classes(0, 0, 0)
    """Counts of elements that are not 0 and below the smallest normal number of the type computed in."""
    confusion: tuple[ClassCell, ...] = ()
    """How often each class of numbers in the reference meets each in the target; pairs that occur. Empty for text."""
    abs_percentiles: Percentiles = Percentiles()
    """Of the absolute error."""
    rel_percentiles: Percentiles = Percentiles()
    """Of the relative error."""
    ulp: Ulp | None = None
    """Distances in units in the last place; None where exact, or where samples are of several types."""
    worst_elements: tuple[Element, ...] = ()
    """At most 16 elements, a NaN or Inf on one side before any number, then the largest absolute error first."""
    channels: tuple[AxisShares, ...] = ()
    """Of rank 2 and more, for axis 1 and the last: which indices hold most of the error energy. Empty where samples
    have several shapes."""
    hints: tuple[Hint, ...] = ()
    """Patterns that explain nine tenths of the error of one sample, the one with the largest relative error."""

    user_metrics: tuple[UserNumber, ...] = ()
    """The user's own metrics that were asked for."""

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


def decibels(rel_l2: float) -> float:
    """Signal to noise in dB of a relative L2 error; infinite for 0."""
    if rel_l2 == 0.0:
        return math.inf
    return -20.0 * math.log10(rel_l2) if rel_l2 < math.inf else -math.inf
