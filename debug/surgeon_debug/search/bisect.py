"""Finds the element whose addition to a prefix makes a failure appear."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence

from surgeon_debug.search.cuts import spread
from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.trial import Answer, Outcome, Trial


class PrefixBisect:
    """Bisection over the prefixes of a linear extension, which are order ideals.

    Trials are ``base`` and the first ``c`` elements of ``order``. *Assumption*: a prefix fails if a shorter one does;
    the shortest is clean, and the longest fails (``known_bad``). *Bound*: with N places between neighbouring cuts,
    ceil(log2 N) trials asked for one at a time, ceil(log_(k+1) N) rounds of k; one more trial if the longest must be
    tried first; ceil(log2 N) + 1 trials with ``costs``. The information bound is log2 N.

    A cut that is UNRESOLVED moves no boundary. Others are tried instead, farther off the more of them fail to resolve,
    on the belief that such cuts come in stretches whose length may be of any order of magnitude; the ends of a stretch
    are found in logarithmic time. After 2 log2 N + 8 of them in one interval, cuts between two of them are not tried
    any more; where nothing at all can be resolved the search ends after at most 4 log2 N + 8 trials.

    Args:
        order: The elements, each after those it needs.
        cuts: The lengths of prefixes that may be tried; all, if None. ``low`` and ``high`` always are cuts.
        costs: The build time of each element of ``order``, in any unit; parts are then even by half the sum of their
            share of time and their share of places, so that long builds are halved and many cheap elements are too.
        low: The length of a prefix known to be clean.
        high: The length of a prefix that fails; all of it, if None.
        base: Elements that are in every trial.
        known_bad: Whether the prefix ``high`` is known to fail.

    Raises:
        ValueError: The lengths are out of order, elements repeat, or costs do not fit.
    """

    def __init__(
        self,
        order: Sequence[int],
        *,
        cuts: Sequence[int] | None = None,
        costs: Sequence[float] | None = None,
        low: int = 0,
        high: int | None = None,
        base: frozenset[int] = frozenset(),
        known_bad: bool = True,
    ) -> None:
        high = len(order) if high is None else high
        if not 0 <= low < high <= len(order):
            raise ValueError(f"no place to search between the prefixes {low} and {high} of {len(order)} elements")
        if len({*order, *base}) != len(order) + len(base):
            raise ValueError("an element stands twice in the order, or in the base too")
        inner = range(low + 1, high) if cuts is None else sorted({cut for cut in cuts if low < cut < high})
        self._order, self._base = tuple(order), base
        self._cuts = [low, *inner, high]
        self._low, self._high = 0, len(self._cuts) - 1
        self._top, self._known_bad = self._high, known_bad
        self._total = _weights(self._cuts, costs, len(order))
        self._spare = math.ceil(math.log2(self._top)) + 1 if costs is not None else 0
        self._patience = 2 * math.ceil(math.log2(self._top)) + 8
        self._ledger = Ledger()
        self._places: dict[Trial, int] = {}
        self._unresolved: set[int] = set()
        self._contradiction = ""
        self._hopeless = ""

    @property
    def interval(self) -> tuple[int, int]:
        """The lengths of the longest prefix known to be clean and the shortest known to fail."""
        return self._cuts[self._low], self._cuts[self._high]

    def ask(self, k: int = 1) -> list[Trial]:
        """Up to ``k`` cuts, placed so that all under way together split the interval most evenly."""
        if self.done or k < 1:
            return []
        picks = []
        if not self._known_bad and not self._asked(self._top):
            picks.append(self._top)
        if len(picks) < k:
            picks += self._pick(k - len(picks))
        return [self._give(cut) for cut in picks]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome; one that contradicts others is kept as the reason for doubt."""
        self._ledger.take(trial, outcome)
        cut = self._places[trial]
        if cut == self._top and outcome is not Outcome.REPRODUCES:
            known = "is clean" if outcome is Outcome.CLEAN else "could not be resolved"
            self._hopeless = f"with all elements it {known}"
        elif outcome is Outcome.UNRESOLVED:
            self._unresolved.add(cut)
        elif (outcome is Outcome.CLEAN and cut >= self._high) or (outcome is Outcome.REPRODUCES and cut <= self._low):
            self._contradict(cut, outcome)
        elif outcome is Outcome.CLEAN:
            self._low = max(self._low, cut)
        else:
            self._known_bad, self._high = True, min(self._high, cut)
        self._spare -= outcome is not Outcome.UNRESOLVED

    @property
    def done(self) -> bool:
        """Whether one place is left, or the cuts in between cannot be resolved."""
        if self._hopeless:
            return True
        if not self._known_bad:
            return False
        if self._high - self._low == 1:
            return True
        return not self._flying() and not self._open()

    @property
    def answer(self) -> Answer:
        """The elements between the two ends of the interval, as one culprit."""
        first, last = self.interval
        culprit = frozenset(self._order[first:last])
        clean = self._hopeless.endswith("clean")
        if self._hopeless and not self._contradiction and self._high == self._top:
            return Answer((), certain=clean, reason=self._hopeless, trials=self._ledger.count)
        reason = self._contradiction or self._hopeless or self._doubt()
        return Answer((culprit,), certain=not reason, reason=reason, trials=self._ledger.count)

    def _doubt(self) -> str:
        if not self.done:
            return "the search is not over"
        left = self._high - self._low - 1
        return f"{left} cuts in between could not be resolved" if left else ""

    def _contradict(self, cut: int, outcome: Outcome) -> None:
        length, (clean, failing) = self._cuts[cut], self.interval
        if outcome is Outcome.CLEAN:
            self._contradiction = f"the first {length} elements are clean although the first {failing} fail"
        else:
            self._contradiction = f"the first {length} elements fail although the first {clean} are clean"

    def _asked(self, cut: int) -> bool:
        return cut in self._places.values()

    def _give(self, cut: int) -> Trial:
        trial = Trial(self._base | frozenset(self._order[: self._cuts[cut]]))
        self._places[trial] = cut
        return self._ledger.give(trial)

    def _flying(self) -> list[int]:
        return sorted(cut for cut in map(self._places.__getitem__, self._ledger.pending) if self._inside(cut))

    def _inside(self, cut: int) -> bool:
        return self._low < cut < self._high

    def _walls(self) -> list[int]:
        return sorted(filter(self._inside, self._unresolved))

    def _open(self) -> bool:
        """Whether a cut is left that is worth trying; after many in vain, only those outside of all of them are."""
        walls = self._walls()
        if len(walls) >= self._patience:
            return walls[0] - self._low > 1 or self._high - walls[-1] > 1
        return self._high - self._low - 1 > len(walls) + len(self._flying())

    def _pick(self, k: int) -> list[int]:
        flying = self._flying()
        walls = self._walls()
        if walls:
            picks: list[int] = []
            while len(picks) < k:
                cut = self._around(walls, sorted([*flying, *picks]))
                if cut is None:
                    break
                picks.append(cut)
            return picks
        picks = spread(self._total, self._low, self._high, flying, k)
        if k == 1 and picks and not flying and self._spare > 0:
            # Uneven costs must not use up the trials that many cheap elements need.
            most = 2 ** (self._spare - 1)
            first, last = self._high - most, self._low + most
            if first <= last:
                picks = [min(max(picks[0], first), last)]
        return picks

    def _around(self, walls: Sequence[int], flying: Sequence[int]) -> int | None:
        """The cut that probably tells most, given those that could not be resolved."""
        best, value = None, 0.0
        marks = sorted([self._low, *walls, self._high])
        fences = [self._low, *flying, self._high]
        between = 1 / (1 + len(walls)) ** 2 if len(walls) < self._patience else 0.0
        for a, b in itertools.pairwise(marks):
            inner = a != self._low and b != self._high
            for cut in range(a + 1, b):
                place = bisect_left(fences, cut)
                left, right = fences[place - 1], fences[place]
                if right == cut:
                    continue
                balance = (self._total[cut] - self._total[left]) * (self._total[right] - self._total[cut])
                # Cuts that cannot be resolved come in stretches; one between two of them is hardly ever worth trying.
                worth = balance * (between if inner else self._chance(cut, a, b))
                if worth > value:
                    best, value = cut, worth
        return best

    def _chance(self, cut: int, a: int, b: int) -> float:
        """How likely a cut is to be resolved, between an end of the interval and an unresolved cut.

        The stretch of unresolved cuts ends anywhere in between, each order of magnitude alike.
        """
        return math.log(1 + (b - cut if a == self._low else cut - a)) / math.log(1 + b - a)


def _weights(cuts: Sequence[int], costs: Sequence[float] | None, length: int) -> list[float]:
    places = len(cuts) - 1
    if costs is None:
        return [float(index) for index in range(places + 1)]
    if len(costs) != length or any(not cost >= 0 for cost in costs):
        raise ValueError(f"{length} elements need as many costs, none negative")
    times = [sum(costs[a:b]) for a, b in itertools.pairwise(cuts)]
    whole = sum(times) or 1.0
    return [0.0, *itertools.accumulate(0.5 * time / whole + 0.5 / places for time in times)]
