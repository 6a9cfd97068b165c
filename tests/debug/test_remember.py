"""What was found out is not found out again; what ended the search is made where it can do no harm."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from surgeon_debug.find.apart import evaluate_apart
from surgeon_debug.find.oracle import TrialRecord
from surgeon_debug.find.remember import ENOUGH, WARY, Remembering
from surgeon_debug.journal import Journal
from surgeon_passes.errors import EngineError, FileError
from tests.debug.logged_oracle import WRONG, LoggedSpec, lines_of
from tests.debug.masked_engine import is_alive

FULL = TrialRecord(
    WRONG, "", "off by 3", math.nan, 0.25, 1, 2, 3, {"worst": math.inf, "of": [1, 2.5, None], "at": {"y": -math.inf}}
)


def never() -> TrialRecord:
    raise AssertionError("it was made again")


def test_a_finished_trial_is_looked_up_in_this_process_and_the_next(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        remember = Remembering("here", journal)
        assert remember.recall({1, 2}) is None
        first = remember.trial(frozenset({1, 2}), 0, lambda: FULL)
        assert repr(first) == repr(FULL)
        assert repr(remember.trial(frozenset({2, 1}), 0, never)) == repr(FULL)
        assert (remember.made, remember.recalled) == (1, 1)
    with Journal(tmp_path) as journal:
        remember = Remembering("here", journal)
        assert repr(remember.trial(frozenset({1, 2}), 0, never)) == repr(FULL)
        assert repr(remember.recall([1, 2])) == repr(FULL)
        assert (remember.made, remember.recalled) == (0, 2)


@pytest.mark.parametrize(
    ("address", "elements", "attempt"),
    [("here", {1, 2}, 1), ("here", {12}, 0), ("here", set(), 0), ("there", {1, 2}, 0)],
)
def test_another_question_is_another_trial(address: str, elements: set[int], attempt: int) -> None:
    journal = Journal(None)
    Remembering("here", journal).trial(frozenset({1, 2}), 0, lambda: FULL)
    clean = TrialRecord(None)
    assert Remembering(address, journal).recall(elements, attempt) is None
    assert Remembering(address, journal).trial(frozenset(elements), attempt, lambda: clean) == clean


def test_trials_that_are_the_same_at_the_same_time_are_made_once() -> None:
    remember = Remembering("here", Journal(None))
    made = []

    def slow() -> TrialRecord:
        made.append(1)
        time.sleep(0.2)
        return FULL

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: remember.trial(frozenset({1}), 0, slow), range(8)))
    assert made == [1]
    assert len({repr(record) for record in found}) == 1
    assert (remember.made, remember.recalled) == (1, 7)


def test_an_error_is_not_remembered_and_reaches_all_who_wait() -> None:
    journal = Journal(None)
    remember = Remembering("here", journal)
    gate = threading.Barrier(3)

    def fails() -> TrialRecord:
        time.sleep(0.2)
        raise EngineError("no such device")

    def ask() -> str:
        gate.wait()
        with pytest.raises(EngineError) as caught:
            remember.trial(frozenset({1}), 0, fails)
        return str(caught.value)

    with ThreadPoolExecutor(3) as threads:
        assert {waiting.result() for waiting in [threads.submit(ask) for _ in range(3)]} == {"no such device"}
    assert remember.trial(frozenset({1}), 0, lambda: FULL, never) is not None


def test_an_error_or_interrupt_does_not_count_as_the_end_of_the_search(tmp_path: Path) -> None:
    def interrupted() -> TrialRecord:
        raise KeyboardInterrupt

    for _ in range(ENOUGH + 1):
        with Journal(tmp_path) as journal, pytest.raises(KeyboardInterrupt):
            Remembering("here", journal).trial(frozenset({1}), 0, interrupted, never)


def begin_and_die(folder: Path, times: int) -> None:
    """As if the search had been killed in the middle of a trial."""
    for _ in range(times):
        with Journal(folder) as journal:
            remember = Remembering("here", journal)
            journal.begin(remember._trial_key([1], 0), "trial")


def test_a_trial_that_was_under_way_each_time_is_made_apart_and_then_not_at_all(tmp_path: Path) -> None:
    begin_and_die(tmp_path / "once", WARY - 1)
    with Journal(tmp_path / "once") as journal:
        assert Remembering("here", journal).trial(frozenset({1}), 0, lambda: FULL, never).signature == WRONG
    begin_and_die(tmp_path / "twice", WARY)
    with Journal(tmp_path / "twice") as journal:
        assert Remembering("here", journal).trial(frozenset({1}), 0, never, lambda: FULL).signature == WRONG
    begin_and_die(tmp_path / "often", ENOUGH)
    with Journal(tmp_path / "often") as journal:
        record = Remembering("here", journal).trial(frozenset({1}), 0, never, never)
        assert record.unresolved == f"it was under way {ENOUGH} times when the search ended"
    with Journal(tmp_path / "often") as journal:
        assert Remembering("here", journal).recall([1]) == record


def test_a_record_of_another_version_is_made_again() -> None:
    journal = Journal(None)
    remember = Remembering("here", journal)
    journal.end(remember._trial_key([1], 0), {"signature": {"kind": "bewitched", "detail": ""}})
    assert remember.recall([1]) is None
    assert remember.trial(frozenset({1}), 0, lambda: FULL).signature == WRONG
    assert remember.trial(frozenset({1}), 0, never).signature == WRONG


def test_steps_are_remembered_by_what_they_depend_on(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        remember = Remembering("here", journal)
        assert remember.remember(["census", 1], lambda: {"worst": math.inf, "at": (1, 2)}) == (
            {"worst": math.inf, "at": [1, 2]},
            False,
        )
        assert remember.remember(["census", "1"], lambda: {"n": 2}) == ({"n": 2}, False)
    with Journal(tmp_path) as journal:
        remember = Remembering("here", journal)
        assert remember.remember(["census", 1], dict) == ({"worst": math.inf, "at": [1, 2]}, True)
        assert remember.remember(["census", "1"], dict) == ({"n": 2}, True)
        assert Remembering("there", journal).remember(["census", 1], dict) == ({}, False)


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    remember = Remembering("here", journal)

    def closes() -> TrialRecord:
        journal.close()
        return FULL

    with pytest.raises(FileError, match="cannot be written"):
        remember.trial(frozenset({1}), 0, closes)


def test_apart_a_trial_says_the_same(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log", rude=3)
    record = evaluate_apart(spec, frozenset({37, 40}), 2)
    assert record.signature == WRONG
    assert lines_of(spec.log, "done") == ["done [37, 40] 2"]
    assert len(lines_of(spec.log, "closed")) == 1
    with pytest.raises(EngineError, match="the disk under it burns"):
        evaluate_apart(spec, frozenset({3}), 0)


def test_apart_a_trial_may_end_its_process(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log", deadly=5)
    record = evaluate_apart(spec, frozenset({5, 37}), 0)
    assert record.signature is None
    assert record.unresolved == "it ended the search itself, and then a process of its own with SIGKILL"


def test_apart_a_trial_can_be_stopped(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=60)
    started = time.monotonic()
    assert evaluate_apart(spec, frozenset(), 0, stop=lambda: bool(lines_of(spec.log, "begin"))).unresolved
    assert time.monotonic() - started < 10
    pid = int(lines_of(spec.log, "begin")[0].split()[1])
    assert not is_alive(pid)


def test_apart_a_trial_that_cannot_be_sent_is_unresolved(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Local(LoggedSpec):
        pass

    assert "cannot be made elsewhere" in evaluate_apart(Local(tmp_path / "log"), frozenset(), 0).unresolved
