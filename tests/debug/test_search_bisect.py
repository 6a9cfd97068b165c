from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.cuts import spread
from surgeon_debug.search.trial import Answer, Trial
from tests.debug.search_play import C, R, U, erratic, needs, play, play_unordered


def rounds(places: int, k: int) -> int:
    """The least r with (k + 1)^r >= places, in whole numbers."""
    found = 0
    while (k + 1) ** found < places:
        found += 1
    return found


@given(st.integers(1, 300), st.data())
def test_the_bound_holds_and_the_element_is_found(count: int, data: st.DataObject) -> None:
    culprit, k = data.draw(st.integers(0, count - 1)), data.draw(st.integers(1, 6))
    search = PrefixBisect(range(count))
    played = play(search, needs(frozenset([culprit])), k)
    assert search.answer == Answer((frozenset([culprit]),), True, trials=played.trials)
    assert search.interval == (culprit, culprit + 1)
    assert played.rounds <= rounds(count, k)


@pytest.mark.parametrize(("k", "most"), [(1, 11), (2, 7), (3, 6), (4, 5), (7, 4), (8, 4), (15, 3)])
def test_rounds_of_k_among_2000(k: int, most: int) -> None:
    worst = max(
        play(PrefixBisect(range(2000)), needs(frozenset([culprit])), k).rounds for culprit in range(0, 2000, 37)
    )
    assert worst == most


@given(st.integers(2, 200), st.data())
def test_outcomes_may_come_in_any_order(count: int, data: st.DataObject) -> None:
    culprit, lanes = data.draw(st.integers(0, count - 1)), data.draw(st.integers(1, 5))
    search = PrefixBisect(range(count))
    play_unordered(search, needs(frozenset([culprit])), lanes, data.draw(st.integers(0, 999)))
    assert search.answer.certain and search.answer.culprits == (frozenset([culprit]),)


def test_trials_are_prefixes_with_the_base() -> None:
    order = [3, 1, 4, 5, 9, 2, 6]
    search = PrefixBisect(order, base=frozenset([7]), low=1, high=6)
    played = play(search, needs(frozenset([9])))
    assert search.answer.culprits == (frozenset([9]),)
    assert all(tried - {7} == set(order[: len(tried) - 1]) for tried in played.outcomes)
    assert {len(tried) - 1 for tried in played.outcomes} <= {2, 3, 4, 5}


def test_allowed_cuts_name_groups() -> None:
    search = PrefixBisect(range(20), cuts=[0, 5, 6, 12, 40])
    played = play(search, needs(frozenset([8])))
    assert search.answer.culprits == (frozenset(range(6, 12)),) and search.answer.certain
    assert {len(tried) for tried in played.outcomes} <= {5, 6, 12} and played.trials <= 2


def test_one_place_needs_no_trial() -> None:
    search = PrefixBisect([8])
    assert search.done and search.ask() == []
    assert search.answer == Answer((frozenset([8]),), True)


def test_an_unknown_end_is_tried_first() -> None:
    search = PrefixBisect(range(10), known_bad=False)
    assert search.ask() == [Trial(frozenset(range(10)))]
    assert search.ask(4), "more lanes go on to cut"
    search = PrefixBisect(range(10), known_bad=False)
    assert play(search, lambda _: C).trials == 1
    assert search.answer == Answer((), True, "with all elements it is clean", trials=1)
    search = PrefixBisect(range(10), known_bad=False)
    play(search, lambda _: U)
    assert not search.answer.certain and search.answer.culprits == ()
    search = PrefixBisect(range(64), known_bad=False)
    assert play(search, needs(frozenset([40]))).trials == 7
    assert search.answer.culprits == (frozenset([40]),)


@given(st.integers(2, 400), st.data())
def test_costs_keep_the_bound(count: int, data: st.DataObject) -> None:
    chance = random.Random(data.draw(st.integers(0, 999)))
    costs = [chance.choice([0.0, 1.0, 1.0, 50.0, 1e6]) for _ in range(count)]
    culprit = data.draw(st.integers(0, count - 1))
    search = PrefixBisect(range(count), costs=costs)
    played = play(search, needs(frozenset([culprit])))
    assert search.answer.culprits == (frozenset([culprit]),)
    assert played.trials <= math.ceil(math.log2(count)) + 1


