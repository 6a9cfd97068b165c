"""The elements of a search for nodes: the nodes of a model's main graph, in an order in which it may be cut."""

from __future__ import annotations

from collections.abc import Iterable

from surgeon_debug.piece_source import PieceSource


class Elements:
    """The main graph as elements 0, 1, ... in topological order.

    An element is one node, or several that follow each other where a sequence or an optional, which pieces cannot take
    in or give out, leads from one to the other.

    Args:
        source: The model.
    """

    def __init__(self, source: PieceSource) -> None:
        self._source = source
        groups: list[list[int]] = []
        for position in range(len(source.nodes)):
            if groups and position in source.glued:
                groups[-1].append(position)
            else:
                groups.append([position])
        self.groups = tuple(tuple(group) for group in groups)
        """Positions of each element's nodes."""
        self._of = {position: e for e, group in enumerate(self.groups) for position in group}
        self._neighbours: dict[int, tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def everything(self) -> frozenset[int]:
        """All elements."""
        return frozenset(range(len(self.groups)))

    def positions(self, elements: Iterable[int]) -> list[int]:
        """Positions of the nodes of some elements, ascending."""
        return sorted(position for element in elements for position in self.groups[element])

    def element_of(self, position: int) -> int:
        """The element that a node is in."""
        return self._of[position]

    def named(self, titles: Iterable[str]) -> list[int]:
        """Elements with a node that messages call by one of these names, ascending."""
        wanted = frozenset(titles)
        found = (self._of[i] for i, node in enumerate(self._source.nodes) if node.title in wanted)
        return sorted(set(found))

    def titles(self, elements: Iterable[int]) -> tuple[str, ...]:
        """What messages call the nodes of some elements, in topological order."""
        return tuple(self._source.nodes[position].title for position in self.positions(elements))

    def neighbours(self, element: int) -> tuple[int, ...]:
        """Elements that an element reads from, or that read from it, ascending."""
        if self._neighbours is None:
            self._neighbours = self._connect()
        return self._neighbours[element]

    def _connect(self) -> dict[int, tuple[int, ...]]:
        near: dict[int, set[int]] = {e: set() for e in range(len(self.groups))}
        for position, node in enumerate(self._source.nodes):
            own = self._of[position]
            for other in node.before:
                if (theirs := self._of[other]) != own:
                    near[own].add(theirs)
                    near[theirs].add(own)
        return {e: tuple(sorted(others)) for e, others in near.items()}
