"""The run people care about: the model as it is, with nothing inside shown; and what looking inside changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from surgeon_debug.compare import Difference, Tally
from surgeon_debug.comparison import Observation, TensorResult
from surgeon_debug.layer_plan import Layer
from surgeon_debug.limits import Limit, Limits, check
from surgeon_debug.runners.contract import Engine
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value, digest
from surgeon_debug.verdict import Judgement, Verdict, coarsest, judge
from surgeon_passes.errors import EngineError

Values = Mapping[str, Value]


@dataclasses.dataclass(frozen=True)
class OutputRules:
    """What graph outputs are judged by."""

    layers: Mapping[str, Layer]
    """What is known about tensors, by name."""
    limits: Limits
    """The caller's own limits, which replace the table."""
    precisions: tuple[str, ...]
    """Coarser precisions that the engines say they compute in."""

    def result(self, name: str, difference: Difference | None, missing: str) -> TensorResult:
        """The result of one output."""
        layer = self.layers.get(name)
        node, op = (layer.node, layer.op) if layer else ("", "")
        if missing or difference is None:
            return TensorResult(name, node, op, None, Judgement(Verdict.MISSING, missing or "not delivered"))
        if asked := self.limits.for_tensor(name):
            return TensorResult(name, node, op, difference, by_limits(difference, asked))
        own = (difference.reference_dtype, difference.target_dtype) if not difference.exact else ()
        planned = (layer.precision,) if layer else ()
        judgement = judge(
            difference,
            precision=coarsest(*planned, *own, *self.precisions),
            rounds_to_integers=layer is not None and layer.rounds_to_integers,
        )
        return TensorResult(name, node, op, difference, judgement)

    def tally(self, name: str) -> Tally:
        """An empty measurement of a tensor by these rules."""
        return self.limits.tally(name)


def by_limits(difference: Difference, asked: Sequence[Limit]) -> Judgement:
    """A verdict by the caller's own limits."""
    if difference.mismatch:
        return Judgement(Verdict.SHAPE, difference.mismatch)
    found = check(difference, asked)
    return Judgement(Verdict.AGREE if found.ok else Verdict.DIFFER, found.reason)


def run_whole(
    engine: Engine, path: Path, outputs: Sequence[str], feeds: Sequence[Values], *, made_up: bool
) -> list[dict[str, Value]]:
    """Run a model as it is; one mapping a sample.

    Args:
        engine: What runs it.
        path: The model.
        outputs: Its outputs.
        feeds: Inputs, one mapping a sample.
        made_up: The inputs are nobody's; a failure then says so.

    Raises:
        EngineError: The engine refuses the model or fails.
    """
    engine.prepare(path, outputs)
    try:
        return [engine.run(sample) for sample in feeds]
    except EngineError as error:
        if made_up and not error.hint:
            error.hint = "its inputs were made up: give real ones with --feeds, or sizes with --dims"
        raise


class WholeOutputs:
    """Holds the target's outputs until the reference's are there, and notes what showing inner tensors changes.

    Args:
        names: The outputs to compare.
        rules: What they are judged by.
        labels: How the reference and the target are called.
        postprocess: What is compared instead of the outputs.
    """

    def __init__(
        self,
        names: Sequence[str],
        rules: OutputRules,
        labels: tuple[str, str],
        postprocess: Postprocess | None = None,
    ) -> None:
        self._postprocess = postprocess
        self._kept: list[dict[str, Value]] = []  # outputs of the reference, for the postprocess
        self._shown: list[dict[str, Value]] = []
        self._names = list(names)
        self._rules = rules
        self._labels = labels
        self._bare: list[dict[str, Value]] = []
        self._results: dict[str, TensorResult] = {}
        self._changed: dict[str, None] = {}
        self._verdict_changed: dict[str, None] = {}
        self.flaky: dict[str, float] = {}

    def take(self, bare: list[dict[str, Value]]) -> None:
        """Take the target's outputs from runs of the whole model."""
        self._bare = bare

    def note_second_run(self, again: Values) -> None:
        """Compare a second run on the first sample with the first."""
        for name, value in again.items():
            if name in self._bare[0] and digest(value) != digest(self._bare[0][name]):
                tally = Tally()
                tally.add(self._bare[0][name], value)
                difference = tally.difference()
                share = difference.unequal / max(1, difference.elements)
                self.flaky[name] = share if difference.exact else difference.rel_l2

    def compare(self, reference: Sequence[Values], shown: Sequence[Values]) -> None:
        """Compare the outputs that the reference has computed by now.

        Args:
            reference: Values of the reference, one mapping a sample; other tensors among them are ignored.
            shown: The target's values as they are with inner tensors shown.
        """
        if self._postprocess is not None:
            self._collect(reference, shown)
            return
        for name in self._names:
            if name in self._results or any(name not in sample for sample in reference):
                continue
            bare = self._bare or shown
            if any(name not in sample for sample in bare):
                continue
            result = self._result(name, reference, bare)
            self._results[name] = result
            if self._bare and all(name in sample for sample in shown):
                self._watch(name, result, reference, shown)
            for sample in self._bare:
                sample.pop(name, None)

    def _collect(self, reference: Sequence[Values], shown: Sequence[Values]) -> None:
        for kept, values in ((self._kept, reference), (self._shown, shown)):
            kept.extend({} for _ in range(len(values) - len(kept)))
            for held, sample in zip(kept, values, strict=True):
                held.update((name, sample[name]) for name in self._names if name in sample)

    def _compare_processed(self, postprocess: Postprocess) -> list[TensorResult]:
        ours = [postprocess(sample) for sample in self._kept]
        theirs = [postprocess(sample) for sample in (self._bare or self._shown)]
        names = list(dict.fromkeys(name for sample in (*ours, *theirs) for name in sample))
        results = []
        for name in names:
            lacking = [
                label
                for label, side in zip(self._labels, (ours, theirs), strict=True)
                if any(name not in sample for sample in side)
            ]
            if lacking:
                results.append(self._rules.result(name, None, f"not made of the outputs of {' and '.join(lacking)}"))
            else:
                results.append(self._result(name, ours, theirs))
        return results

    def _result(self, name: str, reference: Sequence[Values], target: Sequence[Values]) -> TensorResult:
        tally = self._rules.tally(name)
        for s, (ours, theirs) in enumerate(zip(reference, target, strict=True)):
            tally.add(ours[name], theirs[name], sample=s)
        return self._rules.result(name, tally.difference(), "")

    def _watch(self, name: str, bare: TensorResult, reference: Sequence[Values], shown: Sequence[Values]) -> None:
        pairs = zip(self._bare, shown, strict=True)
        if all(digest(before[name]) == digest(after[name]) for before, after in pairs):
            return
        self._changed[name] = None
        if self._result(name, reference, shown).verdict is not bare.verdict:
            self._verdict_changed[name] = None

    def results(self, delivered: Iterable[str]) -> list[TensorResult]:
        """The results in order; what was never compared is missing.

        Args:
            delivered: Outputs that the reference has.
        """
        if self._postprocess is not None:
            return self._compare_processed(self._postprocess)
        ours = set(delivered)
        results = []
        for name in self._names:
            label = self._labels[1] if name in ours else self._labels[0]
            missing = f"not delivered by {label}"
            results.append(self._results.get(name) or self._rules.result(name, None, missing))
        return results

    def observations(self) -> tuple[Observation, ...]:
        """What showing inner tensors changed."""
        if not self._changed:
            return ()
        return (Observation(self._labels[1], tuple(self._changed), tuple(self._verdict_changed)),)
