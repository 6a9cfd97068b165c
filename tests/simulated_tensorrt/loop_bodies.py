"""The trips of a loop, one by one: as debug tensors show them, and as a fault inside the body changes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.simulated_tensorrt.compute import LayerProgram
from tests.simulated_tensorrt.faults import body_of, spoil
from tests.simulated_tensorrt.graph import Graph, reads
from tests.simulated_tensorrt.plan import Fault


class Loop:
    """A Loop, ready to run trip by trip.

    Args:
        graph: The network.
        node: The Loop.
        values: Values of the tensors that it reads.
        faults: What goes wrong at nodes of its body, each from its own trip on.
    """

    def __init__(
        self, graph: Graph, node: onnx.NodeProto, values: Mapping[str, Any], faults: Sequence[Fault] = ()
    ) -> None:
        body = body_of(node)
        assert body is not None
        self._body = body
        self._faults = faults
        self._known = {**{name: _array(graph, name) for name in reads(node) if name in graph.constants}, **values}
        self._limit = int(self._known[node.input[0]]) if node.input[0] else None
        self._go = bool(self._known[node.input[1]]) if node.input[1] else True
        self._carried = [self._known[name] for name in node.input[2:]]
        self._stacks: list[list[Any]] = [[] for _ in self._body.output[1 + len(self._carried) :]]
        inner = _inner(graph, self._body)
        nodes = range(len(self._body.node))
        # A node that goes wrong changes what comes after it, so each runs by itself then.
        self._programs = [_program(inner, [i]) for i in nodes] if faults else [_program(inner, nodes)]

    def trips(self) -> Iterator[dict[str, Any]]:
        """Values of the tensors inside, for each trip."""
        trip, go = 0, self._go
        while go and (self._limit is None or trip < self._limit):
            own = [np.array(trip, np.int64), np.array(go), *self._carried]
            scope = {**self._known, **dict(zip([value.name for value in self._body.input], own, strict=True))}
            made = self._trip(scope, trip)
            yield made
            results = [scope[value.name] for value in self._body.output]
            go, self._carried = bool(results[0]), results[1 : 1 + len(self._carried)]
            for stack, value in zip(self._stacks, results[1 + len(self._carried) :], strict=True):
                stack.append(value)
            trip += 1

    def _trip(self, scope: dict[str, Any], trip: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, program in enumerate(self._programs):
            made = program.run(scope)
            for fault in self._faults:
                if trip >= fault.trip and re.fullmatch(fault.where.node, self._body.node[number].name):
                    made = {name: spoil(value, fault) for name, value in made.items()}
            scope.update(made)
            found |= made
        return found

    def outputs(self) -> list[Any]:
        """What the Loop delivers: carried values, then stacks of what each trip made."""
        for _ in self.trips():
            pass
        return [*self._carried, *(np.stack(stack) for stack in self._stacks)]


def _inner(graph: Graph, body: onnx.GraphProto) -> Graph:
    constants = {**graph.constants, **{tensor.name: tensor for tensor in body.initializer}}
    return Graph(graph.model, list(body.node), constants, {}, {}, {})


def _program(graph: Graph, nodes: Sequence[int]) -> LayerProgram:
    made = [name for i in nodes for name in graph.nodes[i].output if name]
    return LayerProgram(graph, nodes, made, tf32=False)


def _array(graph: Graph, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(graph.constants[name]))
