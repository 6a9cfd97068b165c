"""What a search has found so far: sets of elements that are to blame, and why."""

from __future__ import annotations

import dataclasses

from surgeon_debug.find.elements import Elements
from surgeon_debug.find.finding import Culprit
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.piece_source import PieceSource


@dataclasses.dataclass(frozen=True)
class Found:
    """A set of elements that fails."""

    elements: frozenset[int]
    kind: FailureKind
    reason: str
    """What was measured, as a phrase."""
    found_by: str
    """``census``, ``report``, ``cut`` or ``window``; see :class:`surgeon_debug.find.finding.Culprit`."""
    alone: bool | None
    """Whether it was seen to fail with nothing else on the suspect."""
    inside: str = ""
    badness: float = 0.0
    """How much worse than its noise floor, where that is known; the larger the worse."""
    floor: float | None = None
    confidence: float = 1.0

    def culprit(self, source: PieceSource, elements: Elements, *, latent: bool, cured: bool | None) -> Culprit:
        """The same for people and files.

        Args:
            source: The model.
            elements: Its elements.
            latent: Whether the model's outputs do not show it.
            cured: Whether the model is right when the reference computes all culprits.
        """
        positions = elements.positions(self.elements)
        inner = set(positions)
        read_inside = {name for i in positions for name in source.nodes[i].reads}
        read_outside = {name for i, node in enumerate(source.nodes) if i not in inner for name in node.reads} | set(
            source.outputs
        )
        tensors = [
            name
            for i in positions
            for name in source.nodes[i].writes
            if name in read_outside or name not in read_inside
        ]
        return Culprit(
            nodes=tuple(source.nodes[i].title for i in positions),
            ops=tuple(source.nodes[i].op for i in positions),
            tensors=tuple(tensors),
            kind=self.kind,
            reason=self.reason,
            positions=tuple(positions),
            found_by=self.found_by,
            latent=latent,
            alone=self.alone,
            cured=cured,
            inside=self.inside,
            confidence=self.confidence,
            floor=self.floor,
        )
