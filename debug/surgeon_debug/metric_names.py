"""The metrics that a limit can be set on: their names, what they are called elsewhere, and which way is good."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping

from surgeon_debug.difference import Difference
from surgeon_passes.errors import BadOptionError


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a :class:`surgeon_debug.difference.Difference`."""

    name: str
    """Where it stands: a field, or fields with dots between."""
    high_is_good: bool = False
    """Whether a large number means a good match."""
    signed: bool = False
    """Whether its magnitude counts."""
    rounded: bool = False
    """Whether it is about numbers that are rounded, so that integers have none."""

    def of(self, difference: Difference) -> float | None:
        """The number; None where it does not exist for the values compared."""
        if difference.reference_dtype in ("bool", "string") and self.name not in _COUNTS:
            return None
        if self.rounded and difference.exact:
            return None
        if self.name == "ordinary_l2" and difference.ordinary_l2 is None:
            return difference.rel_l2  # without outsized elements all are ordinary
        found: object = difference
        for part in self.name.split("."):
            found = getattr(found, part, None)
        if not isinstance(found, (int, float)):
            return None
        return abs(float(found)) if self.signed else float(found)


_COUNTS = ("unequal", "special_mismatches", "nan.mismatched", "posinf.mismatched", "neginf.mismatched")

_METRICS = (
    *(Metric(name) for name in _COUNTS),
    Metric("saturated.mismatched"),
    Metric("subnormal.mismatched"),
    Metric("beyond_one"),
    Metric("max_abs"),
    Metric("mean_abs"),
    Metric("max_rel"),
    Metric("mean_rel"),
    Metric("rel_l2"),
    Metric("rel_linf"),
    Metric("ordinary_l2", rounded=True),
    Metric("angle"),
    Metric("cosine", high_is_good=True),
    Metric("gain", signed=True),
    Metric("sqnr", high_is_good=True, rounded=True),
    *(
        Metric(f"{kind}_percentiles.{level}")
        for kind in ("abs", "rel")
        for level in ("p50", "p90", "p99", "p99_9", "p99_99")
    ),
    *(Metric(f"ulp.{name}", rounded=True) for name in ("max", "p50", "p99", "beyond_1", "beyond_4", "beyond_16")),
)

_ALIASES = {
    "abs": "max_abs", "max": "max_abs", "maxabs": "max_abs", "max_abs_error": "max_abs", "linf": "rel_linf",
    "mean": "mean_abs", "mae": "mean_abs", "mean_abs_error": "mean_abs", "mean_absolute_error": "mean_abs",
    "rel": "max_rel", "max_rel_error": "max_rel", "mean_rel_error": "mean_rel", "mre": "mean_rel",
    "l2": "rel_l2", "relative_l2": "rel_l2", "l2_rel": "rel_l2", "relinf": "rel_linf", "rel_inf": "rel_linf",
    "cos": "cosine", "cosine_similarity": "cosine", "snr": "sqnr", "sqnr_db": "sqnr", "snr_db": "sqnr",
    "gain_error": "gain", "one_minus_cosine": "angle", "1_cos": "angle", "cosine_distance": "angle",
    "ulp": "ulp.max", "max_ulp": "ulp.max", "ulps": "ulp.max", "mismatches": "unequal", "nan": "nan.mismatched",
    "nonfinite": "special_mismatches", "median_abs": "abs_percentiles.p50", "median_rel": "rel_percentiles.p50",
    **{f"{level}_{kind}": f"{kind}_percentiles.{level}" for kind in ("abs", "rel")
       for level in ("p50", "p90", "p99", "p99_9", "p99_99")},
    **{f"{kind}_{level}": f"{kind}_percentiles.{level}" for kind in ("abs", "rel")
       for level in ("p50", "p90", "p99", "p99_9", "p99_99")},
}  # fmt: skip

METRICS: Mapping[str, Metric] = types.MappingProxyType({metric.name: metric for metric in _METRICS})
"""Every metric that a limit can be set on, by name."""


def metric_named(text: str) -> Metric:
    """A metric by its name or by one of the names it has elsewhere; ``-`` and ``_`` are the same.

    Raises:
        BadOptionError: There is none.
    """
    name = text.strip().lower().replace("-", "_").replace(" ", "_")
    name = _ALIASES.get(name, name)
    if name in METRICS:
        return METRICS[name]
    close = difflib.get_close_matches(name, [*METRICS, *_ALIASES], 1)
    if close:
        hint = f"did you mean '{close[0]}'?"
    else:
        hint = f"it is one of {', '.join(list(METRICS)[:24])}, or FILE.py:FUNCTION"
    raise BadOptionError(f"there is no metric '{text.strip()}'", hint=hint)
