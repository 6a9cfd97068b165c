from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.growth import grow, reach
from surgeon_debug.search.trial import Answer
from surgeon_debug.search.windows import WindowSearch
from tests.bench.search_graphs import FAMILIES, Links, chain, random_dag, window, windows_ending_at
from tests.debug.search_play import C, Oracle, R, U, erratic, needs, play, play_unordered


def before(last: int, links: Links, **options) -> WindowSearch:
    return WindowSearch(last, range(len(links)), links.__getitem__, within=frozenset(range(last + 1)), **options)


def total(links: Links, culprit: frozenset[int]) -> int:
    """Trials of the bisection and of the window."""
    cuts = PrefixBisect(range(len(links)))
    first = play(cuts, needs(culprit)).trials
    search = before(cuts.interval[0], links)
    second = play(search, needs(culprit)).trials
    assert search.answer == Answer((culprit,), True, trials=second)
    return first + second


@pytest.mark.parametrize("count", [200, 2000])
@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_bisection_it_is_near_the_information_bound(family: str, count: int) -> None:
    chance = random.Random(7)
    links = FAMILIES[family](count, chance)
    trials = [total(links, window(links, chance.randint(1, 8), chance)) for _ in range(25)]
    windows = statistics.mean(windows_ending_at(links, chance.randrange(count), 8, 2000) for _ in range(15))
    assert statistics.mean(trials) <= 1.4 * math.log2(count * windows)


def test_windows_of_a_chain_are_counted_right() -> None:
    links = chain(30, random.Random(0))
    assert [windows_ending_at(links, last, 8, 1000) for last in (0, 3, 20)] == [1, 4, 8]
    ring = {i: {(i - 1) % 5, (i + 1) % 5} for i in range(5)}
    assert windows_ending_at(ring, 4, 5, 1000) == 1 + 2 + 3 + 4 + 1


def check(search: WindowSearch, oracle: Oracle, last: int, outcomes) -> None:
    """The answer was seen to fail and, if it is certain, to be minimal."""
    (found,) = search.answer.culprits
    assert last in found
    if search.answer.certain:
        assert outcomes.get(found, R) is R
        clean = [tried for tried, outcome in outcomes.items() if outcome is C]
        assert not any(found <= tried for tried in clean)
        assert all(found - {x} == {last} or any(found - {x} <= tried for tried in clean) for x in found - {last})


@settings(max_examples=60)
@given(st.integers(2, 60), st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4))
def test_any_connected_window_of_any_dag_is_found(count: int, seed: int, size: int, lanes: int) -> None:
    chance = random.Random(seed)
    links = random_dag(count, chance)
    culprit = window(links, size, chance)
    last = max(culprit)
    search = before(last, links, samples=64)
    played = play_unordered(search, needs(culprit), lanes, seed)
    assert search.answer.culprits == (culprit,) and search.answer.certain
    assert last == 0 or played.outcomes.get(culprit) is R or culprit == frozenset(range(last + 1))
    check(search, needs(culprit), last, played.outcomes)


@settings(max_examples=60)
@given(st.integers(2, 60), st.integers(0, 10**6), st.integers(1, 3))
def test_sets_that_are_not_connected_are_found_too(count: int, seed: int, lanes: int) -> None:
    chance = random.Random(seed)
    links = random_dag(count, chance)
    culprit = frozenset(chance.sample(range(count), min(count, chance.randint(1, 4))))
    search = before(max(culprit), links, samples=64)
    play_unordered(search, needs(culprit), lanes, seed)
    assert search.answer.culprits == (culprit,) and search.answer.certain


def test_a_far_partner_costs_no_trial_for_each_element() -> None:
    links = chain(2000, random.Random(0))
    trials = [play(before(1500, links), needs(frozenset([1500, far]))).trials for far in (1480, 1200, 3)]
    assert max(trials) <= 30


