"""One answer for one layer: right, handed a wrong input, beyond its precision, or wrong.

The answer follows from what was measured about that layer alone. A table of tolerances is asked only about the *total*
error, to tell a layer whose inputs are already off from one where nothing is worth a word.
"""

from __future__ import annotations

import dataclasses
import math

from surgeon_debug.attribution import Attribution
from surgeon_debug.precision import precision_of
from surgeon_debug.screen import Screen
from surgeon_debug.verdict import Judgement, Verdict, table_limit

SUSPECT = 4.0
"""Introduced error over noise floor from which a layer is suspect."""

WRONG = 10.0
"""The same from which it is wrong."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the answer depends on."""

    total: Screen
    """The reference against the target, each on its own inputs."""
    introduced: Screen | None
    """The reference against the target on the reference's inputs."""
    attribution: Attribution
    """The numbers."""
    flips: float
    """For values without rounding: the share of elements that change when the inputs move by the precision."""
    overflowed: bool
    """Every element that is not finite where the reference is lies beyond the largest number of the precision."""
    lost_inputs: tuple[str, ...]
    """Inputs that hold numbers beyond the largest of their type in the target."""
    accumulated: str
    """The coarsest precision on the way from the model's inputs, for the table."""
    rounds_to_integers: bool
    """Whether the operator rounds to integers."""


def judge_layer(facts: Facts) -> Judgement:
    """Decide about one layer."""
    own = _own_error(facts)
    return own if own is not None else _without_own_error(facts)


def _own_error(facts: Facts) -> Judgement | None:
    """The verdict if the layer itself is to blame for something; None if it is not."""
    seen = facts.introduced
    if seen is None or (seen.unequal == 0 and not seen.mismatch):
        return None
    if seen.mismatch:
        return Judgement(Verdict.SHAPE, f"{seen.mismatch}, on the reference's inputs")
    if seen.special_mismatches:
        return _special(facts, seen)
    if seen.exact:
        return _exact(facts, seen)
    return _rounded(facts)


def _special(facts: Facts, seen: Screen) -> Judgement:
    words = special_words(seen)
    precision = facts.attribution.precision
    if facts.lost_inputs:
        names = ", ".join(facts.lost_inputs[:2])
        return Judgement(Verdict.INHERITS, f"{words}: its input {names} is beyond the range of {precision}")
    if facts.overflowed:
        limit = precision_of(precision).largest
        reason = f"{words}: values leave the range of {precision} (largest {limit:g}); keep in float32"
        return Judgement(Verdict.OVERFLOW, reason)
    return Judgement(Verdict.WRONG, f"{words} on the reference's inputs")


def special_words(seen: Screen) -> str:
    """Which special values stand on one side only, as a phrase."""
    parts = []
    for name, count in (("NaN", seen.nan), ("+Inf", seen.posinf), ("-Inf", seen.neginf)):
        if count.mismatched:
            parts.append(f"{count.mismatched:,} {name} on one side only ({count.reference:,} against {count.target:,})")
    return ", ".join(parts)


def _exact(facts: Facts, seen: Screen) -> Judgement | None:
    share = seen.unequal / max(1, seen.elements)
    of = f"{seen.unequal:,} of {seen.elements:,} elements"
    if facts.rounds_to_integers and seen.max_abs <= 1.0 and share <= 1e-2:
        return None
    if facts.flips and share <= WRONG * facts.flips:
        return None
    return Judgement(Verdict.WRONG, f"{of} differ in an exact type, on the reference's inputs")


