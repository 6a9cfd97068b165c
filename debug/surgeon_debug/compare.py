"""How far apart two values are: every measure that needs no knowledge of the model, and no opinion.

:class:`Tally` takes pairs of values, one a sample; :class:`Difference` is what came out. Whether a difference is too
large is decided elsewhere (:mod:`surgeon_debug.verdict`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from surgeon_debug.difference import Classes, Difference, Percentiles, UserNumber, decibels
from surgeon_debug.element_classes import ElementClass
from surgeon_debug.full_set import FullSet
from surgeon_debug.histogram import LogHistogram
from surgeon_debug.leaves import leaves
from surgeon_debug.rearranged import hints_from_arrays
from surgeon_debug.screen import ClassCount, Element, Screen
from surgeon_debug.structure import EXPLAINED, Hint, HintKind, hints_from_energies
from surgeon_debug.total import Total, root_ratio
from surgeon_debug.user_functions import UserMetric
from surgeon_debug.values import Value

__all__ = ["Classes", "Difference", "Element", "Percentiles", "Tally", "compare"]

_LEVELS = (0.5, 0.9, 0.99, 0.999, 0.9999)
_MOST_LOOKS = 4  # samples that are searched for patterns


class Tally:
    """Takes pairs of values and adds them up; tallies of chunks, samples and processes merge.

    Args:
        rtol: Count elements whose error exceeds ``atol + rtol * |reference|``; None for no counting, or for 0 if
            ``atol`` is given.
        atol: See ``rtol``.
        compute: The floating-point type that was computed in, for distances in the last place: a dtype's name or
            ``tf32``. Empty for the coarser of the two.
        metrics: The user's own metrics to measure, too.
    """

    def __init__(
        self,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        compute: str = "",
        metrics: Sequence[UserMetric] = (),
    ) -> None:
        self.screen = Screen()
        self._metrics = tuple(metrics)
        self._numbers: dict[str, UserNumber] = {}
        self._full = FullSet(rtol=rtol, atol=atol, compute=compute)
        self._hints: tuple[Hint, ...] = ()
        self._hinted = 0.0
        self._looks = 0

    def add(self, reference: Value, target: Value, *, sample: int = 0) -> None:
        """Take in one pair.

        Args:
            reference: As :func:`surgeon_debug.values.normalise` returns it.
            target: Likewise.
            sample: Number of the sample, for :attr:`Element.sample`.

        Raises:
            BadOptionError: A metric of the user's fails.
        """
        seen = Screen()
        seen.add(reference, target, sample=sample)
        self.screen.merge(seen)
        if not seen.mismatch:
            for metric in self._metrics:
                number = metric(reference, target)
                self._keep(UserNumber(metric.text, number, number))
        pairs = [leaf for leaf in leaves(reference, target) if not leaf.mismatch]
        for leaf in pairs:
            if leaf.text:
                self._full.add_text(leaf, sample)
                continue
            own = seen
            if len(pairs) > 1:
                own = Screen()
                own.add(leaf.reference, leaf.target)
            energies = self._full.add(leaf, own.max_reference, sample=sample)
            if energies is not None and own.unequal and self._looks < _MOST_LOOKS and own.rel_l2 > self._hinted:
                self._looks += 1
                self._hinted = own.rel_l2
                found = hints_from_energies(energies, own)
                if not found or found[0].axis is not None:
                    found = hints_from_arrays(leaf.reference, leaf.target, energies, own) + found
                self._hints = tuple(found)

    def _keep(self, number: UserNumber) -> None:
        before = self._numbers.get(number.name, number)
        # Of two numbers one of which is NaN, Python's min and max return the first.
        low, high = (before.lowest, number.lowest), (before.highest, number.highest)
        unknown = any(math.isnan(x) for x in low)
        self._numbers[number.name] = UserNumber(
            number.name, math.nan if unknown else min(low), math.nan if unknown else max(high)
        )

    def merge(self, other: Tally) -> None:
        """Add what another tally of the same value has seen; its samples count as later."""
        self.screen.merge(other.screen)
        self._full.merge(other._full)
        for number in other._numbers.values():
            self._keep(number)
        if other._hinted > self._hinted:
            self._hinted, self._hints = other._hinted, other._hints

    def difference(self) -> Difference:
        """The result so far."""
        seen, full = self.screen, self._full
        mean_abs, mean_rel = (_mean(total, seen.finite) for total in (full.sum_abs, full.sum_rel))
        rank = len(seen.shape)
        axes = sorted({1, rank - 1}) if rank >= 2 and full.shapes == 1 and seen.unequal else ()
        return Difference(
            mismatch=seen.mismatch,
            reference_dtype=seen.reference_dtype or "none",
            target_dtype=seen.target_dtype or "none",
            shape=seen.shape,
            exact=seen.exact,
            coarse_epsilon=seen.coarse_epsilon,
            elements=seen.elements,
            unequal=seen.unequal,
            finite=seen.finite,
            nan=_frozen(seen.nan),
            posinf=_frozen(seen.posinf),
            neginf=_frozen(seen.neginf),
            max_abs=seen.max_abs,
            mean_abs=mean_abs,
            max_rel=full.max_rel,
            mean_rel=mean_rel,
            rel_l2=seen.rel_l2,
            rel_linf=seen.rel_linf,
            outsized=full.outsized,
            ordinary_l2=root_ratio(full.ordinary_dd, full.ordinary_rr) if full.outsized else None,
            angle=seen.angle,
            gain=seen.gain,
            beyond_one=full.beyond_one,
            outside=full.outside if full.tolerances else None,
            worst=seen.worst,
            sqnr=None if seen.exact else decibels(seen.rel_l2),
            saturated=Classes(*full.confusion.of(ElementClass.SATURATED)),
            subnormal=Classes(*full.confusion.of(ElementClass.SUBNORMAL)),
            confusion=full.confusion.cells(),
            abs_percentiles=_percentiles(full.absolute, seen.max_abs),
            rel_percentiles=_percentiles(full.relative, full.max_rel),
            ulp=None if seen.exact or full.ulp is None else full.ulp.result(),
            worst_elements=full.worst.elements,
            channels=full.energies.shares(axes) if full.energies is not None and axes else (),
            user_metrics=tuple(self._numbers.values()),
            hints=(*_class_hints(full, seen), *self._hints),
        )


def compare(
    reference: Value, target: Value, *, rtol: float | None = None, atol: float | None = None, compute: str = ""
) -> Difference:
    """Compare two values; see :class:`Tally` for the arguments."""
    tally = Tally(rtol=rtol, atol=atol, compute=compute)
    tally.add(reference, target)
    return tally.difference()


def _class_hints(full: FullSet, seen: Screen) -> list[Hint]:
    """Errors that sit where the target is of one class."""
    found = []
    for kind, energy, words in (
        (HintKind.SATURATED, full.saturated_dd, "the target is the largest of its type and the reference is not"),
        (HintKind.ZEROED, full.zeroed_dd, "the target is 0 and the reference is not"),
    ):
        share = energy.at(seen.dd.exponent) / seen.dd.mantissa if seen.dd.mantissa else 0.0
        if share >= EXPLAINED and seen.tt.mantissa > 0.0:
            sentence = f"{100 * min(share, 1.0):.3g} % of it is where {words}"
            found.append(Hint(kind, None, (), min(share, 1.0), sentence))
    return found


def _percentiles(histogram: LogHistogram, largest: float) -> Percentiles:
    return Percentiles(*(min(number, largest) for number in histogram.quantiles(_LEVELS)))


def _mean(total: Total, count: int) -> float:
    return Total(total.mantissa / count, 0.0, total.exponent).value if count else 0.0


def _frozen(count: ClassCount) -> Classes:
    return Classes(count.reference, count.target, count.mismatched)
