"""Two models on two engines with the same inputs, ready to be compared: by outputs alone, or layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.differential import Differential, SegmentValues, Walker
from surgeon_debug.golden import GoldenWriter
from surgeon_debug.inner_layers import blame_inside, named_inside
from surgeon_debug.judge_layers import LayerJudge
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.limits import Limits
from surgeon_debug.memory_left import memory_left
from surgeon_debug.pairing import joined_outputs
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.recorded import Recorded
from surgeon_debug.recorded_walker import RecordedWalker
from surgeon_debug.runners.contract import Engine
from surgeon_debug.segments import MAX_NODES, plan_segments
from surgeon_debug.user_functions import Postprocess
from surgeon_debug.values import Value
from surgeon_debug.verdict import coarsest
from surgeon_debug.whole_run import OutputRules, WholeOutputs, run_whole
from surgeon_passes.observe_bodies import Observed

SPARE_MEMORY = 256 << 20
"""Bytes that tensors of a segment may take beyond twice the largest, unless the caller says otherwise."""

_WHOLE_FACTOR = 2.5  # an engine that prepares a model holds its weights, and packed copies of them


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """How layers are compared."""

    memory: int | None = None
    """Bytes for tensors and for weights in use; None for twice the largest tensor and 256 MiB."""
    isolate: bool = True
    """Run every layer alone as well, on the reference's inputs, to tell introduced from inherited error."""
    whole: bool | None = None
    """Run the whole target first, with nothing shown; None: if its weights fit the memory this machine has left."""
    iterations: int = 8
    """How many iterations of loops are compared inside."""
    inner: int = 1000
    """The most tensors of bodies and functions that are compared."""
    follow: bool = True
    """Run the target on its own values too; if not, all that is compared is what layers do alone."""
    repeats: int = 1
    """How often layers are run alone; of several results that differ the worst is judged."""
    compile_each: bool = False
    """Whether these are compiled anew each time."""
    segment: int = MAX_NODES
    """The most nodes of one segment."""


