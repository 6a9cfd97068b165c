"""Which nodes the mock engine fuses, and which tactic it picks: decided by names and a seed, in any piece alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx

LARGEST = 8
"""Nodes in a window at most."""


def share_of(*parts: object) -> float:
    """A number from 0 to 1 that looks random and follows from the parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def reads_of(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads, in its bodies too."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names += [name for inner in graph.node for name in reads_of(inner)]
    return names


def windows_of(graph: onnx.GraphProto, seed: int, rate: float, largest: int = LARGEST) -> list[tuple[str, ...]]:
    """Windows of two to eight nodes that are fused, each as the first outputs of its nodes in the graph's order.

    A tensor that one node reads and that is no output of the graph is an inner one if its name says so. Nodes joined by
    inner tensors make a window; of one that would be too large, the tensors whose names come last are spared. Whatever
    is read by others leaves a window at its last node only, so windows never depend on each other in a circle.

    Args:
        graph: The model given to the engine, or a piece of it.
        seed: Decides which tensors are inner ones.
        rate: The share of tensors with one reader that are.
        largest: Nodes in a window at most.
    """
    if rate <= 0.0:
        return []
    place = {name: i for i, node in enumerate(graph.node) for name in node.output}
    parent = list(range(len(graph.node)))
    size = [1] * len(graph.node)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for _, name, reader in sorted(_inner(graph, seed, rate)):
        a, b = root(place[name]), root(reader)
        if a != b and size[a] + size[b] <= largest:
            parent[a], size[b] = b, size[a] + size[b]
    groups: dict[int, list[str]] = {}
    for i, node in enumerate(graph.node):
        groups.setdefault(root(i), []).append(node.output[0])
    return [tuple(group) for group in groups.values() if len(group) > 1]


def lasting_windows_of(graph: onnx.GraphProto, seed: int, rate: float) -> list[tuple[str, ...]]:
    """Windows that were not cut to size, and so are the same in every piece that has all their nodes."""
    uncut = set(windows_of(graph, seed, rate, len(graph.node)))
    return [window for window in windows_of(graph, seed, rate) if window in uncut]


def _inner(graph: onnx.GraphProto, seed: int, rate: float) -> Iterable[tuple[float, str, int]]:
    """Rank, tensor and reader of each inner tensor."""
    shown = {info.name for info in graph.output}
    readers: dict[str, set[int]] = {}
    whole = []
    for i, node in enumerate(graph.node):
        for name in reads_of(node):
            readers.setdefault(name, set()).add(i)
        whole.append(not any(a.HasField("g") or a.graphs for a in node.attribute))
    for i, node in enumerate(graph.node):
        name = node.output[0]
        if len(node.output) != 1 or node.op_type == "Constant" or name in shown or not whole[i]:
            continue
        behind = readers.get(name, set())
        if len(behind) != 1:
            continue
        reader = next(iter(behind))
        chance = share_of(seed, "fused", name)
        if whole[reader] and chance < rate:
            yield chance, name, reader


def key_of(node: onnx.NodeProto, shapes: dict[str, tuple[object, ...]]) -> str:
    """The key of a node in the table of tactics: operator, attributes without names, and shapes of what it reads."""
    attributes = sorted(f"{a.name}={onnx.helper.get_attribute_value(a)!r}" for a in node.attribute if a.type != a.GRAPH)
    read = ["x".join(map(str, shapes.get(name, ("?",)))) if name else "" for name in node.input]
    return f"{node.op_type}({','.join(read)};{','.join(attributes)})"[:200]


def tactic_of(key: str, seed: int, count: int, noise: int = 0) -> int:
    """The tactic that wins for a key."""
    return int(share_of(seed, "tactic", key, noise) * count)
