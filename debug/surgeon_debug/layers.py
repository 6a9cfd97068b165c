"""Compare two runs of a model: its outputs, and layer by layer where the error first appears.

The outputs are compared first with nothing else shown, for that is the run people care about. Only then are inner
tensors shown, in batches that fit the memory budget; whatever showing them changes in the outputs is reported, because
an engine that fuses differently while it is watched may hide the very fault that is looked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from surgeon_debug.compare import Tally
from surgeon_debug.comparison import Comparison, Observation, TensorResult
from surgeon_debug.feed_files import check_feeds
from surgeon_debug.feeds import make_feeds
from surgeon_debug.layer_plan import Layer, pack, plan_layers, random_nodes
from surgeon_debug.pairing import feeds_for_other, joined_outputs
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine, Runner
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.values import Feeds, Value, digest
from surgeon_debug.verdict import Judgement, Tolerance, Verdict, coarsest, judge
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.graph import load

_log = logging.getLogger(__name__)

RunnerLike = str | Engine | Runner
"""The text of a runner, or a runner."""

DEFAULT_REFERENCE = "onnxruntime:optimize=none"
"""What a target is held against unless the caller says otherwise."""

DEFAULT_MEMORY = 512 << 20
"""Bytes that the tensors of one batch may take, both sides together."""

_MAX_REFUSED = 8  # tensors that an engine refuses to show one by one before the rest is given up


@dataclasses.dataclass
class _Side:
    """One of the two runs."""

    engine: Engine
    path: Path
    feeds: list[dict[str, Value]]
    digests: list[dict[str, str]] = dataclasses.field(default_factory=list)
    changed: set[str] = dataclasses.field(default_factory=set)

    def watch(self, sample: int, values: Mapping[str, Value], outputs: Iterable[str]) -> None:
        """Note outputs that are not what they were when nothing else was shown."""
        for name in outputs:
            if name in values and self.digests[sample].get(name) != digest(values[name]):
                self.changed.add(name)


@dataclasses.dataclass(frozen=True)
class _Rules:
    """What each tensor is judged by."""

    layers: dict[str, Layer]
    tolerance: Tolerance
    precisions: tuple[str, ...]

    def result(self, name: str, tally: Tally | None, missing: str) -> TensorResult:
        layer = self.layers.get(name)
        node, op = (layer.node, layer.op) if layer else ("", "")
        if missing or tally is None:
            return TensorResult(name, node, op, None, Judgement(Verdict.MISSING, missing or "not delivered"))
        difference = tally.difference()
        own = (difference.reference_dtype, difference.target_dtype) if not difference.exact else ()
        planned = (layer.precision,) if layer else ()
        judgement = judge(
            difference,
            precision=coarsest(*planned, *own, *self.precisions),
            tolerance=self.tolerance,
            rounds_to_integers=layer is not None and layer.rounds_to_integers,
        )
        return TensorResult(name, node, op, difference, judgement)

    def tally(self) -> Tally:
        return Tally(rtol=self.tolerance.rtol, atol=self.tolerance.atol)


def as_engine(runner: RunnerLike) -> Engine:
    """An engine from its text, or around a runner."""
    if isinstance(runner, Engine):
        return runner
    return make_engine(runner) if isinstance(runner, str) else Engine(type(runner).__name__, runner)


def compare_models(
    model: ModelLike,
    other: ModelLike | None = None,
    *,
    target: RunnerLike,
    reference: RunnerLike = DEFAULT_REFERENCE,
    feeds: Sequence[Feeds] | None = None,
    samples: int = 1,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    layers: bool = False,
    memory: int = DEFAULT_MEMORY,
    tolerance: Tolerance | None = None,
    allow_external: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Run a model twice on the same inputs and compare.

    Args:
        model: What the reference runs.
        other: What the target runs; None for the same model.
        target: The runner under test.
        reference: The runner that is believed.
        feeds: Samples, values by input name; None makes seeded ones up.
        samples: How many samples to make up.
        seed: Decides the samples that are made up.
        dims: Sizes of symbolic dimensions for those.
        layers: Compare tensors inside the main graph too.
        memory: Bytes that the tensors of one batch of layers may take, both sides together.
        tolerance: The caller's own tolerance; None for the table's.
        allow_external: Accept weights outside the models' folders.
        progress: Called with the number of tensors done and to do.

    Raises:
        BadModelError: A model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs or outputs do not fit each other.
        EngineError: A side cannot run at all.
    """
    if samples < 1:
        raise BadOptionError(f"{samples} samples show nothing", hint="ask for 1 or more")
    if memory <= 0:
        raise BadOptionError(f"a memory budget of {memory} bytes holds nothing", hint="give a size such as 512MB")
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(staged(model, allow_external=allow_external))
        other_path = path if other is None else stack.enter_context(staged(other, allow_external=allow_external))
        engines = [as_engine(runner) for runner in (reference, target)]
        for engine, given in zip(engines, (reference, target), strict=True):
            if engine is not given:
                stack.callback(engine.close)
        ours, theirs = (load(p, allow_external=allow_external) for p in (path, other_path))
        if feeds is None:
            fed = [make_feeds(ours, seed=seed, sample=i, dims=dims) for i in range(samples)]
        else:
            fed = [check_feeds(sample, ours) for sample in feeds]
        if not fed:
            raise BadOptionError("there is no sample to run", hint="give at least one")
        other_fed, notes = (fed, []) if other is None else feeds_for_other(fed, ours, theirs)
        sides = (_Side(engines[0], path, fed), _Side(engines[1], other_path, other_fed))
        names = joined_outputs(ours, theirs)
        rules, common, unmatched = _rules(ours, theirs, sides, tolerance or Tolerance(), other is not None)
        notes += _random_notes(ours, theirs)
        outputs = _bare_outputs(sides, names, rules, made_up=feeds is None)
        walk = _LayerWalk(sides, names, rules, outputs, progress)
        if layers:
            walk.run(pack(common, memory))
        return Comparison(
            model=label_of(model),
            other=label_of(model if other is None else other),
            reference=engines[0].label,
            target=engines[1].label,
            samples=len(fed),
            tolerance=_words(tolerance),
            outputs=tuple(outputs),
            layers=tuple(walk.results[layer.tensor] for layer in common if layer.tensor in walk.results),
            layered=layers,
            unmatched=tuple(unmatched) if layers else (),
            unobserved=tuple(walk.unobserved.items()),
            observations=walk.observations(),
            notes=tuple(notes),
        )


