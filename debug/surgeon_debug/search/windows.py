"""Finds the smallest connected window that fails, given the last of its elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence

from surgeon_debug.search.growth import even_split, grow, reach
from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Answer, Outcome, Trial

STRAYED = 0.05
"""The chance that the window is no connected one of about the size looked for."""
DOUBT = 0.3
"""The chance of that at which it is asked."""


@dataclasses.dataclass(frozen=True)
class _Test:
    """What a trial is made for."""

    tried: frozenset[int]
    left: frozenset[int]
    """Neighbours of the needed elements that are left out."""
    chance: float
    """How likely it is to fail if the window is near."""


class WindowSearch:
    """Decides, outward from the last element, what belongs to a weakly connected window and what does not.

    The window is connected, so if it has more elements than those known to be needed, it has one of their neighbours.
    A trial leaves out some neighbours, chosen so that it is as likely to fail as not among random windows grown from
    what is known. If it fails, they do not belong; if it is clean, one of them does, and is found by halving. So each
    element found was once left out alone from a set that holds the window, and that set was clean: the proof that it is
    needed costs nothing more. The window is then tried alone.

    *Assumption*: a trial fails if and only if it holds the whole window; nothing fails without ``last``. *Bound*: no
    method proves a window with fewer trials than it has elements (each but the last needs a clean trial of its own, and
    the window a failing one). Together with the bisection that found ``last`` it takes 0.9 to 1.3 times log2 of the
    number of connected windows up to 8 elements. If the assumption turns out to be wrong, :class:`SmallestSubset` goes
    on, nearest elements first.

    The answer was seen to reproduce, and each of its elements was seen to be needed, or is because a set that holds all
    the others was clean; else it is not certain.

    Args:
        last: The element whose addition makes the failure appear.
        order: All elements, each after those it needs; says what comes before what.
        neighbours: The elements that read what an element computes, and those it reads.
        limit: The usual largest size of a window.
        within: The elements of the shortest failing prefix, ``last`` among them; without ``last`` it is clean.
        alone_clean: Whether ``last`` alone is known to be clean.
        samples: How many windows are grown to choose a trial.
        seed: Of their growth.

    Raises:
        ValueError: ``last`` is not within, the limit is not positive, or ``order`` lacks elements.
    """

    def __init__(
        self,
        last: int,
        order: Sequence[int],
        neighbours: Callable[[int], Iterable[int]],
        *,
        limit: int = 8,
        within: frozenset[int],
        alone_clean: bool = False,
        samples: int = 256,
        seed: int = 0,
    ) -> None:
        place = {element: index for index, element in enumerate(order)}
        if last not in within or limit < 1 or not within <= place.keys():
            raise ValueError("the last element must be within, the limit positive, and the order complete")
        self._last, self._within, self._limit = last, within, limit
        self._samples, self._seed = samples, seed
        self._beside = {element: [x for x in neighbours(element) if x in within] for element in sorted(within)}
        distance = reach([last], self._neighbours, within)
        self._near = sorted(within, key=lambda x: (distance.get(x, len(order)), abs(place[x] - place[last]), place[x]))
        self._distance, self._radius = distance, limit
        self._universe = frozenset(x for x in within if distance.get(x, len(order)) < limit)
        self._shown = within
        self._needed = [last]
        self._out: set[int] = set()
        self._groups: list[frozenset[int]] = []
        self._touchy: set[int] = set()
        self._tests: dict[Trial, _Test] = {}
        self._strayed = 0.0 if self._universe == within else STRAYED
        self._ledger = Ledger()
        self._prune: SmallestSubset | None = None
        self._given: set[Trial] = set()
        self._window: frozenset[int] | None = None
        self._wasted = 0
        self._over = False
        self._reason = ""
        self._alone_clean = alone_clean
        if within == {last}:
            self._window, self._over = within, True

    def ask(self, k: int = 1) -> list[Trial]:
        """Up to ``k`` trials: neighbours to leave out, the window alone, or what the subset search asks."""
        found: list[Trial] = []
        while len(found) < k and not self._over:
            if self._prune is not None:
                found += self._ask_prune(self._prune, k - len(found))
                break
            test = self._prove() if self._window is not None else self._next()
            if test is None or self._ledger.busy(test.tried):
                break
            known = self._ledger.outcomes.get(test.tried)
            if known is not None:
                self._learn(test, known)
                continue
            trial = self._ledger.give(Trial(test.tried))
            self._tests[trial] = test
            found.append(trial)
        return found

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome."""
        self._ledger.take(trial, outcome)
        test = self._tests.pop(trial, None)
        if self._over:
            return
        if outcome is Outcome.REPRODUCES and len(trial.elements) < len(self._shown):
            self._shown = trial.elements
        if self._prune is not None:
            if trial in self._given:
                self._prune.tell(trial, outcome)
            self._take_over(self._prune)
        elif self._window is not None:
            self._settle()
        elif test is not None:
            self._learn(test, outcome)

    @property
    def done(self) -> bool:
        """Whether the window is found and proven, or cannot be."""
        return self._over

    @property
    def answer(self) -> Answer:
        """The window; while the search is not over, the smallest set seen to fail."""
        reason = self._reason if self._over else "the search is not over"
        culprit = self._window if self._over and self._window is not None else self._shown
        return Answer((culprit,), certain=not reason, reason=reason, trials=self._ledger.count)

    def _neighbours(self, element: int) -> Iterable[int]:
        return self._beside[element]

    def _allowed(self) -> dict[int, int]:
        """What may still be in the window: what was not left out and hangs together with the needed ones."""
        return reach(self._needed, self._neighbours, self._universe - self._out)

    # --- growing

    def _next(self) -> _Test | None:
        """The trial that tells most, given those under way."""
        flying = frozenset().union(*(test.left for test in self._tests.values()))
        busy = bool(self._tests)
        whole = self._universe
        if self._strayed > DOUBT and whole not in self._ledger.outcomes and not self._ledger.busy(whole):
            return self._test(frozenset(), 1 - self._strayed)
        for group in self._groups:
            if group.isdisjoint(flying):
                return self._halve(group)
        allowed = self._allowed()
        edge = [x for x, far in allowed.items() if far == 1 and not any(x in group for group in self._groups)]
        free = [x for x in edge if x not in flying]
        alone = frozenset(self._needed)
        if not edge and not self._groups:
            return None if busy else _Test(alone, frozenset(), 1.0)
        if not free:
            return None
        return self._leave_out(free, edge, allowed, busy)

    def _leave_out(self, free: list[int], edge: list[int], allowed: Collection[int], busy: bool) -> _Test | None:
        """Choose neighbours to leave out, or the needed elements alone if they are probably all."""
        alone = frozenset(self._needed)
        windows = grow(
            self._needed,
            self._neighbours,
            allowed,
            self._groups,
            limit=self._limit,
            count=self._samples,
            seed=self._seed + self._ledger.count,
        )
        first = len(alone) == 1 and not self._alone_clean
        if alone not in self._ledger.outcomes and not busy and not self._groups and not self._ledger.busy(alone):
            complete = sum(window == alone for window in windows) / len(windows)
            if first or complete >= 0.5:
                return _Test(alone, frozenset(edge), complete)
        elif alone in self._ledger.outcomes:
            windows = [window for window in windows if window != alone] or windows
        return self._test(*even_split(windows, free, self._touchy))

    def _halve(self, group: frozenset[int]) -> _Test:
        half = sorted(group)[: 1 if group & self._touchy else (len(group) + 1) // 2]
        return self._test(frozenset(half), 1 - len(half) / len(group))

    def _test(self, left: frozenset[int], chance: float) -> _Test:
        return _Test(self._universe - self._out - left, left, chance)

    def _learn(self, test: _Test, outcome: Outcome) -> None:
        tried, left = test.tried, test.left
        alone = tried == frozenset(self._needed)
        if outcome is Outcome.UNRESOLVED:
            self._puzzle(left, alone)
        elif outcome is Outcome.REPRODUCES:
            self._strayed = 0.0
            if alone:
                self._window = tried
                self._settle()
                return
            self._out |= left
            self._out |= (self._universe - self._out) - self._allowed().keys()
        elif tried == self._universe:
            self._widen()
            return
        elif alone and not left:
            self._fall_back(self._shown, 0)
            return
        else:
            likely = max(1 - test.chance, 1e-3)
            self._strayed = self._strayed / (self._strayed + (1 - self._strayed) * likely)
            self._groups.append(left)
        self._conclude()

    def _puzzle(self, left: frozenset[int], alone: bool) -> None:
        """Nothing is known of what was left out: try it one by one, then take it to be needed."""
        self._wasted += 1
        if self._wasted > 2 * self._limit + 8 or (alone and not left):
            self._fall_back(self._shown, 0)
        elif not left:
            self._strayed = 0.0
        elif len(left) == 1 and not alone:
            self._groups.append(left)
        elif not alone:
            self._touchy |= left

    def _conclude(self) -> None:
        """Name elements that must belong because all others of a group do not."""
        changed = True
        while changed:
            changed = False
            for group in list(self._groups):
                rest = group - self._out
                self._groups.remove(group)
                if rest & {*self._needed}:
                    changed = True
                elif len(rest) == 1:
                    self._needed += rest
                    changed = True
                elif not rest:
                    self._fall_back(self._shown, 0)
                    return
                elif not any(other < rest for other in self._groups):
                    self._groups.append(rest)

    # --- proving

    def _doubtful(self) -> list[frozenset[int]]:
        """Sets that must be clean for the window to be minimal, and are not known to be."""
        window = self._window or frozenset()
        parts = [window - {element} for element in sorted(window) if element != self._last]
        if self._alone_clean:
            parts = [part for part in parts if part != {self._last}]
        return [part for part in parts if not self._ledger.seen_clean(part)]

    def _prove(self) -> _Test | None:
        for part in self._doubtful():
            if part not in self._ledger.outcomes and not self._ledger.busy(part):
                return _Test(part, frozenset(), 0.0)
        return None

    def _settle(self) -> None:
        """Make the window smaller where a part of it fails, and end once all is known."""
        shrunk = True
        while shrunk:
            shrunk = False
            for part in self._doubtful():
                if self._ledger.outcomes.get(part) is Outcome.REPRODUCES:
                    self._window, shrunk = part, True
                    break
        left = self._doubtful()
        if any(part not in self._ledger.outcomes for part in left):
            return
        self._over = True
        if self._ledger.seen_clean(self._window or frozenset()):
            self._reason = "a set is clean although a part of it fails"
        elif left:
            self._reason = f"whether {len(left)} of the elements are needed could not be resolved"

    # --- when the window is no such window

    def _widen(self) -> None:
        """All near elements together are clean: begin again with those up to twice as far."""
        clean = len(self._universe) - 1
        self._radius, self._limit = 2 * self._radius, 2 * self._limit
        self._universe = frozenset(x for x, far in self._distance.items() if far < self._radius)
        self._needed, self._out, self._groups = [self._last], set(), []
        if len(self._universe) - 1 == clean:
            self._fall_back(self._within, clean)
            return
        self._tests = {}
        self._strayed = 0.0 if self._universe == self._within else 0.5

    def _fall_back(self, failing: frozenset[int], clean: int) -> None:
        """Look for any smallest set, the nearest elements first."""
        first = {*self._needed} if clean == 0 else set()
        candidates = [x for x in self._near if x in first and x in failing and x != self._last]
        candidates += [x for x in self._near if x not in first and x in failing and x != self._last]
        if not candidates:
            self._window, self._over, self._reason = failing, True, "a set fails although it was clean before"
            return
        alone = self._ledger.outcomes.get(frozenset([self._last])) is Outcome.CLEAN or self._alone_clean
        start = max(0, min(clean, len(candidates) - 1)) if alone or clean else -1
        self._prune = SmallestSubset(candidates, base=frozenset([self._last]), clean=start)

    def _ask_prune(self, prune: SmallestSubset, k: int) -> list[Trial]:
        """Trials of the subset search that are neither known nor under way already."""
        found: list[Trial] = []
        while len(found) < k:
            asked = prune.ask(k - len(found))
            for trial in asked:
                known = self._ledger.outcomes.get(trial.elements)
                if known is not None:
                    prune.tell(trial, known)
                    continue
                self._given.add(trial)
                if trial not in self._ledger.pending:
                    found.append(self._ledger.give(trial))
            if not asked:
                break
        self._take_over(prune)
        return found

    def _take_over(self, prune: SmallestSubset) -> None:
        if not prune.done:
            return
        found = prune.answer
        self._window = found.culprits[0] | {self._last}
        self._over, self._reason = True, found.reason
        if not found.reason and self._ledger.seen_clean(self._window):
            self._reason = "a set is clean although a part of it fails"
