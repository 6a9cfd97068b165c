"""Walk every graph of a model: the main one, the bodies of If, Loop and Scan, the local functions.

A pass that visits :func:`scopes` is right inside bodies and functions without further thought; one that visits
``model.graph`` alone is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import onnx_ir as ir

_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclasses.dataclass(frozen=True)
class Scope:
    """One graph of a model, and where it is."""

    graph: ir.Graph
    """The graph itself; for a local function its body."""
    path: str
    """Empty for the main graph, else steps such as ``loop_1/body`` or ``function:pkg::Norm``."""
    opset_imports: Mapping[str, int]
    """Opset version by domain as it holds here; a function body has its own."""
    function: ir.Function | None
    """The local function this graph is, or is nested in."""
    owner: ir.Node | None
    """The node whose attribute holds this graph; None for the main graph and for function bodies."""
    takes_initializers: bool
    """Whether a new constant may be an initializer here.

    Not in local functions (a FunctionProto has none, and engines that inline functions lose those of bodies in them),
    and not before IR version 4, where an initializer would have to become an input of the model.
    """

    @property
    def opset(self) -> int:
        """The version of the default operator set here, 0 if it is not imported."""
        return self.opset_imports.get("", self.opset_imports.get("ai.onnx", 0))

    def label(self, node: ir.Node) -> str:
        """How a message names ``node``: its path and name, or its operator and first output if it has no name."""
        own = title(node)
        return f"{self.path}/{own}" if self.path else own

    def bodies(self, node: ir.Node) -> list[Scope]:
        """The graphs that ``node``, one of this graph, holds."""
        # The plain dictionary behind the attributes: this runs for every node, and nearly none has a body.
        if not any(attr.type in _GRAPHS for attr in node.attributes.data.values()):
            return []
        path = self.label(node)
        return [
            Scope(graph, f"{path}/{name}", self.opset_imports, self.function, node, self.takes_initializers)
            for name, graph in nested_graphs(node)
        ]


def title(node: ir.Node) -> str:
    """A node's name, or its operator and first output if it has none, such as ``Relu(y)``."""
    return node.name or f"{node.op_type}({node.outputs[0].name if node.outputs else ''})"


def nested_graphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Yield (attribute name, graph) of each graph a node holds; lists of graphs as ``name[i]``."""
    # The plain dictionary behind the attributes: every walk asks this of every node, and nearly none has a body.
    for name, attr in node.attributes.data.items():
        kind = attr.type
        if kind not in _BODIES or attr.is_ref():
            continue
        if kind == ir.AttributeType.GRAPH:
            yield name, attr.as_graph()
        else:
            for i, graph in enumerate(attr.as_graphs()):
                yield f"{name}[{i}]", graph


def scopes_in(root: Scope) -> Iterator[Scope]:
    """Yield ``root`` and every graph nested in it, the outer before the inner, however deep, without recursion."""
    stack = [root]
    while stack:
        scope = stack.pop()
        yield scope
        inner: list[Scope] = []
        for node in scope.graph:
            inner += scope.bodies(node)
        stack.extend(reversed(inner))


def function_scope(function: ir.Function) -> Scope:
    """The body of a local function as a scope."""
    overload = f":{function.overload}" if function.overload else ""
    path = f"function:{function.domain}::{function.name}{overload}"
    return Scope(function.graph, path, function.opset_imports, function, None, False)


def main_scope(model: ir.Model) -> Scope:
    """The main graph as a scope."""
    return Scope(model.graph, "", model.opset_imports, None, None, (model.ir_version or 0) >= 4)


def scopes(model: ir.Model) -> Iterator[Scope]:
    """Yield every graph of a model: the main graph and its bodies, then each function and its bodies.

    The outer graph comes before the inner. ``reversed(list(scopes(model)))`` gives the inner first.
    """
    yield from scopes_in(main_scope(model))
    for function in list(model.functions.values()):
        yield from scopes_in(function_scope(function))


def is_onnx_op(node: ir.Node, *op_types: str) -> bool:
    """True if ``node`` is one of ``op_types`` of the default ONNX domain (spelt empty or ``ai.onnx``)."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def is_control_flow(node: ir.Node) -> bool:
    """True if the bodies of ``node`` are graphs like any other: they see the graph around them, and names are free.

    Bodies of other operators (onnxruntime's BeamSearch) may have to keep the names of their inputs and outputs.
    """
    return is_onnx_op(node, "If", "Loop", "Scan", "SequenceMap")
