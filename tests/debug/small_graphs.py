"""Small random graphs with everything that makes sharing one between two engines hard, and an engine that skews nodes.

The first letter of a tensor's name says its type: ``f`` float, ``i`` int64, ``b`` bool, ``s`` string, ``q`` sequence.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TYPES = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL, "s": TensorProto.STRING}
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]


@dataclasses.dataclass(frozen=True)
class SmallGraph:
    """A model and inputs for it."""

    proto: onnx.ModelProto
    feeds: list[dict[str, Any]]


def small_graph(seed: int, size: int, samples: int = 2) -> SmallGraph:
    """A random graph of about ``size`` nodes, with samples of different sizes."""
    return _Grower(random.Random(seed), size).grow(samples)


class _Grower:
    def __init__(self, draw: random.Random, size: int) -> None:
        self.draw, self.size = draw, size
        self.count = itertools.count()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = [numpy_helper.from_array(np.array(3, np.int64), "three")]
        self.weights.append(numpy_helper.from_array(np.array(True), "true"))
        self.pool: dict[str, list[str]] = {"f": ["f_x", "f_z"], "i": ["i_n"], "b": [], "s": ["s_w"], "q": []}
        self.ways: list[Callable[[], None]] = [
            self.unary, self.unary, self.binary, self.binary, self.matrix, self.split, self.top, self.clip,
            self.compare, self.where, self.cast, self.back, self.branch, self.loop, self.sequence, self.take,
            self.string, self.function, self.default, self.opposite,
        ]  # fmt: skip

    def new(self, kind: str) -> str:
        name = f"{kind}{next(self.count)}"
        self.pool[kind].append(name)
        return name

    def any(self, kind: str) -> str:
        """A tensor of a kind, rather a young one."""
        pool = self.pool[kind]
        return pool[-1 - min(len(pool) - 1, int(self.draw.expovariate(0.4)))]

    def op(self, op: str, inputs: Sequence[str], kinds: str, **attributes: Any) -> str:
        outputs = [self.new(kind) for kind in kinds]
        name = f"/{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs[0]

    def weight(self, value: np.ndarray) -> str:
        name = f"w{next(self.count)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def unary(self) -> None:
        self.op(self.draw.choice(["Tanh", "Sigmoid", "Neg", "Abs", "Identity"]), [self.any("f")], "f")

    def binary(self) -> None:
        self.op(self.draw.choice(["Mean", "Max", "Sub", "Sum"]), [self.any("f"), self.any("f")], "f")

    def matrix(self) -> None:
        rng = np.random.default_rng(self.draw.randrange(2**31))
        self.op("MatMul", [self.any("f"), self.weight(rng.standard_normal((4, 4)).astype(np.float32) / 2)], "f")

    def split(self) -> None:
        """Two outputs, of which perhaps one is read."""
        name = self.any("f")
        a, b = f"f{next(self.count)}", f"f{next(self.count)}"
        self.nodes.append(
            helper.make_node("Split", [name], [a, b], name=f"/Split.{len(self.nodes)}", axis=1, num_outputs=2)
        )
        self.op("Concat", self.draw.choice([[a, a], [b, a], [b, b]]), "f", axis=1)

    def top(self) -> None:
        self.op("TopK", [self.any("f"), self.weight(np.array([4], np.int64))], "fi", axis=1)

    def clip(self) -> None:
        """An input that is left out."""
        self.op("Clip", [self.any("f"), "", self.weight(np.array(0.7, np.float32))], "f")

    def compare(self) -> None:
        self.op("Greater", [self.any("f"), self.any("f")], "b")

    def where(self) -> None:
        if self.pool["b"]:
            self.op("Where", [self.any("b"), self.any("f"), self.any("f")], "f")

    def opposite(self) -> None:
        if self.pool["b"]:
            self.op("Not", [self.any("b")], "b")

    def cast(self) -> None:
        self.op("Cast", [self.op("Sum", [self.any("f"), self.any("f")], "f")], "i", to=TensorProto.INT64)

    def back(self) -> None:
        self.op("Cast", [self.any("i")], "f", to=TensorProto.FLOAT)

    def condition(self) -> str:
        name = f"c{next(self.count)}"
        total = self.op("ReduceMax", [self.any("f")], "f", keepdims=0)
        self.pool["f"].remove(total)
        self.nodes.append(helper.make_node("Greater", [total, self.weight(np.array(0.5, np.float32))], [name]))
        self.nodes[-1].name = f"/condition.{len(self.nodes)}"
        return name

    def branch(self) -> None:
        a, b = self.any("f"), self.any("f")
        out = [helper.make_value_info(name, onnx.TypeProto()) for name in ("then", "else")]
        bodies = [
            helper.make_graph([helper.make_node(op, [a, b], [value.name])], value.name, [], [value])
            for op, value in zip(("Sum", "Sub"), out, strict=True)
        ]
        self.op("If", [self.condition()], "f", then_branch=bodies[0], else_branch=bodies[1])

    def loop(self) -> None:
        outer = self.any("f")
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node("Mean", ["carried", outer], ["mean"]),
                helper.make_node("Tanh", ["mean"], ["next"]),
                helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            ],
            "body",
            [info("i", TYPES["i"], []), info("cond_in", TYPES["b"], []), info("carried", TYPES["f"], None)],
            [info("cond_out", TYPES["b"], []), info("next", TYPES["f"], None)],
        )
        self.op("Loop", ["three", "true", self.any("f")], "f", body=body)

    def sequence(self) -> None:
        self.op("SequenceConstruct", [self.any("f"), self.any("f")], "q")

    def take(self) -> None:
        if self.pool["q"]:
            index = self.weight(np.array(self.draw.randrange(2), np.int64))
            self.op("SequenceAt", [self.any("q"), index], "f")

    def string(self) -> None:
        self.op("Identity", [self.any("s")], "s")

    def function(self) -> None:
        self.op("Halve", [self.any("f")], "f", domain="local")

    def default(self) -> None:
        """An input of the graph that has a value if none is given."""
        self.op("Mul", [self.any("f"), "f_scale"], "f")

    def grow(self, samples: int) -> SmallGraph:
        draw = self.draw
        while len(self.nodes) < self.size:
            draw.choice(self.ways)()
        computed = [name for kind in "fibs" for name in self.pool[kind]]
        outputs = draw.sample(computed, min(len(computed), draw.randrange(1, 5)))
        outputs.append(draw.choice(computed[-3:]))
        outputs += draw.sample(["f_x", "i_n", "f_scale", "f_constant"], draw.randrange(2))
        self.weights.append(numpy_helper.from_array(np.array([2, 3], np.float32), "f_constant"))
        self.weights.append(numpy_helper.from_array(np.array(0.75, np.float32), "f_scale"))
        info = helper.make_tensor_value_info
        inputs = [info(f, TYPES[f[0]], ["N", 4]) for f in ("f_x", "f_z", "i_n")]
        inputs += [info("s_w", TYPES["s"], ["N"]), info("f_scale", TYPES["f"], [])]
        outs = [helper.make_value_info(n, _untyped(TYPES[n[0]])) for n in dict.fromkeys(outputs)]
        graph = helper.make_graph(self.nodes, "small", inputs, outs, self.weights)
        half = [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Div", ["a", "two"], ["b"]),
        ]
        function = helper.make_function("local", "Halve", ["a"], ["b"], half, [OPSETS[0]])
        model = helper.make_model(graph, opset_imports=OPSETS, functions=[function], ir_version=10)
        rng = np.random.default_rng(draw.randrange(2**31))
        scaled = draw.random() < 0.5
        feeds: list[dict[str, Any]] = []
        for _ in range(samples):
            rows = draw.randrange(1, 4)
            sample: dict[str, Any] = {n: rng.standard_normal((rows, 4)).astype(np.float32) for n in ("f_x", "f_z")}
            sample["i_n"] = rng.integers(-3, 4, (rows, 4))
            sample["s_w"] = np.array([f"word {draw.randrange(9)}" for _ in range(rows)], dtype=object)
            if scaled:
                sample["f_scale"] = np.array(rng.standard_normal(), np.float32)
            feeds.append(sample)
        return SmallGraph(model, feeds)


def _untyped(element: int) -> onnx.TypeProto:
    found = onnx.TypeProto()
    found.tensor_type.elem_type = element
    return found


_SKEWS = {"f": ("Mul", np.array(0.875, np.float32)), "i": ("Add", np.array(1, np.int64))}


def skew(graph: onnx.GraphProto, titles: Collection[str] | None) -> None:
    """Change what some nodes of the main graph compute, of each type in its own way; None for all of them."""
    made = []
    for node in graph.node:
        made.append(node)
        if titles is not None and node.name not in titles:
            continue
        for i, name in enumerate(node.output):
            if name[0] in "fib" and node.op_type != "Constant":
                node.output[i] = f"{name}.right"
                if name[0] == "b":
                    made.append(helper.make_node("Not", [f"{name}.right"], [name]))
                    continue
                op, value = _SKEWS[name[0]]
                made.append(helper.make_node("Constant", [], [f"{name}.by"], value=numpy_helper.from_array(value)))
                made.append(helper.make_node(op, [f"{name}.right", f"{name}.by"], [name]))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del graph.node[:]
    graph.node.extend(nodes)


def computed(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by onnxruntime with nothing optimised."""
    session = _session(model)
    names = [output.name for output in model.graph.output]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Skewed:
    """onnxruntime, with nodes of the main graph skewed wherever they occur.

    Args:
        titles: The nodes, separated by ``;``; empty for all.
    """

    def __init__(self, titles: str = "") -> None:
        self.titles = [title for title in titles.split(";") if title]
        self.prepared = 0

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        model = onnx.load(str(model_path))
        self.prepared += 1
        skew(model.graph, self.titles or None)
        self.session = _session(model)
        self.inputs = {value.name for value in self.session.get_inputs()}
        self.inputs |= {value.name for value in self.session.get_overridable_initializers()}
        there = {value.name for value in self.session.get_outputs()}
        self.outputs = [name for name in outputs if name in there]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: np.asarray(value) for name, value in feeds.items() if name in self.inputs}
        return dict(zip(self.outputs, self.session.run(self.outputs, given), strict=True))
