"""Whether a graph explains an engine's failure by its own types: what it loses in them shows without TensorRT, too."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.engine_trials import Recorded
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.signature import of_outputs
from surgeon_debug.layer_plan import Layer, plan_layers
from surgeon_debug.layers import DEFAULT_REFERENCE
from surgeon_debug.pairing import output_names
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.values import Value
from surgeon_debug.whole_run import OutputRules, WholeOutputs, run_whole
from surgeon_debug.widen import largest_finite
from surgeon_debug.widened_model import Widened, widen_model, widened_feed
from surgeon_passes.errors import SurgeonError
from surgeon_passes.graph import load
from surgeon_passes.save import save

STRICT = "reference"
"""What rounds every tensor to its type; onnxruntime keeps some of float16 in float32 on a CPU."""

_SHARE = 0.5  # of the engine's error, from which on the graph's own explains it
_MOST = 1 << 30  # bytes of a model that is not made wider
_AT_ONCE = 1 << 28  # bytes of tensors that are looked at in one run
_MOST_RUNS = 4

_Values = Sequence[Mapping[str, Value]]
_Run = Callable[[Path, Sequence[str], _Values], list[dict[str, Value]]]


@dataclasses.dataclass(frozen=True)
class Runs:
    """How the graph is run without TensorRT."""

    own: _Values | None
    """Its outputs under onnxruntime, one mapping a sample; None if they are not known yet."""
    timeout: float
    memory_cap: int | None
    made_up: bool
    """Whether the inputs are nobody's."""


def graph_explains(spec: EngineSpec, runs: Runs, seen: Recorded) -> str:
    """Why the graph itself explains how an engine fails; empty if it does not, or if that cannot be seen.

    The graph runs under onnxruntime with its floating-point type made wider. What it computes in its own type must not
    be as far from that as the engine is from the truth, and not have NaN or Inf where the wider type has none. Where
    onnxruntime hides an overflow, because it keeps tensors in a wider type on a CPU, the reference evaluator has the
    last word.

    Args:
        spec: The model, its inputs, and what its outputs are judged by.
        runs: How it is run here.
        seen: The engine that fails.
    """
    kind = seen.signature.kind if seen.signature is not None else None
    if kind not in (FailureKind.WRONG_NUMBERS, FailureKind.NOT_FINITE) or seen.flaky:
        return ""
    model = load(spec.model, allow_external=spec.allow_external)
    if sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None) > _MOST:
        return ""
    try:
        return _Explanation(spec, runs, seen, model).words()
    except SurgeonError:
        return ""  # what does not run in a wider type tells nothing


class _Explanation:
    def __init__(self, spec: EngineSpec, runs: Runs, seen: Recorded, model: ir.Model) -> None:
        self._spec, self._runs, self._seen = spec, runs, seen
        self._names = output_names(model)
        self._layers = {layer.tensor: layer for layer in plan_layers(model, spec.feeds[0])}
        self._model = model

    def words(self) -> str:
        with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
            wide = widen_model(self._model)
            if wide is None:
                return ""
            path = Path(folder) / "wide.onnx"
            save(self._model, path)
            feeds = [{name: widened_feed(v, wide.own) for name, v in sample.items()} for sample in self._spec.feeds]
            with self._engine(DEFAULT_REFERENCE) as run:
                truth = run(path, self._names, feeds)
            own = self._runs.own
            if own is None:
                with self._engine(DEFAULT_REFERENCE) as run:
                    own = run(self._spec.model, self._names, self._spec.feeds)
            found = self._explains(own, truth, "onnxruntime", wide)
            if found or wide.wide != "float32":
                return found
            with self._engine(DEFAULT_REFERENCE) as run:
                over = self._overflow(run, path, feeds, wide)
            if not over:
                return ""
            with self._engine(STRICT) as run:
                strict = run(self._spec.model, self._names, self._spec.feeds)
            found = self._explains(strict, truth, "the reference evaluator", wide)
            return f"{found}; {over}" if found else ""

    @contextlib.contextmanager
    def _engine(self, runner: str) -> Iterator[_Run]:
        runs = self._runs
        with make_engine(runner, isolated=True, timeout=runs.timeout, memory_cap=runs.memory_cap) as engine:
            yield lambda path, names, feeds: run_whole(engine, path, names, feeds, made_up=runs.made_up)

    def _explains(self, own: _Values, wide: _Values, who: str, kind: Widened) -> str:
        """What the graph loses in its own type, if that is enough; one phrase."""
        signature, words, error = self._measure(own, wide)
        if signature is None:
            return ""
        engine = self._seen.signature
        assert engine is not None
        if signature.kind is not FailureKind.NOT_FINITE:
            worst = self._seen.worst
            if engine.kind is not FailureKind.WRONG_NUMBERS or (worst and (error or 0.0) < _SHARE * worst):
                return ""
        return f"under {who} in {kind.own} it differs from itself in {kind.wide} ({words})"

    def _measure(self, own: _Values, wide: _Values) -> tuple[Signature | None, str, float | None]:
        rules = OutputRules(self._layers, self._spec.limits, ())
        watch = WholeOutputs(self._names, rules, ("the wider graph", "the graph"), self._spec.postprocess)
        watch.take([{name: _as(sample[name], wide[i][name]) for name in self._names} for i, sample in enumerate(own)])
        watch.compare(wide, [{} for _ in wide])
        return of_outputs(watch.results(wide[0]))

    def _overflow(self, run: _Run, path: Path, feeds: _Values, wide: Widened) -> str:
        """The first tensor that is too large for the graph's own type, in words."""
        for layers in _batches(list(self._layers.values())):
            names = [layer.tensor for layer in layers if layer.tensor]
            for sample in run(path, names, feeds):
                for layer in layers:
                    value = sample.get(layer.tensor)
                    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
                        continue
                    most = float(np.max(np.abs(value), where=np.isfinite(value), initial=0.0))
                    if wide.largest < most <= largest_finite(np.dtype(np.float32)):
                        reaches = f"tensor '{layer.tensor}' of {layer.node} reaches {most:.2g}"
                        return f"{reaches}, and {wide.own} ends at {wide.largest:.2g}"
        return ""


def _batches(layers: list[Layer]) -> Iterator[list[Layer]]:
    """Layers in groups whose tensors fit into memory together, not too many of them."""
    group: list[Layer] = []
    size = made = 0
    for layer in layers:
        group.append(layer)
        size += layer.nbytes
        if size >= _AT_ONCE:
            yield group
            group, size, made = [], 0, made + 1
            if made == _MOST_RUNS:
                return
    if group:
        yield group


def _as(value: Value, like: Value) -> Value:
    """A value in the type of another one, where both are numbers."""
    if isinstance(value, np.ndarray) and isinstance(like, np.ndarray) and value.dtype != like.dtype:
        return value.astype(like.dtype)
    return value


def unfit(words: str) -> tuple[str, str]:
    """What to say, as a reason and an advice, of a graph that its own types make wrong."""
    reason = f"the graph is numerically unfit for its types: {words}; TensorRT is not to blame for that"
    advice = (
        "keep what needs it in a wider type (surgeon rewrite -p convert-precision:keep=NODES from the float32 model), "
        "or see with surgeon compare --layers where it begins"
    )
    return reason, advice
