"""Find by cutting: whole topological prefixes go to the suspect until the node that makes it fail is the last one.

If that node does not fail alone, it fails together with others: then the smallest window around it is looked for.
"""

from __future__ import annotations

import dataclasses

from surgeon_debug.find.elements import Elements
from surgeon_debug.find.found import Found
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.probe import Probe
from surgeon_debug.find.trials import Trials
from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.noisy import NoisyBisect
from surgeon_debug.search.trial import Answer, Outcome
from surgeon_debug.search.windows import WindowSearch

_CLOSE = 12
"""Elements between two cuts, where nothing between could be tried, that are tried one by one."""

CONFIDENCE = 0.99
"""How sure a search for a flaky failure must be of the place."""


@dataclasses.dataclass(frozen=True)
class CutResult:
    """Where cutting led."""

    found: Found | None
    """A set that was seen to fail by itself."""
    last: int | None
    """The element whose addition makes the failure appear; None if that is not known."""
    reason: str
    """If nothing was found, why, as a phrase."""
    between: tuple[int, ...] = ()
    """If ``last`` is not known, the elements that it is one of."""


class Cutter:
    """Searches by cutting.

    Args:
        trials: Carries out trials.
        elements: The model's elements.
        seen: What the whole model does.
        kind: The failure.
    """

    def __init__(self, trials: Trials, elements: Elements, seen: Probe, kind: FailureKind) -> None:
        self._trials, self._elements = trials, elements
        self._seen, self._kind = seen, kind
        self._confidence = 1.0

    def cut(self, repaired: frozenset[int]) -> CutResult:
        """Find one culprit.

        Args:
            repaired: Elements that the reference computes throughout; the failure shows without them.

        Raises:
            SearchStopped: The budget is spent.
            SurgeonError: Something is wrong that has nothing to do with the elements.
        """
        order = [element for element in range(len(self._elements)) if element not in repaired]
        answer = self._bisect(order)
        if not answer.culprits:
            return CutResult(None, None, answer.reason or "no cut could be tried")
        place = sorted(answer.culprits[0])
        if len(place) > 1 or not answer.certain:
            return self._close(order, place, answer)
        last = place[0]
        single = frozenset([last])
        with self._trials.step("verify") as step:
            questions = [single]
            if self._trials.pool.lanes > 1:  # what is asked next if it fails is found out at the same time
                questions.append(self._elements.everything - repaired - single)
            outcome = self._trials.ask_all(questions)[0]
            step.words = f"alone it {_does(outcome)}"
        if outcome is Outcome.REPRODUCES:
            return CutResult(self._found(single, "cut"), last, "")
        return self._window(order, last, alone_clean=outcome is Outcome.CLEAN)

    def _bisect(self, order: list[int]) -> Answer:
        with self._trials.step("cut") as step:
            if not self._seen.flaky:
                answer = self._trials.search(PrefixBisect(order))
            else:
                seen = self._seen
                noisy = NoisyBisect(
                    order,
                    rate=seen.failed / seen.runs,
                    rate_runs=seen.runs,
                    confidence=CONFIDENCE,
                    repeat_price=seen.repeat_price,
                )
                answer = self._trials.search(noisy, persistent=False)
                self._confidence = answer.confidence
            step.words = self._where(answer)
        return answer

    def _where(self, answer: Answer) -> str:
        if not answer.culprits:
            return answer.reason
        titles = self._elements.titles(answer.culprits[0])
        if len(titles) == 1:
            return f"it begins with {titles[0]}"
        return f"it begins between {titles[0]} and {titles[-1]} ({len(titles)} nodes)"

    def _close(self, order: list[int], place: list[int], answer: Answer) -> CutResult:
        """Between two cuts nothing could be tried: try what lies between one by one, then together with others.

        Which is the last of those that fail together is not known. The last of the place will do where an engine
        cannot take a part of what it fuses; else the search says that it cannot tell.
        """
        reason = answer.reason or "cuts between could not be tried"
        if len(place) > _CLOSE:
            return CutResult(None, None, reason, tuple(place))
        with self._trials.step("verify") as step:
            singles = [frozenset([element]) for element in place]
            outcomes = self._trials.ask_all(singles)
            failing = [s for s, outcome in zip(singles, outcomes, strict=True) if outcome is Outcome.REPRODUCES]
            step.words = f"{len(failing)} of {len(singles)} fail alone"
        if failing:
            return CutResult(self._found(failing[0], "cut"), next(iter(failing[0])), "")
        found = self._window(order, place[-1], alone_clean=outcomes[-1] is Outcome.CLEAN).found
        if found is None:
            return CutResult(None, None, reason, tuple(place))
        with self._trials.step("verify") as step:
            outcome = self._trials.ask(found.elements - {place[-1]})
            step.words = f"without the last of them it {_does(outcome)}"
        if outcome is Outcome.REPRODUCES:
            return CutResult(None, None, reason, tuple(place))
        return CutResult(found, place[-1], "")

    def _window(self, order: list[int], last: int, *, alone_clean: bool) -> CutResult:
        within = frozenset(order[: order.index(last) + 1])
        with self._trials.step("window") as step:
            search = WindowSearch(last, order, self._elements.neighbours, within=within, alone_clean=alone_clean)
            answer = self._trials.search(search)
            step.words = answer.reason
            if answer.culprits and answer.certain:
                titles = self._elements.titles(answer.culprits[0])
                step.words = f"it takes {len(titles)} nodes together: {', '.join(titles[:3])}" + (
                    ", ..." if len(titles) > 3 else ""
                )
        if not answer.culprits or not answer.certain:
            return CutResult(None, last, answer.reason or "no set of nodes around it fails by itself")
        return CutResult(self._found(answer.culprits[0], "window"), last, "")

    def _found(self, elements: frozenset[int], found_by: str) -> Found:
        words = self._trials.words.get(elements, "")
        return Found(elements, self._kind, words, found_by, True, confidence=self._confidence)


def _does(outcome: Outcome) -> str:
    return {
        Outcome.REPRODUCES: "fails",
        Outcome.CLEAN: "does not fail",
        Outcome.UNRESOLVED: "cannot be tried",
    }[outcome]
