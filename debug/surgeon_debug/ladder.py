"""The result of looking into an engine step by step; see :mod:`surgeon_debug.observe_ladder`."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from surgeon_debug.comparison import plain
from surgeon_debug.runners.tensorrt.watch import Look
from surgeon_debug.suspect_group import Group


class Step(enum.Enum):
    """How far down the ladder; each disturbs more than the one before."""

    WHOLE = "nothing shown"
    """The engine as it is."""
    UNFUSED = "unfused tensors"
    """What fusion has left is shown; fusion is not touched."""
    MARKED = "marked tensors"
    """A few tensors are kept out of fusion."""
    PIECE = "piece alone"
    """The group runs alone on the reference's values."""
    OUTPUTS = "made outputs"
    """All tensors of the group are outputs, which takes it apart."""


@dataclasses.dataclass(frozen=True)
class Rung:
    """What one step showed."""

    step: Step
    """The step."""
    fails: bool | None
    """Whether the outputs are wrong; None if the step could not be made."""
    words: str
    """How, or why it could not be made."""
    looks: tuple[Look, ...] = ()
    """Tensors that were seen, in the engine's order."""
    split: tuple[tuple[str, ...], ...] = ()
    """Groups of nodes that one layer of the whole engine computes, and none of this step's does."""


class LadderVerdict(enum.Enum):
    """What came out."""

    RIGHT = "right"
    """The outputs are right: nothing to look for."""
    LOCATED = "located"
    """A group of nodes is given right values and makes wrong ones, and looking did not change that."""
    FUSION = "fusion dependent"
    """Looking heals it."""
    UNKNOWN = "unknown"
    """The failure is there, and no group could be named."""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The result of :func:`surgeon_debug.observe_ladder.climb`."""

    model: str
    """The model."""
    target: str
    """The runner."""
    verdict: LadderVerdict
    """What came out."""
    words: str
    """The same as a sentence."""
    nodes: tuple[str, ...]
    """The nodes of the group; empty if none could be named."""
    group: Group | None
    """The group as it was seen at first: where it begins and ends."""
    alone: bool | None
    """Whether the group is wrong when it runs alone; None if that was not tried or could not be."""
    rungs: tuple[Rung, ...]
    """The steps that were made, in order."""

    @property
    def ambiguous(self) -> bool:
        """Whether a tensor that tells the group may be one of several of the model."""
        return any(look.choices > 1 for rung in self.rungs for look in rung.looks)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "schema": "surgeon.ladder/1",
            "model": self.model,
            "target": self.target,
            "verdict": self.verdict.value,
            "words": self.words,
            "nodes": list(self.nodes),
            "group": None if self.group is None else dataclasses.asdict(self.group),
            "alone": self.alone,
            "ambiguous": self.ambiguous,
            "steps": [
                {
                    "step": rung.step.value,
                    "fails": rung.fails,
                    "words": rung.words,
                    "looks": [plain(dataclasses.asdict(look)) for look in rung.looks],
                    "split": [list(nodes) for nodes in rung.split],
                }
                for rung in self.rungs
            ],
        }
