"""A search for bad tactics from the first build to its result: record, replay, compare or census, hunt, and proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from surgeon_debug.find.engine_builds import BuildRecord
from surgeon_debug.find.engine_oracle import EngineSpec
from surgeon_debug.find.engine_trials import EngineTrials, HowToSearch, Recorded, recorded
from surgeon_debug.find.graph_fitness import unfit
from surgeon_debug.find.lower_error import fallen, limit_between
from surgeon_debug.find.oracle import FailureKind
from surgeon_debug.find.pin_hunt import PinHunt, hunt_pins
from surgeon_debug.find.tactic_census import Census
from surgeon_debug.find.tactic_finding import TacticCulprit, TacticFinding
from surgeon_debug.find.tactic_pins import FreeChoice, Pin, Pinned
from surgeon_debug.find.tactic_result import TacticResult, TacticTrail, member_of
from surgeon_debug.find.tactic_rounds import Assignment, Rounds, every_tactic
from surgeon_debug.find.tensorrt_builds import other_sizes
from surgeon_debug.find.trials import Trials, stopped_early
from surgeon_debug.journal import Journal
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics, by_key, diff_tactics
from surgeon_debug.search.trial import Outcome

_NO_TACTIC = "it is not a tactic (or several at once)"
_MOVED = 20  # keys that are named where a build does not replay


@dataclasses.dataclass(frozen=True)
class KnownBuild:
    """What is known of a build from before."""

    choice: FreeChoice = dataclasses.field(default_factory=FreeChoice)
    """How to build it again."""
    record: BuildRecord | None = None
    """What was recorded of it; None if it has to be built to see."""


class TacticSearch:
    """One search for bad tactics.

    Args:
        spec: What is built; its dimension does not matter.
        how: What the search may use.
        good: A build that is right; None for a census.
        bad: The build that fails; None for the one that the builder makes now.
        every: Try every tactic of every key, whatever is found before.
        output: Where to put a timing cache that avoids what is found; None for nowhere.
        explain: Says why the graph itself explains how a build fails, with an empty phrase if it does not.
        progress: Called with a phrase about where the search is.
    """

    def __init__(
        self,
        spec: EngineSpec,
        how: HowToSearch,
        *,
        good: KnownBuild | None = None,
        bad: KnownBuild | None = None,
        every: bool = False,
        output: Path | None = None,
        explain: Callable[[Recorded], str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._spec, self._how, self._good, self._bad = spec, how, good, bad
        self._every, self._output, self._explain, self._progress = every, output, explain, progress
        self._trail = TacticTrail()

    def run(self, model: str, labels: tuple[str, str], notes: tuple[str, ...] = ()) -> TacticFinding:
        """Search.

        Args:
            model: How the result calls the model.
            labels: How it calls the reference and the suspect.
            notes: What else the result is to say.
        """
        self._trail.notes += notes
        with Journal(self._how.resume) as journal:
            trials = EngineTrials(self._spec, self._how, journal, self._progress)
            stopped = stopped_early(lambda: self._search(trials))
            result = TacticResult(self._trail, self._spec, self._output)
            return result.finding(model, labels, trials.steps, stopped)

    def _search(self, trials: EngineTrials) -> None:
        trail = self._trail
        seen = self._record(trials)
        if seen is None:
            return
        trail.recorded, trail.base = seen, by_key(seen.record.tables, seen.record.tactics)
        if not trail.base:
            trail.undecided = "the timing cache of the build names no op, so no tactic can be pinned"
            trail.advice = "see with surgeon doctor whether this engine has editable timing caches"
            return
        if seen.signature is None and not self._every:
            trail.nothing = f"the build is right: its outputs agree in {seen.runs} runs"
            trail.advice = "give the cache of the build that failed with --bad, or try every tactic with --every"
            trail.advice += other_sizes(self._spec.builder)
            return
        if words := self._explain(seen) if self._explain is not None else "":
            trail.nothing, trail.advice = unfit(words)
            return
        if not self._replays(trials, seen):
            return
        if self._good is not None:
            self._compare(trials, seen, self._good)
        else:
            self._take_census(trials, seen)

    def _record(self, trials: EngineTrials) -> Recorded | None:
        """The build that fails, and how it behaves."""
        trail = self._trail
        choice = self._bad.choice if self._bad is not None else FreeChoice()
        with trials.along(choice, thorough=True, lanes=1) as made, made.step("record") as step:
            found = trials.record(made)
            seen = recorded(found)
            step.words = f"{len(seen.record.tactics):,} keys; {seen.words}" if seen else found.unresolved
        if seen is None:
            trail.undecided = f"there is no engine whose tactics could be searched: {found.unresolved}"
            trail.advice = "see which nodes it cannot be built with: surgeon find nodes"
        return seen

    def _replays(self, trials: EngineTrials, seen: Recorded) -> bool:
        """Whether the same cache makes the same engine; all else rests on that."""
        trail = self._trail
        again = Pinned(seen.record.cache, trail.base, strict=True)
        with trials.along(again, against=seen, lanes=1) as made, made.step("replay") as step:
            found = trials.record(made)
            moved = tuple(found.payload.get("moved", ()))
            same = found.signature == seen.signature or (
                found.signature is not None and seen.signature is not None and found.signature.matches(seen.signature)
            )
            step.words = found.unresolved or (
                "same tactics, same verdict" if same else "same tactics, but another verdict"
            )
        if not found.unresolved and same:
            return True
        trail.moved = moved[:_MOVED]
        if moved:
            names = ", ".join(trail.base[key].title if key in trail.base else key for key in moved[:3])
            why = f"the same cache makes another engine; {len(moved)} keys differ: {names}"
        elif found.unresolved:
            why = found.unresolved
        else:
            why = "with the same tactics it fails in one build and not in the other"
        trail.undecided = f"this build does not replay, so tactics cannot be told apart: {why}"
        trail.advice = "see what else decides with surgeon find auto"
        return False

    def _compare(self, trials: EngineTrials, seen: Recorded, good: KnownBuild) -> None:
        """Find what makes the difference to a build that is right."""
        trail = self._trail
        record = good.record or self._build_good(trials, good)
        if record is None:
            return
        difference = diff_tactics(trail.base, by_key(record.tables, record.tactics))
        others = len(difference.only_first) + len(difference.only_second) + len(difference.rekeyed)
        if others:
            trail.notes.append(
                f"{others} ops have keys in one of the two builds only: these fuse, or are typed, otherwise; "
                "that is a matter for surgeon find fusion"
            )
        better = {change.key: change.after for change in difference.changed}
        trail.differing = len(better)
        if not better:
            trail.undecided = "the build that is right has the same tactics for all keys that both have"
            trail.advice = "see what else decides with surgeon find auto"
            return
        self._hunt(trials, seen, {**_chosen(trail.base), **better}, _chosen(trail.base))

    def _build_good(self, trials: EngineTrials, good: KnownBuild) -> BuildRecord | None:
        trail = self._trail
        with trials.along(good.choice, lanes=1) as made, made.step("good") as step:
            found = trials.record(made)
            seen = recorded(found)
            step.words = f"{len(seen.record.tactics):,} keys; {seen.words}" if seen else found.unresolved
        if seen is not None and seen.signature is None:
            return seen.record
        trail.undecided = "the build that is said to be right " + (
            f"fails here: {seen.trial.words}" if seen else f"cannot be made: {found.unresolved}"
        )
        trail.advice = "leave --good out, and all tactics are tried"
        return None

    def _take_census(self, trials: EngineTrials, seen: Recorded) -> None:
        """Try all tactics until a build is right, then find what makes the difference."""
        trail = self._trail
        census = trail.census = Census(trail.base)
        dimension = every_tactic(seen.record.cache, trail.base, census)
        recorded_choice = _chosen(trail.base)
        census.note(recorded_choice, _outcome(seen))
        with trials.along(dimension, against=seen) as made:
            rounds = Rounds(made, dimension, census)
            try:
                rounds.take(every=self._every)
                if rounds.right is None and not rounds.hopeless and seen.signature is not None and census.rounds > 1:
                    trail.alike = not rounds.go_on(seen, recorded_choice)
            finally:
                trail.coverage = census.coverage()
        if seen.signature is not None:
            rounds.failing.insert(0, recorded_choice)
        elif rounds.failing:
            rounds.right = recorded_choice
        if rounds.hopeless:
            trail.undecided = f"no other tactic can be tried: {rounds.hopeless}"
            trail.advice = "give a build that is right with --good, or try surgeon find fusion"
        elif rounds.right is None:
            self._no_right_build(census, seen, rounds.lowest)
        elif not rounds.failing:
            trail.nothing = f"no tactic was seen to fail: {trail.coverage.words}"
        else:
            self._hunt_all(trials, seen, rounds)

    def _no_right_build(self, census: Census, seen: Recorded, lowest: float | None) -> None:
        trail = self._trail
        if seen.signature is None:
            trail.nothing = f"no tactic was seen to fail: {census.coverage().words}"
            return
        same = ", and the error is the same with all" if trail.alike else ""
        trail.undecided = f"no choice of tactics that was tried makes it right{same}: {_NO_TACTIC}"
        trail.advice = "see with surgeon find auto what else it is, or which nodes are to blame with surgeon find nodes"
        lower = fallen(seen.worst, [lowest])
        if lower is not None and seen.worst is not None:
            trail.undecided = (
                f"no tactics make it right, but with some its error falls from {seen.worst:.2g} to {lower:.2g}"
            )
            trail.advice = "what is left may be its precision's; find what makes that difference with "
            trail.advice += f"--metric '{limit_between(seen.worst, lower)}'"
        if census.rounds == 1:
            trail.undecided = "no op was seen to have a second tactic, so there is nothing to choose"
            trail.advice = "see with surgeon find auto what it is, or with surgeon find nodes which nodes are to blame"

    def _hunt_all(self, trials: EngineTrials, seen: Recorded, rounds: Rounds) -> None:
        assert rounds.right is not None
        known: set[tuple[str, str]] = set()
        failing = rounds.failing if self._every else rounds.failing[:1]
        for assignment in failing:
            self._hunt(trials, seen, rounds.right, assignment, known)
            known |= {(m.key, m.bad.hash) for one in self._trail.culprits for m in one.members}

    def _hunt(
        self,
        trials: EngineTrials,
        seen: Recorded,
        right: Assignment,
        wrong: Assignment,
        known: set[tuple[str, str]] | frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """Find what makes the difference between two assignments."""
        trail = self._trail
        pins = [Pin(key, hash_) for key, hash_ in wrong.items() if hash_ != right[key]]
        pins = [pin for pin in pins if (pin.key, pin.hash) not in known]
        if not pins:
            return
        trail.differing = trail.differing or len(pins)
        base = {k: dataclasses.replace(tactics, chosen=right[k]) for k, tactics in trail.base.items()}
        dimension = Pinned(seen.record.cache, base, tuple(pins))
        hunt = PinHunt()
        with trials.along(dimension, against=seen) as made:
            everything = frozenset(range(len(pins)))
            if known and made.ask(everything) is not Outcome.REPRODUCES:
                return
            try:
                hunt_pins(made, list(range(len(pins))), hunt)
            finally:
                self._take(trials, made, dimension, hunt)

    def _take(self, trials: EngineTrials, made: Trials, dimension: Pinned, hunt: PinHunt) -> None:
        """Keep what a hunt has found."""
        trail = self._trail
        signature = made.followed
        for one in hunt.culprits:
            error = made.errors.get(one.elements)
            words = made.words.get(one.elements) or (trail.recorded.trial.words if trail.recorded else "")
            members = tuple(member_of(made, dimension, e, error, hunt.without) for e in sorted(one.elements))
            kind = signature.kind if signature is not None else FailureKind.WRONG_NUMBERS
            trail.culprits.append(TacticCulprit(members, kind, words, one.alone, hunt.cured))
        if hunt.reason and not hunt.culprits:
            trail.undecided = hunt.reason
            trail.advice = "see what else decides with surgeon find auto"
        elif hunt.reason:
            trail.notes.append(f"there may be more: {hunt.reason}")
        if hunt.cured and not trail.cache:
            found = trials.record(made, hunt.without)
            trail.cache = str(found.payload.get("cache", ""))


def _outcome(seen: Recorded) -> Outcome:
    """The recorded build as the outcome of a trial."""
    return Outcome.CLEAN if seen.signature is None else Outcome.REPRODUCES


def _chosen(base: Mapping[str, KeyTactics]) -> dict[str, str]:
    return {key: tactics.chosen for key, tactics in base.items()}
