from __future__ import annotations

import functools
import pickle
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.budget import Budget
from surgeon_debug.search.drive import SearchStopped, drive
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Answer, Outcome, Trial
from tests.debug.search_play import C, R, needs


class Now:
    """Carries out trials at once."""

    def __init__(self, oracle, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.oracle, self.fail_at, self.error = oracle, fail_at, error
        self.trials: list[Trial] = []

    def __call__(self, trial: Trial) -> Future[Outcome]:
        self.trials.append(trial)
        future: Future[Outcome] = Future()
        if len(self.trials) - 1 == self.fail_at:
            future.set_exception(self.error)
        else:
            future.set_result(self.oracle(trial.elements))
        return future


def test_runs_to_the_end_and_says_what_came_out() -> None:
    submit, seen = Now(needs(frozenset([37]))), []
    answer = drive(PrefixBisect(range(100)), submit, on_outcome=lambda trial, outcome: seen.append((trial, outcome)))
    assert answer == Answer((frozenset([37]),), True, trials=len(submit.trials))
    assert [trial for trial, _ in seen] == submit.trials and len(seen) <= 7
    assert all((outcome is R) == (37 in trial.elements) for trial, outcome in seen)


def test_a_meter_counts_over_several_searches() -> None:
    meter, submit = Budget(trials=20).start(), Now(needs(frozenset([3, 70])))
    place = next(iter(drive(PrefixBisect(range(100)), submit, meter=meter).culprits[0]))
    assert (place, meter.spent) == (70, 7)
    found = drive(SmallestSubset(range(70), base=frozenset([70])), submit, meter=meter)
    assert found.culprits == (frozenset([3]),)
    assert meter.spent == len(submit.trials) <= 20


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_budget_of_trials_ends_it_with_the_best_so_far(lanes: int) -> None:
    submit, search = Now(needs(frozenset([37]))), PrefixBisect(range(100))
    with pytest.raises(SearchStopped, match="5 trials allowed are used up") as stopped:
        drive(search, submit, meter=Budget(trials=5).start(), lanes=1)
    assert len(submit.trials) == 5
    answer = stopped.value.answer
    assert 37 in answer.culprits[0] and 1 < len(answer.culprits[0]) <= 4
    assert not answer.certain and answer.trials == 5
    assert stopped.value.__cause__ is None


def test_the_budget_of_seconds_does_not_wait_for_trials_under_way() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        started = time.monotonic()
        with pytest.raises(SearchStopped, match=r"the time of 0\.2 s is used up"):
            drive(
                PrefixBisect(range(100)),
                lambda trial: pool.submit(lambda: gate.wait(20) and C),
                lanes=2,
                meter=Budget(seconds=0.2).start(),
            )
        assert time.monotonic() - started < 5
        gate.set()


@pytest.mark.parametrize("error", [RuntimeError("the engine left"), ZeroDivisionError("by zero")])
def test_an_error_carries_the_best_so_far(error: Exception) -> None:
    submit = Now(needs(frozenset([37])), fail_at=3, error=error)
    with pytest.raises(SearchStopped, match=str(error)) as stopped:
        drive(PrefixBisect(range(100)), submit)
    assert stopped.value.__cause__ is error
    assert 37 in stopped.value.answer.culprits[0] and len(stopped.value.answer.culprits[0]) <= 13


def test_an_interruption_carries_the_best_so_far() -> None:
    submit = Now(needs(frozenset([37])), fail_at=3, error=KeyboardInterrupt())
    with pytest.raises(SearchStopped, match="interrupted") as stopped:
        drive(PrefixBisect(range(100)), submit)
    assert isinstance(stopped.value.__cause__, KeyboardInterrupt)
    assert stopped.value.answer.trials == 3


def test_errors_of_those_who_are_called_count_too() -> None:
    def submit(trial: Trial) -> Future[Outcome]:
        raise OSError("no process left")

    def listen(trial: Trial, outcome: Outcome) -> None:
        raise KeyError("journal")

    with pytest.raises(SearchStopped, match="no process left"):
        drive(PrefixBisect(range(9)), submit)
    with pytest.raises(SearchStopped, match="journal") as stopped:
        drive(PrefixBisect(range(9)), Now(needs(frozenset([3]))), on_outcome=listen)
    assert stopped.value.answer.trials == 1
    with pytest.raises(ValueError, match="lane"):
        drive(PrefixBisect(range(9)), submit, lanes=0)


def test_trials_that_have_not_begun_are_cancelled() -> None:
    made: list[Future[Outcome]] = []

    def submit(trial: Trial) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        made.append(future)
        if len(made) == 2:
            future.set_exception(RuntimeError("gone"))
        return future

    with pytest.raises(SearchStopped):
        drive(PrefixBisect(range(100)), submit, lanes=3)
    assert [future.cancelled() for future in made] == [True, False, True]


def test_trials_under_way_are_ignored_once_it_is_done() -> None:
    """Of three cuts of four places the middle two decide; the third never comes back."""

    def submit(trial: Trial) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        if len(trial.elements) < 3:
            future.set_result(R if len(trial.elements) == 2 else C)
        return future

    answer = drive(PrefixBisect(range(4)), submit, lanes=3)
    assert answer.culprits == (frozenset([1]),)


def test_a_search_that_asks_nothing_and_is_not_done_is_stopped() -> None:
    class Stuck:
        done = False
        answer = Answer((), False)

        def ask(self, k: int = 1) -> list[Trial]:
            return []

        def tell(self, trial: Trial, outcome: Outcome) -> None: ...

    with pytest.raises(SearchStopped, match="no more to ask"):
        drive(Stuck(), Now(needs(frozenset())))


def test_lanes_are_refilled_without_rounds() -> None:
    """One slow trial does not keep the other lane idle."""
    busy, most, lock = 0, 0, threading.Lock()

    def work(trial: Trial) -> Outcome:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.4 if len(trial.elements) == 667 else 0.01)
        with lock:
            busy -= 1
        return R if 37 in trial.elements else C

    told: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        answer = drive(
            PrefixBisect(range(1000)),
            lambda trial: pool.submit(work, trial),
            lanes=2,
            on_outcome=lambda trial, _: told.append(len(trial.elements)),
        )
    assert answer.culprits == (frozenset([37]),) and most == 2
    assert told.index(667) > 3 if 667 in told else True


def test_two_lanes_are_worth_as_much_as_two_cuts_at_once() -> None:
    """Trials of nearly equal length: log3 N rounds instead of log2 N."""

    def seconds(lanes: int) -> float:
        with ThreadPoolExecutor(lanes) as pool:
            started = time.monotonic()
            for culprit in (37, 500, 1900):

                def work(trial: Trial, culprit: int = culprit) -> Outcome:
                    time.sleep(0.04 + 0.001 * (len(trial.elements) % 4))
                    return R if culprit in trial.elements else C

                drive(PrefixBisect(range(2000)), functools.partial(pool.submit, work), lanes=lanes)
            return time.monotonic() - started

    assert seconds(2) <= 0.75 * seconds(1)


def test_a_stop_can_be_sent_to_another_process() -> None:
    stopped = SearchStopped(Answer((frozenset([1]),), False, "half way"), "enough")
    again = pickle.loads(pickle.dumps(stopped))
    assert (again.answer, again.reason, str(again)) == (stopped.answer, "enough", "enough")
