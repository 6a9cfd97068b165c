"""What is true about a pair of engines on a model, found without the code under test: values, and every node alone.

A node alone is that node in a model of its own, fed what the reference computes. Its error there is introduced by
nothing else; a healthy engine's is the noise that a fault has to stand out from.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from surgeon_debug.feeds import make_feeds
from surgeon_debug.layers import as_engine
from surgeon_debug.runners.contract import Runner
from surgeon_debug.values import element_type_of
from tests.bench.planted_layers.corrupt import Fault
from tests.bench.planted_layers.faults import FaultyEngine, Plan

Array = np.ndarray
Convert = Callable[[onnx.ModelProto], onnx.ModelProto]

_ROUNDING = {"float32": 3.5e-8, "float16": 2.8e-4, "bfloat16": 2.3e-3, "float64": 6.5e-17}
"""Root mean square of the relative difference of two engines that round the same number, each in its own way."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two engines, and what the second runs."""

    name: str
    """How tables call it."""
    base: str
    """The text of the target's runner."""
    reference: str = "onnxruntime:optimize=none"
    """The text of the reference's runner."""
    convert: Convert | None = None
    """Makes the model of the target; None if both run the same."""
    prepare: Convert | None = None
    """Makes the model of both from the architecture's; None to leave it."""


