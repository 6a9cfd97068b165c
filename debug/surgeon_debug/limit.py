"""What the caller allows, instead of what noise explains: ``rel_l2<0.01``, ``cosine>0.999``, ``./mine.py:score>0.9``.

Limits are kept strictly: all of them hold or the answer is no; NaN is within no limit; a NaN, an Inf or another shape
on one side only is never within any; and a limit on a number that the values do not have lets them pass only if they
are equal, and says so.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from surgeon_debug.difference import Difference
from surgeon_debug.load_python import is_in_file
from surgeon_debug.metric_names import Metric, metric_named
from surgeon_debug.user_functions import UserMetric, load_metric
from surgeon_passes.errors import BadOptionError

_FORM = re.compile(r"^\s*(?P<name>.+?)\s*(?P<sign><=|>=|<|>)\s*(?P<value>[^<>=\s]+)\s*$", re.DOTALL)
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Limit:
    """One condition on one number."""

    text: str
    """As it was typed."""
    sign: str
    """``<``, ``<=``, ``>`` or ``>=``."""
    value: float
    """The bound."""
    metric: Metric | None = None
    """The number; None if it is a function of the user's, or about elements."""
    user: UserMetric | None = None
    """The user's function."""
    tolerance: tuple[float, float] | None = None
    """For a limit on elements: rtol and atol; the number is how many elements are outside."""

    def number(self, difference: Difference) -> float | None:
        """The number that the limit is about; None where the values have none.

        Of a user's function it is the worst over all samples, and NaN if any is.
        """
        if self.user is not None:
            measured = next((m for m in difference.user_metrics if m.name == self.user.text), None)
            if measured is None:
                return None
            return measured.highest if self.sign in ("<", "<=") else measured.lowest
        if self.tolerance is not None:
            unfit = difference.reference_dtype in ("bool", "string") or difference.outside is None
            return None if unfit else float(difference.outside or 0)
        assert self.metric is not None
        return self.metric.of(difference)

    def holds(self, number: float) -> bool:
        """Whether a number is within; NaN never is."""
        return _SIGNS[self.sign](number, self.value)


@dataclasses.dataclass(frozen=True)
class Check:
    """What became of some limits."""

    ok: bool
    """Whether all of them hold."""
    reason: str
    """Why, as a phrase: what is beyond its limit, else what was held against what."""
    broken: tuple[Limit, ...] = ()
    """The limits that do not hold, or that could not be asked."""


def parse_limit(text: str) -> Limit:
    """A limit from ``NAME<VALUE``; also ``<=``, and ``>`` or ``>=`` for numbers that are good when they are large.

    Args:
        text: The name is one of :data:`surgeon_debug.metric_names.METRICS`, or ``FILE.py:FUNCTION``.

    Raises:
        BadOptionError: The text has another form, there is no such metric, or the limit makes no sense.
    """
    found = _FORM.match(text)
    if found is None:
        raise BadOptionError(f"'{text}' is not a limit", hint="write NAME<VALUE, such as rel_l2<0.01 or cosine>0.999")
    sign, name = found["sign"], found["name"]
    try:
        value = float(found["value"])
    except ValueError:
        raise BadOptionError(f"'{found['value']}' in '{text}' is not a number", hint="write NAME<VALUE") from None
    if not math.isfinite(value):
        raise BadOptionError(f"'{text}' limits nothing", hint="give a finite number")
    if is_in_file(name):
        return Limit(text.strip(), sign, value, user=load_metric(name))
    metric = metric_named(name)
    return Limit(text.strip(), sign, _checked(metric, sign, value, text), metric=metric)


def limit_on(metric: Metric, value: float) -> Limit:
    """A limit on a metric in the direction that makes sense, the bound itself allowed.

    Raises:
        BadOptionError: The value makes no sense.
    """
    sign = ">=" if metric.high_is_good else "<="
    text = f"{metric.name}{sign}{value:g}"
    return Limit(text, sign, _checked(metric, sign, value, text), metric=metric)


