"""What is believed of where a flaky failure begins, and how often it shows from there on."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Mapping

from surgeon_debug.search.information import bits

STEPS = 6
"""Cuts considered inside a block, evenly spaced; information is smooth in between."""
LEARNING = 0.5
"""What a bit about the rate is worth in bits about the place."""
FADED = 1e-9
"""A block that is less probable is not divided any more."""


class Posterior:
    """The joint belief in the place of the culprit and the rate at which it shows.

    Places between two cuts that were asked are equally probable, so they are kept as one block with one weight for each
    rate; a run costs time in proportion to the number of cuts asked, whatever the number of places.

    Args:
        places: How many places there are; place ``j`` is shown by the cuts ``j + 1`` and later.
        prior: The belief in each rate, summing to 1.
        false_rate: The rate before the place.
    """

    def __init__(self, places: int, prior: Mapping[float, float], false_rate: float) -> None:
        self._rates = list(prior)
        self._doubts = [bits(rate) for rate in prior]
        self._false = false_rate
        self._edges = [0, places]
        self._weights = [list(prior.values())]

    @property
    def rate(self) -> float:
        """The expected rate."""
        return sum(weight * rate for block in self._weights for weight, rate in zip(block, self._rates, strict=True))

    def learn(self, cut: int, fails: bool) -> None:
        """Take one run of a cut into account."""
        self._divide(cut)
        place = bisect.bisect_left(self._edges, cut)
        after = [rate if fails else 1 - rate for rate in self._rates]
        before = self._false if fails else 1 - self._false
        for index, block in enumerate(self._weights):
            if index < place:
                self._weights[index] = [weight * factor for weight, factor in zip(block, after, strict=True)]
            else:
                self._weights[index] = [weight * before for weight in block]
        whole = sum(map(sum, self._weights))
        if whole <= 0:
            # Impossible by the model: a failure before any place that is left. Begin anew rather than divide by 0.
            self._weights = [[1.0] * len(self._rates) for _ in self._weights]
            whole = float(len(self._weights) * len(self._rates))
        self._weights = [[weight / whole for weight in block] for block in self._weights]
        self._drop()

    def likelier(self, cut: int) -> Posterior:
        """The belief after a run of a cut came out as is likelier."""
        other = Posterior(1, {}, self._false)
        other._rates, other._doubts = self._rates, self._doubts
        other._edges, other._weights = list(self._edges), list(self._weights)
        mass = shown = 0.0
        for (first, last), block in zip(itertools.pairwise(self._edges), self._weights, strict=True):
            share = min(max((cut - first) / (last - first), 0.0), 1.0)
            mass += share * sum(block)
            shown += share * sum(weight * rate for weight, rate in zip(block, self._rates, strict=True))
        other.learn(cut, shown + (1 - mass) * self._false > 0.5)
        return other

    def between(self, first: int, last: int) -> float:
        """The probability of the places from ``first`` to before ``last``."""
        found = 0.0
        for (a, b), block in zip(itertools.pairwise(self._edges), self._weights, strict=True):
            found += sum(block) * max(0, min(b, last) - max(a, first)) / (b - a)
        return found

    def likeliest(self, blocked: Collection[int]) -> tuple[int, int]:
        """The likeliest place, with its neighbours that blocked cuts keep from being told apart from it.

        Returns:
            The first place, and the one after the last.
        """
        blocks = zip(itertools.pairwise(self._edges), self._weights, strict=True)
        (first, last), _ = max(blocks, key=lambda item: sum(item[1]) / (item[0][1] - item[0][0]))
        last = first + 1
        while first in blocked:
            first -= 1
        while last in blocked:
            last += 1
        return first, last

    def best_cut(self, asked: Collection[int], blocked: Collection[int], price: float) -> int | None:
        """The cut whose next run tells most for its price; None if none tells anything.

        Args:
            asked: Cuts whose repetition costs ``price`` instead of 1.
            blocked: Cuts that cannot be asked.
            price: What a repetition costs.
        """
        best, value = None, 1e-12
        mass = shown = known = 0.0
        blind = bits(self._false)
        for (first, last), block in zip(itertools.pairwise(self._edges), self._weights, strict=True):
            weight = sum(block)
            shows = sum(map(float.__mul__, block, self._rates))
            inner = weight * bits(shows / weight) if weight > 0 else 0.0
            # What is learned of the rate alone is not asked for, but helps later; it counts by half.
            inner -= LEARNING * (inner - sum(map(float.__mul__, block, self._doubts)))
            width = last - first
            for cut in self._inside(first, last, weight, blocked):
                share = (cut - first) / width
                here = mass + share * weight
                chance = shown + share * shows + (1 - here) * self._false
                told = bits(chance) - (known + share * inner) - (1 - here) * blind
                told /= price if cut in asked else 1.0
                if told > value:
                    best, value = cut, told
            mass, shown, known = mass + weight, shown + shows, known + inner
        return best

    def _inside(self, first: int, last: int, weight: float, blocked: Collection[int]) -> list[int]:
        """Cuts of one block worth a look: its end, and a few before it."""
        width = last - first
        if weight < FADED or width == 1:
            cuts = [last]
        else:
            cuts = sorted({first + max(1, width * step // STEPS) for step in range(1, STEPS)} | {last})
        if not blocked:
            return cuts
        found = [cut for cut in cuts if cut not in blocked]
        if width == 1 or any(cut < last for cut in found):
            return found
        free = [cut for cut in range(first + 1, last) if cut not in blocked]
        return free[:: max(1, len(free) // STEPS)] + found

    def _divide(self, cut: int) -> None:
        """Make a cut an edge between blocks."""
        place = bisect.bisect_left(self._edges, cut)
        if place >= len(self._edges) or self._edges[place] == cut:
            return
        first, last = self._edges[place - 1], self._edges[place]
        share = (cut - first) / (last - first)
        block = self._weights[place - 1]
        self._weights[place - 1 : place] = [
            [weight * share for weight in block],
            [weight * (1 - share) for weight in block],
        ]
        self._edges.insert(place, cut)

    def _drop(self) -> None:
        """Join neighbouring blocks that nothing speaks for any more, so that they cost no time."""
        index = 0
        while index + 1 < len(self._weights):
            pair = self._weights[index : index + 2]
            if sum(map(sum, pair)) < 1e-15:
                self._weights[index : index + 2] = [[a + b for a, b in zip(*pair, strict=True)]]
                del self._edges[index + 1]
            else:
                index += 1
