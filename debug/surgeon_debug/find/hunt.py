"""The order of things in a search for nodes: a census if the failure is one of values, then cuts, then the proof.

Nobody is accused who was not seen to fail: a culprit fails alone, and the model without all culprits is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from surgeon_debug.find.census import Accused, Census
from surgeon_debug.find.census_or_cuts import census_first
from surgeon_debug.find.cut import CutResult, Cutter
from surgeon_debug.find.elements import Elements
from surgeon_debug.find.found import Found
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.probe import Probe
from surgeon_debug.find.shown import Shown
from surgeon_debug.find.trials import Trials
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Outcome

_MOST_FAULTS = 16
_CONTRIBUTION = 0.05  # the share of the failure's error that makes a fault one of its causes
_ABOVE_REST = 3.0  # how much more than without any of them that must be
_MOST_SINGLED_OUT = 8  # faults that are tried one at a time; each costs a compilation


@dataclasses.dataclass(frozen=True)
class Examiners:
    """What a hunt may do besides trials; None where a command decides, which has no tensors to look at."""

    census: Callable[[int, bool], Census] | None
    """Judges every node alone; takes how often each is run, and whether it is compiled anew each time."""
    confirm: Callable[[], Census] | None
    """The same on other inputs, where there are any."""
    shown: Callable[[], Shown] | None
    """Runs the suspect with every tensor shown."""
    batches: int = 1
    """How many models a census takes."""


@dataclasses.dataclass
class Trail:
    """What is known so far; whatever stops a hunt leaves it behind."""

    guilty: list[Found] = dataclasses.field(default_factory=list)
    """Whose failure reaches the outputs."""
    latent: list[Found] = dataclasses.field(default_factory=list)
    """Whose failure does not."""
    cured: bool | None = None
    """Whether the model is right without the guilty; None if it is not known."""
    nothing: str = ""
    """Why there is nobody to find, as a sentence."""
    undecided: str = ""
    """Why it could not be decided, as a sentence."""
    advice: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    rounding: tuple[str, ...] = ()
    """Nodes that are as right as their precision allows, worst first."""


class Hunt:
    """Searches one model for one failure.

    Args:
        trials: Carries out trials.
        elements: The model's elements.
        seen: What the whole model does.
        examiners: What else may be done.
        trail: Where findings are left.
    """

    def __init__(self, trials: Trials, elements: Elements, seen: Probe, examiners: Examiners, trail: Trail) -> None:
        self._trials, self._elements, self._seen = trials, elements, seen
        self._examiners, self.trail = examiners, trail
        self._everything = elements.everything

    def run(self) -> None:
        """Search until there is an answer; it is in the trail, also if this raises.

        Raises:
            SearchStopped: The budget is spent.
            SurgeonError: Something is wrong that has nothing to do with the elements.
        """
        if self._seen.signature is None:
            self._look_for_latent()
            return
        self._trials.repeats = self._seen.repeats
        self._trials.compile_each = self._seen.per_build
        accused = self._named_by_the_engine()
        unjudged = True
        if self._examiners.census is not None and self._seen.signature.kind.by_values and self._census_pays():
            census = self._census(self._examiners.census)
            accused = [self._found(one) for one in census.accused]
            unjudged = bool(census.unjudged)
            if not accused and not unjudged and self._is_rounding(census):
                return
        self._prove(accused)
        if self.trail.cured is False or not accused:
            self._cut_on(accused)

    def _named_by_the_engine(self) -> list[Found]:
        """What the engine itself names as what it refuses, as far as it does refuse it alone."""
        signature = self._seen.signature
        if signature is None or signature.kind is not FailureKind.REFUSED:
            return []
        named = self._elements.named(self._seen.named)
        if not named or len(named) > _MOST_FAULTS or len(named) == len(self._elements):
            return []
        found = []
        with self._trials.step("report") as step:
            for element in named:
                record = self._trials.record(frozenset([element]))
                if record.signature is not None and record.signature.kind is FailureKind.REFUSED:
                    found.append(Found(frozenset([element]), FailureKind.REFUSED, record.words, "report", True))
            many = "1 node" if len(named) == 1 else f"{len(named)} nodes"
            step.words = f"the engine names {many}, and refuses {len(found)} of them alone"
        return found

    def _census_pays(self) -> bool:
        batches = self._examiners.batches
        if census_first(len(self._elements), batches, self._seen):
            return True
        self.trail.notes.append(f"to judge every node alone takes {batches} models, so the model was cut at once")
        return False

    def _look_for_latent(self) -> None:
        """The outputs are right; nodes may be wrong all the same."""
        trail = self.trail
        trail.nothing = "the model does not fail: its outputs agree in every run"
        trail.advice = "give the inputs with which it failed with --feeds, or stricter limits with --rtol and --atol"
        if self._examiners.census is None:
            return
        census = self._census(self._examiners.census)
        if not census.accused:
            return
        accused = {one.position: one for one in census.accused}
        if self._examiners.confirm is not None:
            with self._trials.step("census") as step:
                again = self._counted(self._examiners.confirm())
                kept = {one.position for one in again.accused}
                step.words = f"{len(kept & accused.keys())} of {len(accused)} are wrong on other inputs too"
            accused = {position: one for position, one in accused.items() if position in kept}
        if accused:
            trail.latent += [self._found(one) for one in accused.values()]
            trail.nothing, trail.advice = "", ""

    def _census(self, take: Callable[[int, bool], Census]) -> Census:
        with self._trials.step("census") as step:
            census = self._counted(take(self._seen.repeats, self._seen.per_build))
            count = len(census.accused)
            wrong = {0: "none is wrong", 1: "1 node is wrong"}.get(count, f"{count} nodes are wrong")
            step.words = f"{census.judged:,} tensors each computed alone, {wrong}"
            if census.unjudged:
                step.words += f", {len(census.unjudged)} could not be judged"
                name, why = census.unjudged[0]
                self.trail.notes.append(f"{len(census.unjudged)} tensors could not be judged alone, {name}: {why}")
        self.trail.rounding = census.rounding
        return census

    def _counted(self, census: Census) -> Census:
        self._trials.count(builds=census.builds, runs=census.runs, reference_runs=census.reference_runs)
        return census

    def _found(self, one: Accused) -> Found:
        elements = frozenset([self._elements.element_of(one.position)])
        return Found(
            elements, one.kind, f"{one.tensor}: {one.reason}", "census", True, one.inside, one.badness, floor=one.floor
        )

    def _is_rounding(self, census: Census) -> bool:
        """Whether the failure is there with nothing fused, and no node wrong: then it is what rounding adds up to."""
        if self._examiners.shown is None or self._seen.flaky or census.exact:
            return False
        with self._trials.step("shown") as step:
            shown = self._examiners.shown()
            self._trials.count(builds=shown.builds, runs=shown.runs, reference_runs=shown.reference_runs)
            there = shown.signature is not None
            step.words = "with every tensor shown " + (f"it is there: {shown.words}" if there else "it is gone")
        if not there:
            return False
        trail = self.trail
        trail.nothing = (
            "every node computes as well as its precision can; what the outputs show is rounding that adds up"
        )
        keep = ", ".join(census.rounding[:3])
        trail.advice = (
            f"keep {keep} in float32" if keep else "see which layers add most with surgeon compare --layers"
        ) + ", or allow more with --rtol and --atol"
        return True

    def _without(self, repaired: frozenset[int]) -> Outcome:
        """What becomes of the model when the reference computes some elements."""
        return self._trials.ask(self._everything - repaired)

    def _prove(self, accused: list[Found]) -> None:
        """Is the model right without the accused, and does each of them show?"""
        if not accused:
            return
        trail = self.trail
        repaired = frozenset().union(*(one.elements for one in accused))
        with self._trials.step("verify") as step:
            outcome = self._without(repaired)
            step.words = f"without {_them(len(accused))} the model {_is(outcome)}"
        trail.cured = {Outcome.CLEAN: True, Outcome.REPRODUCES: False}.get(outcome)
        if outcome is Outcome.UNRESOLVED:
            trail.notes.append(f"without the culprits nobody can tell: {self._why(self._everything - repaired)}")
            self._single_out(accused, frozenset())
        elif outcome is Outcome.CLEAN:
            self._single_out(accused, repaired)

    def _single_out(self, accused: list[Found], repaired: frozenset[int]) -> None:
        """Tell those that show in the outputs from those that do not.

        Args:
            accused: Who fails.
            repaired: All elements without which the model is right; empty if that is not known, and then each is
                tried alone.
        """
        if len(accused) == 1 and repaired == accused[0].elements:
            self.trail.guilty += accused
            return
        ranked = sorted(accused, key=lambda one: -one.badness)
        tried, others = ranked[:_MOST_SINGLED_OUT], ranked[_MOST_SINGLED_OUT:]
        questions = [self._everything - (repaired - one.elements) if repaired else one.elements for one in tried]
        with self._trials.step("verify") as step:
            outcomes = self._trials.ask_all(questions)
            showing = [
                one
                for one, question, outcome in zip(tried, questions, outcomes, strict=True)
                if outcome is not Outcome.CLEAN or self._contributes(question, repaired)
            ]
            step.words = f"{len(showing)} of {len(tried)} show in the outputs with the others repaired"
        if not showing and not others and repaired:
            showing = self._together(accused, repaired)
        hidden = [one for one in tried if one not in showing]
        self.trail.guilty += sorted([*showing, *others], key=lambda one: min(one.elements))
        self.trail.latent += hidden

    def _contributes(self, question: frozenset[int], repaired: frozenset[int]) -> bool:
        """Whether the outputs are off by a good part of the failure, though not by as much as is wrong."""
        errors = self._trials.errors
        own, rest, whole = errors.get(question), errors.get(self._everything - repaired), self._seen.error
        if own is None or whole is None or not repaired:
            return False
        return own > _CONTRIBUTION * whole and own > _ABOVE_REST * (rest or 0.0)

    def _together(self, accused: list[Found], repaired: frozenset[int]) -> list[Found]:
        """The smallest part of the accused that shows in the outputs, where none of them does by itself."""
        order = [element for one in sorted(accused, key=lambda o: -o.badness) for element in sorted(one.elements)]
        with self._trials.step("verify") as step:
            answer = self._trials.search(SmallestSubset(order, base=self._everything - repaired))
            needed = answer.culprits[0] if answer.culprits else frozenset()
            step.words = f"{len(needed)} of {len(order)} show together"
        return [one for one in accused if one.elements & needed]

    def _cut_on(self, accused: list[Found]) -> None:
        """Cut until the model is right without all that was found."""
        trail = self.trail
        signature = self._seen.signature
        assert signature is not None
        cutter = Cutter(self._trials, self._elements, self._seen, signature.kind)
        repaired = frozenset().union(*(one.elements for one in accused)) if accused else frozenset()
        found: list[Found] = []
        while trail.cured is not True and len(found) < _MOST_FAULTS:
            result = cutter.cut(repaired)
            one = result.found or self._necessary(result, repaired, signature.kind)
            if one is None:
                self._give_up(result, found, accused)
                return
            found.append(one)
            trail.guilty.append(one)
            repaired |= one.elements
            with self._trials.step("verify") as step:
                outcome = self._without(repaired)
                step.words = f"without {_them(len(found) + len(accused))} the model {_is(outcome)}"
            trail.cured = {Outcome.CLEAN: True, Outcome.REPRODUCES: False}.get(outcome)
            if outcome is Outcome.UNRESOLVED:
                trail.notes.append(f"without the culprits nobody can tell: {self._why(self._everything - repaired)}")
                break
            if len(found) > 1 and not signature.kind.by_values and not self._trials.seen_clean:
                self._blame_nobody(signature.kind)
                return
        if accused:
            self._sort_out(accused, repaired)

    def _blame_nobody(self, kind: FailureKind) -> None:
        """Everything fails, whatever is in it: that says nothing about any node."""
        trail = self.trail
        trail.guilty.clear()
        trail.cured = None
        trail.undecided = "every part of the model that was tried fails, so no node is more to blame than another"
        trail.advice = (
            "see whether the command says good of any model, say of one with a single node"
            if kind is FailureKind.CHECK
            else "see whether the engine can run any model at all with surgeon doctor"
        )

    def _sort_out(self, accused: list[Found], repaired: frozenset[int]) -> None:
        """Whether those that the census named show too, now that the others are known."""
        if self.trail.cured:
            self._single_out(accused, repaired)
        else:
            self.trail.latent += accused

    def _necessary(self, result: CutResult, repaired: frozenset[int], kind: FailureKind) -> Found | None:
        """The element with which the failure begins, if without it there is none, though it does not fail alone."""
        if result.last is None:
            return None
        single = frozenset([result.last])
        with self._trials.step("verify") as step:
            outcome = self._without(repaired | single)
            step.words = f"without it the model {_is(outcome)}"
        if outcome is not Outcome.CLEAN:
            return None
        reason = "the failure begins with it and is gone without it; alone it does not fail"
        return Found(single, kind, reason, "cut", False)

    def _give_up(self, result: CutResult, found: list[Found], accused: list[Found]) -> None:
        trail = self.trail
        trail.latent += accused
        words = result.reason
        if result.last is not None:
            place = f"it begins with {self._elements.titles([result.last])[0]}"
        elif result.between:
            titles = self._elements.titles(result.between)
            place = f"it begins between {titles[0]} and {titles[-1]}, {len(titles)} nodes"
        else:
            place = "no cut of the model tells where it begins"
        if found:
            trail.notes.append(f"there is another failure: {place}; {words}")
            return
        trail.undecided = f"{place}, but no set of nodes was seen to fail by itself: {words}"
        trail.advice = "give the engine longer or more memory if pieces time out, or look with --check at what you see"

    def _why(self, elements: frozenset[int]) -> str:
        return self._trials.words.get(elements, "no reason given")


def _them(count: int) -> str:
    return "it" if count == 1 else f"the {count} of them"


def _is(outcome: Outcome) -> str:
    return {
        Outcome.CLEAN: "is right",
        Outcome.REPRODUCES: "still fails",
        Outcome.UNRESOLVED: "cannot be judged",
    }[outcome]
