"""Put the body of a function in the place of one node that calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from surgeon_passes.clone_nodes import NodeCloner
from surgeon_passes.names import FreshNames
from surgeon_passes.operator_history import difference
from surgeon_passes.order import dependencies, nodes_inside, sorted_nodes
from surgeon_passes.walk import Scope, nested_graphs

_GRAPH_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclasses.dataclass(frozen=True)
class Body:
    """A function as the inliner needs it, local or from an operator's definition."""

    name: str
    """Its name, for names of what comes out of it."""
    graph: ir.Graph
    """Its nodes, formal inputs and outputs."""
    opset_imports: Mapping[str, int]
    """The versions its nodes mean."""
    attributes: Mapping[str, ir.Attr]
    """Attributes that hold in this call: given ones, and defaults of the others."""


def obstacle(body: Body, call: ir.Node, scope: Scope, local: Mapping[ir.OperatorIdentifier, ir.Function]) -> str:
    """Why a call cannot be inlined, as a phrase; empty if it can.

    Args:
        body: What would be put in its place.
        call: The node.
        scope: The graph the node is in.
        local: The local functions of the model; calls of these have no version.
    """
    if len(call.inputs) > len(body.graph.inputs):
        return f"it is called with {len(call.inputs)} inputs and takes {len(body.graph.inputs)}"
    if len(call.outputs) > len(body.graph.outputs):
        return f"it is called for {len(call.outputs)} outputs and has {len(body.graph.outputs)}"
    if any(not attr.is_ref() and attr.type in _GRAPH_TYPES for attr in body.attributes.values()):
        return "the call passes a graph as an attribute"
    formals = {value: i for i, value in enumerate(body.graph.inputs)}
    for formal, actual in zip(body.graph.outputs, call.outputs, strict=False):
        given = formals.get(formal)
        omitted = given is not None and (given >= len(call.inputs) or call.inputs[given] is None)
        if omitted and actual.name:
            return f"it returns its input '{formal.name}', which the call leaves out"
    for node in _all_nodes(body.graph):
        reason = _version_obstacle(node, body, scope, local)
        if reason:
            return reason
    return ""


def _all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        if node.attributes:
            yield from nodes_inside(node)


def _version_obstacle(
    node: ir.Node, body: Body, scope: Scope, local: Mapping[ir.OperatorIdentifier, ir.Function]
) -> str:
    """Whether a node would mean something else under the versions of the graph it would move to."""
    there = _version(scope.opset_imports, node.domain)
    here = _version(body.opset_imports, node.domain)
    if node.op_identifier() in local or here == there or there is None or here is None:
        return ""
    name = f"{node.domain or 'ai.onnx'}::{node.op_type}"
    if node.domain != "":
        return f"it uses version {here} of {name}, the graph around it imports {there}, and what changed is not known"
    reason = difference(node, here, there)
    return f"it uses version {here} of {name}, the graph around it version {there}: {reason}" if reason else ""


def _version(imports: Mapping[str, int], domain: str) -> int | None:
    return imports.get(domain, imports.get("ai.onnx") if domain == "" else None)


def missing_imports(body: Body, scope: Scope) -> dict[str, int]:
    """Operator sets that the body uses and the graph around the call does not import."""
    used = {node.domain for node in _all_nodes(body.graph)}
    needed = {domain: version for domain in used if (version := _version(body.opset_imports, domain)) is not None}
    return {domain: v for domain, v in needed.items() if _version(scope.opset_imports, domain) is None}


def inline_call(body: Body, call: ir.Node, names: FreshNames) -> list[ir.Node]:
    """Replace ``call`` by copies of the nodes of ``body``, which :func:`obstacle` has nothing against.

    What comes out of the body is called ``CALL/INNER``; the outputs of the call keep their names. Types are dropped:
    what a function says about types inside it need not hold in this call.

    Returns:
        The new nodes, in order.
    """
    graph = call.graph
    assert graph is not None
    prefix = call.name or names.node(body.name)
    actuals = [*call.inputs, *([None] * (len(body.graph.inputs) - len(call.inputs)))]
    cloner = NodeCloner(
        dict(zip(body.graph.inputs, actuals, strict=True)),
        attributes=body.attributes,
        value_name=lambda name: names.value(f"{prefix}/{name}"),
        node_name=lambda node: names.node(f"{prefix}/{node.name or node.op_type}"),
        metadata=call.metadata_props,
    )
    made = cloner.clone_all(sorted_nodes(dependencies(body.graph)))
    for node in made:
        _forget_types(node)
    graph.insert_before(call, made)
    taken = {value for value in actuals if value is not None}
    for formal, actual in zip(body.graph.outputs, call.outputs, strict=False):
        if not actual.name:
            continue
        result = cloner.values[formal]
        assert result is not None  # an omitted input is an obstacle
        if result in taken:
            # Two outputs of a call, or an output and an input, are one value: a copy keeps both names.
            node = ir.node("Identity", [result], name=names.node(f"{prefix}/{actual.name}"))
            graph.insert_before(call, node)
            made.append(node)
            result = node.outputs[0]
        taken.add(result)
        _take_over(actual, result)
    graph.remove(call, safe=True)
    return made


def _forget_types(node: ir.Node) -> None:
    for value in node.outputs:
        value.type, value.shape = None, None
    graphs = [graph for _, graph in nested_graphs(node)] if node.attributes else []
    for graph in graphs:  # grows while it is walked
        for value in (*graph.inputs, *graph.outputs):
            # The checker wants a type here; numbers in it may be meant, symbols are those of another call.
            if value.shape is not None:
                value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
        for inner in graph:
            graphs.extend(body for _, body in nested_graphs(inner))
            for value in inner.outputs:
                if not value.is_graph_output():
                    value.type, value.shape = None, None


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Let ``new`` be what ``old`` was: its name, its type, its readers, its place among the outputs."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name
    new.type, new.shape = old.type, old.shape
    new.doc_string = old.doc_string or new.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
