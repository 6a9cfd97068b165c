"""What is true about a case: who is to blame, for what, and how hard it is to see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tests.bench.planted.plan import EnginePlan

NODE, WINDOW, SEVERAL, NOBODY, CHANGE = "node", "window", "several", "nobody", "change"


@dataclasses.dataclass(frozen=True)
class Truth:
    """The right answer."""

    label: str
    """``node``, ``window`` (nodes that fail together only), ``several`` (nodes that are wrong each by itself),
    ``nobody``, or ``change`` (one application of a rewrite)."""
    culprits: tuple[tuple[str, ...], ...] = ()
    """Names of nodes of the main graph, a set for each culprit."""
    tensors: tuple[tuple[str, ...], ...] = ()
    """The first output of each of these nodes."""
    latent: bool = False
    """Whether no output shows it."""
    abstain: bool = False
    """Whether naming nobody is right as well."""
    near: tuple[str, ...] = ()
    """Nodes that are close: in the same window, or next to a culprit."""
    bits: float = 0.0
    """How many yes-or-no answers are needed to single the culprit out."""
    cause: str = ""
    """What is wrong, in words."""
    introduced: float | None = None
    """Relative L2 error that the (first) culprit makes by itself."""
    noise: float | None = None
    """What rounding explains there."""
    visible: float | None = None
    """Relative L2 error of the worst output."""
    inside: str = ""
    """The node in a body that is wrong, if the culprit has bodies."""
    sample: int | None = None
    """The only sample that shows it."""
    change: int | None = None
    """The number of the wrong application, from one on."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON document; an error that is infinite is ``inf``, as a text."""
        found = dataclasses.asdict(self)
        infinite = {k: "inf" for k, v in found.items() if isinstance(v, float) and math.isinf(v)}
        return {**found, **infinite}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Truth:
        """The truth that :meth:`to_json` described."""
        floats = {field.name for field in dataclasses.fields(cls) if "float" in str(field.type)}
        values = {k: float(v) if k in floats and v is not None else v for k, v in found.items()}
        sets = {name: tuple(tuple(group) for group in found[name]) for name in ("culprits", "tensors")}
        return cls(**{**values, **sets, "near": tuple(found["near"])})


@dataclasses.dataclass(frozen=True)
class Planted:
    """A fault that is planted, and checked."""

    plan: EnginePlan
    truth: Truth
    model: onnx.ModelProto
    feeds: Sequence[Mapping[str, np.ndarray]]
    rewrites: Mapping[str, Any] | None = None
    """For a rewrite fault: the plan of :mod:`tests.bench.planted.rewrites`."""


def bits_of(nodes: int, culprits: int = 1, window: bool = False, probability: float = 1.0) -> float:
    """The information that singles out a culprit.

    Args:
        nodes: Nodes that may be to blame.
        culprits: How many are, each by itself.
        window: Whether it is a connected window: about 32 for each node it may begin at.
        probability: How often the fault shows; an answer then carries the capacity of a Z-channel.
    """
    bits = math.log2(math.comb(max(nodes, culprits), culprits)) + (5 if window else 0)
    lost = 1.0 - probability
    if probability >= 1.0:
        return bits
    return bits / math.log2(1 + probability * lost ** (lost / probability))
