"""What is wrong on the ladder: outputs are judged as ``compare`` judges them, tensors inside by the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from surgeon_debug.comparison import TensorResult
from surgeon_debug.golden import GoldenReader
from surgeon_debug.limits import Limits
from surgeon_debug.model_tensors import ModelTensors
from surgeon_debug.seen_tensor import Look
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value
from surgeon_debug.verdict import Verdict, coarsest, table_limit
from surgeon_debug.whole_run import OutputRules, WholeOutputs

_GAIN = 2.0
"""How many times larger an error may get in layers without more ado; beyond that their conditioning is measured."""


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of one step."""

    results: tuple[TensorResult, ...]
    """Of the first round of samples that is wrong, else of the first."""
    wrong: tuple[bool, ...]
    """Whether each round of samples is wrong."""
    flaky: tuple[tuple[str, float], ...]
    """Outputs that differ between two runs on the first sample, and by how much."""

    @property
    def words(self) -> str:
        """How they are wrong; empty if they are right."""
        bad = [result for result in self.results if result.verdict is not Verdict.AGREE]
        return f"{bad[0].tensor}: {bad[0].judgement.reason}" if bad else ""


class Judge:
    """Judges outputs and looks.

    Args:
        names: The model's outputs.
        tensors: Its tensors.
        golden: The reference's values.
        limits: The caller's own limits for outputs.
        postprocess: What is compared instead of the outputs.
        labels: How the reference and the target are called.
    """

    def __init__(
        self,
        names: Sequence[str],
        tensors: ModelTensors,
        golden: GoldenReader,
        limits: Limits,
        postprocess: Postprocess | None,
        labels: tuple[str, str],
    ) -> None:
        self.names, self.limits, self.labels = list(names), limits, labels
        self._tensors, self._golden, self._postprocess = tensors, golden, postprocess
        self.precision: str | None = None
        """What the target computes in, if that is coarser than the model."""
        self.excused: dict[str, float] = {}
        """Tensors of the engine whose layers multiply the error of what they read, and how many times."""

    def outputs(self, runs: Sequence[Mapping[str, Value]]) -> Outputs:
        """Judge the outputs of some runs, which go through the samples again and again."""
        size = self._golden.samples
        rounds = [self._round(runs[i : i + size], runs[size:]) for i in range(0, len(runs), size)]
        wrong = tuple(any(r.verdict is not Verdict.AGREE for r in results) for results, _ in rounds)
        chosen = wrong.index(True) if True in wrong else 0
        return Outputs(tuple(rounds[chosen][0]), wrong, tuple(rounds[0][1].items()))

    def _round(
        self, runs: Sequence[Mapping[str, Value]], later: Sequence[Mapping[str, Value]]
    ) -> tuple[list[TensorResult], dict[str, float]]:
        rules = OutputRules(self._tensors.layers, self.limits, (self.precision,) if self.precision else ())
        held = WholeOutputs(self.names, rules, self.labels, self._postprocess)
        held.take([dict(values) for values in runs])
        if later:
            held.note_second_run(later[0])
        truth = [self._truth(sample) for sample in range(len(runs))]
        held.compare(truth, [{} for _ in truth])
        return held.results(truth[0]), held.flaky

    def _truth(self, sample: int) -> dict[str, Value]:
        """The reference's outputs; some are inputs or constants handed on."""
        feeds = self._golden.feeds(sample)
        constants = self._tensors.model.graph.initializers
        found: dict[str, Value] = {}
        for name in self.names:
            if self._golden.has(sample, name):
                found[name] = self._golden.get(sample, name)
            elif name in feeds:
                found[name] = feeds[name]
            elif name in constants and (constant := constants[name].const_value) is not None:
                found[name] = constant.numpy()
        return found

    def precision_at(self, tensor: str) -> str:
        """The coarsest precision that a tensor went through."""
        layer = self._tensors.layers.get(tensor)
        return coarsest(*(p for p in (layer.precision if layer else None, self.precision) if p))

    def bad(self, look: Look) -> bool:
        """Whether a tensor of the engine is off by more than what it went through explains."""
        return bool(look.special) or (look.compared and not look.rel_l2 <= self._limit(look))

    def explains(self, look: Look, inherited: float) -> bool:
        """Whether what a layer reads being off explains how far what it makes is off.

        Args:
            look: At what it makes.
            inherited: The relative L2 error of what it reads.
        """
        gain = max(_GAIN, self.excused.get(look.name, 1.0))
        return not look.special and look.rel_l2 <= self._limit(look) + gain * inherited

    def _limit(self, look: Look) -> float:
        return table_limit(self.precision_at(look.tensor)) * self.excused.get(look.name, 1.0)
