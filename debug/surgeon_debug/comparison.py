"""The result of comparing two runs of a model, and its form as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from surgeon_debug.compare import Difference
from surgeon_debug.verdict import Judgement, Verdict

SCHEMA = "surgeon.compare/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""


@dataclasses.dataclass(frozen=True)
class TensorResult:
    """What became of one tensor."""

    tensor: str
    """Its name."""
    node: str
    """The node that computes it; empty for a graph output that is no node's."""
    op: str
    """The node's operator."""
    difference: Difference | None
    """The measurement over all samples; None if a side did not deliver it."""
    judgement: Judgement
    """The verdict and its reason."""

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.judgement.verdict

    @property
    def suspect(self) -> bool:
        """Whether both sides delivered it and it is beyond what is allowed."""
        return self.verdict in (Verdict.DIFFER, Verdict.SHAPE)


@dataclasses.dataclass(frozen=True)
class Observation:
    """What looking inside did to the outputs of one engine."""

    engine: str
    """The runner, by its text."""
    changed: tuple[str, ...]
    """Outputs that are not the same to the bit once inner tensors are shown."""
    verdict_changed: tuple[str, ...]
    """Outputs whose verdict is another once inner tensors are shown: the layers then tell another story."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of :func:`surgeon_debug.layers.compare_models`."""

    model: str
    """The model of the reference."""
    other: str
    """The model of the target; the same if there is only one."""
    reference: str
    """The runner of the reference, by its text."""
    target: str
    """The runner of the target."""
    samples: int
    """Number of inputs it was run on."""
    tolerance: str
    """What was allowed: the caller's numbers, or ``table``."""
    outputs: tuple[TensorResult, ...]
    """The graph outputs, without anything else shown."""
    layers: tuple[TensorResult, ...]
    """Tensors inside, in topological order, graph outputs among them; empty if not asked for."""
    layered: bool
    """Whether layers were asked for."""
    unmatched: tuple[str, ...]
    """Tensors inside the reference's model that the other model does not have under that name."""
    unobserved: tuple[tuple[str, str], ...]
    """Tensors that a side could not show, and why."""
    observations: tuple[Observation, ...]
    """What looking inside changed; empty if nothing."""
    notes: tuple[str, ...]
    """What else a reader must know to trust the result, as sentences."""

    @property
    def verdict(self) -> str:
        """``agree`` or ``differ``, by the outputs alone."""
        return "agree" if all(result.verdict is Verdict.AGREE for result in self.outputs) else "differ"

    @property
    def first(self) -> TensorResult | None:
        """The first layer, in topological order, that is beyond what is allowed."""
        return next((result for result in self.layers if result.suspect), None)

    def to_json(self) -> dict[str, Any]:
        """A document of plain values. Numbers that JSON lacks are the texts ``nan``, ``inf`` and ``-inf``."""
        first = self.first
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "model": self.model,
            "other": self.other,
            "reference": self.reference,
            "target": self.target,
            "samples": self.samples,
            "tolerance": self.tolerance,
            "first": None if first is None else {"tensor": first.tensor, "node": first.node, "op": first.op},
            "outputs": [_result_json(result) for result in self.outputs],
            "layers": [{**_result_json(result), "introduced": None, "inherited": None} for result in self.layers],
            "unmatched": list(self.unmatched),
            "unobserved": [{"tensor": name, "reason": reason} for name, reason in self.unobserved],
            "observations": [plain(dataclasses.asdict(item)) for item in self.observations],
            "notes": list(self.notes),
        }


def _result_json(result: TensorResult) -> dict[str, Any]:
    difference = None
    if result.difference is not None:
        difference = {**dataclasses.asdict(result.difference), "cosine": result.difference.cosine}
    return {
        "tensor": result.tensor,
        "node": result.node,
        "op": result.op,
        "verdict": result.verdict.value,
        "reason": result.judgement.reason,
        "limit": result.judgement.limit,
        "difference": plain(difference),
    }


def plain(value: Any) -> Any:
    """A value made of what JSON has."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) <= 1.7976931348623157e308:
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
