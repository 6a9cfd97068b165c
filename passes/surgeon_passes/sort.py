"""The pass ``sort``: put nodes into an order in which they can be computed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.conditions import cycle_text
from surgeon_passes.contract import ChangeLog, Pass
from surgeon_passes.errors import BadModelError
from surgeon_passes.order import dependencies, find_cycle, is_sorted, sorted_nodes
from surgeon_passes.walk import Scope, scopes, title


@dataclasses.dataclass(frozen=True)
class Sort(Pass):
    """Order the nodes of every graph, body and function so that each comes after those it reads from.

    What a node's bodies read of the graph around them counts as read by the node. A graph that is in order already
    keeps its order; else, of all nodes that could come next, the one that came first stays first. Nothing else is
    touched. A graph with a cycle cannot be ordered: the nodes of one cycle are named, and the model is unchanged.
    """

    name: ClassVar[str] = "sort"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p sort -o sorted.onnx"

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Find all orders, then apply them, one change for each graph that needs it.

        Raises:
            BadModelError: A graph has a cycle.
        """
        for scope, early, order in [found for scope in scopes(model) if (found := _order(scope)) is not None]:
            if not log.permit("sort", before=early, after=early, where=scope.path):
                return
            scope.graph.extend(order)  # a node that is in the graph already is moved


def _order(scope: Scope) -> tuple[Scope, list[str], list[ir.Node]] | None:
    """The nodes of a graph that stand too early, and its sorted order; None if it is in order."""
    waits = dependencies(scope.graph)
    if is_sorted(waits):
        return None
    order = sorted_nodes(waits)
    if len(order) < len(waits):
        cycle = cycle_text(find_cycle(waits))
        raise BadModelError(f"has a cycle: {cycle}", where=scope.path, hint="remove one of these nodes")
    place = {node: i for i, node in enumerate(waits)}
    return scope, [title(node) for node in waits if any(place[b] > place[node] for b in waits[node])], order
