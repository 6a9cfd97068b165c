"""What a precision rounds away: the numbers behind every noise floor."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Precision:
    """A way to compute with floating-point numbers."""

    name: str
    """The dtype's name, or ``tf32``."""
    unit: float
    """Unit roundoff of values that are read and written: half the gap after 1."""
    sums: float
    """Unit roundoff of the accumulator of a sum, unless the engine says otherwise."""
    largest: float
    """The largest finite number; infinite where it is that of float32 or beyond."""
    smallest: float
    """Half the smallest step: what is lost of a number near zero."""

    @property
    def low(self) -> bool:
        """Whether it is coarser than float32."""
        return self.unit > 2.0**-24


_KNOWN = {
    "float64": Precision("float64", 2.0**-53, 2.0**-53, math.inf, 0.0),
    "float32": Precision("float32", 2.0**-24, 2.0**-24, math.inf, 2.0**-150),
    "tf32": Precision("tf32", 2.0**-11, 2.0**-24, math.inf, 2.0**-150),
    "float16": Precision("float16", 2.0**-11, 2.0**-24, 65504.0, 2.0**-25),
    "bfloat16": Precision("bfloat16", 2.0**-8, 2.0**-24, math.inf, 2.0**-134),
    "float8_e4m3fn": Precision("float8_e4m3fn", 2.0**-4, 2.0**-24, 448.0, 2.0**-10),
    "float8_e5m2": Precision("float8_e5m2", 2.0**-3, 2.0**-24, 57344.0, 2.0**-17),
}


def precision_of(name: str) -> Precision:
    """The numbers of a precision; those of float32 for a type that is not floating-point.

    ``tf32`` are float32 numbers whose products are taken with ten bits of fraction, as NVIDIA's tensor cores do.
    """
    close = {"float8_e4m3fnuz": "float8_e4m3fn", "float8_e4m3b11fnuz": "float8_e4m3fn", "float8_e3m4": "float8_e4m3fn"}
    close["float8_e5m2fnuz"] = "float8_e5m2"
    return _KNOWN.get(close.get(name, name), _KNOWN["float32"])


def coarser(one: str, other: str) -> str:
    """The coarser of two precisions, by unit roundoff; the first of equals."""
    return other if precision_of(other).unit > precision_of(one).unit else one
