"""Finds the smallest set of elements that are all needed for a failure, by prefixes of an order of suspicion."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from surgeon_debug.search.cuts import spread
from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.trial import Answer, Outcome, Trial

ENOUGH = 0.5
"""The chance that the elements found so far are enough; at a half it is asked first of all."""
NEAR = 0.15
"""The share of belief that goes with the order of suspicion, each order of magnitude alike; the rest is even-handed."""


class SmallestSubset:
    """QuickXplain over prefixes: the last element of the shortest failing prefix is needed; keep it, go on before it.

    *Assumption*: a set fails if a part of it does, and what fails has all of some k elements. *Bound*: about
    k (log2 N + 1) trials; the information bound is log2 C(N, k). At N = 1000 it takes 1.13 to 1.18 times that for
    k from 1 to 5. Early elements are cheaper to find than late ones, so a good order of suspicion pays.

    The answer was seen to reproduce, whatever the oracle does, and is 1-minimal if the assumption holds. UNRESOLVED
    counts as not shown to fail; elements that were kept for that reason only are tried again one by one in the end.

    Args:
        candidates: The elements, the most suspicious first.
        base: Elements that are in every trial.
        known_fails: Whether all of them together are known to fail.
        clean: How many of the first candidates are known to be clean together with the base; -1 if not even the base
            alone is known to be.

    Raises:
        ValueError: There is no candidate, one stands twice or in the base too, or ``clean`` is out of range.
    """

    def __init__(
        self,
        candidates: Sequence[int],
        *,
        base: frozenset[int] = frozenset(),
        known_fails: bool = True,
        clean: int = 0,
    ) -> None:
        if not candidates or len({*candidates, *base}) != len(candidates) + len(base):
            raise ValueError("there is no candidate, or one stands twice, or in the base too")
        if not -1 <= clean < len(candidates):
            raise ValueError(f"{clean} of {len(candidates)} candidates cannot be known to be clean")
        self._candidates, self._base, self._known_fails = tuple(candidates), base, known_fails
        self._fixed: list[int] = []
        self._doubtful: list[int] = []
        self._unresolved: set[int] = set()
        self._ledger = Ledger()
        self._contradicted = False
        self._over = False
        self._reason = ""
        self._rechecking = False
        self._begin(len(candidates), clean)
        self._settle()

    def _begin(self, length: int, clean: int) -> None:
        """Look among the first ``length`` candidates; cut ``c`` of this stage tries the first ``c - 1`` of them."""
        self._low, self._high = clean + 1, length + 1
        self._shown_clean = True
        near = sum(1 / place for place in range(1, length + 1))
        chance = ENOUGH if self._fixed else 0.1 if clean < 0 else 0.0
        # Of several culprits spread evenly the last is sought first; with 2^-k for k of them it stands at x of the
        # whole with density 2 / (2 - x)^2.
        even = [2 / (2 - place / length) ** 2 / length for place in range(1, length + 1)]
        weights = [(1 - NEAR) * even[i] + NEAR / ((i + 1) * near) for i in range(length)]
        self._total = [0.0, chance, *(chance + (1 - chance) * w for w in itertools.accumulate(weights))]

    def ask(self, k: int = 1) -> list[Trial]:
        """Up to ``k`` prefixes, or elements to leave out in the end."""
        if self._over or k < 1:
            return []
        if not self._known_fails:
            whole = self._set(self._high)
            return [] if self._ledger.busy(whole) else [self._ledger.give(Trial(whole))]
        if self._rechecking:
            sets = [self._without(element) for element in self._doubtful]
            fresh = [elements for elements in sets if not self._ledger.busy(elements)]
            return [self._ledger.give(Trial(elements)) for elements in fresh[:k]]
        flying = [cut for cut in (self._cut(trial.elements) for trial in self._ledger.pending) if cut is not None]
        sets = [self._set(cut) for cut in spread(self._total, self._low, self._high, flying, k)]
        known = [elements for elements in sets if elements in self._ledger.outcomes]
        if not known:
            return [self._ledger.give(Trial(elements)) for elements in sets]
        for elements in known:
            self._narrow(elements, self._ledger.outcomes[elements])
        self._settle()
        return self.ask(k)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome; one that is told late still counts, for what follows from it."""
        self._ledger.take(trial, outcome)
        if self._over:
            return
        if not self._known_fails:
            if outcome is not Outcome.REPRODUCES:
                known = "is clean" if outcome is Outcome.CLEAN else "could not be resolved"
                self._over, self._reason = True, f"with all elements it {known}"
                return
            self._known_fails = True
        elif not self._rechecking:
            self._narrow(trial.elements, outcome)
        self._settle()

    @property
    def done(self) -> bool:
        """Whether the set is found."""
        return self._over

    @property
    def answer(self) -> Answer:
        """The set, without the base; empty if the base alone fails.

        While the search is not over it is the smallest set seen to fail.
        """
        count = self._ledger.count
        if not self._known_fails:
            clean = self._over and self._reason.endswith("clean")
            return Answer((), certain=clean, reason=self._reason or "the search is not over", trials=count)
        culprit = frozenset(self._fixed if self._over else self._set(self._high) - self._base)
        reason = self._reason if self._over else "the search is not over"
        return Answer((culprit,), certain=not reason, reason=reason, trials=count)

    def _set(self, cut: int) -> frozenset[int]:
        return self._base | frozenset(self._fixed) | frozenset(self._candidates[: cut - 1])

    def _without(self, element: int) -> frozenset[int]:
        return self._base | (frozenset(self._fixed) - {element})

    def _cut(self, elements: frozenset[int]) -> int | None:
        """The cut of this stage that a set is; None if it is of another stage."""
        cut = len(elements) - len(self._base) - len(self._fixed) + 1
        return cut if 1 <= cut <= self._high and self._set(cut) == elements else None

    def _narrow(self, elements: frozenset[int], outcome: Outcome) -> None:
        """Move an end of this stage's interval, if the trial is of this stage."""
        cut = self._cut(elements)
        if cut is None:
            return
        if outcome is Outcome.REPRODUCES:
            self._high = cut
            self._contradicted |= cut <= self._low and self._shown_clean
            if cut <= self._low:
                self._low, self._shown_clean = 0, True
        elif cut >= self._high:
            self._contradicted |= outcome is Outcome.CLEAN
        elif cut > self._low or (cut == self._low and not self._shown_clean):
            self._low, self._shown_clean = cut, outcome is Outcome.CLEAN

    def _settle(self) -> None:
        """Go on to the next stage, as long as one is over."""
        while self._known_fails and not self._over and not self._rechecking and self._high - self._low == 1:
            left = self._high - 1
            if left == 0:
                self._rechecking = True
                break
            found = self._candidates[left - 1]
            self._fixed.append(found)
            if not self._shown_clean:
                self._doubtful.append(found)
            if left == 1:
                self._rechecking = True
                break
            self._begin(left - 1, -1)
        if self._rechecking:
            self._recheck()

    def _recheck(self) -> None:
        """Use what is known of leaving out doubtful elements, and end if nothing is left to ask."""
        for element in list(self._doubtful):
            elements = self._without(element)
            known = self._ledger.outcomes.get(elements)
            if known is Outcome.REPRODUCES:
                self._fixed.remove(element)
                self._doubtful.remove(element)
            elif known is Outcome.UNRESOLVED:
                self._doubtful.remove(element)
                self._unresolved.add(element)
            elif known is Outcome.CLEAN or self._ledger.seen_clean(elements):
                self._doubtful.remove(element)
        if self._doubtful:
            return
        self._over = True
        self._unresolved = {
            x for x in self._unresolved & {*self._fixed} if not self._ledger.seen_clean(self._without(x))
        }
        if self._contradicted or self._ledger.seen_clean(self._base | frozenset(self._fixed)):
            self._reason = "a set is clean although a part of it fails"
        elif self._unresolved:
            self._reason = f"whether {len(self._unresolved)} of the elements are needed could not be resolved"
