"""Which object of an onnx-graphsurgeon graph was which object of the model, so that what survives is known again.

graphsurgeon's objects are ordinary Python objects that a user's function moves about: the same object afterwards is the
same node, whatever was done to it. Where the function works on a copy of the graph, names decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir

from surgeon_passes.walk import nested_graphs

Look = tuple[Any, tuple[Any, ...] | None, Any]
"""What graphsurgeon knows of a tensor's type: element type, dimensions, and kind of type."""


def bodies(node: Any) -> Iterator[tuple[str, Any]]:
    """(attribute, graph) of each graph that a node of graphsurgeon holds."""
    return ((name, value) for name, value in node.attrs.items() if hasattr(value, "nodes"))


def graphs_of(graph: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """A graph of graphsurgeon, its functions, and every graph nested in these, each with its enclosing graphs."""
    stack: list[tuple[Any, tuple[Any, ...]]] = [(graph, ())]
    stack += [(function, ()) for function in graph.functions]
    while stack:
        each, around = stack.pop()
        yield each, around
        for node in each.nodes:
            stack.extend((body, (*around, each)) for _, body in bodies(node))


def proto_bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """(attribute, graph) of each single graph that a NodeProto holds."""
    return ((a.name, a.g) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH and not a.ref_attr_name)


def look_of(tensor: Any) -> Look | None:
    """What graphsurgeon knows of a variable's type; None for a constant."""
    if not hasattr(tensor, "type"):
        return None
    shape = getattr(tensor, "shape", None)
    return getattr(tensor, "dtype", None), None if shape is None else tuple(shape), tensor.type


class Origins:
    """The correspondence between a model and the graph that graphsurgeon made of it.

    Args:
        model: The model.
        graph: graphsurgeon's graph of it, as imported.
    """

    def __init__(self, model: ir.Model, graph: Any) -> None:
        self.nodes: dict[int, ir.Node] = {}
        self.values: dict[int, ir.Value] = {}
        self.graphs: dict[int, ir.Graph] = {}
        self.functions: dict[int, ir.Function] = {}
        self.foreign_graphs: dict[ir.Graph, Any] = {}
        self.looks: dict[ir.Value, Look | None] = {}
        self._alive: list[Any] = []  # an object that is gone may leave its id to a new one
        self._by_name: dict[str, ir.Value | None] = {}
        self._by_label: dict[tuple[Any, ...], ir.Node | None] = {}
        self._functions_by_name = {(f.domain, f.name): f for f in model.functions.values()}
        pairs: list[tuple[Any, ir.Graph]] = [(graph, model.graph)]
        for foreign, function in zip(graph.functions, model.functions.values(), strict=True):
            self._note(self.functions, foreign, function)
            pairs.append((foreign, function.graph))
        while pairs:
            pairs += self._pair(*pairs.pop())

    def _note(self, where: dict[int, Any], foreign: Any, ours: Any) -> None:
        where[id(foreign)] = ours
        self._alive.append(foreign)

    def _pair(self, foreign: Any, graph: ir.Graph) -> list[tuple[Any, ir.Graph]]:
        self._note(self.graphs, foreign, graph)
        self.foreign_graphs[graph] = foreign
        inputs = [value for value in graph.inputs if not value.is_initializer()]
        self._pair_values(foreign.inputs, inputs)
        self._pair_values(foreign.outputs, graph.outputs)
        nested: list[tuple[Any, ir.Graph]] = []
        for theirs, node in zip(foreign.nodes, graph, strict=True):
            self._note(self.nodes, theirs, node)
            key = (node.name, node.op_type, tuple(value.name for value in node.outputs))
            self._by_label[key] = None if key in self._by_label else node
            self._pair_values(theirs.inputs, node.inputs)
            self._pair_values(theirs.outputs, node.outputs)
            own = dict(nested_graphs(node))
            nested += [(body, own[name]) for name, body in bodies(theirs)]
        return nested

    def _pair_values(self, foreign: Any, values: Any) -> None:
        for tensor, value in zip(foreign, values, strict=False):  # onnx_ir drops omitted inputs at the end
            if value is None or not tensor.name:
                continue
            self._note(self.values, tensor, value)
            self.looks[value] = look_of(tensor)
            if self._by_name.setdefault(tensor.name, value) is not value:
                self._by_name[tensor.name] = None

    def node(self, foreign: Any) -> ir.Node | None:
        """The node that a node of graphsurgeon was; None for a new one."""
        found = self.nodes.get(id(foreign))
        if found is None:
            found = self._by_label.get((foreign.name, foreign.op, tuple(t.name for t in foreign.outputs)))
        return found

    def value(self, foreign: Any) -> ir.Value | None:
        """The value that a tensor of graphsurgeon was; None for a new one."""
        return self.values.get(id(foreign)) or self._by_name.get(foreign.name)

    def function(self, foreign: Any) -> ir.Function | None:
        """The local function that a function of graphsurgeon was; None for a new one."""
        found = self.functions.get(id(foreign))
        return found or self._functions_by_name.get((foreign.domain or "", foreign.name))
