"""Three values of one tensor at once: the reference, the target, and the target fed with the reference's inputs.

The error target - reference is the sum of what the layer introduced, isolated - reference, and of what it inherited,
target - isolated. All three are measured in one pass: each array is widened once a chunk, each energy is summed once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from surgeon_debug.leaves import Leaf
from surgeon_debug.screen import Screen
from surgeon_debug.side import Side
from surgeon_debug.values import Value, kind_of
from surgeon_debug.widen import CHUNK, as_real, chunks

_NUMBERS = ("float", "int", "bool", "complex")


@dataclasses.dataclass
class Triple:
    """Three screens of one tensor, over pairs of the three values."""

    total: Screen = dataclasses.field(default_factory=Screen)
    """Target against reference."""
    introduced: Screen = dataclasses.field(default_factory=Screen)
    """Isolated against reference."""
    inherited: Screen = dataclasses.field(default_factory=Screen)
    """Target against isolated: its reference is the isolated value."""

    def add(self, reference: Value, target: Value, isolated: Value, *, sample: int = 0) -> None:
        """Take in the three values of one sample.

        Args:
            reference: What the reference computed; as :func:`surgeon_debug.values.normalise` returns it.
            target: What the target computed on its own values.
            isolated: What the target computed for this layer on the reference's values.
            sample: Number of the sample, for :attr:`surgeon_debug.screen.Element.sample`.
        """
        values = (reference, target, isolated)
        pairs = ((self.total, 0, 1), (self.introduced, 0, 2), (self.inherited, 2, 1))
        kinds = {kind_of(value) for value in values}
        if len(kinds) > 1 or kinds.isdisjoint(_NUMBERS) or len({value.shape for value in values}) > 1:
            for screen, one, two in pairs:
                screen.add(values[one], values[two], sample=sample)
            return
        arrays = [as_real(value) for value in values]
        sides = [Side(array.dtype, min(array.size, CHUNK)) for array in arrays]
        space = np.empty(min(arrays[0].size, CHUNK))
        found: list[tuple[int, float] | None] = [None, None, None]
        with np.errstate(all="ignore"):
            for start, parts in chunks(arrays):
                wide = [side.take(part) for side, part in zip(sides, parts, strict=True)]
                for copy in (2, 1):
                    if wide[copy].same_as(wide[0]):
                        wide[copy] = wide[0]
                if wide[1] is not wide[2] and wide[1].same_as(wide[2]):
                    wide[1] = wide[2]
                for i, (screen, one, two) in enumerate(pairs):
                    found[i] = _larger(found[i], start, screen.pair(wide[one], wide[two], space))
        for spot, (screen, one, two) in zip(found, pairs, strict=True):
            screen.note_types(values[one], values[two])
            screen.note_arrays(values[one], values[two])
            if spot is not None:
                screen.note_worst(Leaf((), values[one], values[two]), spot[0], spot[1], sample)

    def merge(self, other: Triple) -> None:
        """Add what another triple of the same tensor has seen; its samples count as later."""
        self.total.merge(other.total)
        self.introduced.merge(other.introduced)
        self.inherited.merge(other.inherited)

    def to_state(self) -> dict[str, Any]:
        """What :meth:`from_state` makes the same triple of, fit for JSON and for a pipe."""
        return {field.name: getattr(self, field.name).to_state() for field in dataclasses.fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Triple:
        """The inverse of :meth:`to_state`."""
        return cls(**{name: Screen.from_state(part) for name, part in state.items()})


def _larger(kept: tuple[int, float] | None, start: int, spot: tuple[int, float] | None) -> tuple[int, float] | None:
    if spot is None or (kept is not None and spot[1] <= kept[1]):
        return kept
    return start + spot[0], spot[1]
