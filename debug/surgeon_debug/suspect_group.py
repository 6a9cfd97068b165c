"""The first group of an engine's layers that is given right values and makes wrong ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set

from surgeon_debug.runners.tensorrt.inspector import EngineLayer
from surgeon_debug.runners.tensorrt.layer_map import LayerMap
from surgeon_debug.runners.tensorrt.watch import Look


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers of an engine between tensors that were seen."""

    layers: tuple[str, ...]
    """Their names, in the engine's order; more than one if what lies between them was not shown."""
    nodes: tuple[str, ...]
    """The nodes of the model that they compute."""
    reads: tuple[str, ...]
    """Tensors of the model that go in and are right."""
    writes: tuple[str, ...]
    """Tensors of the model that come out wrong."""
    candidates: int
    """How many tensors of the model the wrong one may be; 1 if that is sure."""


def most_suspect(split: Sequence[tuple[str, ...]], group: Group | None, makers: Set[str]) -> tuple[str, ...]:
    """Of the fusions that were taken apart, the one to name: what makes the first wrong tensor, else what is near it.

    Args:
        split: The nodes of each.
        group: The first layers that were seen to go wrong; None if none were.
        makers: The nodes that compute what comes out of these.
    """
    own = set(group.nodes) if group is not None else set()
    return min(split, key=lambda nodes: (makers.isdisjoint(nodes), own.isdisjoint(nodes), nodes), default=())


def first_bad_group(layers: LayerMap, looks: Sequence[Look], bad: Callable[[Look], bool]) -> Group | None:
    """Find it.

    Args:
        layers: The engine's layers.
        looks: Tensors that were seen; several looks at one tensor hold it against several of the model, and it is right
            if one of these fits.
        bad: Whether a look shows an error.

    Returns:
        The group that ends in the first wrong tensor, in the order in which the engine shows them, and begins with
        tensors that are right or come from outside; None if no tensor is wrong.
    """
    seen: dict[str, list[Look]] = {}
    for look in looks:
        if look.tensor or look.special:
            seen.setdefault(look.name, []).append(look)
    # A tensor that was looked at in several runs or iterations is wrong if it was in one of them.
    wrong = {name: found for name, found in seen.items() if _wrong(found, bad)}
    writers = {tensor.name: item.layer for item in layers.layers for tensor in item.layer.outputs}
    first = next((name for name in wrong if name in writers), None)
    if first is None:
        return None
    right = seen.keys() - wrong.keys()
    inside, borders = _back(first, writers, right)
    order = [item for item in layers.layers if item.layer.name in inside]
    nodes = tuple(dict.fromkeys(node for item in order for node in item.nodes if item.layer.nodes))
    if not nodes:
        nodes = tuple(dict.fromkeys(node for item in order for node in item.nodes))
    reads = tuple(dict.fromkeys(look.tensor for name in borders for look in seen[name] if not bad(look)))
    found = [look for look in wrong[first] if look.tensor]
    writes = tuple(dict.fromkeys(look.tensor for look in found))
    return Group(
        tuple(item.layer.name for item in order), nodes, reads, writes, max((look.choices for look in found), default=1)
    )


def _wrong(looks: Sequence[Look], bad: Callable[[Look], bool]) -> bool:
    occurrences: dict[int, list[Look]] = {}
    for look in looks:
        occurrences.setdefault(look.occurrence, []).append(look)
    return any(all(bad(look) for look in found) for found in occurrences.values())


def _back(first: str, writers: dict[str, EngineLayer], right: set[str]) -> tuple[set[str], list[str]]:
    """Layers from a tensor back to those that are right, and the right ones that were met."""
    inside: set[str] = set()
    borders: dict[str, None] = {}
    stack = [first]
    while stack:
        writer = writers.get(stack.pop())
        if writer is None or writer.name in inside:
            continue
        inside.add(writer.name)
        for tensor in writer.inputs:
            if tensor.name in right:
                borders[tensor.name] = None
            else:
                stack.append(tensor.name)
    return inside, list(borders)
