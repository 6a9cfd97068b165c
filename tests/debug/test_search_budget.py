from __future__ import annotations

import pytest

from surgeon_debug.search.budget import Budget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_trials_are_counted_down() -> None:
    meter = Budget(trials=3).start()
    assert meter.room(2) == 2
    meter.spend(2)
    assert (meter.spent, meter.trials_left, meter.room(2), meter.exhausted) == (2, 1, 1, "")
    meter.spend()
    assert meter.room(2) == 0
    assert meter.exhausted == "the 3 trials allowed are used up"


def test_seconds_are_those_of_the_clock() -> None:
    clock = Clock()
    meter = Budget(seconds=2.5).start(clock)
    clock.now = 102.0
    assert (meter.seconds, meter.seconds_left, meter.exhausted) == (2.0, 0.5, "")
    clock.now = 103.0
    assert (meter.seconds_left, meter.room(4)) == (0.0, 0)
    assert meter.exhausted == "the time of 2.5 s is used up"


def test_without_limits_nothing_runs_out() -> None:
    meter = Budget().start()
    meter.spend(10**6)
    assert (meter.room(7), meter.trials_left, meter.seconds_left, meter.exhausted) == (7, None, None, "")


@pytest.mark.parametrize("limits", [{"trials": -1}, {"seconds": -0.1}, {"seconds": float("nan")}])
def test_a_budget_is_not_negative(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Budget(**limits)  # type: ignore[arg-type]


def test_a_budget_of_nothing_is_used_up() -> None:
    assert Budget(trials=0).start().exhausted
    assert Budget(seconds=0).start().exhausted
