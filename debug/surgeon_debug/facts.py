"""What a value is and how far its numbers reach, over all samples of a run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from surgeon_debug.values import Value, dtype_name, kind_of


@dataclasses.dataclass(frozen=True)
class Facts:
    """Type, shape, range and classes of a tensor."""

    dtype: str
    """The element type, or the kind of value."""
    shape: tuple[int, ...]
    """The dimensions; of a sequence the number of items. Those of the first sample."""
    varies: bool = False
    """Whether samples differ in shape or type."""
    finite: int = 0
    """Numbers that are finite."""
    nan: int | None = None
    """Numbers that are NaN; None for what is not numbers."""
    inf: int | None = None
    """Numbers that are infinite."""
    low: float = math.inf
    """The smallest finite number; of complex numbers, the smallest magnitude."""
    high: float = -math.inf
    """The largest."""
    mean: float = 0.0
    """Their mean."""

    def joined(self, other: Facts) -> Facts:
        """Both samples as one."""
        finite = self.finite + other.finite
        return Facts(
            self.dtype,
            self.shape,
            self.varies or other.varies or (self.dtype, self.shape) != (other.dtype, other.shape),
            finite,
            _sum(self.nan, other.nan),
            _sum(self.inf, other.inf),
            min(self.low, other.low),
            max(self.high, other.high),
            (self.mean * (self.finite / finite) + other.mean * (other.finite / finite)) if finite else 0.0,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def facts_of(value: Value) -> Facts:
    """The facts of one value."""
    if not isinstance(value, np.ndarray):
        return Facts(dtype_name(value), (len(value),) if isinstance(value, (list, dict)) else ())
    kind = kind_of(value)
    if kind not in ("float", "int", "bool", "complex"):
        return Facts(dtype_name(value), value.shape)
    numbers = np.abs(value) if kind == "complex" else value
    if numbers.dtype.kind not in "biuf" or numbers.dtype.itemsize < 4:
        numbers = numbers.astype(np.float64)
    kept = numbers[np.isfinite(numbers)]
    nan = int(np.isnan(numbers).sum())
    facts = Facts(dtype_name(value), value.shape, False, kept.size, nan, numbers.size - kept.size - nan)
    if not kept.size:
        return facts
    low, high = float(kept.min()), float(kept.max())
    with np.errstate(over="ignore"):
        mean = float(kept.mean(dtype=np.float64))
    # The sum of very large float64 may overflow where their mean does not.
    return dataclasses.replace(facts, low=low, high=high, mean=mean if math.isfinite(mean) else low / 2 + high / 2)
