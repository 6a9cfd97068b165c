"""Which values a node reads, those captured by the bodies it holds included."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from surgeon_passes.walk import nested_graphs, scopes

_GRAPH_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def holds_graphs(node: ir.Node) -> bool:
    """Whether a node has bodies."""
    # The plain dictionary behind the attributes: this runs for every node, and nearly none has a body.
    return any(attr.type in _GRAPH_TYPES for attr in node.attributes.data.values())


def inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield every graph in a node, however deep, the outer before the inner."""
    stack = [graph for _, graph in nested_graphs(node)]
    while stack:
        graph = stack.pop()
        yield graph
        for inner in graph:
            if holds_graphs(inner):
                stack.extend(g for _, g in nested_graphs(inner))


def inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """Yield every node in the bodies of a node."""
    for graph in inner_graphs(node):
        yield from graph


def captured_values(node: ir.Node) -> list[ir.Value]:
    """The values of outer graphs that the bodies of a node read, in order, each as often as it is read.

    An output of a body that nothing in the model defines (an outer value given by its name alone) is among them.
    """
    if not holds_graphs(node):
        return []
    graphs = list(inner_graphs(node))
    own: set[ir.Value] = set()
    for graph in graphs:
        own.update(graph.inputs, graph.initializers.values())
        own.update(value for inner in graph for value in inner.outputs)
    read: list[ir.Value] = []
    for graph in graphs:
        read += [value for inner in graph for value in inner.inputs if value is not None and value not in own]
        read += [value for value in graph.outputs if value not in own]
    return read


def values_read(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are given, and what its bodies capture, each value as often as it is read."""
    read = [value for value in node.inputs if value is not None]
    return read + captured_values(node) if holds_graphs(node) else read


def is_undefined(value: ir.Value) -> bool:
    """Whether nothing defines an output of a body: it is an outer value, given by its name alone."""
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def names_read_unseen(model: ir.Model) -> frozenset[str]:
    """Names of values that a body gives as its output although they are an outer graph's.

    To onnx_ir such an output is a value of its own, so the outer value does not count it among its uses.
    """
    found = (v.name for scope in scopes(model) for v in scope.graph.outputs if is_undefined(v))
    return frozenset(name for name in found if name)