class Pair:
    """A reference and a target.

    Args:
        paths: Their models' files, in ONNX's binary form.
        models: The models as they are compared, with the tensors of bodies shown; the same object twice if there is
            only one.
        engines: What runs them.
        feeds: Their inputs, one mapping a sample.
        limits: The caller's own limits.
        postprocess: What is compared instead of the outputs.
        recorded: The reference, if it is a recording; its engine then emulates precisions only.
        keep: Where the reference's values are written.
        made_up: The inputs are nobody's.
    """

    def __init__(
        self,
        paths: tuple[Path, Path],
        models: tuple[Observed, Observed],
        engines: tuple[Engine, Engine],
        feeds: tuple[Sequence[Mapping[str, Value]], Sequence[Mapping[str, Value]]],
        *,
        limits: Limits,
        postprocess: Postprocess | None = None,
        recorded: Recorded | None = None,
        keep: GoldenWriter | None = None,
        made_up: bool,
    ) -> None:
        self._paths, self._engines, self._feeds = paths, engines, feeds
        self._models = (models[0].model, models[1].model)
        self._limits, self._postprocess, self._made_up = limits, postprocess, made_up
        self._recorded, self._keep = recorded, keep
        self._names = joined_outputs(*self._models)
        self._plan, self._common, self._unmatched = _common_layers(models, feeds)
        self._inner = {tensor.name: tensor for tensor in models[0].tensors}
        self._declined = models[0].declined
        self._labels = (engines[0].label if recorded is None else recorded.label, engines[1].label)
        precisions = tuple(e.precision for e in (engines if recorded is None else engines[1:]) if e.precision)
        self._rules = OutputRules(self._plan, limits, precisions)

    def compare_outputs(self) -> Comparison:
        """Compare the graph outputs alone.

        Raises:
            EngineError: A side cannot run.
        """
        self._limits.require_matched(self._names)
        watch = self._watch()
        reference = self._reference_outputs()
        target = run_whole(self._engines[1], self._paths[1], self._names, self._feeds[1], made_up=self._made_up)
        delivered = list(reference[0])
        self._write(reference)
        watch.take(target)
        watch.note_second_run(self._engines[1].run(self._feeds[1][0]))
        watch.compare(reference, [{} for _ in reference])
        return dataclasses.replace(self._comparison(watch.results(delivered)), flaky=tuple(watch.flaky.items()))

    def _reference_outputs(self) -> list[dict[str, Value]]:
        if self._recorded is not None:
            return [self._recorded.values(sample, self._names) for sample in range(len(self._feeds[0]))]
        return run_whole(self._engines[0], self._paths[0], self._names, self._feeds[0], made_up=self._made_up)

    def _write(self, values: Sequence[Mapping[str, Value]]) -> None:
        """Put values of the reference into the golden file."""
        if self._keep is None:
            return
        for sample, found in enumerate(values):
            for name, value in found.items():
                if not self._keep.has(sample, name):
                    self._keep.add(sample, name, value)

    def compare_layers(
        self, folder: Path, options: LayerOptions, seed: int, progress: Callable[[int, int], None] | None
    ) -> Comparison:
        """Compare graph outputs and layers.

        Args:
            folder: Where pieces of the models may be written.
            options: How.
            seed: Decides the signs of perturbations.
            progress: Called with the number of layers done and to do.

        Raises:
            EngineError: A side cannot run at all.
        """
        sources = self._sources(folder)
        walkers = self._walkers(sources)
        layers = [layer for layer in self._common if all(_computes(source, layer.tensor) for source in sources)]
        self._limits.require_matched([*self._names, *(layer.tensor for layer in layers)])
        sized = _per_sample(layers, len(self._feeds[0]))
        segments = plan_segments(*sources, sized, self._budget(layers, options), options.segment)
        watch = self._watch()
        judge = self._judge(walkers, sources, seed)
        seen: dict[str, None] = dict.fromkeys(name for name in self._names if not _computes(sources[0], name))

        def take(values: SegmentValues) -> None:
            seen.update(dict.fromkeys(values.reference[0]))
            self._write(values.reference)
            watch.compare(values.golden, values.target)
            judge(values)

        walk = Differential(
            walkers[0],
            walkers[1],
            segments,
            isolate=options.isolate,
            follow=options.follow,
            repeats=options.repeats,
            compile_each=options.compile_each,
            judge=take,
            progress=progress,
        )
        whole = self._runs_whole(options)
        walk.run((lambda: self._run_target(watch, sources[1])) if whole else None)
        watch.compare(_given(sources[0], self._names, self._feeds[0]), [{} for _ in self._feeds[0]])
        unobserved = {**judge.unobserved, **walk.unobserved, **dict(self._declined)}
        judged = [judge.results[layer.tensor] for layer in layers if layer.tensor in judge.results]
        comparison = self._comparison(watch.results(seen))
        return dataclasses.replace(
            comparison,
            layers=tuple(blame_inside(judged, self._inner)),
            layered=True,
            unmatched=tuple(self._unmatched),
            unobserved=tuple((name, why) for name, why in unobserved.items() if name not in judge.results),
            # What was computed from the reference's values says nothing about looking.
            observations=() if walk.restarted else watch.observations(),
            flaky=tuple(watch.flaky.items()),
            segments=len(segments),
            notes=tuple(_notes(whole, walk)),
        )

    def _watch(self) -> WholeOutputs:
        return WholeOutputs(self._names, self._rules, self._labels, self._postprocess)

    def _walkers(self, sources: tuple[PieceSource, PieceSource]) -> tuple[Walker, Walker]:
        target = Walker(self._engines[1], sources[1], self._feeds[1])
        if self._recorded is not None:
            return RecordedWalker(self._recorded, self._engines[0], sources[0], self._feeds[0]), target
        return Walker(self._engines[0], sources[0], self._feeds[0]), target

    def _judge(self, walkers: tuple[Walker, Walker], sources: tuple[PieceSource, PieceSource], seed: int) -> LayerJudge:
        return LayerJudge(
            walkers[0],
            walkers[1],
            engine_precision=self._engines[1].precision,
            limits=self._limits,
            random=_random_tensors(*sources),
            stacked={name: tensor.iteration_axes for name, tensor in self._inner.items() if tensor.stacked},
            seed=seed,
        )

    def _run_target(self, watch: WholeOutputs, source: PieceSource) -> None:
        path = self._paths[1] if self._inner else (source.write_whole() or self._paths[1])
        engine, feeds = self._engines[1], self._feeds[1]
        watch.take(run_whole(engine, path, self._names, feeds, made_up=self._made_up))
        watch.note_second_run(engine.run(feeds[0]))

    def _runs_whole(self, options: LayerOptions) -> bool:
        if options.whole is not None:
            return options.whole
        weights = [v.const_value for v in self._models[1].graph.initializers.values() if v.const_value is not None]
        return _WHOLE_FACTOR * sum(weight.nbytes for weight in weights) < memory_left()

    def _sources(self, folder: Path) -> tuple[PieceSource, PieceSource]:
        first = PieceSource(self._models[0], folder, "reference")
        if self._models[1] is self._models[0]:
            return first, first
        return first, PieceSource(self._models[1], folder, "target")

    def _budget(self, layers: Sequence[Layer], options: LayerOptions) -> int:
        if options.memory is not None:
            return options.memory
        return 2 * max((layer.nbytes for layer in layers), default=0) + SPARE_MEMORY

    def _comparison(self, outputs: Sequence[TensorResult]) -> Comparison:
        return Comparison(
            model="",
            other="",
            reference=self._labels[0],
            target=self._labels[1],
            samples=len(self._feeds[0]),
            tolerance="",
            outputs=tuple(outputs),
            layers=(),
            layered=False,
            unmatched=(),
            unobserved=(),
            observations=(),
            flaky=(),
            segments=0,
            notes=(),
        )


