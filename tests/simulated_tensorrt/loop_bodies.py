"""The trips of a loop, one by one, as debug tensors show them: each again under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.simulated_tensorrt.compute import LayerProgram
from tests.simulated_tensorrt.graph import Graph, reads


def trips(graph: Graph, node: onnx.NodeProto, values: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Values of the tensors inside a Loop's body, for each trip.

    Args:
        graph: The network.
        node: The Loop.
        values: Values of the tensors that it reads.
    """
    body = next(a.g for a in node.attribute if a.name == "body")
    known = {**{name: _array(graph, name) for name in reads(node) if name in graph.constants}, **values}
    program = _program(graph, body)
    limit = int(known[node.input[0]]) if node.input[0] else None
    go = bool(known[node.input[1]]) if node.input[1] else True
    carried = [known[name] for name in node.input[2:]]
    trip = 0
    while go and (limit is None or trip < limit):
        own = [np.array(trip, np.int64), np.array(go), *carried]
        scope = {**known, **dict(zip([value.name for value in body.input], own, strict=True))}
        made = program.run(scope)
        yield made
        scope.update(made)
        results = [scope[value.name] for value in body.output]
        go, carried, trip = bool(results[0]), results[1 : 1 + len(carried)], trip + 1


def _program(graph: Graph, body: onnx.GraphProto) -> LayerProgram:
    constants = {**graph.constants, **{tensor.name: tensor for tensor in body.initializer}}
    nodes = list(body.node)
    made = [name for node in nodes for name in node.output if name]
    inner = Graph(graph.model, nodes, constants, {}, {}, {})
    return LayerProgram(inner, range(len(nodes)), made, tf32=False)


def _array(graph: Graph, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(graph.constants[name]))
