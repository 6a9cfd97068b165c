"""A user's own metric, and a user's own way to look at outputs before they are compared, both from a Python file.

A metric is ``function(reference, target) -> number``: it gets two arrays of the same shape (of sequences and maps:
lists and dicts) and tells how bad, or how good, the target is. A postprocess is ``function(outputs) -> outputs``: it
gets the outputs of one side by name and gives back what shall be compared instead, say the best five classes.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from surgeon_debug.load_python import load_from_file
from surgeon_debug.runners.contract import words_of
from surgeon_debug.values import Value, kind_of, normalise
from surgeon_passes.errors import BadOptionError


@dataclasses.dataclass(frozen=True)
class UserMetric:
    """A function that measures a pair of values."""

    text: str
    """Where it is from: ``FILE.py:FUNCTION``."""
    function: Callable[[Any, Any], Any]
    """The function."""

    def __call__(self, reference: Value, target: Value) -> float:
        """The number for one sample.

        Raises:
            BadOptionError: The function fails, or what it returns is not one number.
        """
        try:
            found = self.function(reference, target)
        except Exception as error:
            raise BadOptionError(f"metric {self.text} fails: {words_of(error)}") from error
        if isinstance(found, np.ndarray) and found.size == 1:
            found = found.reshape(-1)[0]
        # Scalars of the types numpy lacks are no numbers to Python.
        real = isinstance(found, (numbers.Real, np.bool_)) or (
            np.isscalar(found) and kind_of(found) in ("float", "int")
        )
        if not real:
            what = "an array" if isinstance(found, np.ndarray) else type(found).__name__
            raise BadOptionError(f"metric {self.text} returns {what}, not one number", hint="return a float")
        return float(found)


@dataclasses.dataclass(frozen=True)
class Postprocess:
    """A function that makes what is compared out of a model's outputs."""

    text: str
    """Where it is from: ``FILE.py:FUNCTION``."""
    function: Callable[[dict[str, Any]], Any]
    """The function."""

    def __call__(self, outputs: Mapping[str, Value]) -> dict[str, Value]:
        """What is compared instead of the outputs of one side; the outputs themselves are not to be changed.

        Raises:
            BadOptionError: The function fails, or what it returns is not a dict of arrays by name.
        """
        try:
            found = self.function(dict(outputs))
        except Exception as error:
            raise BadOptionError(f"postprocess {self.text} fails: {words_of(error)}") from error
        if not isinstance(found, Mapping) or not found or not all(isinstance(name, str) for name in found):
            what = "an empty dict" if found == {} else type(found).__name__
            raise BadOptionError(
                f"postprocess {self.text} returns {what}, not values by name", hint="return a dict of arrays"
            )
        values = {name: normalise(value) for name, value in found.items()}
        for name, value in values.items():
            if kind_of(value) == "raw":
                raise BadOptionError(f"postprocess {self.text} returns no array as '{name}'", hint="return arrays")
        return values


def load_metric(text: str) -> UserMetric:
    """A metric from ``FILE.py:FUNCTION``.

    Raises:
        BadOptionError: There is no such file or function, or it cannot be imported.
    """
    return UserMetric(text.strip(), load_from_file(text, "function"))


def load_postprocess(text: str) -> Postprocess:
    """A postprocess from ``FILE.py:FUNCTION``.

    Raises:
        BadOptionError: There is no such file or function, or it cannot be imported.
    """
    return Postprocess(text.strip(), load_from_file(text, "function"))
