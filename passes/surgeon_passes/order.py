"""The order of computation in one graph: what each node waits for, a stable topological order, and cycles.

A node waits for the producers of its inputs and for everything that its bodies capture from the graph it stands in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from surgeon_passes.walk import nested_graphs


def nodes_inside(node: ir.Node) -> Iterator[ir.Node]:
    """Yield every node in the bodies of ``node``, however deep, without recursion."""
    stack = [graph for _, graph in nested_graphs(node)]
    while stack:
        for inner in stack.pop():
            yield inner
            stack.extend(graph for _, graph in nested_graphs(inner))


def dependencies(graph: ir.Graph) -> dict[ir.Node, tuple[ir.Node, ...]]:
    """The nodes of ``graph`` that each of its nodes waits for, itself included if its output reaches it again.

    Takes time linear in the nodes of the graph and of the bodies in it.
    """
    waits: dict[ir.Node, tuple[ir.Node, ...]] = {}
    for node in graph:
        found: dict[ir.Node, None] = {}
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer.graph is graph:
                found[producer] = None
        if node.attributes:
            for inner in nodes_inside(node):
                for value in inner.inputs:
                    producer = value.producer() if value is not None else None
                    if producer is not None and producer.graph is graph:
                        found[producer] = None
        waits[node] = tuple(found)
    return waits


def is_sorted(waits: Mapping[ir.Node, Sequence[ir.Node]]) -> bool:
    """Whether every node comes after all it waits for, in the order of the mapping."""
    seen: set[ir.Node] = set()
    for node, before in waits.items():
        if not seen.issuperset(before):
            return False
        seen.add(node)
    return True


def sorted_nodes(waits: Mapping[ir.Node, Sequence[ir.Node]]) -> list[ir.Node]:
    """A topological order that takes, at each point, the earliest node that is ready; shorter if there is a cycle."""
    place = {node: i for i, node in enumerate(waits)}
    nodes = list(waits)
    missing = [len(before) for before in waits.values()]
    readers: list[list[int]] = [[] for _ in nodes]
    for i, before in enumerate(waits.values()):
        for node in before:
            readers[place[node]].append(i)
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[ir.Node] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(nodes[i])
        for reader in readers[i]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    return order


def find_cycle(waits: Mapping[ir.Node, Sequence[ir.Node]]) -> list[ir.Node]:
    """The nodes of one cycle, each read by the one after it and the last by the first; empty if there is none."""
    stuck = set(waits).difference(sorted_nodes(waits))
    if not stuck:
        return []
    node = next(node for node in waits if node in stuck)
    walked: dict[ir.Node, int] = {}
    while node not in walked:
        walked[node] = len(walked)
        # Whatever could not be sorted waits for something that could not be sorted either.
        node = next(before for before in waits[node] if before in stuck)
    cycle = list(walked)[walked[node] :]
    return cycle[::-1]