def _checked(metric: Metric, sign: str, value: float, text: str) -> float:
    if metric.high_is_good != sign.startswith(">"):
        word = "large" if metric.high_is_good else "small"
        right = ">" if metric.high_is_good else "<"
        raise BadOptionError(
            f"'{text}' is the wrong way round: {metric.name} is good when it is {word}",
            hint=f"write {metric.name}{right}{value:g}",
        )
    if not math.isfinite(value) or (value < 0.0 and not metric.high_is_good):
        raise BadOptionError(f"'{text}' is never met: {metric.name} is 0 or more", hint="give a number from 0 upwards")
    return value


def limit_on_elements(rtol: float | None, atol: float | None) -> Limit:
    """The limit that every element satisfies ``|error| <= atol + rtol * |reference|``.

    Raises:
        BadOptionError: A number is negative or not finite.
    """
    for name, number in (("rtol", rtol), ("atol", atol)):
        if number is not None and not 0.0 <= number < math.inf:
            raise BadOptionError(f"{name}={number} is not a tolerance", hint="give a number from 0 upwards")
    pair = (rtol or 0.0, atol or 0.0)
    return Limit(f"rtol={pair[0]:g}, atol={pair[1]:g}", "<=", 0.0, tolerance=pair)


def tolerance_of(limits: Iterable[Limit]) -> tuple[float | None, float | None]:
    """The rtol and atol that a :class:`surgeon_debug.compare.Tally` needs for some limits; None without one."""
    found = next((limit.tolerance for limit in limits if limit.tolerance is not None), None)
    return (None, None) if found is None else found


def user_metrics_of(limits: Iterable[Limit]) -> tuple[UserMetric, ...]:
    """The user's functions that a :class:`surgeon_debug.compare.Tally` needs for some limits, each once."""
    return tuple({limit.user.text: limit.user for limit in limits if limit.user is not None}.values())


def check(difference: Difference, limits: Sequence[Limit]) -> Check:
    """Hold a measurement against limits.

    Args:
        difference: Measured with :func:`tolerance_of` and :func:`user_metrics_of` the same limits.
        limits: All of which must hold.
    """
    if difference.mismatch:
        return Check(False, difference.mismatch, tuple(limits))
    broken: list[Limit] = []
    words: list[str] = []
    missing: list[str] = []
    for limit in limits:
        number = limit.number(difference)
        if number is None:
            missing.append(_name(limit))
            broken += [limit] if difference.unequal else []
            continue
        if not limit.holds(number):
            broken.append(limit)
            words.append(_words(limit, number, difference))
    if difference.special_mismatches:
        words.insert(0, f"{_special(difference)} on one side only")
        return Check(False, ", ".join(words), tuple(broken))
    if missing:
        what = f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not apply to {difference.reference_dtype}"
        if difference.unequal:
            what += f", and {difference.unequal:,} of {difference.elements:,} elements differ"
        words.append(what)
    if broken:
        return Check(False, "; ".join(words), tuple(broken))
    held = [_words(limit, number, difference) for limit in limits if (number := limit.number(difference)) is not None]
    return Check(True, "; ".join([*(["equal"] if not difference.unequal else held), *words]))


def _name(limit: Limit) -> str:
    if limit.user is not None:
        return limit.user.text
    return limit.metric.name if limit.metric is not None else limit.text


def _words(limit: Limit, number: float, difference: Difference) -> str:
    if limit.tolerance is not None:
        if number == 0.0:
            return f"every element within {limit.text}"
        return f"{int(number):,} of {difference.elements:,} elements outside {limit.text}"
    holds = "" if limit.holds(number) else "not "
    return f"{_name(limit)} {number:.4g} is {holds}{limit.sign} {limit.value:g}"


def _special(difference: Difference) -> str:
    parts = (("NaN", difference.nan), ("+Inf", difference.posinf), ("-Inf", difference.neginf))
    return ", ".join(f"{count.mismatched:,} {name}" for name, count in parts if count.mismatched)
