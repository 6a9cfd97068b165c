from __future__ import annotations

import math
import random

import pytest

from surgeon_debug.search.information import bits, capacity, census_bits, cut_bits, run_bits
from surgeon_debug.search.planner import Offer, Price, Rates, best


def test_bits() -> None:
    assert (bits(0.5), bits(0.0), bits(1.0)) == (1.0, 0.0, 0.0)
    assert bits(0.11) == pytest.approx(0.5, abs=0.001)
    assert (
        cut_bits() == 1.0 and cut_bits(resolved=0.5) == 0.5 and cut_bits(share=0.25) == pytest.approx(0.811, abs=1e-3)
    )
    assert census_bits(1024, 1.0) == 10 and census_bits(1024, 0.0) == 0 and census_bits(1024, 0.5) == 6


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_capacity_of_the_z_channel(rate: float) -> None:
    q = 1 - rate
    assert capacity(rate) == pytest.approx(math.log2(1 + (1 - q) * q ** (q / (1 - q))), rel=1e-6)
    assert run_bits(rate) <= capacity(rate)


def test_the_capacity_of_a_symmetric_channel() -> None:
    assert capacity(0.9, 0.1) == pytest.approx(1 - bits(0.1))
    assert capacity(1.0) == pytest.approx(1.0)
    assert capacity(0.3, 0.3) == pytest.approx(0.0, abs=1e-9)


def test_a_census_is_worth_one_build_more_unless_it_is_hopeless() -> None:
    rates = Rates(build_seconds=60, run_seconds=0.1, reference_seconds=0.1)
    cut = Offer("cut", cut_bits(), Price(builds=0.5, runs=1, reference_runs=1))

    def census(alone: float) -> Offer:
        return Offer("census", census_bits(1000, alone), Price(builds=1.5, runs=1, reference_runs=1))

    assert best([cut, census(0.8)], rates).name == "census"
    assert best([cut, census(0.05)], rates).name == "cut"


def test_a_repetition_is_worth_it_where_builds_are_dear() -> None:
    new = Offer("new", run_bits(0.3, share=0.45), Price(builds=1, runs=1))
    again = Offer("again", run_bits(0.3, share=0.2), Price(runs=1))
    assert best([new, again], Rates(build_seconds=60, run_seconds=0.5)).name == "again"
    assert best([new, again], Rates(build_seconds=0.01, run_seconds=0.5)).name == "new"


def test_what_is_free_comes_first_if_it_tells_something() -> None:
    offers = [Offer("nothing", 0.0, Price()), Offer("cut", 1.0, Price(builds=1)), Offer("known", 0.1, Price())]
    assert best(offers, Rates()).name == "known"
    with pytest.raises(ValueError, match="nothing to choose"):
        best([], Rates())


def test_rates_are_learned_from_trials_of_all_kinds() -> None:
    true, rates, chance = Rates(37.0, 0.02, 1.5), Rates(), random.Random(0)
    prices = [Price(1, 1, 1), Price(0, 1, 0), Price(0, 0, 1), Price(0.5, 2, 1), Price(0, 4, 1)]
    for _ in range(60):
        price = chance.choice(prices)
        rates = rates.learned(price, true.seconds(price) * chance.uniform(0.95, 1.05))
    for price in prices:
        assert rates.seconds(price) == pytest.approx(true.seconds(price), rel=0.25)
    assert rates.build_seconds == pytest.approx(37, rel=0.15)
    assert rates.run_seconds == pytest.approx(0.02, rel=0.25)


def test_nothing_is_learned_from_nothing() -> None:
    rates = Rates()
    assert rates.learned(Price(), 3.0) == rates == rates.learned(Price(builds=1), 0.0)
    with pytest.raises(ValueError, match="negative"):
        Price(builds=-1)
    with pytest.raises(ValueError, match="time"):
        Rates(build_seconds=0)
