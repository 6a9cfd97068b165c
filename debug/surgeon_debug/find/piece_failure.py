"""Whether a piece fails, and in the same way as before: the one judge of shrinking, bundles and replays.

Numbers count as wrong when the relative L2 error of an output exceeds the table's limit for its precision and half of
the error seen at first. Where the failure was found below the table's limit (by the noise floor of a single layer, or
by the caller's own limits), half of the error seen at first decides alone. NaN, Inf, shapes, types, integers and text
need no limit. All other failures are the same if the engine ends in the same way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from surgeon_debug.compare import Difference, Tally
from surgeon_debug.comparison import TensorResult
from surgeon_debug.find.culprit_piece import CulpritPiece
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.signature import of_outputs
from surgeon_debug.layer_plan import plan_layers
from surgeon_debug.limits import Limits
from surgeon_debug.values import Value
from surgeon_debug.verdict import Judgement, Verdict, coarsest, judge, table_limit
from surgeon_debug.whole_run import OutputRules
from surgeon_passes.errors import SurgeonError
from surgeon_passes.graph import from_proto

_NOISE_RATIO = 4.0  # the ratio from which on a layer is suspect
_SHARE = 0.5  # of the error seen at first


@dataclasses.dataclass(frozen=True)
class OutputRule:
    """When an output counts as wrong."""

    precision: str
    """The coarsest precision that it is computed in."""
    rel_l2: float
    """Relative L2 error above which it is wrong."""
    rounds_to_integers: bool = False
    """Whether integers may be off by one, here and there, because numbers were rounded to them."""

    def by_table(self, difference: Difference) -> Judgement:
        """The verdict on one output by what its precision allows."""
        return judge(difference, precision=self.precision, rounds_to_integers=self.rounds_to_integers)

    def judge(self, difference: Difference) -> Judgement:
        """The verdict on one output by this rule."""
        found = self.by_table(difference)
        special = difference.special_mismatches
        if found.verdict is Verdict.SHAPE or difference.exact or special or not difference.unequal:
            return found
        beyond = not difference.rel_l2 <= self.rel_l2
        sign = ">" if beyond else "<="
        reason = f"relative L2 {difference.rel_l2:.2g} {sign} {self.rel_l2:.2g}"
        return Judgement(Verdict.DIFFER if beyond else Verdict.AGREE, reason, self.rel_l2)


@dataclasses.dataclass(frozen=True)
class PieceResult:
    """What a run of a piece came to."""

    signature: Signature | None
    """How it failed; None if it did not."""
    words: str
    """The failure as a phrase; empty if there is none."""
    error: float | None = None
    """The largest relative L2 error of an output, where there are numbers."""
    worst_sample: int = 0
    """The sample with the largest error."""
    worst_output: str = ""
    """The output that fails most."""
    differences: Mapping[str, Difference] = dataclasses.field(default_factory=dict)
    """What was measured, by output."""


@dataclasses.dataclass(frozen=True)
class PieceFailure:
    """The failure that is followed.

    Args:
        signature: What it is.
        rules: When each output counts as wrong.
    """

    signature: Signature
    rules: Mapping[str, OutputRule] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_piece(
        cls,
        piece: CulpritPiece,
        signature: Signature,
        *,
        precisions: Collection[str] = (),
    ) -> PieceFailure:
        """The failure judged by the table.

        Args:
            piece: The piece.
            signature: What to look for.
            precisions: Coarser precisions that the engines say they compute in.
        """
        planned = {}
        feeds = piece.feeds[0] if piece.feeds else {}
        try:
            model = piece.model
            layers = plan_layers(from_proto(_copied(model)), feeds, piece.outputs)
            planned = {layer.tensor: layer for layer in layers}
        except SurgeonError:
            planned = {}  # without it integers must be equal, and the values' own types tell the precision
        rules = {}
        for name in piece.outputs:
            layer = planned.get(name)
            own = (layer.precision,) if layer is not None else ()
            precision = coarsest(*own, *precisions)
            rounds = layer is not None and layer.rounds_to_integers
            rules[name] = OutputRule(precision, table_limit(precision), rounds)
        return cls(signature, rules)

    def anchored(
        self, result: PieceResult, *, limits: Limits | None = None, noise: float | None = None
    ) -> PieceFailure | None:
        """The failure with the error of a first run as its measure; None if that run shows no failure of this kind.

        Args:
            result: The first run, judged by :meth:`of_values` or :meth:`of_ending`.
            limits: The caller's own limits, by which the failure was found.
            noise: The relative L2 error that the precision explains, where the failure was found by that.
        """
        if not self.signature.kind.by_values:
            same_kind = result.signature is not None and result.signature.kind is self.signature.kind
            return dataclasses.replace(self, signature=result.signature) if same_kind and result.signature else None
        if result.signature is not None and not result.signature.kind.by_values:
            return None
        rules, failing = {}, result.signature is not None
        for name, rule in self.rules.items():
            rules[name] = rule
            found = result.differences.get(name)
            if found is None or found.mismatch or found.exact or not found.unequal:
                continue
            if found.rel_l2 > rule.rel_l2:
                rules[name] = dataclasses.replace(rule, rel_l2=max(rule.rel_l2, _SHARE * _finite(found.rel_l2)))
                continue
            asked = limits.for_tensor(name) if limits is not None else []
            outside = bool(asked) and _breaks(name, found, limits)
            above_noise = noise is not None and found.rel_l2 > _NOISE_RATIO * noise
            hidden = not found.special_mismatches and rule.by_table(found).verdict is Verdict.DIFFER
            outside = outside and found.rel_l2 > 0.0
            if outside or above_noise or hidden:
                rules[name] = dataclasses.replace(rule, rel_l2=_SHARE * found.rel_l2)
                failing = True
        if not failing:
            return None
        signature = result.signature or Signature(FailureKind.WRONG_NUMBERS)
        return PieceFailure(signature, rules)

    def matches(self, result: PieceResult) -> bool:
        """Whether a run shows this failure."""
        return result.signature is not None and self.signature.matches(result.signature)

    def of_values(self, expected: Sequence[Mapping[str, Value]], seen: Sequence[Mapping[str, Value]]) -> PieceResult:
        """Judge outputs.

        Args:
            expected: What the reference computes, one mapping a sample.
            seen: What the engine delivered, likewise.
        """
        results: list[TensorResult] = []
        differences: dict[str, Difference] = {}
        worst_sample, most = 0, -1.0
        for name, rule in self.rules.items():
            if any(name not in sample for sample in expected):
                continue
            if any(name not in sample for sample in seen):
                results.append(TensorResult(name, "", "", None, Judgement(Verdict.MISSING, "not delivered")))
                continue
            tally = Tally()
            for s, (ours, theirs) in enumerate(zip(expected, seen, strict=True)):
                single = Tally()
                single.add(ours[name], theirs[name], sample=s)
                badness = _badness(single.difference())
                if badness > most:
                    worst_sample, most = s, badness
                tally.merge(single)
            difference = tally.difference()
            differences[name] = difference
            results.append(TensorResult(name, "", "", difference, rule.judge(difference)))
        signature, words, error = of_outputs(results)
        failing = [result for result in results if result.verdict is not Verdict.AGREE]
        worst = max(failing, key=lambda result: _badness(result.difference), default=None)
        return PieceResult(signature, words, error, worst_sample, worst.tensor if worst else "", differences)

    def of_ending(self, signature: Signature, words: str) -> PieceResult:
        """A run that ended without values."""
        return PieceResult(signature, words)

    def to_json(self) -> dict[str, Any]:
        """The failure as JSON."""
        return {
            "kind": self.signature.kind.value,
            "detail": self.signature.detail,
            "rules": {name: dataclasses.asdict(rule) for name, rule in self.rules.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PieceFailure:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError: A field is missing.
            ValueError: A field holds what it cannot.
            TypeError: Likewise.
            AttributeError: Likewise.
        """
        signature = Signature(FailureKind(found["kind"]), str(found["detail"]))
        rules = {
            str(name): OutputRule(str(rule["precision"]), float(rule["rel_l2"]), bool(rule["rounds_to_integers"]))
            for name, rule in found["rules"].items()
        }
        return cls(signature, rules)


def _copied(model: Any) -> Any:
    """The model with the weights as inputs without values, for what only asks for types and shapes."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared = {value.name for value in copy.graph.input}
    for tensor in copy.graph.initializer:
        if tensor.name not in declared:
            made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            copy.graph.input.append(made)
    del copy.graph.initializer[:]
    return copy


def _breaks(name: str, difference: Difference, limits: Limits | None) -> bool:
    rules = OutputRules({}, limits or Limits(), ())
    return rules.result(name, difference, "").verdict is not Verdict.AGREE


def _finite(error: float) -> float:
    """An error to take half of; an infinite one stands for any above 1."""
    return error if math.isfinite(error) else 1.0


def _badness(difference: Difference | None) -> float:
    if difference is None or difference.mismatch or difference.special_mismatches:
        return math.inf
    if difference.exact:
        return difference.unequal / max(1, difference.elements)
    return difference.rel_l2 if not math.isnan(difference.rel_l2) else math.inf
