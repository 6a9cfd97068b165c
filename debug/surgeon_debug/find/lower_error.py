"""Changes that make an engine less wrong, though not right: what is left may be its precision's, the rest a fault's."""

from __future__ import annotations

import math
from collections.abc import Iterable

_FAR = 3.0
"""How many times lower an error must be to count: precision and order of sums move it by less."""

_PRECISION = 0.03
"""The largest relative L2 error that may be left: more than that no precision makes, and the fault is still there."""


def fallen(before: float | None, after: Iterable[float | None]) -> float | None:
    """The lowest of some errors, if it is far below another, and what a precision may make of outputs.

    Args:
        before: The relative L2 error of the engine that fails; None if it fails otherwise.
        after: Those of engines built otherwise, which fail as well.
    """
    lowest = min((error for error in after if error is not None), default=None)
    if before is None or lowest is None or not math.isfinite(before):
        return None
    return lowest if lowest <= min(_PRECISION, before / _FAR) else None


def is_far_below(error: float | None, before: float | None) -> bool:
    """Whether an engine is less wrong by much; see :func:`fallen`."""
    return fallen(before, [error]) is not None


def limit_between(before: float, after: float) -> str:
    """A limit that tells the two apart, as ``--metric`` takes it: their geometric mean."""
    return f"rel_l2<{math.sqrt(before * after):.2g}" if after > 0 else f"rel_l2<{before / _FAR:.2g}"
