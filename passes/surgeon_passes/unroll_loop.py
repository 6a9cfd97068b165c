"""Write out a Loop that makes a known, small number of trips."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_passes.clone_nodes import NodeCloner
from surgeon_passes.constants import add_constant
from surgeon_passes.contract import ChangeLog
from surgeon_passes.foldable import has_effect_or_unknown
from surgeon_passes.inline_branch import lone_constants, remove_with_constants, replace_outputs
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.names import FreshNames
from surgeon_passes.reads import inner_nodes, is_undefined, values_read
from surgeon_passes.walk import Scope, is_onnx_op, title

_MAX_NODES = 1024
"""Nodes that one loop may become."""


@dataclasses.dataclass(frozen=True)
class Trips:
    """How often a loop runs."""

    count: int | None
    """The number of trips; None if it is not known."""
    reason: str
    """Why it is not known."""


def count_trips(node: ir.Node, body: ir.Graph, facts: KnownFacts) -> Trips:
    """The number of trips of a Loop, if its inputs and the condition in its body say it."""
    limit = node.inputs[0] if node.inputs else None
    condition = node.inputs[1] if len(node.inputs) > 1 else None
    trips = None if limit is None else facts[limit].known_ints
    if trips is None or len(trips) != 1:
        return Trips(None, "the number of trips is not constant")
    first = [1] if condition is None else facts[condition].known_ints
    if first is None or len(first) != 1:
        return Trips(None, "the condition is not constant")
    if not first[0] or trips[0] <= 0:
        return Trips(0, "")
    again = body.outputs[0]
    while (producer := again.producer()) is not None and is_onnx_op(producer, "Identity") and producer.inputs[0]:
        again = producer.inputs[0]
    if again is body.inputs[1]:
        return Trips(trips[0], "")
    later = facts[again].known_ints
    if later is None or len(later) != 1:
        return Trips(None, "the condition is computed in the body")
    return Trips(trips[0] if later[0] else 1, "")


def unroll_loop(
    scope: Scope,
    node: ir.Node,
    facts: KnownFacts,
    names: FreshNames,
    log: ChangeLog,
    *,
    limit: int,
    pinned: frozenset[str] = frozenset(),
) -> bool:
    """Replace a Loop by its trips one after the other, as one change of kind ``unroll-loop``.

    Args:
        scope: The graph of the Loop.
        node: The Loop.
        facts: What is known of values.
        names: Gives names to the copies.
        log: Asked first, and told why not.
        limit: The most trips to write out.
        pinned: Names of values that are read in a way that does not show.

    Returns:
        Whether it was done.
    """
    body = node.attributes["body"].as_graph()
    carried = len(body.inputs) - 2
    if carried < 0 or len(node.inputs) != carried + 2 or len(body.outputs) != len(node.outputs) + 1:
        return False
    trips = count_trips(node, body, facts)
    reason = trips.reason or _objection(node, body, carried, trips.count or 0, limit)
    if trips.count is None or reason:
        log.decline(title(node), reason, where=scope.path)
        return False
    if log.exhausted:
        return False
    constants = lone_constants(node, node.inputs[:2], pinned)
    _Unroller(scope, node, body, names).write(trips.count, constants, log)
    return True


def _objection(node: ir.Node, body: ir.Graph, carried: int, trips: int, limit: int) -> str:
    if trips > limit:
        return f"{trips} trips exceed loop_limit"
    if trips * (len(body) + sum(1 for inner in body for _ in inner_nodes(inner))) > _MAX_NODES:
        return f"written out it would have more than {_MAX_NODES} nodes"
    if any(is_undefined(value) for value in body.outputs):
        return "an output of the body is a value of an outer graph"
    if any(value.is_graph_input() for value in body.initializers.values()) or any(v is None for v in node.inputs[2:]):
        return "an input of the body has a default"
    if trips == 0 and any(value.uses() or value.is_graph_output() for value in node.outputs[carried:]):
        return "no trip is made, and the shape of what is collected is not known"
    return ""


class _Unroller:
    """Copies the body of one loop."""

    def __init__(self, scope: Scope, node: ir.Node, body: ir.Graph, names: FreshNames) -> None:
        self._scope = scope
        self._node = node
        self._body = body
        self._names = names
        self._carried = len(body.inputs) - 2

    def write(self, trips: int, constants: list[ir.Value], log: ChangeLog) -> None:
        shared = self._shared(trips)
        current = list(self._node.inputs[2:])
        collected: list[list[ir.Value]] = [[] for _ in self._node.outputs[self._carried :]]
        made: list[ir.Node] = []
        nodes = _nodes_for(self._body, [v for v, read in self._results() if read])
        for trip in range(trips):
            values: dict[ir.Value, ir.Value | None] = dict(shared)
            counter = self._body.inputs[0]
            if _is_read(counter):
                values[counter] = self._constant(_as_declared(trip, np.int64, counter), f"{counter.name}_{trip}")
            values.update(zip(self._body.inputs[2:], current, strict=True))
            cloner = NodeCloner(values, value_name=self._names.value, node_name=self._node_name)
            made += cloner.clone_all(nodes)
            results = [cloner.values.get(value, value) for value in self._body.outputs[1:]]
            current = results[: self._carried]
            for rows, value in zip(collected, results[self._carried :], strict=True):
                if value is not None:
                    rows.append(value)
        outputs = [*current, *(self._stack(rows, made, old) for rows, old in self._scans(collected))]
        log.permit(
            "unroll-loop",
            before=[title(self._node), *(title(p) for v in constants if (p := v.producer()) is not None)],
            after=[title(inner) for inner in made],
            boundary=[value.name for value in self._node.outputs],
            where=self._scope.path,
        )
        self._scope.graph.insert_before(self._node, made)
        pairs = [(old, new) for old, new in zip(self._node.outputs, outputs, strict=True) if new is not None]
        replace_outputs(self._scope.graph, pairs, self._node, self._names)
        # What is also carried into the first trip is read there now.
        remove_with_constants(self._node, [v for v in constants if all(u is self._node for u, _ in v.uses())])

    def _results(self) -> list[tuple[ir.Value, bool]]:
        """What the body hands on, and whether somebody reads it: what is carried may be read in the next trip."""
        collected = zip(self._body.outputs[1 + self._carried :], self._node.outputs[self._carried :], strict=True)
        carried = [(value, True) for value in self._body.outputs[1 : 1 + self._carried]]
        return carried + [(value, _is_read(old)) for value, old in collected]

    def _node_name(self, node: ir.Node) -> str:
        return self._names.node(node.name or node.op_type)

    def _shared(self, trips: int) -> dict[ir.Value, ir.Value | None]:
        """What is the same in every trip: the constants of the body, and a condition that is true."""
        shared: dict[ir.Value, ir.Value | None] = {}
        for name, value in self._body.initializers.items():
            if value.const_value is not None and trips:
                shared[value] = self._add(value.const_value, name)
        condition = self._body.inputs[1]
        if _is_read(condition) and trips:
            shared[condition] = self._constant(_as_declared(True, np.bool_, condition), condition.name or "condition")
        return shared

    def _constant(self, array: np.ndarray[Any, Any], base: str) -> ir.Value:
        return self._add(ir.Tensor(array), base)

    def _add(self, tensor: ir.TensorProtocol, base: str) -> ir.Value:
        return add_constant(self._scope, tensor, self._names.value(base), self._node)

    def _scans(self, collected: list[list[ir.Value]]) -> list[tuple[list[ir.Value], ir.Value]]:
        return list(zip(collected, self._node.outputs[self._carried :], strict=True))

    def _stack(self, rows: list[ir.Value], made: list[ir.Node], old: ir.Value) -> ir.Value | None:
        """One tensor of what every trip gives for an output; None if nobody reads it."""
        if not rows or not _is_read(old):
            return None
        lifted = []
        for value in rows:
            if self._scope.opset >= 13:
                node = ir.node("Unsqueeze", [value, self._constant(np.array([0], np.int64), f"{old.name}_axes")])
            else:
                node = ir.node("Unsqueeze", [value], attributes={"axes": [0]})
            lifted.append(self._named(node, f"{old.name}_row", made))
        if len(lifted) == 1:
            return lifted[0]
        return self._named(ir.node("Concat", lifted, attributes={"axis": 0}), f"{old.name}_rows", made)

    def _named(self, node: ir.Node, base: str, made: list[ir.Node]) -> ir.Value:
        node.name, node.outputs[0].name = self._names.node(base), self._names.value(base)
        made.append(node)
        return node.outputs[0]


def _nodes_for(body: ir.Graph, results: list[ir.Value]) -> list[ir.Node]:
    """The nodes that some values need, in order: the condition, which is known, needs none."""
    needed = set(results)
    nodes = []
    for node in reversed(body):
        if any(value in needed for value in node.outputs) or has_effect_or_unknown(node):
            needed.update(values_read(node))
            nodes.append(node)
    return nodes[::-1]


def _as_declared(number: int, dtype: type[np.generic], value: ir.Value) -> np.ndarray[Any, Any]:
    """What a loop hands to the first two inputs of its body: a scalar, or one element if the input is declared so."""
    is_vector = value.shape is not None and len(value.shape) == 1
    return np.array([number] if is_vector else number, dtype)


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
