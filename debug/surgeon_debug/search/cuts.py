"""Where to cut a line of weighted places so that the cuts tell most."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence


def spread(total: Sequence[float], low: int, high: int, taken: Iterable[int], k: int) -> list[int]:
    """Up to ``k`` new cuts strictly between two, so that the parts are as even as they can be.

    Place ``i`` lies between cut ``i`` and cut ``i + 1``. Cuts already being tried count as half known: new ones go
    where they make the expected weight that is left, the sum of the squares of the parts, smallest. Without any, the
    parts of equal places differ by one at most.

    Args:
        total: The weight of all places before each cut, not decreasing.
        low: The cut before the first place.
        high: The cut after the last place.
        taken: Cuts being tried.
        k: How many to find.

    Returns:
        Cuts, ascending; fewer if there are no more.
    """
    edges = sorted({low, high, *(cut for cut in taken if low < cut < high)})
    found: list[int] = []
    while len(found) < k:
        new = _place(total, edges, k - len(found))
        if not new:
            break
        found += new
        edges = sorted([*edges, *new])
    return sorted(found)


def _place(total: Sequence[float], edges: Sequence[int], k: int) -> list[int]:
    parts = list(itertools.pairwise(edges))
    shares = [0] * len(parts)
    for _ in range(k):
        best, gain = -1, -1.0
        for index, (a, b) in enumerate(parts):
            if b - a - 1 <= shares[index]:
                continue
            gained = (total[b] - total[a]) ** 2 / ((shares[index] + 1) * (shares[index] + 2))
            if gained > gain:
                best, gain = index, gained
        if best < 0:
            break
        shares[best] += 1
    return [cut for (a, b), share in zip(parts, shares, strict=True) if share for cut in _even(total, a, b, share)]


def _even(total: Sequence[float], a: int, b: int, share: int) -> list[int]:
    """Cuts inside (a, b) at even weights; fewer than asked for where one place outweighs others."""
    found: list[int] = []
    for step in range(1, share + 1):
        goal = total[a] + (total[b] - total[a]) * step / (share + 1)
        cut = bisect.bisect_left(total, goal, a, b)
        if cut > a and goal - total[cut - 1] <= total[cut] - goal:
            cut -= 1
        cut = min(max(cut, a + 1), b - 1)
        if not found or cut > found[-1]:
            found.append(cut)
    return found
