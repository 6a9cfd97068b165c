"""Of several results of one computation, keep those that are farthest from what is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from surgeon_debug.screen import Screen
from surgeon_debug.values import Value, digest


def keep_worst(
    right: Sequence[Mapping[str, Value]], kept: Sequence[dict[str, Value]], again: Sequence[Mapping[str, Value]]
) -> None:
    """Replace values by those of another run that are worse.

    Args:
        right: What is right, by name, one mapping a sample.
        kept: The worst so far, changed in place.
        again: What another run gave.
    """
    for truth, worst, values in zip(right, kept, again, strict=True):
        for name, value in values.items():
            if name not in truth or name not in worst or _same(worst[name], value):
                continue
            if _distance(truth[name], value) > _distance(truth[name], worst[name]):
                worst[name] = value


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype == other.dtype:
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return digest(one) == digest(other)


def _distance(right: Value, value: Value) -> tuple[bool, int, float]:
    """How far a value is off: not comparable, then special values, then relative L2."""
    seen = Screen()
    seen.add(right, value)
    if seen.mismatch:
        return True, 0, 0.0
    error = seen.unequal / max(1, seen.elements) if seen.exact else seen.rel_l2
    return False, seen.special_mismatches, math.inf if math.isnan(error) else error
