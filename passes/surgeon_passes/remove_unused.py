"""Remove what nobody uses: nodes, outputs, initializers, local functions.

One sweep against the order of computation finds everything at once: whatever a removal sets free is looked at next,
in whichever graph it is.
"""

from __future__ import annotations

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog
from surgeon_passes.effects import Effects, all_nodes
from surgeon_passes.fidelity import TRAINING
from surgeon_passes.order import nodes_inside
from surgeon_passes.prune_outputs import can_drop_optional, drop_body_outputs, drop_optional_outputs
from surgeon_passes.rewire import remove_tree
from surgeon_passes.takeover import named_uses
from surgeon_passes.walk import Scope, nested_graphs, scopes, title


def remove_unused(model: ir.Model, log: ChangeLog) -> None:
    """Remove every node, output, initializer and function of ``model`` that nobody uses, one change each."""
    _Sweep(model, log).run()
    _remove_functions(model, log)


class _Sweep:
    def __init__(self, model: ir.Model, log: ChangeLog) -> None:
        self.log = log
        self.effects = Effects(model)
        self.named = named_uses(model)
        self.trains = bool(model.meta.get(TRAINING))
        self.scopes: dict[ir.Graph, Scope] = {scope.graph: scope for scope in scopes(model)}

    def run(self) -> None:
        for graph in list(self.scopes):
            if graph not in self.scopes:
                continue  # it went with the node that held it
            for node in reversed(list(graph)):
                self._settle([node])
                if self.log.exhausted:
                    return
        for scope in self.scopes.values():
            self._remove_initializers(scope)

    def _unused(self, value: ir.Value) -> bool:
        return not value.uses() and not value.is_graph_output() and value.name not in self.named

    def _settle(self, pending: list[ir.Node]) -> None:
        """Look at nodes, and at those that become free with them, until nothing changes."""
        while pending and not self.log.exhausted:
            node = pending.pop()
            scope = self.scopes.get(node.graph) if node.graph is not None else None
            if scope is None:
                continue
            if not all(self._unused(value) for value in node.outputs):
                pending.extend(self._prune(scope, node))
            elif not self.effects.may_drop(node):
                what = f"operator {node.domain}.{node.op_type}" if node.domain else f"a body of {node.op_type}"
                self.log.decline(title(node), f"nobody reads it, but {what} may do more than compute", where=scope.path)
            elif self.log.permit("remove-node", before=[title(node)], where=scope.path):
                pending.extend(self._remove(node))

    def _remove(self, node: ir.Node) -> list[ir.Node]:
        inside = list(nodes_inside(node))
        read = {value: None for n in (node, *inside) for value in n.inputs if value is not None}
        for n in (node, *inside):
            for _, graph in nested_graphs(n):
                self.scopes.pop(graph, None)
        remove_tree(node)
        return _producers(read)

    def _prune(self, scope: Scope, node: ir.Node) -> list[ir.Node]:
        if len(node.outputs) < 2:
            return []
        if self.effects.is_standard(node, "If", "Loop", "Scan"):
            return _producers(dict.fromkeys(drop_body_outputs(scope, node, self._unused, self.log)))
        if can_drop_optional(node) and self.effects.is_standard(node, node.op_type):
            drop_optional_outputs(scope, node, self._unused, self.log)
        return []

    def _remove_initializers(self, scope: Scope) -> None:
        for name, value in list(scope.graph.initializers.items()):
            if value.is_graph_input() or not self._unused(value):
                continue
            if self.trains:
                self.log.decline(name, "the model has training information that may refer to it", where=scope.path)
            elif self.log.permit("remove-initializer", before=[name], where=scope.path):
                del scope.graph.initializers[name]


def _producers(values: dict[ir.Value, None]) -> list[ir.Node]:
    """The nodes that make ``values``, without repetition, in order."""
    found = {producer: None for value in values if (producer := value.producer()) is not None}
    return list(found)


def _remove_functions(model: ir.Model, log: ChangeLog) -> None:
    """Remove the local functions that the main graph does not reach, callers before what they call."""
    functions = model.functions
    calls = {
        key: {n.op_identifier(): None for n in all_nodes(function) if n.op_identifier() in functions}
        for key, function in functions.items()
    }
    reached: set[ir.OperatorIdentifier] = set()
    pending = [n.op_identifier() for n in all_nodes(model.graph) if n.op_identifier() in functions]
    while pending:
        key = pending.pop()
        if key not in reached:
            reached.add(key)
            pending.extend(calls[key])
    callers = dict.fromkeys(functions, 0)
    for key in functions:
        for called in calls[key] if key not in reached else ():
            callers[called] += 1
    free = [key for key in reversed(list(functions)) if key not in reached and callers[key] == 0]
    while free:
        key = free.pop()
        domain, name, overload = key
        label = f"{domain}::{name}" + (f":{overload}" if overload else "")
        if not log.permit("remove-function", before=[label]):
            return
        del functions[key]
        for called in calls[key]:
            callers[called] -= 1
            if callers[called] == 0 and called not in reached:
                free.append(called)
