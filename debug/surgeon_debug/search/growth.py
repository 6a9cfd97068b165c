"""What connected windows look like: random ones grown around elements known to be needed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence

from surgeon_debug.search.information import bits

TAIL = 0.1
"""The share of windows larger than the limit; up to twice as large."""


def reach(
    starts: Iterable[int], neighbours: Callable[[int], Iterable[int]], allowed: Collection[int]
) -> dict[int, int]:
    """The distance of all allowed elements that can be reached from some, in the order in which they are met.

    Args:
        starts: Elements at distance 0.
        neighbours: The elements next to one.
        allowed: Elements that may be stepped on.
    """
    found = dict.fromkeys(starts, 0)
    edge = list(found)
    while edge:
        fresh = []
        for element in edge:
            for other in neighbours(element):
                if other in allowed and other not in found:
                    found[other] = found[element] + 1
                    fresh.append(other)
        edge = fresh
    return found


def grow(
    needed: Sequence[int],
    neighbours: Callable[[int], Iterable[int]],
    allowed: Collection[int],
    groups: Sequence[Collection[int]],
    *,
    limit: int,
    count: int,
    seed: int,
) -> list[frozenset[int]]:
    """Random windows that hold all needed elements and at least one of each group.

    Sizes up to the limit are equally likely. Each next element is the other end of a random link of those that are in,
    so that one with many links to them, as a hole in a window has, comes in sooner.

    Args:
        needed: Elements that are connected among each other.
        neighbours: The elements next to one.
        allowed: Elements that may be in a window.
        groups: Sets, each next to the needed elements, of which one must be in.
        limit: The usual largest size.
        count: How many to grow.
        seed: Makes the same call give the same windows.
    """
    chance = random.Random(seed)
    base = set(needed)
    links = [other for element in needed for other in neighbours(element) if other in allowed and other not in base]
    found = []
    for _ in range(count):
        window, ends = set(base), list(links)
        for group in groups:
            if window.isdisjoint(group):
                _add(chance.choice(sorted(group)), window, ends, neighbours, allowed)
        most = limit if chance.random() >= TAIL and len(window) <= limit else max(2 * limit, 2 * len(window))
        size = chance.randint(len(window), most)
        while len(window) < size and ends:
            place = chance.randrange(len(ends))
            ends[place], ends[-1] = ends[-1], ends[place]
            element = ends.pop()
            if element not in window:
                _add(element, window, ends, neighbours, allowed)
        found.append(frozenset(window))
    return found


def even_split(
    windows: Sequence[frozenset[int]], free: Collection[int], touchy: Collection[int]
) -> tuple[frozenset[int], float]:
    """What to leave out so that it is as likely to miss the window as to hit it.

    Args:
        windows: What the window may be, all equally likely.
        free: What may be left out.
        touchy: Those of it that may only be left out alone.

    Returns:
        The elements, and the chance that none of them is in the window.
    """
    share = {x: sum(x in window for window in windows) for x in free}
    rare = sorted(free, key=lambda x: (share[x], x))
    calm = [x for x in rare if x not in touchy]
    choices = [frozenset([x]) for x in rare] + [frozenset(calm[:count]) for count in range(2, len(calm) + 1)]
    best, value, chance = choices[0], -1.0, 0.5
    for left in choices:
        misses = sum(left.isdisjoint(window) for window in windows) / len(windows)
        # Of two that tell as much, the single one proves its element if it comes out clean.
        worth = bits(misses) + (0.05 if len(left) == 1 else 0.0)
        if worth > value:
            best, value, chance = left, worth, misses
    return best, chance


def _add(
    element: int,
    window: set[int],
    ends: list[int],
    neighbours: Callable[[int], Iterable[int]],
    allowed: Collection[int],
) -> None:
    window.add(element)
    ends += [other for other in neighbours(element) if other in allowed and other not in window]
