"""Is a difference too large? One answer for one tensor, with its reason in words.

Without the caller's own numbers the answer comes from a table: what relative L2 error a whole network run in some
precision may show before it is worth an alarm. A table knows nothing about the layer; it is a fallback, is labelled
as such in every reason, and never excuses a NaN, an Inf, an integer or a shape.
"""

from __future__ import annotations

import dataclasses
import enum

from surgeon_debug.compare import Difference
from surgeon_debug.precision import precision_of


class Verdict(enum.Enum):
    """What a comparison of one tensor came to."""

    AGREE = "agree"
    """Equal, or within what the precision explains or the caller allows."""
    INHERITS = "inherits"
    """Off because its inputs are; what the layer adds is explained."""
    ILL_CONDITIONED = "ill-conditioned"
    """Computed as well as the precision can, and that is not well: keep in float32."""
    OVERFLOW = "overflow"
    """Values leave the range of the precision here: keep in float32."""
    SUSPECT = "suspect"
    """Adds 4 to 10 times what the precision explains."""
    WRONG = "wrong"
    """Adds more than 10 times what the precision explains, or values that no rounding makes."""
    DIFFER = "differ"
    """Beyond a tolerance, and nothing is known about who is to blame."""
    SHAPE = "shape"
    """Not comparable: another shape, kind of value, or number of items."""
    MISSING = "missing"
    """One side did not deliver it."""
    SKIPPED = "skipped"
    """Not judged; the reason says why."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A verdict with its reason."""

    verdict: Verdict
    """The verdict."""
    reason: str
    """Why, as a phrase."""
    limit: float | None = None
    """The largest relative L2 error the table allows; None where the table was not asked."""


_LIMITS = {
    "float64": 1e-10,
    "float32": 1e-4,
    "tf32": 3e-3,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    "float8_e4m3fn": 0.0563,
    "float8_e4m3fnuz": 0.0563,
    "float8_e4m3b11fnuz": 0.0563,
    "float8_e3m4": 0.0563,
    "float8_e5m2": 0.1123,
    "float8_e5m2fnuz": 0.1123,
}
"""Relative L2 by working precision, accumulated from the inputs on: 25 and 19 dB for the float8 types."""

_COARSE_LIMIT = 0.1
"""For anything narrower, and behind integers that stand for quantised numbers: 20 dB."""

_ORDINARY_FACTOR = 10.0
"""How much more is allowed among ordinary elements where outsized ones set the scale of rounding."""

_STEP_SHARE = 1e-2
"""The share of elements that may be off by one behind an operator that rounds to integers."""


def table_limit(precision: str) -> float:
    """The relative L2 error the table allows for a network that works in a precision.

    Args:
        precision: A dtype's name, or ``quantised``.
    """
    return _LIMITS.get(precision, _COARSE_LIMIT)


def coarsest(*precisions: str) -> str:
    """The precision with the largest limit; ``float32`` if there are none."""
    return max(precisions, key=table_limit, default="float32")


def judge(
    difference: Difference,
    *,
    precision: str = "float32",
    rounds_to_integers: bool = False,
) -> Judgement:
    """Decide whether a difference is too large.

    Args:
        difference: The measurement.
        precision: The coarsest precision that the values went through on either side, which sets the table's limit.
        rounds_to_integers: The values come from an operator that rounds to integers, where a last-place difference
            before may become a step of one after.
    """
    if difference.mismatch:
        return Judgement(Verdict.SHAPE, difference.mismatch)
    if difference.unequal == 0:
        return Judgement(Verdict.AGREE, "equal" + _special_note(difference))
    if special := _special_mismatch(difference):
        return Judgement(Verdict.DIFFER, special)
    of = f"{difference.unequal:,} of {difference.elements:,} elements"
    numeric = difference.reference_dtype not in ("bool", "string")
    if difference.exact:
        if rounds_to_integers and numeric and _one_step(difference):
            return Judgement(Verdict.AGREE, f"{of} off by one step, allowed behind rounding to integers")
        return Judgement(Verdict.DIFFER, f"{of} differ in an exact type")
    return _by_table(difference, precision)


def _by_table(difference: Difference, precision: str) -> Judgement:
    limit = table_limit(precision)
    loose = _ORDINARY_FACTOR * limit
    # Near zero a step of the precision is all there is: no ordinary element can be off by less than that.
    lost_near_zero = difference.max_abs <= 2.0 * precision_of(precision).smallest
    # Comparisons are written so that a NaN does not pass.
    hidden = difference.ordinary_l2 is not None and not difference.ordinary_l2 <= loose
    if difference.rel_l2 <= limit and hidden and not lost_near_zero:
        reason = (
            f"relative L2 {difference.ordinary_l2:.2g} > {loose:g} among ordinary elements, hidden by "
            f"{difference.outsized:,} outsized ones; ten times the table tolerance for {precision}"
        )
        return Judgement(Verdict.DIFFER, reason, limit)
    beyond = not difference.rel_l2 <= limit
    sign = ">" if beyond else "<="
    reason = f"relative L2 {difference.rel_l2:.2g} {sign} {limit:g}, table tolerance for {precision}"
    verdict = Verdict.DIFFER if beyond else Verdict.AGREE
    return Judgement(verdict, reason + ("" if beyond else _special_note(difference)), limit)


def _one_step(difference: Difference) -> bool:
    return difference.beyond_one == 0 and difference.unequal <= max(1, _STEP_SHARE * difference.elements)


def _special_mismatch(difference: Difference) -> str:
    """Which special values stand on one side only, as a phrase; empty if none."""
    parts = []
    for name, count in (("NaN", difference.nan), ("+Inf", difference.posinf), ("-Inf", difference.neginf)):
        if count.mismatched:
            parts.append(f"{count.mismatched:,} {name} on one side only ({count.reference:,} against {count.target:,})")
    return ", ".join(parts)


def _special_note(difference: Difference) -> str:
    """What a reader must know about values that count as equal; empty if there is nothing."""
    parts = []
    for name, count in (("NaN", difference.nan), ("+Inf", difference.posinf), ("-Inf", difference.neginf)):
        if count.reference:
            parts.append(f"{count.reference:,} {name}")
    return f" ({', '.join(parts)} on both sides)" if parts else ""