def test_costs_move_the_first_cut_into_the_dear_part() -> None:
    even = PrefixBisect(range(100), costs=[1.0] * 100).ask()[0]
    dear = PrefixBisect(range(100), costs=[1.0] * 90 + [100.0] * 10).ask()[0]
    assert len(even.elements) == 50 < len(dear.elements) < 100


@settings(max_examples=60)
@given(st.integers(50, 400), st.data())
def test_a_stretch_that_cannot_be_resolved_costs_logarithmically(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count - 2))
    last = data.draw(st.integers(first, count - 2))
    culprit, k = data.draw(st.integers(0, count - 1)), data.draw(st.integers(1, 3))
    search = PrefixBisect(range(count))

    def oracle(tried):
        return U if first <= len(tried) <= last else needs(frozenset([culprit]))(tried)

    played = play(search, oracle, k)
    low, high = search.interval
    assert low <= culprit < high
    assert search.answer.certain == (high - low == 1)
    if not search.answer.certain:
        assert (low, high) == (first - 1, last + 1), "the narrowest interval there is"
        assert "could not be resolved" in search.answer.reason
        assert search.answer.culprits == (frozenset(range(low, high)),)
    assert played.trials <= k * (4 * math.ceil(math.log2(count)) + 8) + k


def test_scattered_unresolved_cuts_hardly_matter() -> None:
    widths, trials = [], []
    for seed in range(60):
        chance = random.Random(seed)
        dark = {cut for cut in range(1, 500) if chance.random() < 0.1}
        culprit = chance.randrange(500)
        search = PrefixBisect(range(500))

        def oracle(tried, dark=dark, culprit=culprit):
            return U if len(tried) in dark else R if culprit in tried else C

        trials.append(play(search, oracle).trials)
        low, high = search.interval
        assert low <= culprit < high and all(cut in dark for cut in range(low + 1, high))
        widths.append(high - low)
    assert sum(trials) / 60 <= 12 and sum(widths) / 60 <= 1.4


def test_nothing_resolved_is_given_up() -> None:
    search = PrefixBisect(range(4000))
    assert play(search, lambda _: U).trials <= 4 * 12 + 8
    assert not search.answer.certain and search.interval == (0, 4000)


@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.integers(1, 5))
def test_an_erratic_oracle_ends_it_and_is_told_of(count: int, seed: int, share: float, lanes: int) -> None:
    search = PrefixBisect(range(count))
    played = play_unordered(search, erratic(seed, share, frozenset(range(count))), lanes, seed)
    low, high = search.interval
    known = {len(tried): outcome for tried, outcome in played.outcomes.items()}
    assert known.get(low, C) is C and known.get(high, R) is R, "its ends were seen"
    if search.answer.certain:
        assert high - low == 1
        assert not any(outcome is R for cut, outcome in known.items() if cut <= low)
        assert not any(outcome is C for cut, outcome in known.items() if cut >= high)
    else:
        assert search.answer.reason


def test_a_contradiction_is_named() -> None:
    search = PrefixBisect(range(9))
    early, late = search.ask(2)
    search.tell(early, R)
    search.tell(late, C)
    while not search.done:
        search.tell(*search.ask(), C)
    assert search.answer.reason == "the first 6 elements are clean although the first 3 fail"
    assert search.interval == (2, 3) and not search.answer.certain


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        PrefixBisect([])
    with pytest.raises(ValueError, match="no place"):
        PrefixBisect(range(5), low=3, high=3)
    with pytest.raises(ValueError, match="twice"):
        PrefixBisect([1, 2, 1])
    with pytest.raises(ValueError, match="twice"):
        PrefixBisect([1, 2], base=frozenset([2]))
    with pytest.raises(ValueError, match="costs"):
        PrefixBisect([1, 2], costs=[1.0, -1.0])
    with pytest.raises(ValueError, match="not under way"):
        PrefixBisect(range(5)).tell(Trial(frozenset([0])), C)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.lists(st.integers(0, 40)), st.integers(0, 50))
def test_new_cuts_are_inside_new_and_as_many_as_there_are(weights: list[float], taken: list[int], k: int) -> None:
    total = [0.0]
    for weight in weights:
        total.append(total[-1] + weight)
    high = len(weights)
    cuts = spread(total, 0, high, taken, k)
    free = set(range(1, high)) - set(taken)
    assert len(cuts) == len(set(cuts)) == min(k, len(free)) and set(cuts) <= free
    assert cuts == sorted(cuts)
