"""Between a build that fails and one that is right: which tactics make the difference.

One bad tactic takes log2 of the differing keys in builds, and two more for the proof: with it alone the build fails,
with all but it the build is right. Tactics that fail only together are found as one culprit; several that are each
enough are found one after the other.
"""

from __future__ import annotations

import dataclasses

from surgeon_debug.find.trials import Trials
from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Answer, Outcome

_MOST_CULPRITS = 16


@dataclasses.dataclass(frozen=True)
class PinCulprit:
    """Elements that are to blame, together."""

    elements: frozenset[int]
    alone: bool | None
    """Whether a build that is right but for them fails; None if nobody could tell."""


@dataclasses.dataclass
class PinHunt:
    """What is known so far; a hunt that is stopped leaves it behind."""

    culprits: list[PinCulprit] = dataclasses.field(default_factory=list)
    cured: bool | None = None
    """Whether the build is right without them; None if nobody could tell."""
    without: frozenset[int] = frozenset()
    """The elements of the last build that was right, or is to be."""
    reason: str = ""
    """Why nobody, or not everybody, was found; empty if the hunt is over."""


def hunt_pins(trials: Trials, order: list[int], hunt: PinHunt) -> None:
    """Find out which elements make the difference.

    Args:
        trials: Carries out trials; all of ``order`` together is known to fail.
        order: All elements, the most suspicious first.
        hunt: Where findings are left, also if this raises.

    Raises:
        SearchStopped: The budget is spent.
        SurgeonError: Something is wrong that has nothing to do with the elements.
    """
    left = list(order)
    while left and len(hunt.culprits) < _MOST_CULPRITS:
        one = _one(trials, left, hunt)
        if one is None:
            return
        hunt.culprits.append(one)
        left = [element for element in left if element not in one.elements]
        hunt.without = frozenset(left)
        with trials.step("verify") as step:
            outcome = trials.ask(hunt.without)
            step.words = "with all but the culprits' tactics " + _words(outcome, trials, hunt.without)
        if outcome is Outcome.CLEAN:
            hunt.cured = True
            return
        if outcome is Outcome.UNRESOLVED:
            hunt.cured = None
            return
        hunt.cured = False
    if not left:
        # What is left of a build that was to be right: it fails, so no tactic here is to blame for that.
        hunt.culprits.clear()
        hunt.reason = "the build fails with none of the suspected tactics in it"


def _one(trials: Trials, left: list[int], hunt: PinHunt) -> PinCulprit | None:
    """One culprit among elements that fail together."""
    answer = _bisect(trials, left)
    if not answer.culprits or len(answer.culprits[0]) != 1:
        hunt.reason = answer.reason or "no single tactic could be told from the others"
        # Where no cut at all could be resolved, other sets will not be either.
        told = bool(answer.culprits) and len(answer.culprits[0]) < len(left)
        return _subset(trials, left, hunt) if told else None
    (last,) = answer.culprits[0]
    place = left.index(last)
    with trials.step("verify") as step:
        if place == 0:
            base = trials.ask(frozenset())
            if base is Outcome.REPRODUCES:
                step.words = "the build that was to be right fails as well"
                hunt.reason = "it fails with the other tactics as well"
                return None
        alone = trials.ask(answer.culprits[0])
        step.words = "with its tactic alone " + _words(alone, trials, answer.culprits[0])
    if alone is Outcome.REPRODUCES:
        hunt.reason = ""
        return PinCulprit(answer.culprits[0], True)
    if place == 0 or alone is Outcome.UNRESOLVED:
        return PinCulprit(answer.culprits[0], None if alone is Outcome.UNRESOLVED else False)
    # It takes an earlier one too.
    with trials.step("search") as step:
        rest = trials.search(SmallestSubset(left[:place], base=frozenset([last])))
        elements = frozenset([last]).union(*rest.culprits)
        step.words = f"{len(elements)} tactics are needed together"
    hunt.reason = ""
    return PinCulprit(elements, True)


def _bisect(trials: Trials, left: list[int]) -> Answer:
    with trials.step("search") as step:
        single = Answer((frozenset(left),), certain=True)
        answer = single if len(left) == 1 else trials.search(PrefixBisect(left))
        found = len(answer.culprits[0]) if answer.culprits else 0
        what = "1 is left" if found == 1 else f"{found} are left" if found else answer.reason
        differ = "1 tactic that differs" if len(left) == 1 else f"{len(left)} tactics that differ"
        step.words = f"of {differ} {what}"
    return answer


def _subset(trials: Trials, left: list[int], hunt: PinHunt) -> PinCulprit | None:
    """The smallest set that fails, where a bisection was stopped by builds that could not be made."""
    with trials.step("search") as step:
        answer = trials.search(SmallestSubset(left))
        step.words = f"{len(answer.culprits[0])} tactics fail together" if answer.culprits else answer.reason
    if not answer.culprits or len(answer.culprits[0]) == len(left):
        return None
    hunt.reason = "" if answer.certain else answer.reason
    return PinCulprit(answer.culprits[0], True)


def _words(outcome: Outcome, trials: Trials, elements: frozenset[int]) -> str:
    if outcome is Outcome.UNRESOLVED:
        return f"nobody can tell: {trials.words.get(elements, '')}"
    return "it is right" if outcome is Outcome.CLEAN else "it fails"
