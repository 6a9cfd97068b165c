from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_debug.search.splitting import GeneralisedSplitting
from surgeon_debug.search.trial import Answer
from tests.debug.search_play import C, Oracle, R, U, erratic, play, play_unordered


def any_of(culprits: frozenset[int]) -> Oracle:
    return lambda tried: R if tried & culprits else C


def found(search: GeneralisedSplitting) -> frozenset[int]:
    assert all(len(culprit) == 1 for culprit in search.answer.culprits)
    return frozenset().union(*search.answer.culprits)


def drawn(count: int, k: int, seeds: range) -> list[frozenset[int]]:
    return [frozenset(random.Random(seed).sample(range(count), k)) for seed in seeds]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10, 20])
def test_with_their_number_known_trials_are_near_the_bound(k: int) -> None:
    bound = math.log2(math.comb(1000, k))
    trials = []
    for culprits in drawn(1000, k, range(40)):
        search = GeneralisedSplitting(range(1000), expected=k, exact=True)
        trials.append(play(search, any_of(culprits)).trials)
        assert found(search) == culprits and search.answer.certain
    assert statistics.mean(trials) <= 1.05 * bound
    assert max(trials) <= math.ceil(bound) + k - 1 + 1


@pytest.mark.parametrize("k", [2, 3, 5, 10, 20])
def test_a_wrong_number_is_mended_on_the_way(k: int) -> None:
    bound = math.log2(math.comb(1000, k))
    trials = []
    for culprits in drawn(1000, k, range(30)):
        search = GeneralisedSplitting(range(1000))
        trials.append(play(search, any_of(culprits)).trials)
        assert found(search) == culprits and search.answer.certain
    assert statistics.mean(trials) <= 1.25 * bound


def test_four_lanes_take_fewer_rounds() -> None:
    for culprits in drawn(1000, 5, range(10)):
        one = play(GeneralisedSplitting(range(1000), expected=5), any_of(culprits)).rounds
        four = play(GeneralisedSplitting(range(1000), expected=5), any_of(culprits), 4).rounds
        assert four <= 0.5 * one


@given(st.integers(1, 80), st.data())
def test_all_are_found_whatever_the_order_of_outcomes(count: int, data: st.DataObject) -> None:
    culprits = data.draw(st.frozensets(st.integers(0, count - 1), min_size=1, max_size=8))
    expected = data.draw(st.integers(1, min(count, 9)))
    search = GeneralisedSplitting(range(count), expected=expected, base=frozenset([100]))
    play_unordered(search, any_of(culprits), data.draw(st.integers(1, 5)), data.draw(st.integers(0, 99)))
    assert found(search) == culprits and search.answer.certain


@given(st.integers(2, 60), st.data())
def test_groups_under_way_share_no_element(count: int, data: st.DataObject) -> None:
    culprits = data.draw(st.frozensets(st.integers(0, count - 1), min_size=1, max_size=5))
    search, oracle = GeneralisedSplitting(range(count)), any_of(culprits)
    while not search.done:
        trials = search.ask(4)
        assert sum(len(trial.elements) for trial in trials) == len(frozenset().union(*(t.elements for t in trials)))
        for trial in trials:
            search.tell(trial, oracle(trial.elements))
    assert found(search) == culprits


@given(st.integers(1, 40), st.data())
def test_dark_elements_never_lead_to_a_wrong_name(count: int, data: st.DataObject) -> None:
    elements = st.integers(0, count - 1)
    culprits = data.draw(st.frozensets(elements, min_size=1, max_size=3))
    dark = data.draw(st.frozensets(elements, max_size=3))

    def oracle(tried):
        return U if tried & dark and len(tried) < count else any_of(culprits)(tried)

    search = GeneralisedSplitting(range(count))
    play_unordered(search, oracle, data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99)))
    assert found(search) <= culprits
    if search.answer.certain:
        assert found(search) == culprits


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 4))
def test_an_erratic_oracle_ends_it(count: int, seed: int, share: float, lanes: int) -> None:
    search = GeneralisedSplitting(range(count), known_fails=bool(seed % 2))
    played = play_unordered(search, erratic(seed, share, frozenset(range(count))), lanes, seed, most=8 * count + 8)
    shown = [tried for tried, outcome in played.outcomes.items() if outcome is R]
    if search.answer.certain:
        assert all(tried & found(search) for tried in shown), "every failure is explained"


def test_contradictions_are_named() -> None:
    search = GeneralisedSplitting(range(8), known_fails=False)
    (whole,) = search.ask()
    search.tell(whole, C)
    assert search.answer == Answer((), True, trials=1)
    search = GeneralisedSplitting(range(2))
    search.tell(*search.ask(2)[:1], C)
    assert found(search) == {1}
    search = GeneralisedSplitting(range(4), expected=2, exact=True)
    play(search, any_of(frozenset([2])))
    assert not search.answer.certain and "2 culprits were to be found" in search.answer.reason


def test_what_makes_no_sense_is_refused() -> None:
    for arguments in ({"elements": [1], "expected": 2}, {"elements": [1, 1]}, {"elements": [1], "expected": 0}):
        with pytest.raises(ValueError, match="element for each"):
            GeneralisedSplitting(**arguments)
