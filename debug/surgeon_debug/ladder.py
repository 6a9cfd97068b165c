"""The result of looking into an engine step by step; see :mod:`surgeon_debug.observe_ladder`."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from surgeon_debug.plain_values import plain
from surgeon_debug.seen_tensor import Look
from surgeon_debug.verdict import Verdict


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
    """Tensors of the group are outputs, which takes it apart."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers of an engine between tensors that were seen."""

    layers: tuple[str, ...]
    """Their names, in the engine's order; more than one if what lies between them was not shown."""
    nodes: tuple[str, ...]
    """The nodes of the model that they compute."""
    reads: tuple[str, ...]
    """Tensors of the model that go in and are right."""
    writes: tuple[str, ...]
    """Tensors of the model that come out wrong."""
    candidates: int
    """How many tensors of the model the wrong one may be; 1 if that is sure."""
    shown: tuple[str, ...] = ()
    """The wrong tensors as the engine calls them."""
    inside: tuple[str, ...] = ()
    """The tensor in a body that goes wrong first: its path and the iteration, if it was seen."""
    inherited: float = 0.0
    """The largest relative L2 error of what goes in."""


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
    kernels: tuple[str, ...] = ()
    """Layers that compute the same nodes as in the whole engine, with another kernel."""

    @property
    def seen(self) -> int:
        """How many tensors were seen, however often."""
        return len({look.name for look in self.looks})


@dataclasses.dataclass(frozen=True)
class Row:
    """A tensor that fusion has left, over all runs and iterations."""

    name: str
    """Its name in the engine."""
    tensors: tuple[str, ...]
    """The tensors of the model that it may be: one if that is sure, none if it is none or the reference has none."""
    layer: str
    """The engine's layer that makes it; empty if that is not said."""
    nodes: tuple[str, ...]
    """The nodes of the model that this layer computes; of one that the engine put in, those beside it."""
    beside: str
    """``after`` or ``before`` if the engine put the layer in after or before these nodes, else empty."""
    error: float | None
    """Its largest relative L2 error, of exact types the share of elements; None if it was not compared. Of several
    tensors that it may be the one that fits best counts."""
    max_abs: float
    """Its largest absolute error."""
    verdict: Verdict
    """AGREE; WRONG where an error starts; INHERITS behind it; ILL_CONDITIONED where the inputs' rounding explains it;
    DIFFER if it cannot be told where it comes from; SKIPPED if it was not compared."""
    reason: str
    """Why, as a phrase."""
    iteration: int | None = None
    """Of a tensor in the body of a loop, the first iteration in which it is wrong; None if it is not."""

    @property
    def sure(self) -> bool:
        """Whether it is known which tensor of the model it is, and which nodes its layer computes."""
        return len(self.tensors) == 1 and not self.beside

    @property
    def title(self) -> str:
        """The model's name for it, or the engine's own where that is not sure."""
        return self.tensors[0] if len(self.tensors) == 1 else self.name


class LadderVerdict(enum.Enum):
    """What came out."""

    RIGHT = "right"
    """The outputs are right, and so is what was seen inside."""
    HIDDEN = "hidden"
    """A group of nodes makes wrong values, and the outputs do not show it."""
    LOCATED = "located"
    """A group of nodes is given right values and makes wrong ones, and looking did not change that."""
    FUSION = "fusion dependent"
    """Looking heals it."""
    PRECISION = "precision"
    """The outputs are off, and the rounding of what goes into a group explains it."""
    UNKNOWN = "unknown"
    """The failure is there, and no group could be named."""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """What :func:`surgeon_debug.observe_ladder.climb` found inside."""

    verdict: LadderVerdict
    """What came out."""
    words: str
    """The same as a sentence."""
    nodes: tuple[str, ...] = ()
    """The nodes of the group; empty if none could be named."""
    group: Group | None = None
    """The first group that goes wrong, as it was seen with fusion untouched: where it begins and ends."""
    others: tuple[Group, ...] = ()
    """Groups that go wrong independently of it."""
    alone: bool | None = None
    """Whether the group is wrong when it runs alone; None if that was not tried or could not be."""
    rows: tuple[Row, ...] = ()
    """The tensors that fusion has left, in the engine's order, and the outputs that were not among them."""
    rungs: tuple[Rung, ...] = ()
    """The steps that were made, in order."""

    @property
    def ambiguous(self) -> int:
        """How many tensors of the engine may be one of several of the model."""
        return sum(len(row.tensors) > 1 for row in self.rows)

    def rung(self, step: Step) -> Rung | None:
        """A step; None if it was not made."""
        return next((rung for rung in self.rungs if rung.step is step), None)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "schema": "surgeon.ladder/2",
            "verdict": self.verdict.value,
            "words": self.words,
            "nodes": list(self.nodes),
            "group": None if self.group is None else dataclasses.asdict(self.group),
            "others": [dataclasses.asdict(group) for group in self.others],
            "alone": self.alone,
            "ambiguous": self.ambiguous,
            "tensors": [
                {**plain(dataclasses.asdict(row)), "verdict": row.verdict.value, "sure": row.sure} for row in self.rows
            ],
            "steps": [
                {
                    "step": rung.step.value,
                    "fails": rung.fails,
                    "words": rung.words,
                    "looks": [plain(dataclasses.asdict(look)) for look in rung.looks],
                    "split": [list(nodes) for nodes in rung.split],
                    "kernels": list(rung.kernels),
                }
                for rung in self.rungs
            ],
        }
