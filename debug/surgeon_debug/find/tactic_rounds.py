"""Carries out a census of tactics: round after round until a build is right, or all of them."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping

from surgeon_debug.find.tactic_census import Census
from surgeon_debug.find.tactic_pins import Pin, Pinned
from surgeon_debug.find.trials import Trials
from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.trial import Outcome
from surgeon_debug.search.turned import UNRESOLVED, Turned

_GUESSES = 8
_AVOIDED = 8  # kernels that are left out of a build, one after the other
_OFFENDERS = 4  # tactics found in one round with which nothing can be built
_HOPELESS = 2  # tactics in a row that cannot even be pinned alone, after which it is no tactic's fault

Assignment = Mapping[str, str]


class Rounds:
    """Tries assignments and notes what became of them.

    Args:
        trials: Carries out trials.
        dimension: What its elements are: every tactic of every key that was not chosen.
        census: Says what to try.
    """

    def __init__(self, trials: Trials, dimension: Pinned, census: Census) -> None:
        self._trials, self._dimension, self.census = trials, dimension, census
        self._elements = {(pin.key, pin.hash): index for index, pin in enumerate(dimension.pins)}
        self.right: Assignment | None = None
        """The first assignment that is right."""
        self.failing: list[Assignment] = []
        """Assignments that fail."""
        self.hopeless = ""
        """Why no assignment at all can be tried, as a phrase; empty if one can."""
        self._in_a_row = 0

    def elements(self, assignment: Assignment) -> frozenset[int]:
        """The elements that make an assignment."""
        return frozenset(self._elements[key, assignment[key]] for key in self.census.changed(assignment))

    def take(self, *, every: bool) -> None:
        """Try round after round.

        Args:
            every: Go on when a build is right.

        Raises:
            SearchStopped: The budget is spent.
        """
        with self._trials.step("census") as step:
            for number in range(1, self.census.rounds):
                self._round(number)
                self._trials.say(f"round {number + 1} of {self.census.rounds}")
                if self.hopeless or (self.right is not None and not every):
                    break
            step.words = self.census.coverage().words

    def go_on(self) -> None:
        """Try assignments that are no rounds: without the kernels that were chosen most, then any.

        Rounds all fail if several tactics are bad, or one kernel is that serves many keys.
        """
        with self._trials.step("guesses") as step:
            tried = 0
            for assignment in self._guesses():
                if not self.census.changed(assignment):
                    continue
                tried += 1
                if self._try(assignment) is Outcome.CLEAN:
                    break
            state = "the last is right" if self.right is not None else "none is right"
            step.words = f"{tried} other assignments, {state}"

    def _guesses(self) -> list[Assignment]:
        base = self._dimension.base
        counts = collections.Counter(tactics.kernel(tactics.chosen) for tactics in base.values())
        kernels = [kernel for kernel, _ in counts.most_common(_AVOIDED + 1) if kernel][:_AVOIDED]
        return [*(self._avoiding(kernel) for kernel in kernels), *map(self.census.guess, range(_GUESSES))]

    def _avoiding(self, kernel: str) -> dict[str, str]:
        """The recorded assignment without one kernel."""
        found = {}
        for key, tactics in self._dimension.base.items():
            usable = [h for h in self.census.orders[key] if (key, h) not in self.census.unusable]
            found[key] = next((h for h in usable if tactics.kernel(h) != kernel), tactics.chosen)
        return found

    def _round(self, number: int) -> None:
        for _ in range(_OFFENDERS):
            assignment = self.census.round(number)
            elements = self.elements(assignment)
            if not elements or self._try(assignment) is not Outcome.UNRESOLVED:
                return
            if not self._forbid(elements) or self.hopeless:
                return

    def _try(self, assignment: Assignment) -> Outcome:
        outcome = self._trials.ask(self.elements(assignment))
        self.census.note(assignment, outcome)
        if outcome is Outcome.CLEAN and self.right is None:
            self.right = assignment
        elif outcome is Outcome.REPRODUCES:
            self.failing.append(assignment)
        return outcome

    def _forbid(self, elements: frozenset[int]) -> bool:
        """Find the tactic with which nothing can be built; whether that came to something."""
        order = sorted(elements)
        if len(order) > 1:
            answer = self._trials.search(Turned(PrefixBisect(order), UNRESOLVED))
            if not answer.culprits or len(answer.culprits[0]) != 1:
                return False
            (element,) = answer.culprits[0]
            prefix = frozenset(order[: order.index(element) + 1])
        else:
            element, prefix = order[0], elements
        pin: Pin = self._dimension.pins[element]
        why = self._trials.words.get(prefix, "")
        self._in_a_row = self._in_a_row + 1 if len(prefix) == 1 else 0
        if self._in_a_row >= _HOPELESS and self.right is None and not self.failing:
            self.hopeless = why
        self.census.forbid([(pin.key, pin.hash)], why)
        return True

    @property
    def worst(self) -> int:
        """Builds that a census takes at most if all can be made, with the recorded one and its replay."""
        return self.census.rounds + 1

    @staticmethod
    def search_builds(differing: int) -> int:
        """Builds that one culprit among so many tactics takes at most."""
        return math.ceil(math.log2(differing)) + 2 if differing > 1 else 2
