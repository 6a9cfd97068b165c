"""How the whole model is looked at before a search."""

from __future__ import annotations

import random
from concurrent.futures import Future

from surgeon_debug.find.oracle import FRESH, FailureKind, Signature, TrialRecord
from surgeon_debug.find.probe import MAX_RUNS, Probe, probe
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.trials import Trials
from surgeon_debug.journal import Journal
from surgeon_debug.search.budget import Budget

EVERYTHING = frozenset(range(10))


class Scripted:
    """A pool whose model fails by chance: in single runs, or in single compilations."""

    lanes = 1

    def __init__(self, *, of_runs: float = 0.0, of_builds: float = 0.0, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._of_runs, self._of_builds = of_runs, of_builds
        self._bad = False
        self.builds = 0

    def submit(self, elements: frozenset[int], attempt: int = 0) -> Future[TrialRecord]:
        fresh = attempt % FRESH == 0
        if fresh:
            self.builds += 1
            self._bad = self._rng.random() < self._of_builds
        fails = self._bad or self._rng.random() < self._of_runs
        signature = Signature(FailureKind.WRONG_NUMBERS) if fails else None
        future: Future[TrialRecord] = Future()
        future.set_result(TrialRecord(signature, builds=int(fresh), runs=1, seconds=0.002 if fresh else 0.001))
        return future

    def close(self) -> None:
        pass


def probed(pool: Scripted, budget: Budget | None = None) -> Probe:
    with Journal(None) as journal:
        return probe(Trials(pool, Remembering("x", journal), (budget or Budget()).start()), EVERYTHING)


def test_a_model_that_always_fails_is_no_longer_looked_at_than_needed() -> None:
    pool = Scripted(of_runs=1.0)
    seen = probed(pool)
    assert not seen.flaky and seen.failed == seen.runs <= 30 and pool.builds <= 6 and seen.repeats == 1


def test_a_model_that_never_fails_is_run_often_enough_to_say_so() -> None:
    seen = probed(Scripted())
    assert seen.signature is None and seen.runs >= MAX_RUNS


def test_failures_of_single_runs_are_told_from_those_of_single_compilations() -> None:
    mistaken = 0
    for seed in range(60):
        runs = probed(Scripted(of_runs=0.5, seed=seed))
        builds = probed(Scripted(of_builds=0.5, seed=seed))
        mistaken += not runs.flaky or runs.per_build
        mistaken += not builds.flaky or not builds.per_build
        assert not runs.flaky or 0.15 < runs.failed / runs.runs < 0.85
    assert mistaken <= 3


def test_the_rate_is_known_well_enough_for_the_repeats() -> None:
    missed = 0
    for seed in range(60):
        seen = probed(Scripted(of_runs=0.3, seed=seed))
        assert seen.flaky
        missed += 0.7**seen.repeats > 0.05
    assert missed <= 3


def test_a_small_budget_is_not_spent_on_looking() -> None:
    seen = probed(Scripted(), Budget(trials=20))
    assert seen.runs == 10
    assert probed(Scripted(), Budget(trials=2)).runs == 2
