"""The result of comparing two runs of a model, and its form as JSON."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from surgeon_debug.attribution import Attribution
from surgeon_debug.compare import Difference
from surgeon_debug.ladder import Ladder, LadderVerdict
from surgeon_debug.plain_values import plain
from surgeon_debug.screen import Screen
from surgeon_debug.verdict import Judgement, Verdict

SCHEMA = "surgeon.compare/2"
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
    """The full set of metrics over all samples; None if a side did not deliver it. Of layers, those that are right go
    without; of those that are not, it is about what they introduce."""
    judgement: Judgement
    """The verdict and its reason."""
    screen: Screen | None = None
    """The total error of a layer, cheaply measured; None for graph outputs."""
    attribution: Attribution | None = None
    """Where the error of a layer comes from; None for graph outputs."""

    @property
    def introduced(self) -> float | None:
        """Relative L2 of the error the layer adds to the reference's inputs; None if it could not be isolated."""
        return None if self.attribution is None else self.attribution.introduced

    @property
    def inherited(self) -> float | None:
        """Relative L2 of what errors in its inputs make; None likewise."""
        return None if self.attribution is None else self.attribution.inherited

    @property
    def amplification(self) -> float | None:
        """Inherited error over the error of the inputs; None if these are right."""
        return None if self.attribution is None else self.attribution.amplification

    @property
    def floor(self) -> float | None:
        """The introduced error that the precision explains; None where nothing had to be explained."""
        return None if self.attribution is None else self.attribution.floor

    @property
    def ratio(self) -> float | None:
        """Introduced error over floor; None without a floor."""
        return None if self.attribution is None else self.attribution.ratio

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.judgement.verdict

    @property
    def suspect(self) -> bool:
        """Whether both sides delivered it and something is wrong that it did not inherit."""
        return self.verdict in _BLAME


_BLAME = (
    Verdict.WRONG, Verdict.SHAPE, Verdict.OVERFLOW, Verdict.DIFFER, Verdict.SUSPECT, Verdict.ILL_CONDITIONED,
)  # fmt: skip


class Cause(enum.Enum):
    """Why the outputs are what they are, in one word."""

    NONE = "none"
    """Nothing is wrong."""
    LAYER = "layer"
    """A layer computes what its precision does not explain."""
    PRECISION = "precision"
    """Every layer is computed as well as its precision can, and that is not enough."""
    FUSION = "fusion"
    """The outputs are wrong only as long as nobody looks inside."""
    UNKNOWN = "unknown"
    """Layers were not looked at, or could not be."""


_LADDER_CAUSES = {
    LadderVerdict.RIGHT: Cause.NONE,
    LadderVerdict.HIDDEN: Cause.LAYER,
    LadderVerdict.LOCATED: Cause.LAYER,
    LadderVerdict.FUSION: Cause.FUSION,
    LadderVerdict.PRECISION: Cause.PRECISION,
    LadderVerdict.UNKNOWN: Cause.UNKNOWN,
}


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
    flaky: tuple[tuple[str, float], ...]
    """Outputs of the target that differ between two runs on the same input, and by how much (relative L2)."""
    segments: int
    """In how many segments the layers were compared; 0 without layers."""
    notes: tuple[str, ...]
    """What else a reader must know to trust the result, as sentences."""
    ladder: Ladder | None = None
    """What looking into the engine with little disturbance came to, if that was how layers were compared."""

    @property
    def verdict(self) -> str:
        """``agree`` or ``differ``: by the outputs, and by layers that are wrong though the outputs hide it."""
        right = all(result.verdict is Verdict.AGREE for result in self.outputs)
        return "agree" if right and not self.wrong else "differ"

    @property
    def wrong(self) -> list[TensorResult]:
        """Layers that are wrong beyond what their precision explains, in topological order."""
        return [result for result in self.layers if result.verdict in (Verdict.WRONG, Verdict.SHAPE)]

    @property
    def first(self) -> TensorResult | None:
        """Where to look first: the first wrong layer, else the first that overflows, differs, or is suspect."""
        for verdicts in ((Verdict.WRONG, Verdict.SHAPE), *((verdict,) for verdict in _BLAME[2:])):
            for result in self.layers:
                if result.verdict in verdicts:
                    return result
        return None

    @property
    def cause(self) -> Cause:
        """Why the outputs are what they are."""
        if self.ladder is not None:
            return _LADDER_CAUSES[self.ladder.verdict]
        if self.wrong:
            return Cause.LAYER
        if self.verdict == "agree":
            return Cause.NONE
        if not self.layered or any(result.verdict in (Verdict.MISSING, Verdict.SHAPE) for result in self.outputs):
            return Cause.UNKNOWN
        if any(seen.verdict_changed for seen in self.observations):
            return Cause.FUSION
        isolated = [r for r in self.layers if r.introduced is not None]
        unknown = any(result.verdict is Verdict.DIFFER for result in self.layers)
        return Cause.PRECISION if isolated and not unknown else Cause.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """A document of plain values. Numbers that JSON lacks are the texts ``nan``, ``inf`` and ``-inf``."""
        first = self.first
        document = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "cause": self.cause.value,
            "model": self.model,
            "other": self.other,
            "reference": self.reference,
            "target": self.target,
            "samples": self.samples,
            "tolerance": self.tolerance,
            "first": None if first is None else {"tensor": first.tensor, "node": first.node, "op": first.op},
            "outputs": [_result_json(result) for result in self.outputs],
            "layers": [_layer_json(result) for result in self.layers],
            "unmatched": list(self.unmatched),
            "unobserved": [{"tensor": name, "reason": reason} for name, reason in self.unobserved],
            "flaky": [{"tensor": name, "rel_l2": plain(error)} for name, error in self.flaky],
            "segments": self.segments,
            "observations": [plain(dataclasses.asdict(item)) for item in self.observations],
            "notes": list(self.notes),
        }
        return document if self.ladder is None else {**document, "ladder": self.ladder.to_json()}


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


def _layer_json(result: TensorResult) -> dict[str, Any]:
    document = _result_json(result)
    if result.attribution is not None:
        document.update(plain(dataclasses.asdict(result.attribution)))
    if result.screen is not None:
        seen = result.screen
        total = {
            "rel_l2": seen.rel_l2,
            "max_abs": seen.max_abs,
            "angle": seen.angle,
            "gain": seen.gain,
            "elements": seen.elements,
            "unequal": seen.unequal,
            "shape": seen.shape,
            "reference_dtype": seen.reference_dtype,
            "target_dtype": seen.target_dtype,
            "nan": dataclasses.asdict(seen.nan),
            "posinf": dataclasses.asdict(seen.posinf),
            "neginf": dataclasses.asdict(seen.neginf),
            "mismatch": seen.mismatch,
        }
        document["total"] = plain(total)
    return document
