"""Finds several culprits, each of which is enough for a failure."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.trial import Answer, Outcome, Trial


@dataclasses.dataclass(eq=False)
class _Part:
    """Elements that are tried together, or wait to be."""

    elements: tuple[int, ...]
    union: _Union | None = None
    """The parts that it shares the guilt with; None if it may well be free of culprits."""
    flying: bool = False


@dataclasses.dataclass(eq=False)
class _Union:
    """Parts of which at least one holds a culprit."""

    parts: list[_Part]
    dark: list[int] = dataclasses.field(default_factory=list)
    """Elements of it that could not be resolved, any of which may be the culprit."""

    @property
    def idle(self) -> list[_Part]:
        """Parts that are not being tried."""
        return [part for part in self.parts if not part.flying]


class GeneralisedSplitting:
    """Hwang's generalised binary splitting (1972) over groups of elements.

    *Assumption*: a trial fails if and only if it contains a culprit. *Bound*: with k known, at most k - 1 trials more
    than ceil(log2 C(N, k)), the information bound; 1.00 to 1.02 times that at N = 1000. One trial more where it must be
    seen that nothing else fails. Where ``expected`` is 1 and wrong, the density found so far replaces it: 1.1 to 1.2
    times the bound for 2 to 20 of 1000. Four trials at a time take 0.25 to 0.5 times as many rounds.

    A group that is UNRESOLVED is halved; a single element that is, is left out and makes the answer uncertain.

    Args:
        elements: The elements, neighbours together.
        expected: How many culprits there probably are.
        exact: Whether there are exactly that many, so that nothing needs to be tried after the last one.
        base: Elements that are in every trial, and no culprits.
        known_fails: Whether all of them together are known to fail.

    Raises:
        ValueError: ``expected`` is not positive, there are more than elements, or an element stands twice.
    """

    def __init__(
        self,
        elements: Sequence[int],
        *,
        expected: int = 1,
        exact: bool = False,
        base: frozenset[int] = frozenset(),
        known_fails: bool = True,
    ) -> None:
        if not 1 <= expected <= len(elements) or len({*elements, *base}) != len(elements) + len(base):
            raise ValueError("there must be an element for each culprit expected, and each must stand there once only")
        self._expected, self._exact, self._base = expected, exact, base
        self._order = {element: place for place, element in enumerate(elements)}
        self._culprits: list[int] = []
        self._dark: list[int] = []
        self._cleared = self._wasted = 0
        self._patience = 4 * math.ceil(math.log2(len(elements) + 1)) + 16
        self._ledger = Ledger()
        self._tried: dict[Trial, _Part] = {}
        self._contradiction = ""
        self._unions: list[_Union] = []
        self._alone: list[_Part] = []
        self._pool: list[int] = []
        if known_fails:
            self._accuse(tuple(elements))
        else:
            self._pool = list(elements)

    def ask(self, k: int = 1) -> list[Trial]:
        """Up to ``k`` groups, which share no element with each other or with one under way."""
        found: list[Trial] = []
        while len(found) < k and not self.done:
            part = self._next(k - len(found))
            if part is None:
                break
            trial = Trial(self._base | frozenset(part.elements))
            known = self._ledger.outcomes.get(trial.elements)
            if known is not None:
                # Elements whose guilt was taken over by others may come together again as they were once tried.
                self._take(part, known)
                continue
            part.flying = True
            self._tried[trial] = part
            found.append(self._ledger.give(trial))
        return found

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome."""
        over = self.done
        self._ledger.take(trial, outcome)
        part = self._tried.pop(trial)
        part.flying = False
        if not over:
            self._take(part, outcome)

    def _take(self, part: _Part, outcome: Outcome) -> None:
        if outcome is Outcome.REPRODUCES:
            self._blame(part)
        elif outcome is Outcome.CLEAN:
            self._cleared += len(part.elements)
            if part.union is not None:
                self._shrink(part.union, part)
        else:
            self._darken(part)

    @property
    def done(self) -> bool:
        """Whether every element is cleared, blamed or cannot be resolved, or as many as there are were found."""
        if self._complete or self._wasted > self._patience:
            return True
        return not (self._unions or self._alone or self._pool or self._tried)

    @property
    def answer(self) -> Answer:
        """The culprits found, one set each."""
        found = tuple(frozenset([element]) for element in sorted(self._culprits, key=self._order.__getitem__))
        reason = self._contradiction
        if not self.done:
            reason = "the search is not over"
        elif self._wasted > self._patience:
            reason = "too many groups could not be resolved"
        elif self._dark and not self._complete:
            reason = f"{len(self._dark)} elements could not be resolved"
        elif self._exact and len(found) < self._expected:
            reason = f"{self._expected} culprits were to be found, but there are {len(found)}"
        return Answer(found, certain=not reason, reason=reason, trials=self._ledger.count)

    @property
    def _complete(self) -> bool:
        return self._exact and len(self._culprits) >= self._expected

    def _accuse(self, elements: tuple[int, ...]) -> None:
        """Note that a culprit is among elements, or name it."""
        if len(elements) == 1:
            self._culprits += elements
            return
        union = _Union([])
        union.parts.append(_Part(elements, union))
        self._unions.append(union)

    def _blame(self, part: _Part) -> None:
        """A part fails: it holds a culprit, and those that it shared the guilt with may be free of any."""
        union = part.union
        if union is not None:
            self._unions.remove(union)
            self._dark += union.dark
            for other in union.parts:
                other.union = None
                if other is not part and not other.flying:
                    self._pool += other.elements
            self._pool.sort(key=self._order.__getitem__)
        self._accuse(part.elements)

    def _shrink(self, union: _Union, part: _Part) -> None:
        """Take a part out of a union, and draw the conclusion if one is left."""
        union.parts.remove(part)
        if len(union.parts) == 1 and not union.dark and not union.parts[0].flying and len(union.parts[0].elements) == 1:
            self._unions.remove(union)
            self._culprits += union.parts[0].elements
        elif not union.parts:
            self._unions.remove(union)
            self._dark += union.dark
            if union.dark:
                self._contradiction = "a set fails of which no element could be shown to"
            else:
                self._contradiction = "a set fails although its parts are clean"

    def _darken(self, part: _Part) -> None:
        """A part cannot be resolved: try its halves, or leave it out if it has none."""
        self._wasted += 1
        union, half = part.union, (len(part.elements) + 1) // 2
        if len(part.elements) > 1:
            halves = [_Part(part.elements[:half], union), _Part(part.elements[half:], union)]
            if union is None:
                self._alone += halves
            else:
                place = union.parts.index(part)
                union.parts[place : place + 1] = halves
        elif union is None:
            self._dark += part.elements
        else:
            union.dark += part.elements
            self._shrink(union, part)

    def _next(self, lanes: int) -> _Part | None:
        """The next group to try, taken off from what it belongs to."""
        if self._alone:
            return self._alone.pop(0)
        for union in sorted(self._unions, key=lambda union: sum(len(part.elements) for part in union.parts)):
            # Of the last part of a union the guilt follows, unless an element could not be resolved.
            if len(union.idle) > 1 or (union.idle and union.dark):
                return union.idle[0]
            if len(union.parts) == 1 and union.idle:
                return self._divide(union, union.parts[0], lanes)
        if self._pool:
            left = self._left()
            if left > 0 or not self._tried:
                size = _group(len(self._pool), left) if left > 0 else len(self._pool)
                part, self._pool = _Part(tuple(self._pool[:size])), self._pool[size:]
                return part
        for union in self._unions:
            if union.idle and len(union.idle[0].elements) > 1:
                return self._divide(union, union.idle[0], lanes)
        return None

    def _divide(self, union: _Union, part: _Part, lanes: int) -> _Part:
        """Split a part that holds a culprit, and return what of it to try first."""
        count, busy = len(part.elements), len(self._unions) + (self._left() > 0 and bool(self._pool))
        among = len(self._pool) + sum(len(other.elements) for each in self._unions for other in each.parts)
        share = round(max(self._expected - len(self._culprits), len(self._unions)) * count / among)
        if share >= 2 and count > 2 * share:
            sizes = [_group(count, share)] * min(lanes, share)
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes)) if sum(sizes[: i + 1]) < count]
        else:
            pieces = min(count, max(2, lanes - busy + 2))
            ends = [count * (i + 1) // pieces for i in range(pieces - 1)]
        place = union.parts.index(part)
        fences = [0, *ends, count]
        union.parts[place : place + 1] = [_Part(part.elements[a:b], union) for a, b in itertools.pairwise(fences)]
        return union.parts[place]

    def _left(self) -> int:
        """How many culprits there probably are in the pool: as expected, else as dense as before."""
        found = len(self._culprits) + len(self._unions)
        if found < self._expected:
            return min(self._expected - found, len(self._pool))
        if self._exact or len(self._culprits) <= self._expected:
            return 0
        return round(len(self._pool) * len(self._culprits) / (len(self._culprits) + self._cleared))


def _group(count: int, left: int) -> int:
    """Hwang's size of a group among ``count`` elements with ``left`` culprits."""
    if count <= 2 * left - 2:
        return 1
    return min(count, 1 << int(math.log2((count - left + 1) / left)))
