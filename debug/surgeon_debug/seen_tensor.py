"""One tensor that an engine showed, held against the reference's: a few numbers, so that the tensor can be let go."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from surgeon_debug.screen import Screen
from surgeon_debug.values import Value
from surgeon_passes.errors import EngineError


@dataclasses.dataclass(frozen=True)
class Look:
    """One tensor of the engine, held against one of the model."""

    name: str
    """Its name in the engine."""
    occurrence: int
    """How often this run had shown it before."""
    tensor: str
    """The tensor of the model; empty if it is none, or the reference has none."""
    how: str
    """How that one was found: ``name``, ``group``, ``body`` (inside a node with a body) or ``unknown``."""
    choices: int
    """How many tensors of the model it may be; each of them has a look of its own."""
    rel_l2: float
    """Relative L2 error over the elements that are finite on both sides, of exact types the share of elements that
    differ; 0 without a tensor of the model."""
    max_abs: float
    """Largest absolute error."""
    special: int
    """NaN and Inf on one side only; without a tensor of the model, those that there are."""
    mismatch: str
    """Why the two cannot be compared; empty if they can."""
    dtype: str
    """Its type."""
    nbytes: int
    """Bytes of it in memory."""
    run: int = 0
    """The run that showed it, from 0; samples are run one after the other."""

    @property
    def compared(self) -> bool:
        """Whether it was held against a tensor of the model."""
        return bool(self.tensor) and not self.mismatch

    @property
    def words(self) -> str:
        """How far it is off, as the end of a sentence."""
        if self.mismatch:
            return f"cannot be compared: {self.mismatch}"
        if self.special:
            return f"has {self.special:,} NaN or Inf that the reference has not, or the other way round"
        return f"is off by {self.rel_l2:.2g} (relative L2)"


def look_at(name: str, value: Value, reference: Value, mismatch: str = "") -> Look:
    """A tensor of the model held against the reference's.

    Args:
        name: Its name in the model.
        value: As an engine has it.
        reference: As the reference has it.
        mismatch: Why the two cannot be compared, if that is known already.
    """
    screen = Screen(mismatch=mismatch)
    if not mismatch:
        screen.add(reference, value)
    special = screen.nan.mismatched + screen.posinf.mismatched + screen.neginf.mismatched
    rel_l2 = screen.rel_l2 if not screen.exact else screen.unequal / max(1, screen.elements)
    numbers = (float(rel_l2), float(screen.max_abs), special, screen.mismatch)
    array = np.asarray(value)
    return Look(name, 0, name, "name", 1, *numbers, array.dtype.name, array.nbytes)


def unmatched_look(name: str, value: np.ndarray[Any, Any], mismatch: str = "") -> Look:
    """A tensor that there is nothing to hold against; NaN and Inf are looked for in it.

    Args:
        name: Its name in the engine.
        value: The tensor.
        mismatch: Why its elements cannot be told apart, if so.
    """
    special = 0 if mismatch else _special(value)
    return Look(name, 0, "", "unknown", 0, 0.0, 0.0, special, mismatch, value.dtype.name, value.nbytes)


def _special(value: np.ndarray[Any, Any]) -> int:
    if value.dtype.kind in "biuO" or "int" in value.dtype.name:
        return 0
    with np.errstate(invalid="ignore"):
        return int(np.count_nonzero(~np.isfinite(value.astype(np.float32))))


def to_text(looks: Iterable[Look]) -> str:
    """Looks as one text, for :func:`from_text`."""
    fields = [field.name for field in dataclasses.fields(Look)]
    return json.dumps([[getattr(look, field) for field in fields] for look in looks])


def from_text(text: str) -> list[Look]:
    """The inverse of :func:`to_text`.

    Raises:
        EngineError: It is none of ours.
    """
    try:
        return [Look(*held) for held in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise EngineError(f"what the engine showed cannot be read: {error}") from error