def _rounded(facts: Facts) -> Judgement | None:
    numbers = facts.attribution
    introduced, floor, ratio = numbers.introduced or 0.0, numbers.floor, numbers.ratio
    name = numbers.precision
    if floor is None or ratio is None:
        # Not worth a closer look, or none was possible.
        return None if not numbers.unjudged else _fallback(facts)
    times = f"{_times(ratio)} what {name} explains"
    where = ""
    if numbers.stripe is not None:
        where = f" at index {numbers.stripe.index} of axis {numbers.stripe.axis}"
    measured = f"introduces {introduced:.2g}{where}, {name} explains {floor:.2g}"
    if ratio > WRONG:
        return Judgement(Verdict.WRONG, f"wrong: {times}; {measured}", floor)
    if numbers.bound is not None and numbers.bound > 1.0:
        beyond = f"an element is off by {_times(numbers.bound)} the bound on its rounding"
        return Judgement(Verdict.WRONG, f"wrong: {beyond}; {measured}", floor)
    if ratio > SUSPECT:
        return Judgement(Verdict.SUSPECT, f"suspect: {times}; {measured}", floor)
    if introduced > table_limit(name):
        reason = f"ill-conditioned here: keep in float32; {measured}"
        if numbers.conditioning is not None and math.isfinite(numbers.conditioning):
            reason += f", the output moves {numbers.conditioning:.3g} times as much as the inputs"
        return Judgement(Verdict.ILL_CONDITIONED, reason, floor)
    return None


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if 10.0 <= ratio < 1e6 else f"{ratio:.2g} times"


def _fallback(facts: Facts) -> Judgement | None:
    introduced = facts.attribution.introduced or 0.0
    limit = table_limit(facts.attribution.precision)
    if introduced <= limit:
        return None
    reason = f"introduces {introduced:.2g} > {limit:g}, table tolerance: {facts.attribution.unjudged}"
    return Judgement(Verdict.SUSPECT, reason, limit)


def _without_own_error(facts: Facts) -> Judgement:
    """The verdict of a layer that is right, or could not be isolated: by the total error."""
    seen, numbers = facts.total, facts.attribution
    if facts.introduced is None:
        return _by_total(facts)
    if seen.mismatch:
        return Judgement(Verdict.INHERITS, f"{seen.mismatch}, but not on the reference's inputs")
    if seen.unequal == 0:
        return Judgement(Verdict.AGREE, "equal")
    if numbers.floor is not None:
        own = f"introduces {numbers.introduced or 0.0:.2g}, explained by {numbers.precision} ({numbers.floor:.2g})"
    elif numbers.introduced:
        own = f"introduces {numbers.introduced:.2g}, rounding of {numbers.precision}"
    else:
        own = "introduces nothing"
    if seen.special_mismatches:
        return Judgement(Verdict.INHERITS, f"{special_words(seen)}; {own}")
    if seen.exact:
        share = f"{seen.unequal:,} of {seen.elements:,} elements"
        if facts.introduced.unequal == seen.unequal:
            return Judgement(Verdict.AGREE, f"{share} off by what {numbers.precision} explains")
        return Judgement(Verdict.INHERITS, f"{share} differ; {own}")
    limit = table_limit(facts.accumulated)
    # Written so that a NaN is not within the limit.
    if not seen.rel_l2 <= limit:
        return Judgement(Verdict.INHERITS, f"inherits {numbers.inherited or 0.0:.2g}; {own}", limit)
    return Judgement(Verdict.AGREE, own, limit)


def _by_total(facts: Facts) -> Judgement:
    seen = facts.total
    reason = f" (not isolated: {facts.attribution.unjudged})" if facts.attribution.unjudged else ""
    if seen.mismatch:
        return Judgement(Verdict.SHAPE, seen.mismatch + reason)
    if seen.unequal == 0:
        return Judgement(Verdict.AGREE, "equal")
    if seen.special_mismatches:
        return Judgement(Verdict.DIFFER, special_words(seen) + reason)
    if seen.exact:
        share = seen.unequal / max(1, seen.elements)
        if facts.rounds_to_integers and seen.max_abs <= 1.0 and share <= 1e-2:
            return Judgement(Verdict.AGREE, "off by one step, allowed behind rounding to integers")
        return Judgement(Verdict.DIFFER, f"{seen.unequal:,} of {seen.elements:,} elements differ{reason}")
    limit = table_limit(facts.accumulated)
    error = seen.rel_l2
    sign, verdict = ("<=", Verdict.AGREE) if error <= limit else (">", Verdict.DIFFER)
    words = f"relative L2 {error:.2g} {sign} {limit:g}, table tolerance for {facts.accumulated}"
    return Judgement(verdict, words + reason, limit)
