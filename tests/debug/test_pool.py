"""Lanes make trials side by side, lose none, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from surgeon_debug.find.pool import LocalPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.journal import Journal
from surgeon_passes.errors import BadOptionError, EngineError
from tests.debug.logged_oracle import WRONG, LoggedSpec, lines_of
from tests.debug.masked_engine import EngineSpec, is_alive

ROOT = Path(__file__).parents[2]


def pool_of(spec: LoggedSpec | EngineSpec, lanes: int = 2, journal: Journal | None = None) -> LocalPool:
    return LocalPool(spec, lanes, Remembering(spec.address(), journal or Journal(None)))


def test_every_trial_gets_its_own_record(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=0.002)
    with pool_of(spec, 4) as pool:
        futures = {n: pool.submit(frozenset(range(n))) for n in range(0, 80, 2)}
        for n, future in futures.items():
            assert (future.result(10).signature == WRONG) == (n > 37)
        assert len(lines_of(spec.log, "made")) <= pool.lanes == 4
    assert len(lines_of(spec.log, "closed")) == len(lines_of(spec.log, "made")) > 1


def test_no_oracle_is_made_for_what_is_known(tmp_path: Path) -> None:
    spec, journal = LoggedSpec(tmp_path / "log", seconds=0.01), Journal(None)
    with pool_of(spec, 1, journal) as pool:
        first = pool.submit(frozenset({37}), 1).result(10)
        assert pool.submit(frozenset({37}), 1).done()
    with pool_of(spec, 1, journal) as pool:
        assert pool.submit(frozenset({37}), 1).result(0) == first
    assert len(lines_of(spec.log, "made")) == len(lines_of(spec.log, "done")) == 1


def test_the_same_trial_twice_in_flight_is_made_once(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log")
    with pool_of(spec, 3) as pool:
        futures = [pool.submit(frozenset({1})) for _ in range(6)]
        assert len({repr(future.result(10)) for future in futures}) == 1
    assert len(lines_of(spec.log, "done")) == 1


def test_an_error_in_one_lane_loses_nothing_else(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=0.01, rude=5)
    with pool_of(spec) as pool:
        futures = {n: pool.submit(frozenset({n})) for n in range(30, 50)}
        rude = [pool.submit(frozenset({5}), attempt) for attempt in range(3)]
        futures |= {n: pool.submit(frozenset({n})) for n in range(50, 60)}
        for future in rude:
            with pytest.raises(EngineError, match="the disk under it burns"):
                future.result(10)
        assert [n for n, future in futures.items() if future.result(10).signature] == [37]
    assert len(lines_of(spec.log, "closed")) == len(lines_of(spec.log, "made")) >= 4


def test_an_oracle_that_cannot_be_made_is_an_error_of_the_trial(tmp_path: Path) -> None:
    spec = LoggedSpec(tmp_path / "missing" / "log")
    with pool_of(spec) as pool, pytest.raises(FileNotFoundError):
        pool.submit(frozenset()).result(10)


def test_no_lane_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="0 jobs"):
        pool_of(LoggedSpec(tmp_path / "log"), 0)


@pytest.mark.parametrize("deaf", [False, True])
def test_closed_in_the_middle_it_drops_the_rest_and_notes_nothing(tmp_path: Path, deaf: bool) -> None:
    spec = LoggedSpec(tmp_path / "log", seconds=4 if deaf else 60, deaf=deaf)
    with Journal(tmp_path) as journal:
        pool = pool_of(spec, 2, journal)
        futures = [pool.submit(frozenset({n})) for n in range(6)]
        while len(lines_of(spec.log, "begin")) < 2:
            time.sleep(0.01)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 2.5
        assert not wait(futures, 10).not_done
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)
        with pytest.raises(RuntimeError):
            pool.submit(frozenset())
        pool.close()
        assert journal.ended == 0
        keys = [pool._remember._trial_key([n], 0) for n in range(6)]
        assert [journal.begun(key) for key in keys] == [0] * 6
    assert len(lines_of(spec.log, "begin")) == 2
    assert len(lines_of(spec.log, "closed")) == 2


def test_real_engines_take_trials_side_by_side(tmp_path: Path) -> None:
    spec = EngineSpec(tmp_path, seconds=0.05)
    with pool_of(spec) as pool:
        futures = {n: pool.submit(frozenset(range(n))) for n in range(34, 42)}
        assert [n for n, future in futures.items() if future.result(60).signature] == [38, 39, 40, 41]
    assert len({line.split()[1] for line in lines_of(spec.log, "done")}) == 2


def test_closing_ends_real_engines_at_once(tmp_path: Path) -> None:
    spec = EngineSpec(tmp_path, seconds=60)
    with Journal(tmp_path) as journal:
        pool = pool_of(spec, 2, journal)
        futures = [pool.submit(frozenset({n})) for n in range(2)]
        while len(lines_of(spec.log, "begin")) < 2:
            time.sleep(0.01)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 2
        assert all(isinstance(future.exception(5), CancelledError) for future in futures)
        assert journal.ended == 0
    for line in lines_of(spec.log, "begin"):
        assert not is_alive(int(line.split()[1]))


PROGRAM = """
import sys
from concurrent.futures import wait
from pathlib import Path
from surgeon_debug.find.pool import LocalPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.journal import Journal
from tests.debug.masked_engine import EngineSpec, is_alive

folder = Path(sys.argv[1])
spec = EngineSpec(folder, seconds=60)
try:
    with Journal(folder) as journal, LocalPool(spec, 2, Remembering(spec.address(), journal)) as pool:
        wait([pool.submit(frozenset({n})) for n in range(6)])
except KeyboardInterrupt:
    print("interrupted", journal.ended)
"""


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_program_is_gone_within_two_seconds_with_all_its_processes(
    tmp_path: Path, signal_: signal.Signals
) -> None:
    log = EngineSpec(tmp_path).log
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    )
    while len(lines_of(log, "begin")) < 2:
        assert program.poll() is None
        time.sleep(0.02)
    started = time.monotonic()
    program.send_signal(signal_)
    said, _ = program.communicate(timeout=10)
    assert time.monotonic() - started < 2.5
    assert said == ("interrupted 0\n" if signal_ == signal.SIGINT else "")
    time.sleep(0.2)
    for line in lines_of(log, "begin"):
        assert not is_alive(int(line.split()[1]))
    with Journal(tmp_path) as journal:
        assert journal.ended == 0
