"""Carries out a census of tactics: round after round until a build is right, or all of them.

With K tactics of the key that has most, the rounds are K - 1 builds; with the recorded build and its replay K + 1. One
more is only made where a tactic's format gives neighbours keys that cannot be told apart, and log2 of the keys and one
for each tactic with which nothing can be built, of which four are looked for.

If all rounds fail, what is left are tactics that mask each other. Where the error is the same in all of them (or the
engine delivers no numbers in any), the fault is there whatever is chosen: then nothing more is tried (or three more).
Otherwise up to sixteen other assignments are.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence

from surgeon_debug.find.engine_trials import Recorded
from surgeon_debug.find.oracle import FailureKind, TrialRecord
from surgeon_debug.find.tactic_census import Census
from surgeon_debug.find.tactic_pins import Pin, Pinned
from surgeon_debug.find.trials import Trials
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics
from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.trial import Outcome
from surgeon_debug.search.turned import UNRESOLVED, Turned

_GUESSES = 12
_AVOIDED = 4  # guesses that avoid the kernels that were in most builds that fail
_AVOIDED_ALIKE = 3  # of them, where all builds fail alike without numbers: one kernel may be bad in many places
_ALIKE = 0.05  # by how much of the largest error those of one and the same fault may differ, which rounding explains
_OFFENDERS = 4  # tactics with which nothing can be built that are looked for
_HOPELESS = 2  # tactics in a row that cannot even be pinned alone, after which it is no tactic's fault

Assignment = Mapping[str, str]


def every_tactic(cache: str, base: Mapping[str, KeyTactics], census: Census) -> Pinned:
    """A dimension whose elements are every tactic of every key that was not chosen.

    Args:
        cache: The timing cache that was recorded.
        base: The tactics of each key, and the chosen one.
        census: In which order they are tried.
    """
    pins = tuple(Pin(key, hash_) for key, order in census.orders.items() for hash_ in order[1:])
    return Pinned(cache, base, pins, exact=False)


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
        self._in_a_row = self._offenders = 0
        self._seen: list[TrialRecord] = []  # builds that fail

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

    def go_on(self, recorded: Recorded, chosen: Assignment) -> bool:
        """Try assignments that are no rounds: without the kernels that were in most builds that fail, then any.

        Rounds all fail if several tactics are bad, or one kernel is that serves many keys.

        Args:
            recorded: The build that fails.
            chosen: Its assignment.

        Returns:
            Whether anything was to be tried: not if all builds have the same error.

        Raises:
            SearchStopped: The budget is spent.
        """
        guesses = self._guesses_left([recorded.trial, *self._seen])
        if not guesses:
            return False
        with self._trials.step("guesses") as step:
            tried = 0
            for number in range(guesses):
                avoids = number < _AVOIDED
                assignment = self._avoiding(chosen) if avoids else self.census.guess(number - _AVOIDED)
                if self.census.changed(assignment):
                    tried += 1
                    if self._try(assignment) is Outcome.CLEAN:
                        break
            state = "the last is right" if self.right is not None else "none is right"
            step.words = f"{tried} other assignments, {state}"
        return True

    @property
    def lowest(self) -> float | None:
        """The lowest error of an engine that fails; None if none has one."""
        return min((made.error for made in self._seen if made.error is not None), default=None)

    @staticmethod
    def _guesses_left(seen: Sequence[TrialRecord]) -> int:
        """How many more assignments are worth a try after these failures."""
        kinds = {one.signature.kind for one in seen if one.signature is not None}
        if len(kinds) != 1:
            return _AVOIDED + _GUESSES
        if kinds != {FailureKind.WRONG_NUMBERS}:
            return _AVOIDED_ALIKE
        errors = [math.inf if one.error is None else one.error for one in seen]
        return 0 if max(errors) - min(errors) <= _ALIKE * max(errors) else _AVOIDED + _GUESSES

    def _avoiding(self, chosen: Assignment) -> dict[str, str]:
        """Of every key the tactic whose kernel was in fewest builds that fail."""
        base = self._dimension.base
        guilt: collections.Counter[str] = collections.Counter()
        for failing in (chosen, *self.failing):
            guilt.update({base[key].kernel(hash_) for key, hash_ in failing.items()})
        found = {}
        for key, order in self.census.orders.items():
            usable = [hash_ for hash_ in order if (key, hash_) not in self.census.unusable] or order[:1]
            found[key] = min(usable, key=lambda hash_: guilt[base[key].kernel(hash_)])
        return found

    def _round(self, number: int) -> None:
        while True:
            assignment = self.census.round(number)
            elements = self.elements(assignment)
            if not elements or self._try(assignment) is not Outcome.UNRESOLVED or self._hardly(elements):
                return
            if self._offenders == _OFFENDERS or not self._forbid(elements) or self.hopeless:
                return

    def _hardly(self, elements: frozenset[int]) -> bool:
        """Whether an engine ran and is neither right nor clearly wrong: then no tactic stands in the way."""
        made = self._trials.remember.recall(elements, 0)
        return made is not None and bool(made.unresolved) and made.runs > 0

    def _try(self, assignment: Assignment) -> Outcome:
        elements = self.elements(assignment)
        outcome = self._trials.ask(elements)
        made = self._trials.remember.recall(elements, 0)
        if made is not None:  # neighbours of another format may have got tactics that nobody asked for
            assignment = {**assignment, **made.payload.get("instead", {})}
        self.census.note(assignment, outcome)
        if outcome is Outcome.CLEAN and self.right is None:
            self.right = assignment
        elif outcome is Outcome.REPRODUCES:
            self.failing.append(assignment)
            if made is not None:
                self._seen.append(made)
        return outcome

    def _forbid(self, elements: frozenset[int]) -> bool:
        """Find the tactic with which nothing can be built; whether that came to something."""
        self._offenders += 1
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
