from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_debug.search.ddmin import Ddmin
from tests.debug.search_play import C, R, U, erratic, needs, play, play_unordered


@given(st.integers(1, 40), st.data())
def test_the_set_is_found(count: int, data: st.DataObject) -> None:
    culprit = data.draw(st.frozensets(st.integers(0, count - 1), min_size=1, max_size=5))
    search = Ddmin(range(count), base=frozenset([99]))
    played = play_unordered(search, needs(culprit), data.draw(st.integers(1, 4)), data.draw(st.integers(0, 99)))
    assert search.answer.culprits == (culprit,) and search.answer.certain
    assert played.trials <= count * count + 3 * count


@given(st.integers(2, 16), st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.integers(1, 4))
def test_without_any_assumption_it_is_minimal_by_what_was_seen(count: int, seed: int, share: float, lanes: int) -> None:
    whole = frozenset(range(count))
    search = Ddmin(range(count))
    played = play_unordered(search, erratic(seed, share, whole), lanes, seed)
    assert played.trials <= count * count + 3 * count
    (found,) = search.answer.culprits
    assert found == whole or played.outcomes[found] is R
    without = [played.outcomes[found - {x}] for x in found] if len(found) > 1 else []
    assert R not in without
    assert search.answer.certain == (U not in without)


def test_a_failure_that_heals_is_still_made_smaller() -> None:
    """Fails with 3 unless 20 is there too, though the whole fails because of 30."""

    def oracle(tried):
        return R if (3 in tried and 20 not in tried) or 30 in tried else C

    search = Ddmin(range(40))
    play(search, oracle)
    assert search.answer.culprits in ((frozenset([3]),), (frozenset([30]),))


def test_one_culprit_takes_about_twice_the_bound() -> None:
    trials = [play(Ddmin(range(1024)), needs(frozenset([place]))).trials for place in range(0, 1024, 97)]
    assert max(trials) <= 20


def test_one_element_needs_no_trial() -> None:
    assert Ddmin([5]).done and Ddmin([5]).answer.culprits == (frozenset([5]),)
    for elements in ([], [1, 1]):
        with pytest.raises(ValueError, match="element"):
            Ddmin(elements)