def run_all(model: onnx.ModelProto, runner: str | Runner, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the main graph that a runner shows and that depends on the inputs."""
    names = live_tensors(model.graph)
    with tempfile.TemporaryDirectory() as folder, as_engine(runner) as engine:
        path = Path(folder) / "model.onnx"
        onnx.save_model(model, str(path))
        engine.prepare(path, names)
        return {k: v for k, v in engine.run(fit(feeds, model)).items() if isinstance(v, np.ndarray)}


def live_tensors(graph: onnx.GraphProto) -> list[str]:
    """Tensors that nodes compute from the graph's inputs; what follows from constants alone is left out."""
    found = {info.name: None for info in graph.input}
    inputs = len(found)
    for node in graph.node:
        if any(name in found for name in reads_of(node)):
            found.update((name, None) for name in node.output if name)
    return list(found)[inputs:]


def reads_of(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads, in its bodies too."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names += [name for inner in graph.node for name in reads_of(inner)]
    return names


def fit(feeds: Mapping[str, Array], model: onnx.ModelProto) -> dict[str, Array]:
    """The same values in the types that a model's inputs have."""
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    wanted = {name: helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items()}
    return {name: np.asarray(value).astype(wanted[name]) for name, value in feeds.items() if name in wanted}


@dataclasses.dataclass
class Ground:
    """A pair on a model, with healthy values of both sides."""

    pair: Pair
    model: onnx.ModelProto
    """What the reference runs."""
    other: onnx.ModelProto | None
    """What the target runs; None for the same."""
    feeds: dict[str, Array]
    reference: dict[str, Array]
    """Tensors of the reference by name."""
    target: dict[str, Array]
    """Tensors of the target, while it is healthy, each on its own inputs."""

    @classmethod
    def of(cls, model: onnx.ModelProto, pair: Pair, sample: int = 0) -> Ground:
        """Convert, make inputs up and run both sides."""
        ours = pair.prepare(model) if pair.prepare else model
        other = pair.convert(ours) if pair.convert else None
        feeds = {name: np.asarray(value) for name, value in make_feeds(ir.from_proto(ours), sample=sample).items()}
        reference = feeds | run_all(ours, pair.reference, feeds)
        theirs = other or ours
        return cls(pair, ours, other, feeds, reference, fit(feeds, theirs) | run_all(theirs, pair.base, feeds))

    @property
    def theirs(self) -> onnx.ModelProto:
        """What the target runs."""
        return self.other or self.model

    def alone(self, tensors: Sequence[str], faults: Sequence[Fault] = ()) -> dict[str, Array]:
        """What the target computes for some tensors, each node alone on the reference's values.

        Args:
            tensors: Outputs of nodes of the target's main graph.
            faults: What is wrong with the target.
        """
        model, feeds = _apart(self.theirs, tensors, self.reference, self.target)
        engine = FaultyEngine(Plan(self.pair.base, tuple(faults)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "alone.onnx"
            onnx.save_model(model, str(path))
            try:
                engine.prepare(path, list(tensors))
                return engine.run(feeds)
            finally:
                engine.close()

    def noise(self, tensor: str) -> float:
        """Relative L2 error that says nothing about a node: what the engine and what the precision make of it.

        The largest of three: what the healthy target introduces; what float32 loses against float64 at this node, for
        an engine may sum up in another order; rounding the result once.
        """
        found = relative_l2(self.reference[tensor], self.alone([tensor])[tensor])
        lost = self._lost_in_float32(tensor)
        return max(found, lost, _ROUNDING.get(self.target[tensor].dtype.name, 0.0))

    def _lost_in_float32(self, tensor: str) -> float:
        """Error of the reference against float64, both alone; 0 where there is no float64 of it."""
        if self.reference[tensor].dtype != np.float32:
            return 0.0
        model, feeds = _apart(self.model, [tensor], self.reference, self.reference)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                (wide,) = ReferenceEvaluator(_in_float64(model)).run([tensor], {k: _wide(v) for k, v in feeds.items()})
            except Exception:  # noqa: BLE001  (some operators have no float64; their noise is measured otherwise)
                return 0.0
        lost = relative_l2(wide, self.reference[tensor])
        return lost if wide.dtype == np.float64 and np.isfinite(lost) else 0.0

    def introduced(self, tensor: str, faults: Sequence[Fault]) -> float:
        """Relative L2 error that the faulty target introduces at a node; infinite where it makes NaN or Inf."""
        return relative_l2(self.reference[tensor], self.alone([tensor], faults)[tensor])


def _wide(value: Array) -> Array:
    return value.astype(np.float64) if value.dtype == np.float32 else value


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with float64 constants; what computes it must not insist on declared types."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_wide(numpy_helper.to_array(tensor)), tensor.name))
    return model


def relative_l2(reference: Array, value: Array) -> float:
    """Norm of the difference over the norm of the reference; infinite for other shapes, NaN or Inf."""
    if reference.shape != value.shape:
        return float("inf")
    r, v = (np.asarray(x).astype(np.float64) for x in (reference, value))
    with np.errstate(all="ignore"):
        error, size = np.linalg.norm(v - r), np.linalg.norm(r)
    if error == 0.0:
        return 0.0
    return float(error / size) if np.isfinite(error) and size > 0 else float("inf")


def _apart(
    model: onnx.ModelProto, tensors: Sequence[str], reference: Mapping[str, Array], target: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model in which the nodes of some tensors stand unconnected, and its inputs."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    live = {info.name for info in graph.input}.union(live_tensors(graph))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    wanted = list({id(producer[name]): producer[name] for name in tensors}.values())
    kept: dict[str, onnx.TensorProto] = {}
    nodes = _constant_nodes({name for node in wanted for name in node.input}, producer, live, constants, kept)
    feeds: dict[str, Array] = {}
    for k, node in enumerate(wanted):
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for i, name in enumerate(node.input):
            if name in live:
                copy.input[i] = f"{k}/{name}"
                feeds[copy.input[i]] = _golden(model, name, reference, target)
        for i, name in enumerate(node.output):
            if name and name not in tensors:
                copy.output[i] = f"{k}/{name}/unused"
        nodes.append(copy)
    inputs = [helper.make_tensor_value_info(name, element_type_of(value), value.shape) for name, value in feeds.items()]
    outputs = [
        helper.make_tensor_value_info(name, element_type_of(target[name]), target[name].shape) for name in tensors
    ]
    apart = helper.make_graph(nodes, "alone", inputs, outputs, list(kept.values()))
    made = helper.make_model(apart, opset_imports=model.opset_import, ir_version=model.ir_version)
    return made, feeds


def _constant_nodes(
    names: Iterable[str],
    producer: Mapping[str, onnx.NodeProto],
    live: Collection[str],
    constants: Mapping[str, onnx.TensorProto],
    kept: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """The nodes that compute what follows from constants alone, in order; the constants they need go to ``kept``."""
    todo, needed = list(names), set()
    while todo:
        name = todo.pop()
        if name in constants:
            kept[name] = constants[name]
        elif name in producer and name not in live and name not in needed:
            needed.update(producer[name].output)
            todo += reads_of(producer[name])
    order = {id(node): node for name, node in producer.items() if name in needed}
    return [onnx.NodeProto.FromString(node.SerializeToString()) for node in order.values()]


def _golden(model: onnx.ModelProto, name: str, reference: Mapping[str, Array], target: Mapping[str, Array]) -> Array:
    """The reference's value in the target's type; where only the target has it (a Cast), what that is a Cast of."""
    if name in target and name in reference:
        return np.asarray(reference[name]).astype(target[name].dtype)
    if name in target:
        node = next(node for node in model.graph.node if name in node.output)
        if node.op_type == "Cast":
            return _golden(model, node.input[0], reference, target).astype(target[name].dtype)
        return target[name]
    raise KeyError(name)