def _common_layers(
    models: tuple[Observed, Observed],
    feeds: tuple[Sequence[Mapping[str, Value]], Sequence[Mapping[str, Value]]],
) -> tuple[dict[str, Layer], list[Layer], list[str]]:
    """All layers by name; those both models have, in the first model's order; the tensors only the first has."""
    plan = _layers_of(models[0], feeds[0][0])
    theirs = plan
    if models[1] is not models[0]:
        theirs = _layers_of(models[1], feeds[1][0])
    other = {layer.tensor: layer for layer in theirs}
    joined = {layer.tensor: _joined(layer, other.get(layer.tensor)) for layer in plan}
    for name, layer in other.items():
        joined.setdefault(name, layer)
    common = [joined[layer.tensor] for layer in plan if layer.tensor in other]
    return joined, common, [layer.tensor for layer in plan if layer.tensor not in other]


def _layers_of(model: Observed, feeds: Mapping[str, Value]) -> list[Layer]:
    inner = {tensor.name for tensor in model.tensors}
    return named_inside(plan_layers(model.model, feeds, inner), model)


def _joined(layer: Layer, other: Layer | None) -> Layer:
    if other is None:
        return layer
    return dataclasses.replace(
        layer,
        nbytes=max(layer.nbytes, other.nbytes),
        precision=coarsest(layer.precision, other.precision),
        rounds_to_integers=layer.rounds_to_integers or other.rounds_to_integers,
    )


def _per_sample(layers: Sequence[Layer], samples: int) -> list[Layer]:
    """The layers with the memory they take for all samples together."""
    return [dataclasses.replace(layer, nbytes=layer.nbytes * samples) for layer in layers]


def _computes(source: PieceSource, name: str) -> bool:
    return name in source.producer and name not in source.non_tensors


def _random_tensors(*sources: PieceSource) -> frozenset[str]:
    """Tensors that are drawn at random or depend on such."""
    random: set[str] = set()
    for source in dict.fromkeys(sources):
        for index, node in enumerate(source.nodes):
            if source.is_random(index) or not random.isdisjoint(node.reads):
                random.update(node.writes)
    return frozenset(random)


def _given(source: PieceSource, names: Sequence[str], feeds: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
    """Outputs that no node computes: inputs and constants handed on."""
    constants = {name: value for name in names if (value := source.constant(name)) is not None}
    return [{**constants, **{name: sample[name] for name in names if name in sample}} for sample in feeds]


def _notes(whole: bool, walk: Differential) -> list[str]:
    notes = []
    if not whole:
        notes.append("the target's whole model was not run at once; its outputs are those of the segments")
    if walk.restarted:
        names = list(walk.restarted)
        notes.append(
            f"the target did not show {', '.join(names[:3])}; what follows was computed from the reference's values"
        )
    return notes
