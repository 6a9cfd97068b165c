"""Drop outputs that nobody reads from nodes that stay: optional ones, and those of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir

from surgeon_passes.attributes import plain_attributes
from surgeon_passes.contract import ChangeLog
from surgeon_passes.walk import Scope, nested_graphs, title

# Outputs that an operator may leave out without computing anything else. BatchNormalization is missing on purpose:
# before version 14 the number of its outputs decides whether it trains.
_OPTIONAL = {
    "Dropout": (1,),
    "MaxPool": (1,),
    "LayerNormalization": (1, 2),
    "RNN": (0, 1),
    "GRU": (0, 1),
    "LSTM": (0, 1, 2),
    "Unique": (1, 2, 3),
}

Unused = Callable[[ir.Value], bool]


def drop_optional_outputs(scope: Scope, node: ir.Node, unused: Unused, log: ChangeLog) -> None:
    """Leave out the optional outputs of ``node`` that nobody reads, one change each."""
    for index in _OPTIONAL[node.op_type]:
        if index >= len(node.outputs):
            break
        value = node.outputs[index]
        if not value.name or not unused(value):
            continue
        if not log.permit("remove-output", before=[value.name], where=scope.path):
            return
        value.name, value.type, value.shape = "", None, None
    size = len(node.outputs)
    while size > 1 and not node.outputs[size - 1].name:
        size -= 1
    node.resize_outputs(size)


def can_drop_optional(node: ir.Node) -> bool:
    """Whether :func:`drop_optional_outputs` knows the operator."""
    return node.op_type in _OPTIONAL


def drop_body_outputs(scope: Scope, node: ir.Node, unused: Unused, log: ChangeLog) -> list[ir.Value]:
    """Drop what nobody reads of the outputs of an If, or of what a Loop or Scan collects, in node and bodies.

    Values carried from one iteration to the next stay, read or not.

    Returns:
        The values of the bodies that are no longer outputs; their producers may be dead now.
    """
    first = _first_droppable(node, scope.opset)
    candidates = [i for i in range(first, len(node.outputs)) if unused(node.outputs[i])]
    if not candidates or len(candidates) == len(node.outputs) or node.device_configurations:
        return []
    bodies = [graph for _, graph in nested_graphs(node)]
    extra = len(bodies[0].outputs) - len(node.outputs)
    if any(len(graph.outputs) - len(node.outputs) != extra for graph in bodies) or extra != (node.op_type == "Loop"):
        return []
    dropped = []
    for i in candidates:
        name = node.outputs[i].name
        if not log.permit("remove-output", before=[name or f"output {i} of {title(node)}"], where=scope.path):
            break
        dropped.append(i)
    freed = [graph.outputs.pop(i + extra) for graph in bodies for i in reversed(dropped)]
    if dropped:
        _rebuild(node, set(dropped), first)
    return freed


def _first_droppable(node: ir.Node, opset: int) -> int:
    """The index of the first output that belongs to one iteration only; past the end if the node is not understood."""
    never = len(node.outputs)
    attributes = plain_attributes(node)
    if attributes is None:
        return never
    if node.op_type == "If":
        return 0 if {"then_branch", "else_branch"} == set(attributes) else never
    if node.op_type == "Loop":
        return len(node.inputs) - 2 if set(attributes) == {"body"} else never
    scanned = attributes.get("num_scan_inputs")
    if opset < 9 or not isinstance(scanned, int) or "body" not in attributes:
        return never
    return len(node.inputs) - scanned


def _rebuild(node: ir.Node, dropped: Collection[int], first: int) -> None:
    """Put a node with fewer outputs in the place of ``node``; its bodies move over."""
    graph = node.graph
    if graph is None:
        return
    kept = [value for i, value in enumerate(node.outputs) if i not in dropped]
    outputs = [
        ir.Value(
            name=value.name,
            type=value.type,
            shape=value.shape,
            doc_string=value.doc_string,
            metadata_props=dict(value.metadata_props),
        )
        for value in kept
    ]
    for old, new in zip(kept, outputs, strict=True):
        new.meta.update(old.meta)
    attributes = dict(node.attributes.data)
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in attributes:
            numbers = attributes[name].as_ints()
            attributes[name] = ir.AttrInt64s(name, [n for i, n in enumerate(numbers, first) if i not in dropped])
    new_node = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        attributes,
        overload=node.overload,
        outputs=outputs,
        version=node.version,
        name=node.name,
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    graph.insert_before(node, new_node)
    for old, new in zip(kept, outputs, strict=True):
        old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
    graph.remove(node, safe=True)
