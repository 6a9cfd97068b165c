"""Look into an engine step by step, each step more of a disturbance than the one before, and mind whether it heals.

An engine fuses, and what is fused cannot be seen; to show a tensor it must fuse less, and a fault may go with that. So
the tensors that fusion has left are looked at first, which changes nothing; then a few tensors at the border of the
first group that goes wrong are marked; then that group runs alone; and only then are its tensors made outputs. After
each step the failure of the whole is looked for again. If looking heals it, that is what was found: the fault depends
on fusion, and what was fused before and is not any more is the evidence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from surgeon_debug.feed_pieces import isolated_piece
from surgeon_debug.feeds import make_feeds
from surgeon_debug.golden import GoldenReader
from surgeon_debug.ladder import Ladder, LadderVerdict, Rung, Step
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.layers import DEFAULT_REFERENCE, compare_models
from surgeon_debug.limits import Limits
from surgeon_debug.pair import LayerOptions
from surgeon_debug.pairing import output_names
from surgeon_debug.piece_source import PieceSource
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt import watch
from surgeon_debug.runners.tensorrt.inspector import info_from_json
from surgeon_debug.runners.tensorrt.layer_map import LayerMap, ModelTensor
from surgeon_debug.runners.tensorrt.record import BUILD
from surgeon_debug.stage import ModelLike, label_of, staged
from surgeon_debug.suspect_group import Group, first_bad_group, most_suspect
from surgeon_debug.values import Value
from surgeon_debug.verdict import Verdict, coarsest, table_limit
from surgeon_debug.whole_run import OutputRules, WholeOutputs, run_whole
from surgeon_passes.errors import EngineError
from surgeon_passes.graph import load
from surgeon_passes.spec import quote
from surgeon_passes.trusted_shapes import trusted_shapes

_MOST_MARKED = 12  # tensors at the border of a group


def climb(
    model: ModelLike,
    *,
    target: str,
    reference: str = DEFAULT_REFERENCE,
    feeds: Sequence[Mapping[str, Value]] | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    limits: Limits | None = None,
    timeout: float | None = None,
    memory_cap: int | None = None,
    allow_external: bool = False,
) -> Ladder:
    """Look for the group of nodes that a TensorRT engine computes wrongly, disturbing it as little as will do.

    Args:
        model: The model.
        target: The text of the runner ``tensorrt``.
        reference: The runner that is believed.
        feeds: One sample or more; None makes one up.
        seed: Decides that one.
        dims: Sizes of its symbolic dimensions.
        limits: The caller's own limits for the outputs.
        timeout: Seconds for one build or one run.
        memory_cap: Bytes of memory for each engine's process.
        allow_external: Accept weights outside the model's folder.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner does not do.
        EngineError: The reference cannot run, or the whole engine cannot be built or run.
    """
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(staged(model, allow_external=allow_external))
        loaded = load(path, allow_external=allow_external)
        fed = list(feeds) if feeds is not None else [make_feeds(loaded, seed=seed, sample=0, dims=dims)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surgeon-")))
        golden = folder / "reference.golden"
        compare_models(
            path,
            target=reference,
            reference=reference,
            feeds=fed,
            layers=LayerOptions(isolate=False, whole=False, follow=False),
            save_reference=golden,
            timeout=timeout,
            memory_cap=memory_cap,
            allow_external=allow_external,
        )
        held = stack.enter_context(GoldenReader(golden))
        climber = _Climber(
            path, loaded, target, fed, held, golden, folder, limits or Limits(), timeout, memory_cap, feeds is None
        )
        return dataclasses.replace(climber.climb(), model=label_of(model))


class _Climber:
    """Makes the steps."""

    def __init__(
        self,
        path: Path,
        model: ir.Model,
        target: str,
        feeds: Sequence[Mapping[str, Value]],
        golden: GoldenReader,
        golden_path: Path,
        folder: Path,
        limits: Limits,
        timeout: float | None,
        memory_cap: int | None,
        made_up: bool,
    ) -> None:
        self._path, self._model, self._target, self._feeds = path, model, target, feeds
        self._golden, self._golden_path, self._folder = golden, golden_path, folder
        self._limits, self._timeout, self._memory_cap, self._made_up = limits, timeout, memory_cap, made_up
        self._names = output_names(model)
        self._plan = {layer.tensor: layer for layer in plan_layers(model, feeds[0])}
        self._tensors = _tensors_of(model, self._plan)
        self._precision: str | None = None
        self._rungs: list[Rung] = []
        self._layers: dict[Step, LayerMap] = {}

    def climb(self) -> Ladder:
        whole = self._step(Step.WHOLE, "")
        if whole.fails is not True:
            return self._end(LadderVerdict.RIGHT, "the outputs are right", None)
        seen = self._step(Step.UNFUSED, "debug=unfused")
        if seen.fails is False:
            return self._healed(seen, None)
        group = None if seen.fails is None else first_bad_group(self._layers[Step.UNFUSED], seen.looks, self._bad)
        if group is None:
            return self._end(
                LadderVerdict.UNKNOWN, "no layer of the engine could be told to be the first that is wrong", None
            )
        border = self._border(group)
        marked = self._step(Step.MARKED, "observe=debug", border) if border else None
        if marked is not None and marked.fails is False:
            return self._healed(marked, group)
        if marked is not None:
            group = self._narrower(group, Step.MARKED, marked)
        alone = self._alone(group)
        if not alone or len(group.nodes) > 1:
            inside = [name for name, tensor in self._tensors.items() if tensor.node in group.nodes]
            outputs = self._step(Step.OUTPUTS, "observe=output", inside[:_MOST_MARKED])
            if outputs.fails is False:
                return self._healed(outputs, group, alone=alone)
            group = self._narrower(group, Step.OUTPUTS, outputs)
        words = f"{_named(group.nodes)} is given right values and makes wrong ones"
        return self._end(LadderVerdict.LOCATED, words + _alone_words(alone), group, alone=alone)

    def _narrower(self, group: Group, step: Step, rung: Rung) -> Group:
        """The part of a group that is to blame, where a step has shown what lies inside it."""
        if step not in self._layers:
            return group
        found = first_bad_group(self._layers[step], rung.looks, self._bad)
        return found if found is not None and set(found.nodes) < set(group.nodes) else group

    def _step(self, step: Step, options: str, shown: Sequence[str] = ()) -> Rung:
        """Build and run the whole model in one of the ways."""
        record = self._folder / step.name.lower()
        text = _with(self._target, options, f"record={quote(str(record))}")
        try:
            watched = step in (Step.UNFUSED, Step.MARKED)
            values, looks = self._watched(text, shown) if watched else self._run(text, shown)
        except EngineError as error:
            if step is Step.WHOLE:
                raise
            rung = Rung(step, None, str(error))
        else:
            words = self._wrong(values)
            self._layers[step] = _map_of(record, self._tensors)
            rung = Rung(step, bool(words), words or "the outputs are right", tuple(looks), self._split(step))
        self._rungs.append(rung)
        return rung

    @contextlib.contextmanager
    def _engine(self, text: str) -> Iterator[Any]:
        engine = make_engine(text, isolated=True, timeout=self._timeout, memory_cap=self._memory_cap)
        with engine:
            engine.ready()
            self._precision = engine.precision
            yield engine

    def _run(self, text: str, shown: Sequence[str]) -> tuple[list[dict[str, Value]], list[watch.Look]]:
        """Outputs, and looks at the tensors that were made outputs."""
        with self._engine(text) as engine:
            found = run_whole(engine, self._path, [*self._names, *shown], self._feeds, made_up=self._made_up)
        order = [name for name in self._plan if name in {*shown, *self._names}]
        looks = [
            watch.look_at(name, sample[name], self._golden.get(s, name))
            for s, sample in enumerate(found)
            for name in order
            if name in sample and self._golden.has(s, name)
        ]
        return [{name: sample[name] for name in self._names if name in sample} for sample in found], looks

    def _watched(self, text: str, shown: Sequence[str]) -> tuple[list[dict[str, Value]], list[watch.Look]]:
        """Outputs, and what the engine showed on the way; the worst of several samples counts."""
        tensors = self._folder / "tensors.json"
        held = {name: (t.node, None if t.shape is None else list(t.shape), t.kind) for name, t in self._tensors.items()}
        tensors.write_text(json.dumps(held), encoding="utf-8")
        options = {"runner": text, "golden": self._golden_path, "tensors": tensors}
        said = ",".join(f"{key}={quote(str(value))}" for key, value in options.items())
        wanted = [*self._names, *shown, watch.SEEN]
        with self._engine(f"{watch.__file__}:Watch:{said}") as engine:
            found = run_whole(engine, self._path, wanted, self._feeds, made_up=self._made_up)
        looks = [look for sample in found for look in watch.looks_of(str(sample.pop(watch.SEEN)[0]))]
        return found, looks

    def _wrong(self, values: Sequence[Mapping[str, Value]]) -> str:
        """How the outputs are wrong; empty if they are right."""
        rules = OutputRules(self._plan, self._limits, (self._precision,) if self._precision else ())
        held = WholeOutputs(self._names, rules, ("the reference", self._target))
        held.take([dict(sample) for sample in values])
        truth = [self._truth(sample) for sample in range(len(values))]
        held.compare(truth, [{} for _ in truth])
        bad = [result for result in held.results(truth[0]) if result.verdict is not Verdict.AGREE]
        return f"{bad[0].tensor}: {bad[0].judgement.reason}" if bad else ""

    def _truth(self, sample: int) -> dict[str, Value]:
        return {name: self._golden.get(sample, name) for name in self._names if self._golden.has(sample, name)}

    def _bad(self, look: watch.Look) -> bool:
        """Whether a tensor of the engine is off by more than the precision that it went through explains."""
        layer = self._plan.get(look.tensor)
        precision = coarsest(*(p for p in (layer.precision if layer else None, self._precision) if p))
        return bool(look.special or look.mismatch) or not look.rel_l2 <= table_limit(precision)

    def _border(self, group: Group) -> list[str]:
        """What the group reads and writes, by the model's names."""
        names = [name for name in (*group.reads, *group.writes) if name not in self._names and name in self._plan]
        return names[:_MOST_MARKED]

    def _alone(self, group: Group) -> bool | None:
        """Whether the group is wrong when it runs alone on the reference's values."""
        source = PieceSource(self._model, self._folder, "piece")
        wanted = [name for name in group.writes if name in source.producer]
        ready = [name for name in self._golden.names(0) if self._tensors[name].node not in group.nodes]
        _, reads = source.closure(wanted, ready)
        samples = [
            {
                **self._feeds[s],
                **{name: self._golden.get(s, name) for name in {*reads, *wanted} if self._golden.has(s, name)},
            }
            for s in range(self._golden.samples)
        ]
        try:
            if not wanted:
                raise EngineError("the group writes nothing that the model has a name for")
            piece = isolated_piece(source, wanted, ready, samples, {})
            with self._engine(_with(self._target)) as engine:
                engine.prepare(source.write(piece.cut), wanted)
                found = [engine.run(feeds) for feeds in piece.feeds]
        except EngineError as error:
            self._rungs.append(Rung(Step.PIECE, None, str(error)))
            return None
        looks = [
            watch.look_at(name, sample[name], samples[s][name]) for s, sample in enumerate(found) for name in sample
        ]
        bad = [look for look in looks if self._bad(look)]
        words = f"{bad[0].tensor} {bad[0].words}" if bad else "the group alone is right"
        self._rungs.append(Rung(Step.PIECE, bool(bad), words, tuple(looks)))
        return bool(bad)

    def _known(self, sample: int, names: set[str]) -> dict[str, Value]:
        """Inputs and the reference's values of some tensors."""
        held = {name: self._golden.get(sample, name) for name in names if self._golden.has(sample, name)}
        return {**self._feeds[sample], **held}

    def _split(self, step: Step) -> tuple[tuple[str, ...], ...]:
        """What the whole engine computes together and this step's does not."""
        if Step.WHOLE not in self._layers or step is Step.WHOLE:
            return ()
        before, after = (
            {frozenset(item.nodes) for item in self._layers[which].layers if len(item.nodes) > 1 and item.layer.nodes}
            for which in (Step.WHOLE, step)
        )
        return tuple(sorted(tuple(sorted(nodes)) for nodes in before - after))

    def _healed(self, rung: Rung, group: Group | None, *, alone: bool | None = None) -> Ladder:
        words = f"the outputs are right once there are {rung.step.value}: the fault depends on fusion"
        makers = {self._tensors[name].node for name in (group.writes if group else ()) if name in self._tensors}
        split = most_suspect(rung.split, group, makers)
        if split:
            words += f"; {_named(split)} are computed together in the engine that is wrong, and apart in this one"
        return self._end(LadderVerdict.FUSION, words, group, alone=alone, nodes=split)

    def _end(
        self,
        verdict: LadderVerdict,
        words: str,
        group: Group | None,
        *,
        alone: bool | None = None,
        nodes: tuple[str, ...] = (),
    ) -> Ladder:
        named = group.nodes if group is not None and not nodes else nodes
        return Ladder("", self._target, verdict, words, named, group, alone, tuple(self._rungs))


def _with(text: str, *options: str) -> str:
    """The text of a runner with more options."""
    said = ",".join(filter(None, options))
    if not said:
        return text
    return f"{text},{said}" if ":" in text and not text.endswith(":") else f"{text.rstrip(':')}:{said}"


def _tensors_of(model: ir.Model, plan: Mapping[str, Layer]) -> dict[str, ModelTensor]:
    """The model's tensors, with sizes and types where they are known."""
    shapes = trusted_shapes(model, propagate_data=True)
    found = {}
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.name in plan:
                dtype = shapes.dtype(value) or value.dtype
                kind = "" if dtype is None or dtype == ir.DataType.STRING else dtype.numpy().name
                found[value.name] = ModelTensor(plan[value.name].node, shapes.static(value), kind)
    return found


def _map_of(record: Path, tensors: Mapping[str, ModelTensor]) -> LayerMap:
    try:
        layers = json.loads((record / BUILD).read_text(encoding="utf-8")).get("layers", ())
    except (OSError, ValueError):
        layers = ()
    return LayerMap(info_from_json(layers), tensors)


def _named(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")


def _alone_words(alone: bool | None) -> str:
    if alone is None:
        return ""
    return ", alone as well" if alone else ", but not when it runs alone"
