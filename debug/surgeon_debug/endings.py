"""How the work of an engine can end other than well, by name."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from surgeon_passes.errors import EngineError


class Ending(enum.Enum):
    """What became of an engine that did not deliver."""

    REFUSED = "refused"
    """It said so itself: it raised an error and is still there."""
    CRASHED = "crashed"
    """Its process was ended by a signal, or can no longer be understood."""
    EXITED = "exited"
    """Its process left by itself in the middle of the work."""
    HUNG = "hung"
    """It took longer than it was given; its process was killed."""
    OUT_OF_MEMORY = "out of memory"
    """It hit its cap, found no memory, or was killed because the machine had none left."""


class EngineFailure(EngineError):  # noqa: N818  (it is the engine's failure, told as an error)
    """An engine did not do what it was asked; the message says which, with what and in whose words.

    Args:
        what: As for every error of the family.
        ending: How it ended.
        where: As for every error of the family.
        hint: As for every error of the family.
        nodes: Nodes of the model's main graph that the engine itself names as the ones it refuses, all of them.
    """

    def __init__(
        self,
        what: str,
        *,
        ending: Ending = Ending.REFUSED,
        where: str = "",
        hint: str = "",
        nodes: Sequence[str] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.ending = ending
        self.nodes = tuple(nodes)
