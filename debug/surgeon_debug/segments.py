"""Cut two models into segments that belong together, so that what is alive at a time stays within a budget.

A segment ends at a whole topological prefix of each model, never at one node's outputs: everything that later nodes
read is carried over. The reference's order decides where; the other model's prefix is what its tensors of the same
names need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from surgeon_debug.layer_plan import Layer
from surgeon_debug.piece_source import PieceSource

MAX_NODES = 2000
"""Nodes of one segment unless the caller says otherwise; some engines need more than linear time for a graph."""

_COPIES = 3  # of a tensor while its segment is judged: the reference's, the target's, and the isolated one
_CARRIED = 2  # of a tensor that later segments read


@dataclasses.dataclass(frozen=True)
class Part:
    """What one model does in a segment."""

    nodes: tuple[int, ...]
    """Positions in the source's nodes."""
    reads: tuple[str, ...]
    """Tensors that come from earlier segments or from outside."""
    shows: tuple[str, ...]
    """Tensors to show: those that are judged, and those that are read later."""
    keeps: frozenset[str]
    """Of these, what later segments read."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A step of the comparison."""

    layers: tuple[Layer, ...]
    """The tensors judged here, in topological order of the reference."""
    reference: Part
    target: Part
    golden: tuple[str, ...]
    """Tensors of earlier segments whose reference value isolated nodes of this one are fed."""


def plan_segments(
    reference: PieceSource, target: PieceSource, layers: Sequence[Layer], budget: int, max_nodes: int = MAX_NODES
) -> list[Segment]:
    """Cut both models along the layers they have in common.

    Args:
        reference: The model whose order counts.
        target: The other one; the same object if there is only one.
        layers: The tensors to judge, each computed in both.
        budget: Bytes for tensors and weights in use; a single node that needs more is a segment of its own.
        max_nodes: Nodes of one segment.
    """
    ends = _cut(reference, layers, budget, max_nodes)
    common = {layer.tensor: layer for layer in layers}
    ours = [tuple(range(start, end)) for start, end in ends]
    judged = [
        tuple(common[name] for i in nodes for name in reference.nodes[i].writes if name in common) for nodes in ours
    ]
    if target is reference:
        theirs = ours
    else:
        theirs = _increments(target, [[layer.tensor for layer in group] for group in judged])
    golden = _golden_reads(reference, target, judged)
    last = {name: k for k, names in enumerate(golden) for name in names}
    at = {layer.tensor: k for k, group in enumerate(judged) for layer in group}
    kept: list[set[str]] = [set() for _ in judged]
    for name in last:
        kept[at[name]].add(name)
    mine = _parts(reference, ours, judged, kept)
    yours = _parts(target, theirs, judged, [set() for _ in judged])
    return [Segment(*step) for step in zip(judged, mine, yours, golden, strict=True)]


def _cut(source: PieceSource, layers: Sequence[Layer], budget: int, max_nodes: int) -> list[tuple[int, int]]:
    """Where segments begin and end, by the bytes that are alive."""
    sizes = {layer.tensor: layer.nbytes for layer in layers}
    last_read = {name: i for i, node in enumerate(source.nodes) for name in node.reads}
    ends: list[tuple[int, int]] = []
    start, live, used = 0, 0, 0
    leaving: dict[int, int] = {}
    weights: set[str] = set()
    for index, node in enumerate(source.nodes):
        own = _COPIES * sum(sizes.get(name, 0) for name in node.writes)
        fresh = [name for name in node.weights if name not in weights]
        own += 2 * sum(source.weight_bytes(name) for name in fresh)
        if index > start and (live + used + own > budget or index - start >= max_nodes) and _may_cut(source, index):
            ends.append((start, index))
            start, used = index, 0
            weights.clear()
            own += 2 * sum(source.weight_bytes(name) for name in node.weights if name not in fresh)
        weights.update(node.weights)
        used += own
        for name in node.writes:
            if (until := last_read.get(name, index)) > index:
                live += _CARRIED * sizes.get(name, 0)
                leaving[until] = leaving.get(until, 0) + _CARRIED * sizes.get(name, 0)
        live -= leaving.pop(index, 0)
    if source.nodes:
        ends.append((start, len(source.nodes)))
    return ends


def _may_cut(source: PieceSource, index: int) -> bool:
    """Whether everything that crosses this point is a tensor, which is all that pieces take in and give out."""
    return index not in source.glued


def _increments(source: PieceSource, wanted: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """What each segment adds to the prefix that computes its tensors."""
    done: set[int] = set()
    result = []
    for names in wanted:
        added: set[int] = set()
        stack = [source.producer[name] for name in names]
        while stack:
            index = stack.pop()
            if index not in done:
                done.add(index)
                added.add(index)
                stack.extend(source.nodes[index].before)
        result.append(tuple(sorted(added)))
    return result


def _golden_reads(
    reference: PieceSource, target: PieceSource, judged: Sequence[Sequence[Layer]]
) -> list[tuple[str, ...]]:
    """For each segment the judged tensors of earlier ones that its nodes, standing alone, are fed."""
    at = {layer.tensor: k for k, group in enumerate(judged) for layer in group}
    reads = []
    available: set[str] = set()
    for k, group in enumerate(judged):
        names = [layer.tensor for layer in group]
        available.update(names)
        fed: dict[str, None] = {}
        for source in dict.fromkeys((reference, target)):
            fed.update(dict.fromkeys(source.closure(names, available)[1]))
        reads.append(tuple(name for name in fed if at.get(name, k) < k))
    return reads


def _parts(
    source: PieceSource,
    nodes: Sequence[tuple[int, ...]],
    judged: Sequence[Sequence[Layer]],
    kept: Sequence[set[str]],
) -> list[Part]:
    place = {name: k for k, group in enumerate(nodes) for i in group for name in source.nodes[i].writes}
    later: list[set[str]] = [set(names) for names in kept]
    reads: list[dict[str, None]] = [{} for _ in nodes]
    for k, group in enumerate(nodes):
        for index in group:
            for name in source.nodes[index].reads:
                at = place.get(name)
                if at is None or at < k:
                    reads[k][name] = None
                if at is not None and at < k:
                    later[at].add(name)
    parts = []
    for k, group in enumerate(nodes):
        outputs = [name for name in source.outputs if place.get(name) == k]
        shows = dict.fromkeys([*(layer.tensor for layer in judged[k]), *sorted(later[k]), *outputs])
        parts.append(Part(group, tuple(reads[k]), tuple(shows), frozenset(later[k])))
    return parts


def shape_of(values: Sequence[Mapping[str, object]], name: str) -> tuple[int | None, ...] | None:
    """Dimensions of a tensor over all samples, None where they differ; None as a whole if the ranks do."""
    shapes = [getattr(sample[name], "shape", None) for sample in values]
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    return tuple(size if all(s[i] == size for s in shapes if s is not None) else None for i, size in enumerate(first))