def test_a_window_larger_than_the_limit_is_found() -> None:
    links = chain(400, random.Random(0))
    culprit = frozenset(range(280, 300))
    search = before(299, links)
    assert play(search, needs(culprit)).trials <= 60
    assert search.answer.culprits == (culprit,) and search.answer.certain


@settings(max_examples=60)
@given(st.integers(2, 40), st.integers(0, 10**6), st.integers(1, 3))
def test_two_windows_with_the_same_last_element(count: int, seed: int, lanes: int) -> None:
    chance = random.Random(seed)
    links = random_dag(count, chance)
    last = count - 1
    both = [window(links, chance.randint(1, 4), chance) | {last} for _ in range(2)]
    search = before(last, links, samples=64)
    played = play_unordered(search, needs(*both), lanes, seed)
    check(search, needs(*both), last, played.outcomes)
    (found,) = search.answer.culprits
    assert search.answer.certain and found in both


@settings(max_examples=80)
@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 4))
def test_an_erratic_oracle_ends_it_and_is_never_believed(count: int, seed: int, share: float, lanes: int) -> None:
    chance = random.Random(seed)
    links = random_dag(count, chance)
    oracle = erratic(seed, share, frozenset(range(count)))
    search = before(count - 1, links, samples=32)
    played = play_unordered(search, oracle, lanes, seed, most=count * count + 60)
    check(search, oracle, count - 1, played.outcomes)


@settings(max_examples=60)
@given(st.integers(3, 60), st.integers(0, 10**6), st.integers(1, 3))
def test_elements_that_cannot_be_left_out(count: int, seed: int, lanes: int) -> None:
    """Without some element nothing can be tried; the answer is right, or not certain."""
    chance = random.Random(seed)
    links = random_dag(count, chance)
    culprit = window(links, chance.randint(1, 5), chance)
    last = max(culprit)
    stuck = frozenset(chance.sample(range(last + 1), min(last, 2)))

    def oracle(tried: frozenset[int]):
        return U if stuck - tried else needs(culprit)(tried)

    search = before(last, links, samples=64)
    played = play_unordered(search, oracle, lanes, seed)
    check(search, oracle, last, played.outcomes)
    (found,) = search.answer.culprits
    assert culprit <= found
    if search.answer.certain:
        assert found == culprit


def test_what_is_known_alone_is_not_asked() -> None:
    links = chain(50, random.Random(0))
    search = before(30, links, alone_clean=True)
    played = play(search, needs(frozenset([29, 30])))
    assert frozenset([30]) not in played.outcomes and search.answer.culprits == (frozenset([29, 30]),)
    single = before(30, links)
    assert play(single, needs(frozenset([30]))).trials == 1
    assert before(0, links).done


def test_trials_stay_near_the_last_element() -> None:
    links = chain(2000, random.Random(0))
    played = play(before(1500, links), needs(frozenset(range(1496, 1501))))
    assert max(map(len, played.outcomes)) <= 8


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="within"):
        WindowSearch(5, range(9), lambda _: (), within=frozenset([1, 2]))
    with pytest.raises(ValueError, match="order complete"):
        WindowSearch(5, range(4), lambda _: (), within=frozenset([1, 5]))


@given(st.integers(1, 50), st.integers(0, 999))
def test_grown_windows_are_connected_and_hold_what_they_must(count: int, seed: int) -> None:
    chance = random.Random(seed)
    links = random_dag(count, chance)
    needed = sorted(window(links, min(count, 3), chance))
    edge = sorted({x for element in needed for x in links[element]} - {*needed})
    groups = [frozenset(edge[:2])] if edge else []
    allowed = {*range(count)} - {*edge[2:3]}
    for grown in grow(needed, links.__getitem__, allowed, groups, limit=6, count=20, seed=seed):
        assert grown >= {*needed} and grown <= allowed | {*needed}
        assert all(grown & group for group in groups)
        assert reach(needed[:1], links.__getitem__, grown).keys() == grown
