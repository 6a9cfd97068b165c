"""The result of a search for fusions, and its form as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from surgeon_debug.find.finding import Costs, FindOutcome, Step
from surgeon_debug.find.fusion_levers import Flip, Regrouped
from surgeon_debug.find.oracle import Signature

SCHEMA = "surgeon.find-fusion/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""


@dataclasses.dataclass(frozen=True)
class FusionCulprit:
    """A fused layer without which the engine is right."""

    layer: str
    """Its name in the engine; empty if the engine says nothing of its layers."""
    kind: str
    nodes: tuple[str, ...]
    """The ONNX nodes that are computed together."""
    broken_by: tuple[str, ...]
    """Tensors of it that as outputs take it apart."""


@dataclasses.dataclass(frozen=True)
class FusionFinding(Costs):
    """What a search for fusions found."""

    outcome: FindOutcome
    model: str
    reference: str
    target: str
    version: str
    layers: int
    """Layers of the engine that compute several nodes."""
    samples: int
    signature: Signature | None
    """The failure of the recorded build; None if it does not fail."""
    failure: str
    culprits: tuple[FusionCulprit, ...]
    knobs: tuple[Flip, ...]
    """The smallest set of knobs found that heals; empty if there are none, or none do."""
    regrouped: tuple[Regrouped, ...]
    """Layers that these knobs compute otherwise."""
    outputs: tuple[str, ...]
    """The smallest set of extra outputs found that heals."""
    before_ms: float | None
    """Milliseconds of a run of the engine that fails, as this machine ran it."""
    after_ms: float | None
    """Milliseconds with the remedy."""
    reason: str
    """Why nothing was found or decided, as a sentence; empty if a culprit is named."""
    advice: str
    command: str
    """A command that builds an engine which is right; empty if there is none."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    rate: float | None = None
    """The share of runs in which the recorded build fails, if not all of them do."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        plain = dataclasses.asdict(self)
        found: dict[str, Any] = {"schema": SCHEMA, "outcome": self.outcome.value}
        same = ("model", "reference", "target", "version", "layers", "samples", "failure", "reason", "advice", "rate")
        found |= {name: plain[name] for name in (*same, "before_ms", "after_ms", "command", "knobs", "regrouped")}
        found["fusion_dependent"] = bool(self.culprits or self.knobs)
        found["signature"] = None if self.signature is None else self.signature.to_json()
        found["culprits"] = [list(one.nodes) for one in self.culprits]
        found["details"] = plain["culprits"]
        found["outputs"], found["notes"] = list(self.outputs), list(self.notes)
        found |= {"trials": self.trials, "builds": self.builds, "runs": self.runs, "seconds": round(self.seconds, 3)}
        found["steps"] = plain["steps"]
        return found
