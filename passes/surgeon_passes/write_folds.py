"""Put computed values in the place of the nodes that computed them, and take away what nobody reads any more."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from surgeon_passes import rewire
from surgeon_passes.constants import add_constant
from surgeon_passes.contract import ChangeLog
from surgeon_passes.foldable import has_effect_or_unknown
from surgeon_passes.names import FreshNames
from surgeon_passes.reads import holds_graphs, inner_nodes, names_read_unseen, values_read
from surgeon_passes.walk import Scope, scopes, title


class FoldWriter:
    """Makes changes one at a time and counts the uses of every value; nodes leave their graphs in :meth:`close`.

    Args:
        model: The model; nobody else may change it before :meth:`close`.
        log: Asked before each change.
        names: Gives names to new values.
    """

    def __init__(self, model: ir.Model, log: ChangeLog, names: FreshNames) -> None:
        self._log = log
        self._names = names
        self._dead: dict[ir.Node, None] = {}
        self._uses: collections.Counter[ir.Value] = collections.Counter()
        everything = list(scopes(model))
        self._pinned = names_read_unseen(model)
        for scope in everything:
            self._uses.update(scope.graph.outputs)
            for node in scope.graph:
                self._uses.update(value for value in node.inputs if value is not None)

    def is_dead(self, node: ir.Node) -> bool:
        """Whether a node has been taken out of the computation."""
        return node in self._dead

    def is_pinned(self, value: ir.Value) -> bool:
        """Whether a value is read by its name in a way that does not show among its uses."""
        return value.name in self._pinned

    def uses(self, value: ir.Value) -> int:
        """How many inputs and graph outputs are this value."""
        return self._uses[value] + (1 if value.name in self._pinned else 0)

    def can_remove(self, node: ir.Node, replaced: Iterable[ir.Value]) -> bool:
        """Whether a node is done with once these outputs are replaced."""
        covered = set(replaced)
        return all(value in covered or not self.uses(value) for value in node.outputs)

    def fold(self, scope: Scope, node: ir.Node, results: Mapping[ir.Value, ir.TensorProtocol], kind: str) -> bool:
        """Replace a node by what it computes; :meth:`can_remove` must hold.

        Args:
            scope: The graph of the node.
            node: The node; producers that nobody else reads go with it, and initializers.
            results: The value of each output that is read.
            kind: The kind of the change.

        Returns:
            False if the log does not permit it; nothing is changed then.
        """
        gone, nodes, initializers = self._dying(node)
        permitted = self._log.permit(
            kind,
            before=[title(n) for n in nodes],
            after=[value.name for value in results],
            boundary=[value.name for value in results],
            where=scope.path,
        )
        if not permitted:
            return False
        for value, tensor in results.items():
            self._place(scope, node, value, tensor)
        self._bury(gone, nodes, initializers)
        return True

    def retarget(self, scope: Scope, node: ir.Node, i: int, tensor: ir.TensorProtocol, kind: str) -> bool:
        """Give input ``i`` of a node a constant of its own; what only computed the old input goes.

        Returns:
            False if the log does not permit it; nothing is changed then.
        """
        old = node.inputs[i]
        assert old is not None
        gone, nodes, initializers = self._dying_without(old)
        name = self._names.value(f"{old.name}_folded")
        permitted = self._log.permit(
            kind,
            before=[title(n) for n in nodes],
            after=[name],
            boundary=[value.name for value in node.outputs],
            where=scope.path,
        )
        if not permitted:
            return False
        value = add_constant(scope, tensor, name, node)
        node.replace_input_with(i, value)
        self._uses[value] = 1
        self._bury(gone, nodes, initializers)
        return True

    def close(self) -> None:
        """Take the dead nodes out of their graphs."""
        by_graph: dict[ir.Graph, list[ir.Node]] = {}
        for node in self._dead:
            if node.graph is not None:
                by_graph.setdefault(node.graph, []).append(node)
        for graph, nodes in by_graph.items():
            graph.remove(nodes)
        self._dead.clear()

    def _place(self, scope: Scope, node: ir.Node, value: ir.Value, tensor: ir.TensorProtocol) -> None:
        """Let a constant of the same name stand for an output of a node."""
        if value.is_graph_output():
            # An initializer may be a graph output, but engines trip over it.
            constant = ir.node("Constant", [], attributes={"value": tensor}, name=self._names.node(title(node)))
            constant.doc_string = node.doc_string
            constant.metadata_props.update(node.metadata_props)
            made = constant.outputs[0]
            scope.graph.insert_before(node, constant)
            rewire.replace(value, made)
            # What is declared of an output belongs to the interface, even that nothing is.
            made.type, made.shape, tensor.name = value.type, value.shape, made.name
        else:
            name = value.name or self._names.value("folded")
            made = add_constant(scope, tensor, name, node)
            made.doc_string = value.doc_string
            made.metadata_props.update(value.metadata_props)
            made.meta.update(value.meta)
            value.replace_all_uses_with(made)
        self._uses[made] = self._uses.pop(value, 0)

    def _dying(self, node: ir.Node) -> tuple[collections.Counter[ir.Value], list[ir.Node], list[ir.Value]]:
        """What goes with a node: uses by value, nodes (itself first), initializers."""
        gone: collections.Counter[ir.Value] = collections.Counter()
        return self._spread(gone, [node])

    def _dying_without(self, value: ir.Value) -> tuple[collections.Counter[ir.Value], list[ir.Node], list[ir.Value]]:
        """What goes if one use of a value does."""
        gone: collections.Counter[ir.Value] = collections.Counter({value: 1})
        producer = value.producer()
        if producer is not None and self._unread(producer, gone) and not has_effect_or_unknown(producer):
            return self._spread(gone, [producer])
        return gone, [], [value] if self._droppable(value, gone) else []

    def _spread(
        self, gone: collections.Counter[ir.Value], nodes: list[ir.Node]
    ) -> tuple[collections.Counter[ir.Value], list[ir.Node], list[ir.Value]]:
        initializers: list[ir.Value] = []
        seen = set(nodes)
        for node in nodes:  # grows on the way
            for value in values_read(node):
                gone[value] += 1
                producer = value.producer()
                if producer is None:
                    if self._droppable(value, gone):
                        initializers.append(value)
                elif producer not in seen and self._unread(producer, gone) and not has_effect_or_unknown(producer):
                    seen.add(producer)
                    nodes.append(producer)
        return gone, nodes, initializers

    def _unread(self, node: ir.Node, gone: collections.Counter[ir.Value]) -> bool:
        return all(self.uses(value) <= gone[value] for value in node.outputs)

    def _droppable(self, value: ir.Value, gone: collections.Counter[ir.Value]) -> bool:
        return value.is_initializer() and not value.is_graph_input() and self.uses(value) == gone[value]

    def _bury(
        self, gone: collections.Counter[ir.Value], nodes: list[ir.Node], initializers: Iterable[ir.Value]
    ) -> None:
        self._uses.subtract(gone)
        for node in nodes:
            detach(node)
            self._dead[node] = None
        for value in initializers:
            graph = value.graph
            if graph is not None and value.name is not None:
                graph.initializers.pop(value.name)


def detach(node: ir.Node) -> None:
    """Make a node, and the nodes in its bodies, read nothing, so that it no longer counts as a user."""
    for inner in (*inner_nodes(node), node) if holds_graphs(node) else (node,):
        for i in range(len(inner.inputs)):
            inner.replace_input_with(i, None)
