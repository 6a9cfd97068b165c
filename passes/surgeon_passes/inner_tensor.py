"""A tensor of a body or of a local function that was made visible in the main graph, and how to speak of it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class StepKind(enum.Enum):
    """What stands between a tensor and the main graph."""

    LOOP = "Loop"
    SCAN = "Scan"
    IF = "If"
    CALL = "call"
    """A call of a local function."""

    @property
    def iterates(self) -> bool:
        """Whether it computes the tensor several times."""
        return self in (StepKind.LOOP, StepKind.SCAN)


@dataclasses.dataclass(frozen=True)
class Step:
    """One node on the way from the main graph to a tensor."""

    kind: StepKind
    """What the node is."""
    node: str
    """Its name, or operator and first output."""
    body: str
    """The attribute that holds the body: ``body``, ``then_branch``, ``else_branch``; of a call the function's name."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What it adds to a path."""
        return (self.node,) if self.kind is StepKind.CALL else (self.node, self.body)


@dataclasses.dataclass(frozen=True)
class InnerTensor:
    """A tensor from inside that now is one of the main graph."""

    name: str
    """Its name in the main graph: :attr:`path`, a slash and :attr:`tensor`, made unique."""
    steps: tuple[Step, ...]
    """The nodes that hold it, the outermost first."""
    tensor: str
    """Its name where it is computed."""
    node: str
    """The node that computes it: its name, or operator and first output."""
    op_type: str
    """The operator of that node."""
    order: int
    """Its place among all inner tensors in the order of computation."""
    whole: str
    """The main-graph tensor that it is the beginning of, an output of the owner; empty where it is that output."""
    padded: bool
    """Whether rows beyond the iterations that were run, in a loop in a loop, are filled with zeros."""
    proven: bool
    """Whether it is certain that the tensor has the same shape in every iteration; the model cannot be run where it
    has not."""
    flat: bool
    """Whether the main-graph tensor has one dimension, whatever the tensor inside has."""

    @property
    def owner(self) -> str:
        """The label of the node of the main graph that it comes from."""
        return self.steps[0].node

    @property
    def path(self) -> str:
        """The graph it is computed in, such as ``loop_1/body``; for a function the call."""
        return "/".join(part for step in self.steps for part in step.parts)

    @property
    def branch(self) -> str:
        """The innermost branch it is computed in, ``then_branch`` or ``else_branch``; empty outside of any If."""
        return next((step.body for step in reversed(self.steps) if step.kind is StepKind.IF), "")

    @property
    def iteration_axes(self) -> int:
        """How many of the first dimensions count iterations, of the outermost loop first."""
        return sum(step.kind.iterates for step in self.steps)

    @property
    def stacked(self) -> bool:
        """Whether the first dimension counts iterations."""
        return self.iteration_axes > 0

    def words(self, index: Sequence[int] = ()) -> str:
        """What an element is, for people: ``iteration 3 of /rnn/loop, tensor h (MatMul)``; iterations count from 0.

        Args:
            index: Its index in the main-graph tensor, or the start of it; iterations that it does not tell are left
                out.
        """
        left = list(index)
        parts = []
        for step in self.steps:
            if step.kind.iterates:
                parts.append(f"iteration {left.pop(0)} of {step.node}" if left else f"body of {step.node}")
            elif step.kind is StepKind.IF:
                parts.append(f"{step.body} of {step.node}")
            else:
                parts.append(f"call {step.node} of {step.body}")
        return ", ".join([*parts, f"tensor {self.tensor} ({self.op_type})"])
