"""A network that a fault is to be planted in: its inputs, what is right, what a mock engine makes of it or a piece."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from surgeon_debug.compare import Tally
from surgeon_debug.feeds import make_feeds
from surgeon_debug.values import element_type_of
from surgeon_debug.verdict import table_limit
from tests.bench.planted.engine import MockEngine
from tests.bench.planted.engine import relative_l2 as whole_l2
from tests.bench.planted.fusion import reads_of
from tests.bench.planted.plan import EnginePlan
from tests.bench.planted_layers.ground import Ground, live_tensors, relative_l2
from tests.bench.planted_layers.pairs import PAIRS

Array = np.ndarray
Feeds = Mapping[str, Array]
_ROUNDING = {"float32": 3.5e-8, "float16": 2.8e-4, "bfloat16": 2.3e-3}
"""Relative error of one rounding, root mean square."""
_ORDINARY = 10.0
"""How much more a comparison allows among ordinary elements."""
RIGHT = EnginePlan()
"""Plain onnxruntime, unoptimised."""


def values_of(
    plan: EnginePlan, model: onnx.ModelProto, feeds: Sequence[Feeds], names: Sequence[str] = ()
) -> list[dict[str, Array]]:
    """What a mock engine makes of each sample.

    Args:
        plan: The engine.
        model: The model.
        feeds: The samples.
        names: Tensors wanted, which become outputs of the model; its own outputs if there are none.

    Raises:
        Exception: The engine did not deliver; the plan says how.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = [info.name for info in model.graph.output]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in there)
    engine = MockEngine(plan)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(shown, str(path))
        engine.prepare(path, list(names) or there)
        try:
            return [engine.run(sample) for sample in feeds]
        finally:
            engine.close()


class Host:
    """A network with inputs and healthy values.

    Args:
        model: The network.
        engine: The engine, without faults.
        samples: How many samples of inputs.
    """

    def __init__(self, model: onnx.ModelProto, engine: EnginePlan, samples: int = 1) -> None:
        self.model, self.engine = model, engine
        source = ir.from_proto(_short(model))
        self.feeds: list[dict[str, Array]] = [
            {name: np.asarray(value) for name, value in make_feeds(source, sample=i).items()} for i in range(samples)
        ]
        self.expected = values_of(RIGHT, model, self.feeds)

    @functools.cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        """Nodes of the main graph."""
        return list(self.model.graph.node)

    @functools.cached_property
    def right(self) -> dict[str, Array]:
        """Every tensor of the main graph that depends on the inputs, for the first sample."""
        found = values_of(RIGHT, self.model, self.feeds[:1], live_tensors(self.model.graph))[0]
        return self.feeds[0] | {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

    @functools.cached_property
    def ground(self) -> Ground:
        """The same in the words of the benchmark of layers, whose draws are used."""
        return Ground(PAIRS["float32"], self.model, None, self.feeds[0], self.right, self.right)

    @functools.cached_property
    def live(self) -> set[int]:
        """Positions of the nodes that an output depends on, and that depend on an input."""
        moving = set(live_tensors(self.model.graph))
        wanted = {info.name for info in self.model.graph.output}
        found = set()
        for i in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[i]
            if wanted.intersection(node.output):
                wanted.update(reads_of(node))
                if moving.intersection(node.output):
                    found.add(i)
        return found

    @functools.cached_property
    def place(self) -> dict[str, int]:
        """The position of the node that computes a tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    @functools.cached_property
    def readers(self) -> dict[str, set[int]]:
        """Positions of the nodes that read a tensor, in their bodies too."""
        found: dict[str, set[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in reads_of(node):
                found.setdefault(name, set()).add(i)
        return found

    @functools.cached_property
    def weights(self) -> dict[str, onnx.TensorProto]:
        """Initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def error(self, plan: EnginePlan) -> float:
        """The worst relative L2 error of any output in any sample; infinite for NaN, other shapes, other integers.

        As in a comparison, the error among ordinary elements counts a tenth where outsized ones hide it.
        """
        found = values_of(plan, self.model, self.feeds)
        pairs = [(right[k], values.get(k)) for right, values in zip(self.expected, found, strict=True) for k in right]
        return max((_seen(r, v) for r, v in pairs), default=0.0)

    def alone(self, plan: EnginePlan, positions: Sequence[int]) -> float:
        """The worst relative L2 error of what some nodes compute by themselves, fed right values."""
        piece, feeds = self.piece(positions)
        names = [info.name for info in piece.graph.output]
        found = values_of(plan, piece, [feeds])[0]
        return max(relative_l2(self.right[name], found[name]) for name in names)

    def piece(self, positions: Sequence[int]) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """A model of some nodes, inner tensors not shown, and right values for its inputs."""
        graph = self.model.graph
        chosen = set(positions)
        todo = [name for i in positions for name in reads_of(self.nodes[i])]
        while todo:  # what follows from constants comes along
            i = self.place.get(name := todo.pop())
            if i is not None and i not in chosen and name not in self.right:
                chosen.add(i)
                todo += reads_of(self.nodes[i])
        nodes = [self.nodes[i] for i in sorted(chosen)]
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in reads_of(node)}
        shown = {info.name for info in graph.output}
        out = [
            name
            for i in positions
            for name in self.nodes[i].output
            if name in self.right and (name in shown or not self.readers.get(name, set()) <= chosen)
        ]
        feeds = {name: self.right[name] for name in sorted(read - made) if name in self.right}
        info = helper.make_tensor_value_info
        piece = helper.make_graph(
            nodes,
            "piece",
            [info(name, element_type_of(value), value.shape) for name, value in feeds.items()],
            [info(name, element_type_of(self.right[name]), self.right[name].shape) for name in dict.fromkeys(out)],
            [self.weights[name] for name in sorted(read & set(self.weights))],
        )
        made_model = helper.make_model(piece, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        return made_model, feeds

    def noise(self, tensor: str) -> float:
        """What the healthy engine introduces at a node, but at least what rounding explains."""
        name = self.engine.precision or self.right[tensor].dtype.name
        healthy = self.alone(self.engine.healthy(), [self.place[tensor]])
        piece, _ = self.piece([self.place[tensor]])
        ground = Ground(PAIRS["float32"], piece, None, self.feeds[0], self.right, self.right)
        return max(healthy, ground._lost_in_float32(tensor), _ROUNDING.get(name, 0.0))


def _seen(right: Array, value: Array | None) -> float:
    if value is None:
        return np.inf
    error = whole_l2(right, value)
    if not 0.0 < error < np.inf:
        return error
    tally = Tally()
    tally.add(right, value)
    ordinary = tally.difference().ordinary_l2
    return error if ordinary is None else max(error, ordinary / _ORDINARY)


def _short(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model for which inputs are made up faster: one that computes nothing, if numbers are all that is fed."""
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in given]
    if any(info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT for info in inputs):
        return model  # what integers may be depends on who reads them
    graph = helper.make_graph([], model.graph.name, inputs, [])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def limit_of(model: onnx.ModelProto, engine: EnginePlan) -> float:
    """The relative L2 error that a comparison of whole runs allows."""
    types = {info.type.tensor_type.elem_type for info in model.graph.value_info}
    quantised = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    names = ["quantised"] if quantised else []
    names += ["float16"] if onnx.TensorProto.FLOAT16 in types else []
    names += [engine.precision] if engine.precision else []
    return max(map(table_limit, names), default=table_limit("float32"))
