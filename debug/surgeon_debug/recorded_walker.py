"""The reference's side of a comparison where the reference is a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surgeon_debug.differential import Values, Walker
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.recorded import Recorded
from surgeon_debug.runners.contract import Engine
from surgeon_debug.segments import Part
from surgeon_debug.values import Value


class RecordedWalker(Walker):
    """Takes the values of segments from a recording; what was not recorded is missing, and layers then reach further.

    Args:
        recorded: The values.
        emulator: The engine that runs layers for their noise floor.
        source: The model.
        feeds: The inputs of the model, one mapping a sample.
    """

    def __init__(
        self, recorded: Recorded, emulator: Engine, source: PieceSource, feeds: Sequence[Mapping[str, Value]]
    ) -> None:
        super().__init__(emulator, source, feeds)
        self.label = recorded.label
        self._recorded = recorded

    def chain(self, part: Part) -> list[Values]:
        """What was recorded of a segment; one mapping a sample."""
        return [self._recorded.values(sample, part.shows) for sample in range(len(self.held))]
