"""Graphs like those of models, as an order and links, for searches over opaque elements."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

Links = dict[int, set[int]]


def _graph(count: int, edges: list[tuple[int, int]]) -> Links:
    links: Links = {element: set() for element in range(count)}
    for a, b in edges:
        if a != b and 0 <= a < count and 0 <= b < count:
            links[a].add(b)
            links[b].add(a)
    return links


def chain(count: int, chance: random.Random) -> Links:
    return _graph(count, [(i, i + 1) for i in range(count - 1)])


def residual(count: int, chance: random.Random) -> Links:
    skips = [(i, i + 4) for i in range(0, count - 4, 4)]
    return _graph(count, [(i, i + 1) for i in range(count - 1)] + skips)


def inception(count: int, chance: random.Random) -> Links:
    edges = []
    for start in range(0, count, 10):
        # One node in, branches of 1, 2, 3 and 2 nodes, one node that joins them.
        for branch in ((1,), (2, 3), (4, 5, 6), (7, 8)):
            path = [0, *branch, 9]
            edges += [(start + a, start + b) for a, b in itertools.pairwise(path)]
        edges.append((start + 9, start + 10))
    return _graph(count, edges)


def unet(count: int, chance: random.Random) -> Links:
    skips = [(i, count - 1 - i) for i in range(3, count // 2, 6)]
    return _graph(count, [(i, i + 1) for i in range(count - 1)] + skips)


def transformer(count: int, chance: random.Random) -> Links:
    block = [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (5, 6), (6, 7), (7, 8), (4, 8), (8, 9), (9, 10), (0, 10)]
    block += [(10, 11), (11, 12), (12, 13), (13, 14), (14, 15), (10, 15), (15, 16)]
    return _graph(count, [(start + a, start + b) for start in range(0, count, 16) for a, b in block])


def random_dag(count: int, chance: random.Random) -> Links:
    reads = [i for i in range(1, count) for _ in range(chance.choice((1, 1, 2)))]
    edges = [(max(0, i - 1 - int(chance.expovariate(1 / 12))), i) for i in reads]
    return _graph(count, edges)


FAMILIES: dict[str, Callable[[int, random.Random], Links]] = {
    "chain": chain,
    "residual": residual,
    "inception": inception,
    "unet": unet,
    "transformer": transformer,
    "random": random_dag,
}


def window(links: Links, size: int, chance: random.Random) -> frozenset[int]:
    """A connected window of a size, grown around a random node."""
    found = {chance.randrange(len(links))}
    while len(found) < size:
        edge = sorted({other for element in found for other in links[element]} - found)
        if not edge:
            break
        found.add(chance.choice(edge))
    return frozenset(found)


def windows_ending_at(links: Links, last: int, limit: int, cap: int) -> int:
    """How many connected windows up to a size have this node as their last; not more than ``cap`` are counted."""
    count, stack = 0, [(1, {x for x in links[last] if x < last}, {last} | links[last])]
    while stack and count < cap:
        size, edge, seen = stack.pop()
        count += 1
        if size == limit:
            continue
        left = sorted(edge)
        # Each window once: an element that was passed over is not taken later on this branch.
        for index, element in enumerate(left):
            fresh = {x for x in links[element] if x < last and x not in seen}
            stack.append((size + 1, {*left[index + 1 :], *fresh}, seen | links[element]))
    return count
