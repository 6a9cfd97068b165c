"""The first look at every tensor: cheap enough to be measured always, and enough to decide whether to look closer.

Counts, three energies, one dot product and one maximum, in one pass over chunks that stay in a core's cache; chunks
whose bits are equal cost a comparison and one energy. Screens merge over chunks, samples and processes. The traps this
file exists for: infinities and NaN must be counted, not averaged; the angle between two nearly equal vectors drowns
when it is computed as 1 - cosine; squares of large float64 values overflow; integers above 2**53 do not fit float64.

Accuracy: sums are of float64 products, in chunks of 65,536 by BLAS (at most 65,536 roundings, in fact a few hundred:
it keeps many partial sums), then compensated. The relative error of an energy is below 1e-12 whatever the size, that of
the dot product likewise, relative to the product of the two norms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from surgeon_debug.leaves import Leaf, leaves, plain, shape_of
from surgeon_debug.side import Side, Widened, error_between, position_of
from surgeon_debug.total import Total, root_ratio, scaled
from surgeon_debug.values import Value, dtype_name
from surgeon_debug.widen import CHUNK, Array, as_real, chunks, epsilon, is_exact


@dataclasses.dataclass
class ClassCount:
    """How often one special value (NaN, +Inf or -Inf) occurs."""

    reference: int = 0
    """Elements of the reference that are it."""
    target: int = 0
    """Elements of the target that are it."""
    mismatched: int = 0
    """Elements that are it on one side only."""

    def merge(self, other: ClassCount) -> None:
        """Add the counts of another."""
        self.reference += other.reference
        self.target += other.target
        self.mismatched += other.mismatched


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


@dataclasses.dataclass
class Screen:
    """Running measurement of one tensor over pairs of values; errors are target minus reference, in float64."""

    mismatch: str = ""
    """Why the two cannot be compared number by number (other shape, kind or length), as a phrase; empty if they can."""
    reference_dtype: str = ""
    """Element type, or the kind of value; empty as long as nothing was added."""
    target_dtype: str = ""
    """Element type, or the kind of value."""
    shape: tuple[int, ...] = ()
    """Shape of the reference in the first sample; of a sequence its length."""
    exact: bool = True
    """Whether the values are integers, booleans or text, which have no rounding."""
    coarse_epsilon: float = 0.0
    """The gap after 1 of the coarser of the two element types; 0 where exact."""
    elements: int = 0
    """Elements compared; a complex number counts as two."""
    unequal: int = 0
    """Elements that are not equal; NaN equals NaN, and -0 equals 0."""
    finite: int = 0
    """Numbers that are finite on both sides: those that the errors are about."""
    nan: ClassCount = dataclasses.field(default_factory=ClassCount)
    """Counts of NaN."""
    posinf: ClassCount = dataclasses.field(default_factory=ClassCount)
    """Counts of +Inf."""
    neginf: ClassCount = dataclasses.field(default_factory=ClassCount)
    """Counts of -Inf."""
    dd: Total = dataclasses.field(default_factory=Total)
    """The energy of the error, the sum of its squares, as of all that follows over elements finite on both sides."""
    rr: Total = dataclasses.field(default_factory=Total)
    """The energy of the reference."""
    tt: Total = dataclasses.field(default_factory=Total)
    """The energy of the target."""
    rd: Total = dataclasses.field(default_factory=Total)
    """The dot product of reference and error."""
    max_abs: float = 0.0
    """The largest absolute error."""
    max_reference: float = 0.0
    """The largest magnitude of the reference."""
    worst: Element | None = None
    """The first element that is NaN or Inf on one side only, else the one of :attr:`max_abs`; None if all are equal."""
    worst_error: float = 0.0
    """The absolute error of :attr:`worst`; infinite for NaN or Inf on one side only."""

    def add(self, reference: Value, target: Value, *, sample: int = 0) -> None:
        """Take in one pair of values.

        Args:
            reference: As :func:`surgeon_debug.values.normalise` returns it.
            target: Likewise.
            sample: Number of the sample, for :attr:`Element.sample`.
        """
        self.note_types(reference, target)
        for leaf in leaves(reference, target):
            if leaf.mismatch:
                place = f" at {'/'.join(map(str, leaf.where))}" if leaf.where else ""
                self.mismatch = self.mismatch or f"{leaf.mismatch}{place}{f' in sample {sample}' if sample else ''}"
            elif leaf.text:
                self._text(leaf, sample)
            else:
                self._numbers(leaf, sample)

    def note_types(self, reference: Value, target: Value) -> None:
        """Remember types and shape of the first pair."""
        if not self.reference_dtype:
            self.reference_dtype, self.target_dtype = dtype_name(reference), dtype_name(target)
            self.shape = shape_of(reference)

    def note_arrays(self, reference: Array, target: Array) -> None:
        """Remember what the element types mean for rounding."""
        self.exact = self.exact and is_exact(reference) and is_exact(target)
        self.coarse_epsilon = max(self.coarse_epsilon, epsilon(reference.dtype), epsilon(target.dtype))

    def _text(self, leaf: Leaf, sample: int) -> None:
        different = (leaf.reference != leaf.target).reshape(-1).astype(bool)
        self.elements += different.size
        count = int(np.count_nonzero(different))
        self.unequal += count
        if count and self.worst is None:
            self.note_worst(leaf, int(different.argmax()), 1.0, sample)

    def _numbers(self, leaf: Leaf, sample: int) -> None:
        self.note_arrays(leaf.reference, leaf.target)
        r, t = as_real(leaf.reference), as_real(leaf.target)
        sides = [Side(a.dtype, min(a.size, CHUNK)) for a in (r, t)]
        space = np.empty(min(r.size, CHUNK))
        found: tuple[int, float] | None = None
        with np.errstate(all="ignore"):
            for start, (part_r, part_t) in chunks((r, t)):
                spot = self.pair(sides[0].take(part_r), sides[1].take(part_t), space)
                if spot is not None and (found is None or spot[1] > found[1]):
                    found = (start + spot[0], spot[1])
        if found is not None:
            self.note_worst(leaf, found[0], found[1], sample)

    def note_worst(self, leaf: Leaf, flat: int, error: float, sample: int) -> None:
        """Keep an element if its error is larger than that of the one kept so far."""
        if self.worst is not None and error <= self.worst_error:
            return
        if leaf.reference.dtype.kind == "c":
            flat //= 2
        index = tuple(int(i) for i in np.unravel_index(flat, leaf.reference.shape))
        self.worst_error = error
        self.worst = Element((*leaf.where, *index), plain(leaf.reference[index]), plain(leaf.target[index]), sample)

    def pair(self, r: Widened, t: Widened, space: Array) -> tuple[int, float] | None:
        """Take in one chunk of both sides; the worst element of the chunk and its error if it matters, else None.

        Args:
            r: The chunk of the reference.
            t: The chunk of the target.
            space: Space for the errors of the chunk, float64.
        """
        self.elements += r.size
        if r.same_as(t):
            self._equal(r)
            return None
        mismatch = None
        if r.special or t.special:
            mismatch, r, t = self._specials(r, t)
        else:
            self.finite += r.size
        self.max_reference = max(self.max_reference, r.peak)
        self.rr.add(*r.energy)
        error, worst = error_between(r, t, space)
        unequal = r.unequal(t, error)
        if not unequal:
            self.tt.add(*t.energy)
            return None if mismatch is None else (mismatch, math.inf)
        self.unequal += unequal
        dot = r.dot(error)
        self.dd.add(*error.energy)
        self.rd.add(*dot)
        # Sums of squares of short integers are exact, so that the third follows without widening the target.
        self.tt.add(*((r.energy[0] + 2.0 * dot[0] + error.energy[0], 0) if r.short and t.short else t.energy))
        if mismatch is None and worst <= self.max_abs:
            return None
        self.max_abs = max(self.max_abs, worst)
        return (position_of(error), worst) if mismatch is None else (mismatch, math.inf)

    def _equal(self, r: Widened) -> None:
        if r.special:
            for count, where in zip((self.nan, self.posinf, self.neginf), r.classes, strict=True):
                number = int(np.count_nonzero(where))
                count.reference += number
                count.target += number
        self.finite += r.finite
        self.max_reference = max(self.max_reference, r.peak)
        self.rr.add(*r.energy)
        self.tt.add(*r.energy)

    def _specials(self, r: Widened, t: Widened) -> tuple[int | None, Widened, Widened]:
        """Count special values; the first element whose class differs, and both sides with zeros in their place."""
        differ = np.zeros(r.size, bool)
        special = differ.copy()
        for count, in_r, in_t in zip((self.nan, self.posinf, self.neginf), r.classes, t.classes, strict=True):
            apart = in_r ^ in_t
            count.reference += int(np.count_nonzero(in_r))
            count.target += int(np.count_nonzero(in_t))
            count.mismatched += int(np.count_nonzero(apart))
            differ |= apart
            special |= in_r | in_t
        mismatches = int(np.count_nonzero(differ))
        self.unequal += mismatches
        self.finite += r.size - int(np.count_nonzero(special))
        return int(differ.argmax()) if mismatches else None, r.without(special), t.without(special)

    def merge(self, other: Screen) -> None:
        """Add what another screen of the same tensor has seen; its samples count as later."""
        if not self.reference_dtype:
            self.reference_dtype, self.target_dtype = other.reference_dtype, other.target_dtype
            self.shape = other.shape
        self.mismatch = self.mismatch or other.mismatch
        self.exact = self.exact and other.exact
        self.coarse_epsilon = max(self.coarse_epsilon, other.coarse_epsilon)
        for name in ("elements", "unequal", "finite"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("nan", "posinf", "neginf", "dd", "rr", "tt", "rd"):
            getattr(self, name).merge(getattr(other, name))
        self.max_abs = max(self.max_abs, other.max_abs)
        self.max_reference = max(self.max_reference, other.max_reference)
        if other.worst is not None and (self.worst is None or other.worst_error > self.worst_error):
            self.worst, self.worst_error = other.worst, other.worst_error

    @property
    def rel_l2(self) -> float:
        """The norm of the error over the norm of the reference; infinite if only the latter is 0."""
        return root_ratio(self.dd, self.rr)

    @property
    def rel_linf(self) -> float:
        """The largest error over the largest reference; infinite if only the latter is 0."""
        if self.max_abs == 0.0:
            return 0.0
        return self.max_abs / self.max_reference if self.max_reference else math.inf

    @property
    def gain(self) -> float | None:
        """How much longer the target is along the reference: <t,r>/<r,r> - 1; None if the reference is 0."""
        if self.rr.mantissa <= 0.0:
            return None
        return scaled(self.rd.mantissa / self.rr.mantissa, self.rd.exponent - self.rr.exponent)

    @property
    def angle(self) -> float | None:
        """1 - cosine, without cancellation; None if one side only is 0.

        From |d|**2 = (|r| - |t|)**2 + 2 |r| |t| (1 - cosine), where |r| - |t| comes from sums of d: its error is
        that of rounding times |d|**2, not times |r|**2.
        """
        if self.rr.mantissa <= 0.0 or self.tt.mantissa <= 0.0:
            return 0.0 if self.rr.mantissa == self.tt.mantissa else None
        unit = max(self.rr.exponent, self.tt.exponent)
        norm_r, norm_t = math.sqrt(self.rr.at(unit)), math.sqrt(self.tt.at(unit))
        if norm_r == 0.0 or norm_t == 0.0:
            return None  # one is so much longer that the other is 0 beside it
        apart = (2.0 * self.rd.at(unit) + self.dd.at(unit)) / (norm_r + norm_t)
        return min(2.0, max(0.0, (self.dd.at(unit) - apart * apart) / (2.0 * norm_r * norm_t)))

    @property
    def special_mismatches(self) -> int:
        """Elements whose class (finite, NaN, +Inf, -Inf) differs; one that is NaN here and Inf there counts twice."""
        return self.nan.mismatched + self.posinf.mismatched + self.neginf.mismatched

    @property
    def equal(self) -> bool:
        """Whether every element is equal and nothing else differs."""
        return not self.mismatch and self.unequal == 0

    def to_state(self) -> dict[str, Any]:
        """What :meth:`from_state` makes the same screen of: numbers, texts and lists, fit for JSON and for a pipe."""
        state: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Total):
                value = value.to_state()
            elif isinstance(value, ClassCount):
                value = list(dataclasses.astuple(value))
            elif isinstance(value, Element):
                sides = [_no_complex(side) for side in (value.reference, value.target)]
                value = [list(value.index), *sides, value.sample]
            state[field.name] = value
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Screen:
        """The inverse of :meth:`to_state`, also after a way through JSON."""
        values = dict(state)
        for name in ("dd", "rr", "tt", "rd"):
            values[name] = Total.from_state(values[name])
        for name in ("nan", "posinf", "neginf"):
            values[name] = ClassCount(*values[name])
        if values["worst"] is not None:
            index, *sides, sample = values["worst"]
            reference, target = (complex(*side) if isinstance(side, (list, tuple)) else side for side in sides)
            values["worst"] = Element(tuple(index), reference, target, sample)
        values["shape"] = tuple(values["shape"])
        return cls(**values)


def _no_complex(number: Any) -> Any:
    return [number.real, number.imag] if isinstance(number, complex) else number