def _words(tolerance: Tolerance | None) -> str:
    if tolerance is None or not tolerance.given:
        return "table"
    return f"rtol={tolerance.rtol or 0:g}, atol={tolerance.atol or 0:g}"


def _rules(
    ours: ir.Model, theirs: ir.Model, sides: tuple[_Side, _Side], tolerance: Tolerance, two_models: bool
) -> tuple[_Rules, list[Layer], list[str]]:
    """How tensors are judged; the layers both models have, in the first model's order; the tensors only it has."""
    plan = plan_layers(ours, sides[0].feeds[0])
    other = {layer.tensor: layer for layer in (plan_layers(theirs, sides[1].feeds[0]) if two_models else plan)}
    joined = {layer.tensor: _joined(layer, other.get(layer.tensor)) for layer in plan}
    for name, layer in other.items():
        joined.setdefault(name, layer)
    common = [joined[layer.tensor] for layer in plan if layer.tensor in other]
    unmatched = [layer.tensor for layer in plan if layer.tensor not in other]
    precisions = tuple(side.engine.precision for side in sides if side.engine.precision is not None)
    return _Rules(joined, tolerance, precisions), common, unmatched


def _joined(layer: Layer, other: Layer | None) -> Layer:
    if other is None:
        return layer
    return dataclasses.replace(
        layer,
        nbytes=max(layer.nbytes, other.nbytes),
        precision=coarsest(layer.precision, other.precision),
        rounds_to_integers=layer.rounds_to_integers or other.rounds_to_integers,
    )


def _random_notes(*models: ir.Model) -> list[str]:
    names = list(dict.fromkeys(name for model in models for name in random_nodes(model)))
    if not names:
        return []
    return [f"the model draws random numbers (in {', '.join(names[:3])}); what follows from them cannot agree"]


