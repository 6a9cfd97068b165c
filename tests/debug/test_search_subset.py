from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Answer
from tests.debug.search_play import C, R, U, erratic, needs, play, play_unordered


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_trials_are_near_the_information_bound(k: int) -> None:
    trials = []
    for seed in range(60):
        culprit = frozenset(random.Random(seed).sample(range(1000), k))
        search = SmallestSubset(range(1000))
        trials.append(play(search, needs(culprit)).trials)
        assert search.answer == Answer((culprit,), True, trials=trials[-1])
    bound = math.log2(math.comb(1000, k))
    assert statistics.mean(trials) <= 1.2 * bound
    assert max(trials) <= k * (math.log2(1000) + 1) + 2


def test_suspicion_pays() -> None:
    early = [play(SmallestSubset(range(4000)), needs(frozenset([1, place]))).trials for place in (3, 6, 12)]
    late = [play(SmallestSubset(range(4000)), needs(frozenset([1000, place]))).trials for place in (1300, 3000, 3900)]
    assert max(early) < min(late)


@given(st.integers(1, 60), st.data())
def test_the_set_reproduces_and_is_minimal(count: int, data: st.DataObject) -> None:
    culprits = data.draw(
        st.lists(st.frozensets(st.integers(0, count - 1), min_size=1, max_size=6), min_size=1, max_size=3)
    )
    order = data.draw(st.permutations(range(count)))
    base = frozenset([count, count + 1])
    search = SmallestSubset(order, base=base)
    oracle = needs(*culprits)
    seed = data.draw(st.integers(0, 99))
    play_unordered(search, oracle, data.draw(st.integers(1, 4)), seed)
    assert search.answer.certain
    (found,) = search.answer.culprits
    assert oracle(found) is R and all(oracle(found - {x}) is C for x in found)


@given(st.integers(2, 40), st.data())
def test_more_lanes_need_fewer_rounds(count: int, data: st.DataObject) -> None:
    culprit = data.draw(st.frozensets(st.integers(0, count - 1), min_size=1, max_size=3))
    rounds = [play(SmallestSubset(range(count)), needs(culprit), k).rounds for k in (1, 4)]
    assert rounds[1] <= rounds[0]


@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.integers(1, 4))
def test_an_erratic_oracle_gets_a_set_that_was_seen_to_fail(count: int, seed: int, share: float, lanes: int) -> None:
    whole = frozenset(range(count))
    search = SmallestSubset(range(count))
    played = play_unordered(search, erratic(seed, share, whole), lanes, seed, most=count * count + 50)
    (found,) = search.answer.culprits
    assert found == whole or played.outcomes[found] is R
    if search.answer.certain:
        assert not any(outcome is C and found <= tried for tried, outcome in played.outcomes.items())
        clean = [tried for tried, outcome in played.outcomes.items() if outcome is C]
        assert all(found - {x} == frozenset() or any(found - {x} <= tried for tried in clean) for x in found)
    else:
        assert search.answer.reason


def test_unresolved_sets_are_tried_another_way_in_the_end() -> None:
    """With 30 nothing can be tried without 59, so 59 is kept at first, though 12 is the culprit."""

    def oracle(tried):
        return U if 30 in tried and 59 not in tried else needs(frozenset([12]))(tried)

    search = SmallestSubset(range(100))
    play(search, oracle)
    assert search.answer.culprits == (frozenset([12]),) and search.answer.certain


def test_what_stays_unresolved_is_not_certain() -> None:
    def oracle(tried):
        return needs(frozenset([12]))(tried) if {12, 59} <= tried else U

    search = SmallestSubset(range(100))
    play(search, oracle)
    (found,) = search.answer.culprits
    assert {12, 59} <= found and not search.answer.certain
    assert "could not be resolved" in search.answer.reason


def test_what_is_known_is_not_asked() -> None:
    search = SmallestSubset(range(8), clean=5)
    played = play(search, needs(frozenset([6, 0])))
    assert all(len(tried) > 5 for tried in list(played.outcomes)[:1])
    assert search.answer.culprits == (frozenset([6, 0]),)
    base = SmallestSubset(range(8), base=frozenset([99]), clean=-1)
    play(base, needs(frozenset([99])))
    assert base.answer.culprits == (frozenset(),) and base.answer.certain
    whole = SmallestSubset(range(8), known_fails=False)
    assert play(whole, lambda _: C, 3).trials == 1
    assert whole.answer == Answer((), True, "with all elements it is clean", trials=1)
    dark = SmallestSubset(range(8), known_fails=False)
    play(dark, lambda _: U)
    assert dark.answer.culprits == () and not dark.answer.certain


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_before_the_end_the_answer_is_the_smallest_failing_set(seed: int) -> None:
    culprit = frozenset(random.Random(seed).sample(range(100), 3))
    search, oracle = SmallestSubset(range(100)), needs(culprit)
    size = 100
    while not search.done:
        (best,) = search.answer.culprits
        assert culprit <= best and len(best) <= size and not search.answer.certain
        size = len(best)
        (trial,) = search.ask()
        search.tell(trial, oracle(trial.elements))


def test_what_makes_no_sense_is_refused() -> None:
    for arguments in ({"candidates": []}, {"candidates": [1, 1]}, {"candidates": [1], "base": frozenset([1])}):
        with pytest.raises(ValueError, match="candidate"):
            SmallestSubset(**arguments)
    with pytest.raises(ValueError, match="known to be clean"):
        SmallestSubset([1, 2], clean=2)
