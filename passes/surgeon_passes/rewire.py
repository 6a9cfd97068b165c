"""Let one value take the place of another without changing the model's interface.

The trap: a graph output has a name that callers know. Where the replaced value is a graph output, the new value
inherits its name and declared type, which is possible only if the new value is computed in the same graph and is not
itself part of the interface.
"""

from __future__ import annotations

import onnx_ir as ir

from surgeon_passes.order import nodes_inside


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether :func:`replace` may let ``new`` stand for ``old`` everywhere, graph outputs included."""
    if old is new:
        return False
    if not old.is_graph_output():
        return True
    producer = new.producer()
    same_graph = producer is not None and old.producer() is not None and producer.graph is old.producer().graph  # type: ignore[union-attr]
    return same_graph and not new.is_graph_output()


def replace(old: ir.Value, new: ir.Value) -> None:
    """Make every user of ``old`` read ``new``; if ``old`` is a graph output, ``new`` becomes it, with name and type.

    The caller has asked :func:`can_replace` and removes the producer of ``old`` afterwards.
    """
    was_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=was_output)
    if was_output:
        name, old.name = old.name, None
        new.name = name
        if old.type is not None:
            new.type = old.type
        if old.shape is not None:
            new.shape = old.shape
        new.doc_string = old.doc_string or new.doc_string
        new.metadata_props.update(old.metadata_props)
    elif new.shape is None and old.shape is not None and not new.is_graph_input():
        new.shape = old.shape


def remove_node(node: ir.Node) -> None:
    """Take a node whose outputs nobody reads out of its graph, and detach its inputs."""
    graph = node.graph
    if graph is None:
        return
    graph.remove(node, safe=True)


def remove_tree(node: ir.Node) -> None:
    """Like :func:`remove_node`, for a node whose bodies go with it: what they read of outer graphs is freed too."""
    for inner in nodes_inside(node):
        for i in range(len(inner.inputs)):
            inner.replace_input_with(i, None)
    remove_node(node)
