"""onnxruntime with one tensor wrong wherever it is computed: in the main graph, a body or a function; used by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper


class Inner:
    """The runner.

    Args:
        tensor: What is wrong.
        gain: What it is multiplied with.
        since: From which iteration on, if the body has an input ``i`` that counts them.
        above: Only where the largest value of the right tensor is above this.
        inlined: Also where the function that computes it was put into the graph, which names it after the call.
    """

    def __init__(
        self, tensor: str, gain: float = 1.5, since: int = 0, above: float | None = None, inlined: bool = False
    ) -> None:
        self.tensor, self.gain, self.since, self.above, self.inlined = tensor, gain, since, above, inlined

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        model = onnx.load(str(model_path))
        self._spoil(model.graph)
        for function in model.functions:
            self._spoil(function)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        there = {value.name for value in self.session.get_outputs()}
        self.outputs = [name for name in outputs if name in there]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))

    def _spoil(self, graph: onnx.GraphProto | onnx.FunctionProto) -> None:
        made = []
        for node in graph.node:
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    self._spoil(body)
            made.append(node)
            for at, name in enumerate(node.output):
                if name == self.tensor or (self.inlined and name.endswith(f"/{self.tensor}")):
                    node.output[at] = f"{name}.right"
                    made += self._behind(graph, name)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
        del graph.node[:]
        graph.node.extend(copies)

    def _behind(self, graph: onnx.GraphProto | onnx.FunctionProto, name: str) -> list[onnx.NodeProto]:
        right = f"{name}.right"
        nodes = [_constant(f"{name}.gain", np.array(self.gain, np.float32))]
        inputs = [value.name for value in graph.input] if isinstance(graph, onnx.GraphProto) else []
        condition = ""
        if self.since and "i" in inputs:
            nodes.append(_constant(f"{name}.since", np.array(self.since, np.int64)))
            nodes.append(helper.make_node("GreaterOrEqual", ["i", f"{name}.since"], [f"{name}.now"]))
            condition = f"{name}.now"
        if self.above is not None:
            nodes.append(_constant(f"{name}.above", np.array(self.above, np.float32)))
            nodes.append(helper.make_node("ReduceMax", [right], [f"{name}.most"], keepdims=0))
            nodes.append(helper.make_node("Greater", [f"{name}.most", f"{name}.above"], [f"{name}.now"]))
            condition = f"{name}.now"
        if not condition:
            return [*nodes, helper.make_node("Mul", [right, f"{name}.gain"], [name])]
        nodes.append(helper.make_node("Mul", [right, f"{name}.gain"], [f"{name}.wrong"]))
        return [*nodes, helper.make_node("Where", [condition, f"{name}.wrong", right], [name])]


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
