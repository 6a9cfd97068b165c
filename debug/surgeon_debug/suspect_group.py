"""Groups of an engine's layers that are given right values and make wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence, Set

from surgeon_debug.ladder import Group
from surgeon_debug.runners.tensorrt.inspector import EngineLayer
from surgeon_debug.runners.tensorrt.layer_map import LayerMap
from surgeon_debug.seen_tensor import Look

Bad = Callable[[Look], bool]
"""Whether a look shows an error."""

Explains = Callable[[Look, float], bool]
"""Whether the error of what its layers read, a relative L2, explains a look."""


def most_suspect(split: Sequence[tuple[str, ...]], group: Group | None, makers: Set[str]) -> tuple[str, ...]:
    """Of the fusions that were taken apart, the one to name: what makes the first wrong tensor, else what is near it.

    Args:
        split: The nodes of each.
        group: The first layers that were seen to go wrong; None if none were.
        makers: The nodes that compute what comes out of these.
    """
    own = set(group.nodes) if group is not None else set()
    return min(split, key=lambda nodes: (makers.isdisjoint(nodes), own.isdisjoint(nodes), nodes), default=())


class SeenTensors:
    """The tensors that an engine showed, and which of them are wrong.

    Args:
        layers: The engine's layers.
        looks: At the tensors, in the order in which the engine showed them; several looks at one time hold it against
            several tensors of the model, and it is right if one of these fits. A tensor that was shown in several runs
            or iterations is wrong if it was in one of them.
        bad: Whether a look shows an error.
        owners: For tensors in bodies, by their names in the engine, the node of the main graph that holds them.
        explains: Whether the error of what its layers read explains one: errors grow from layer to layer, and one that
            has grown past a limit is nobody's. None: never.
    """

    def __init__(
        self,
        layers: LayerMap,
        looks: Sequence[Look],
        bad: Bad,
        owners: Mapping[str, str] | None = None,
        explains: Explains | None = None,
    ) -> None:
        self._layers, self._bad = layers, bad
        self.looks: dict[str, list[Look]] = {}
        """By the tensor's name in the engine."""
        for look in looks:
            self.looks.setdefault(look.name, []).append(look)
        self.wrong: dict[str, list[Look]] = {}
        """Those that are wrong: the looks of the first time that they were."""
        for name, found in self.looks.items():
            if first := _first_wrong(found, bad):
                self.wrong[name] = first
        self._writers = {tensor.name: item.layer for item in layers.layers for tensor in item.layer.outputs}
        for name, node in (owners or {}).items():
            held = layers.layers_of(node)
            if name in self.looks and name not in self._writers and held:
                self._writers[name] = held[0].layer
        self._inside = {name for name in self.looks if any(look.how == "body" for look in self.looks[name])}
        self._right = {
            name for name, found in self.looks.items() if name not in self.wrong and any(x.compared for x in found)
        }
        self.grown: dict[str, list[Look]] = {}
        """Those that are off by no more than what is read for them explains: not wrong, and not right either."""
        if explains is not None:
            self._set_grown_apart(explains)

    def _set_grown_apart(self, explains: Explains) -> None:
        for name in list(self.wrong):  # in the engine's order, so that what is read was settled before
            if name not in self._writers:
                continue
            _, borders, handed = self._back(name)
            inherited = self._error_of(borders)
            if not handed and inherited > 0 and all(explains(look, inherited) for look in self.wrong[name]):
                self.grown[name] = self.wrong.pop(name)
                self._right.add(name)

    def _error_of(self, names: Collection[str]) -> float:
        """The largest error of some tensors; of several that one may be, the one that fits best counts."""
        times: dict[tuple[str, int, int], float] = {}
        for look in (look for name in names for look in self.looks[name] if look.compared):
            key = (look.name, look.run, look.occurrence)
            times[key] = min(times.get(key, math.inf), look.rel_l2)
        return max(times.values(), default=0.0)

    def groups(self) -> tuple[list[Group], set[str]]:
        """Groups that go wrong independently of each other, in the engine's order; and what follows from these."""
        spans: list[tuple[set[str], list[str], list[str]]] = []  # layers, right tensors at the border, wrong ones
        follows: set[str] = set()
        for name in self.wrong:
            if name not in self._writers:
                continue
            inside, borders, handed = self._back(name)
            if handed:
                follows.add(name)
                continue
            same = next((span for span in spans if span[0] & inside), None)
            if same is None:
                spans.append((inside, borders, [name]))
            else:  # two tensors that leave layers which nobody looked between
                same[0].update(inside)
                same[1].extend(borders)
                same[2].append(name)
        return [self._group(*span) for span in spans], follows

    def _back(self, first: str) -> tuple[set[str], list[str], bool]:
        """Layers from a wrong tensor back to seen ones; the right ones among these, and whether any was wrong."""
        inside: set[str] = set()
        borders: dict[str, None] = {}
        handed = False
        stack = [first]
        while stack:
            writer = self._writers.get(stack.pop())
            if writer is None or writer.name in inside:
                continue
            inside.add(writer.name)
            for tensor in writer.inputs:
                if tensor.name in self._right:
                    borders[tensor.name] = None
                elif tensor.name in self.wrong:
                    handed = True
                else:
                    stack.append(tensor.name)
        return inside, list(borders), handed

    def _group(self, inside: set[str], borders: Collection[str], wrong: Sequence[str]) -> Group:
        order = [item for item in self._layers.layers if item.layer.name in inside]
        nodes = tuple(dict.fromkeys(node for item in order for node in item.nodes if item.layer.nodes))
        if not nodes:
            nodes = tuple(dict.fromkeys(node for item in order for node in item.nodes))
        reads = dict.fromkeys(
            look.tensor
            for name in borders
            for look in self.looks[name]
            if look.compared and (name in self.grown or not self._bad(look))
        )
        outer = [look for name in wrong if name not in self._inside for look in self.wrong[name] if look.tensor]
        writes = dict.fromkeys(look.tensor for look in outer)
        choices = max((look.choices for name in wrong for look in self.wrong[name] if look.tensor), default=1)
        return Group(
            tuple(item.layer.name for item in order),
            nodes,
            tuple(reads),
            tuple(writes),
            choices,
            tuple(wrong),
            self._first_inside(wrong),
            self._error_of(borders),
        )

    def _first_inside(self, wrong: Sequence[str]) -> tuple[str, ...]:
        """Of the wrong tensors in bodies the one that goes wrong in the earliest iteration, and there first."""
        looks = [self.wrong[name][0] for name in wrong if name in self._inside]
        first = min(looks, key=lambda look: (look.run, look.occurrence), default=None)
        return () if first is None else (first.tensor or first.name, str(first.occurrence))

    def writer(self, name: str) -> EngineLayer | None:
        """The layer that computes a tensor; None if that is not known."""
        return self._writers.get(name)


def _first_wrong(looks: Sequence[Look], bad: Bad) -> list[Look]:
    """The looks of the first time that a tensor was wrong; empty if it never was."""
    times: dict[tuple[int, int], list[Look]] = {}
    for look in looks:
        times.setdefault((look.run, look.occurrence), []).append(look)
    return next((found for found in times.values() if all(bad(look) for look in found)), [])
