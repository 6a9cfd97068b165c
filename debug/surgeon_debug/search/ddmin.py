"""Delta debugging: the fallback where failures may heal when elements are added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.trial import Answer, Outcome, Trial


class Ddmin:
    """ddmin of Zeller and Hildebrandt (2002), with a cache of the sets asked.

    *Assumption*: none about the oracle, except that it answers alike when asked twice; all elements together fail.
    *Bound*: N^2 + 3N trials at worst, about 2 log2 N for one culprit. The answer was seen to reproduce, and leaving out
    each single element was tried: it is 1-minimal by what was seen, not by what follows.

    Args:
        elements: The elements; neighbours are left out together.
        base: Elements that are in every trial.

    Raises:
        ValueError: An element stands twice, or in the base too, or there is none.
    """

    def __init__(self, elements: Sequence[int], *, base: frozenset[int] = frozenset()) -> None:
        if not elements or len({*elements, *base}) != len(elements) + len(base):
            raise ValueError("there is no element, or one stands twice, or in the base too")
        self._base = base
        self._current = list(elements)
        self._parts = 2
        self._ledger = Ledger()
        self._over = False
        self._settle()

    def ask(self, k: int = 1) -> list[Trial]:
        """The next ``k`` sets of this granularity that are not known: parts first, then all but a part."""
        found: list[Trial] = []
        if self._over:
            return found
        for kept in self._plan():
            if len(found) >= k:
                break
            elements = self._base | frozenset(kept)
            if elements not in self._ledger.outcomes and not self._ledger.busy(elements):
                found.append(self._ledger.give(Trial(elements)))
        return found

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome; the first set of a granularity that is known to fail is taken."""
        self._ledger.take(trial, outcome)
        self._settle()

    @property
    def done(self) -> bool:
        """Whether leaving out any one element was tried, and nothing failed without it."""
        return self._over

    @property
    def answer(self) -> Answer:
        """The smallest set seen to fail, without the base."""
        reason = "" if self._over else "the search is not over"
        if self._over and len(self._current) > 1:
            rest = [self._ledger.outcomes[self._base | frozenset(kept)] for kept in self._complements()]
            unresolved = rest.count(Outcome.UNRESOLVED)
            if unresolved:
                reason = f"whether {unresolved} of the elements are needed could not be resolved"
        return Answer((frozenset(self._current),), certain=not reason, reason=reason, trials=self._ledger.count)

    def _chunks(self) -> list[list[int]]:
        count, parts = len(self._current), self._parts
        return [self._current[count * i // parts : count * (i + 1) // parts] for i in range(parts)]

    def _complements(self) -> Iterator[list[int]]:
        for chunk in self._chunks():
            left = set(chunk)
            yield [element for element in self._current if element not in left]

    def _plan(self) -> Iterator[list[int]]:
        """The sets of this granularity in the order in which they are to be tried."""
        yield from self._chunks()
        if self._parts > 2:
            yield from self._complements()

    def _settle(self) -> None:
        """Take sets known to fail, and go on to finer parts where all are known not to."""
        while not self._over:
            if len(self._current) == 1:
                self._over = True
                return
            for index, kept in enumerate(self._plan()):
                outcome = self._ledger.outcomes.get(self._base | frozenset(kept))
                if outcome is Outcome.REPRODUCES:
                    self._current = kept
                    self._parts = 2 if index < self._parts else max(self._parts - 1, 2)
                    break
            else:
                if any(self._base | frozenset(kept) not in self._ledger.outcomes for kept in self._plan()):
                    return
                if self._parts == len(self._current):
                    self._over = True
                    return
                self._parts = min(2 * self._parts, len(self._current))