def _bare_outputs(sides: tuple[_Side, _Side], names: list[str], rules: _Rules, *, made_up: bool) -> list[TensorResult]:
    """Compare the graph outputs with nothing else shown, and remember them by digest."""
    tallies = {name: rules.tally() for name in names}
    missing: dict[str, str] = {}
    for side in sides:
        side.engine.prepare(side.path, names)
    for sample in range(len(sides[0].feeds)):
        try:
            values = [side.engine.run(side.feeds[sample]) for side in sides]
        except EngineError as error:
            if made_up and not error.hint:
                error.hint = "its inputs were made up: give real ones with --feeds, or sizes with --dims"
            raise
        for side, found in zip(sides, values, strict=True):
            side.digests.append({name: digest(value) for name, value in found.items()})
        _add(tallies, missing, sides, values, names, sample)
    return [rules.result(name, tallies[name], missing.get(name, "")) for name in names]


def _add(
    tallies: dict[str, Tally],
    missing: dict[str, str],
    sides: tuple[_Side, _Side],
    values: list[dict[str, Value]],
    names: Iterable[str],
    sample: int,
) -> None:
    """Compare one sample and let go of each tensor as soon as it is compared."""
    for name in names:
        lacking = [side.engine.label for side, found in zip(sides, values, strict=True) if name not in found]
        if lacking:
            missing.setdefault(name, f"not delivered by {' and '.join(lacking)}")
            continue
        tallies[name].add(values[0].pop(name), values[1].pop(name), sample=sample)


class _LayerWalk:
    """Shows inner tensors batch by batch and collects what both sides say."""

    def __init__(
        self,
        sides: tuple[_Side, _Side],
        outputs: list[str],
        rules: _Rules,
        bare: list[TensorResult],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._sides = sides
        self._outputs = outputs
        self._rules = rules
        self._bare = {result.tensor: result.verdict for result in bare}
        self._progress = progress
        self._verdict_changed: set[str] = set()
        self._refused = 0
        self.results: dict[str, TensorResult] = {}
        self.unobserved: dict[str, str] = {}

    def run(self, batches: Sequence[Sequence[Layer]]) -> None:
        """Go through all batches; one that an engine refuses is cut in half until the tensor it refuses is alone."""
        total = sum(len(batch) for batch in batches)
        stack = list(reversed(batches))
        while stack:
            batch = stack.pop()
            if self._refused >= _MAX_REFUSED:
                self.unobserved.update((layer.tensor, "not tried: too many others were refused") for layer in batch)
                continue
            try:
                self._batch(batch)
            except EngineError as error:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    stack += [batch[middle:], batch[:middle]]
                    continue
                _log.info("%s cannot be shown: %s", batch[0].tensor, error)
                self.unobserved[batch[0].tensor] = str(error)
                self._refused += 1
            if self._progress is not None:
                self._progress(len(self.results) + len(self.unobserved), total)

    def _batch(self, batch: Sequence[Layer]) -> None:
        names = [layer.tensor for layer in batch]
        wanted = list(dict.fromkeys([*self._outputs, *names]))
        tallies = {name: self._rules.tally() for name in wanted}
        missing: dict[str, str] = {}
        for side in self._sides:
            side.engine.prepare(side.path, wanted)
        for sample in range(len(self._sides[0].feeds)):
            values = [side.engine.run(side.feeds[sample]) for side in self._sides]
            for side, found in zip(self._sides, values, strict=True):
                side.watch(sample, found, self._outputs)
            _add(tallies, missing, self._sides, values, wanted, sample)
        for name in self._outputs:
            shown = self._rules.result(name, tallies[name], missing.get(name, ""))
            if shown.verdict is not self._bare[name]:
                self._verdict_changed.add(name)
        for name in names:
            if name in missing:
                self.unobserved[name] = missing[name]
            else:
                self.results[name] = self._rules.result(name, tallies[name], "")

    def observations(self) -> tuple[Observation, ...]:
        """What showing inner tensors changed, one entry an engine; the changed verdicts stand with the target."""
        changed = tuple(name for name in self._outputs if name in self._verdict_changed)
        found = []
        for side, verdicts in zip(self._sides, ((), changed), strict=True):
            differing = tuple(name for name in self._outputs if name in side.changed)
            if differing or verdicts:
                found.append(Observation(side.engine.label, differing, verdicts))
        return tuple(found)
