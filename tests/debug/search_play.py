"""Plays a search against an oracle that is a function, without processes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from surgeon_debug.search.trial import Outcome, Search, Trial

Oracle = Callable[[frozenset[int]], Outcome]

R, C, U = Outcome.REPRODUCES, Outcome.CLEAN, Outcome.UNRESOLVED


@dataclasses.dataclass
class Played:
    rounds: int
    trials: int
    outcomes: dict[frozenset[int], Outcome]


def play(search: Search, oracle: Oracle, k: int = 1, *, most: int = 5000) -> Played:
    """In rounds of ``k``; fails if the search does not end or asks the same twice."""
    return play_trials(search, lambda trial: oracle(trial.elements), k, most=most, twice=False)


def play_trials(
    search: Search, oracle: Callable[[Trial], Outcome], k: int = 1, *, most: int = 5000, twice: bool = True
) -> Played:
    played = Played(0, 0, {})
    while not search.done:
        trials = search.ask(k)
        assert trials or search.done, "the search waits for nothing"
        assert len(trials) <= k
        played.rounds += 1
        for trial in trials:
            assert twice or trial.elements not in played.outcomes, "asked twice"
            played.trials += 1
            assert played.trials <= most, "the search does not end"
            outcome = oracle(trial)
            played.outcomes[trial.elements] = outcome
            search.tell(trial, outcome)
    assert list(search.ask(k)) == []
    assert search.answer.trials == played.trials
    return played


def play_unordered(search: Search, oracle: Oracle, lanes: int, seed: int, *, most: int = 5000) -> Played:
    """With up to ``lanes`` trials under way, told in any order, some long after they began."""
    chance = random.Random(seed)
    played = Played(0, 0, {})
    flying: list[Trial] = []
    while not search.done:
        asked = search.ask(lanes - len(flying))
        assert len(asked) <= lanes - len(flying)
        flying += asked
        assert flying or search.done, "the search waits for nothing"
        if not flying:
            break
        trial = flying.pop(chance.randrange(len(flying)))
        assert trial.elements not in played.outcomes, "asked twice"
        played.trials += 1
        assert played.trials <= most, "the search does not end"
        played.outcomes[trial.elements] = oracle(trial.elements)
        search.tell(trial, played.outcomes[trial.elements])
    answer = search.answer
    for trial in flying:
        search.tell(trial, oracle(trial.elements))
    assert search.answer.culprits == answer.culprits, "late outcomes change a final answer"
    return played


def erratic(seed: int, unresolved: float, whole: frozenset[int]) -> Oracle:
    """An oracle without rhyme or reason, which answers alike when asked twice; the whole fails, nothing does not."""
    table: dict[frozenset[int], Outcome] = {whole: R, frozenset(): C}
    chance = random.Random(seed)

    def oracle(elements: frozenset[int]) -> Outcome:
        if elements not in table:
            table[elements] = U if chance.random() < unresolved else chance.choice((R, C))
        return table[elements]

    return oracle


def needs(*culprits: frozenset[int]) -> Oracle:
    """Fails if and only if all of one culprit is there."""
    return lambda elements: R if any(culprit <= elements for culprit in culprits) else C
