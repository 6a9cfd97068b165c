"""Put the branch of an If whose condition is known in the place of the If."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import onnx_ir as ir

from surgeon_passes import rewire
from surgeon_passes.constants import add_constant, constant_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.names import FreshNames
from surgeon_passes.reads import is_undefined, names_read_unseen
from surgeon_passes.walk import Scope, nested_graphs, scopes, title


class NameCounts:
    """How often each name is given in a model: sibling bodies may use one name twice, a single graph may not.

    Args:
        model: The model.
        names: Gives fresh names.
    """

    def __init__(self, model: ir.Model, names: FreshNames) -> None:
        self.names = names
        self.pinned = names_read_unseen(model)
        self._values: collections.Counter[str | None] = collections.Counter()
        self._nodes: collections.Counter[str | None] = collections.Counter()
        for scope in scopes(model):
            self._values.update(value.name for value in scope.graph.inputs)
            self._values.update(list(scope.graph.initializers))
            for node in scope.graph:
                self._nodes[node.name] += 1
                self._values.update(value.name for value in node.outputs)

    def forget(self, graph: ir.Graph) -> None:
        """Count the names in a graph, and in the bodies in it, no longer."""
        stack = [graph]
        while stack:
            graph = stack.pop()
            self._values.subtract(value.name for value in graph.inputs)
            self._values.subtract(list(graph.initializers))
            for node in graph:
                self._nodes[node.name] -= 1
                self._values.subtract(value.name for value in node.outputs)
                stack.extend(inner for _, inner in nested_graphs(node))

    def value_name(self, value: ir.Value) -> str:
        """The name of a value, or a fresh one if another value has it too."""
        if value.name and self._values[value.name] <= 1:
            return value.name
        self._values[value.name] -= 1
        return self.names.value(value.name or "value")

    def node_name(self, node: ir.Node) -> str | None:
        """The name of a node, or a fresh one if another node has it too."""
        if not node.name or self._nodes[node.name] <= 1:
            return node.name
        self._nodes[node.name] -= 1
        return self.names.node(node.name)


def lone_constants(node: ir.Node, inputs: Iterable[ir.Value | None], pinned: frozenset[str]) -> list[ir.Value]:
    """Those of some inputs of a node that are constants which nobody else reads: they go with it.

    Args:
        node: A node that is about to be removed.
        inputs: The inputs that nothing will read then.
        pinned: Names of values that are read in a way that does not show.
    """
    found = []
    for value in dict.fromkeys(v for v in inputs if v is not None):
        read_here = all(user is node for user, _ in value.uses()) and value.name not in pinned
        if read_here and not value.is_graph_output() and constant_of(value) is not None:
            found.append(value)
    return found


def remove_with_constants(node: ir.Node, constants: list[ir.Value]) -> None:
    """Take a node out of its graph, and constants that nobody else reads."""
    rewire.remove_tree(node)
    for value in constants:
        producer, graph = value.producer(), value.graph
        if producer is not None:
            rewire.remove_node(producer)
        elif graph is not None and value.name is not None:
            graph.initializers.pop(value.name)


def inline_branch(scope: Scope, node: ir.Node, branch: ir.Graph, counts: NameCounts, log: ChangeLog) -> bool:
    """Replace an If by one of its branches, as one change of kind ``inline-if``.

    Args:
        scope: The graph of the If.
        node: The If.
        branch: The branch that is taken; it is empty afterwards.
        counts: Tells which names must change.
        log: Asked first.

    Returns:
        Whether it was done.
    """
    results = list(branch.outputs)
    if len(results) != len(node.outputs) or branch.inputs or any(is_undefined(value) for value in results):
        log.decline(title(node), "an output of the branch is a value of an outer graph", where=scope.path)
        return False
    moved, constants = list(branch), lone_constants(node, node.inputs, counts.pinned)
    if not log.permit(
        "inline-if",
        before=[title(node), *(title(p) for value in constants if (p := value.producer()) is not None)],
        after=[title(inner) for inner in moved],
        boundary=[value.name for value in node.outputs],
        where=scope.path,
    ):
        return False
    for _, other in nested_graphs(node):
        if other is not branch:
            counts.forget(other)
    branch.outputs.clear()
    results = _move_initializers(scope, node, branch, counts, results)
    branch.remove(moved)
    for inner in moved:
        inner.name = counts.node_name(inner)
        for value in inner.outputs:
            if value.name != "":
                value.name = counts.value_name(value)
    scope.graph.insert_after(node, moved)
    last = moved[-1] if moved else node
    replace_outputs(scope.graph, zip(node.outputs, results, strict=True), last, counts.names)
    remove_with_constants(node, constants)
    return True


def _move_initializers(
    scope: Scope, node: ir.Node, branch: ir.Graph, counts: NameCounts, results: list[ir.Value]
) -> list[ir.Value]:
    """Make the constants of a branch constants of the outer graph; the results with those in their place."""
    moved: dict[ir.Value, ir.Value] = {}
    for name, value in list(branch.initializers.items()):
        tensor = value.const_value
        branch.initializers.pop(name)
        value.name = counts.value_name(value)
        if tensor is None or scope.takes_initializers:
            scope.graph.initializers.add(value)
            continue
        made = add_constant(scope, tensor, value.name or name, node)
        value.replace_all_uses_with(made)
        moved[value] = made
    return [moved.get(value, value) for value in results]


def replace_outputs(
    graph: ir.Graph, pairs: Iterable[tuple[ir.Value, ir.Value]], after: ir.Node, names: FreshNames
) -> None:
    """Let values stand for outputs of a node, through an Identity where a graph output cannot take a value over.

    Args:
        graph: The graph of the node.
        pairs: Output and what takes its place.
        after: The last node that computes one of these, or the node itself.
        names: Names the Identity nodes.
    """
    for old, new in pairs:
        if not old.uses() and not old.is_graph_output():
            continue
        if not rewire.can_replace(old, new):
            copy = ir.node("Identity", [new], name=names.node(f"{old.name}_copy"))
            graph.insert_after(after, copy)
            after = copy
            new = copy.outputs[0]
            new.type, new.shape = old.type, old.shape
        rewire.replace(old, new)
