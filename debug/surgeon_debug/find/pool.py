"""Trials side by side on this machine: lanes, each with an oracle of its own.

Lanes are threads. What takes time happens in the processes of engines, and a thread that waits for one holds up
nobody. They are daemons, so that nothing keeps an interrupted program from leaving; engines end with it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
import time
from concurrent.futures import CancelledError, Future
from types import TracebackType

from surgeon_debug.find.apart import evaluate_apart
from surgeon_debug.find.oracle import Oracle, OracleSpec, TrialRecord
from surgeon_debug.find.remember import Remembering
from surgeon_passes.errors import BadOptionError

_log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for engines that have nothing to do to say goodbye
_SHORT_PATIENCE = 1.5  # seconds for an oracle that knows no way to stop
_TICK = 0.1


@dataclasses.dataclass(frozen=True)
class _Job:
    """A trial that waits for a lane."""

    elements: frozenset[int]
    attempt: int
    future: Future[TrialRecord]


class LocalPool:
    """Makes trials in lanes on this machine; see :class:`surgeon_debug.find.trial_pool.TrialPool`.

    An oracle may have a method ``abort()``: called from another thread, at any time and more than once, it makes a
    trial under way end soon, in whatever way. Without it, a pool that is closed waits a moment and leaves the trial to
    itself; its outcome is dropped, and its oracle closed when it comes to an end.

    Args:
        spec: Makes the oracle of each lane, in that lane, when it is first needed.
        lanes: How many trials to make at the same time.
        remember: Where trials are looked up and noted.
        apart: Make a trial that was under way each time the search was ended in a process of its own.

    Raises:
        BadOptionError: There is to be no lane at all.
    """

    def __init__(self, spec: OracleSpec, lanes: int, remember: Remembering, *, apart: bool = True) -> None:
        if lanes < 1:
            raise BadOptionError(f"with {lanes} jobs at a time nothing is done", hint="give 1 or more")
        self._spec = spec
        self._lanes = lanes
        self._remember = remember
        self._apart = apart
        self._jobs: collections.deque[_Job] = collections.deque()
        self._change = threading.Condition()
        self._idle = 0
        self._closed = False
        self._threads: list[_Lane] = []

    @property
    def lanes(self) -> int:
        """How many trials are made at the same time."""
        return self._lanes

    def submit(self, elements: frozenset[int], attempt: int = 0) -> Future[TrialRecord]:
        """Have a trial made, unless its record is known; see :meth:`TrialPool.submit`."""
        future: Future[TrialRecord] = Future()
        known = self._remember.recall(elements, attempt)
        with self._change:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if known is not None:
                future.set_result(known)
                return future
            self._jobs.append(_Job(elements, attempt, future))
            if self._idle < len(self._jobs) and len(self._threads) < self._lanes:
                lane = _Lane(self, len(self._threads))
                self._threads.append(lane)
                lane.start()
            self._change.notify()
        return future

    def close(self) -> None:
        """Drop trials that wait, end those under way, close all oracles."""
        with self._change:
            self._closed = True
            jobs = list(self._jobs)
            self._jobs.clear()
            self._change.notify_all()
        for job in jobs:
            job.future.cancel()
            job.future.set_running_or_notify_cancel()  # who waits for several is not told before
        begin = time.monotonic()
        for lane in self._threads:
            # Again and again: what is ended in the middle of a trial may be started anew by what comes next in it.
            while lane.is_alive():
                patience = _PATIENCE if lane.abort() else _SHORT_PATIENCE
                if time.monotonic() > begin + patience:
                    _log.warning("a trial did not stop and is left to itself")
                    break
                lane.join(_TICK)

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> _Job | None:
        """The next trial, when there is one; None when the pool is closed."""
        with self._change:
            self._idle += 1
            try:
                while not self._jobs and not self._closed:
                    self._change.wait()
                return None if self._closed else self._jobs.popleft()
            finally:
                self._idle -= 1


class _Lane(threading.Thread):
    """Makes one trial after the other."""

    def __init__(self, pool: LocalPool, number: int) -> None:
        super().__init__(name=f"surgeon-lane-{number}", daemon=True)
        self._pool = pool
        self._oracle: Oracle | None = None
        self._busy = False

    def run(self) -> None:
        """Work until the pool is closed."""
        try:
            while (job := self._pool._next()) is not None:
                if job.future.set_running_or_notify_cancel():
                    self._carry_out(job)
        finally:
            self._let_go()

    def abort(self) -> bool:
        """Have the trial under way end soon, if there is one; whether that can be done."""
        oracle = self._oracle
        stop = getattr(oracle, "abort", None)
        if stop is not None and self._busy:
            try:
                stop()
            except Exception:  # noqa: BLE001  (whatever it is, the others are to be stopped as well)
                _log.warning("a trial could not be stopped", exc_info=True)
                return False
        return stop is not None or not self._busy

    def _carry_out(self, job: _Job) -> None:
        pool = self._pool
        wary = (lambda: self._evaluate_apart(job)) if pool._apart else None
        self._busy = True
        try:
            record = pool._remember.trial(job.elements, job.attempt, lambda: self._evaluate(job), wary)
        except BaseException as error:  # noqa: BLE001  (whoever waits for the trial is to hear of it)
            self._let_go()  # nobody knows what state it is in
            self._busy = False
            job.future.set_exception(error)
        else:
            self._busy = False  # before anybody hears of it: what is closed then must not end an engine at rest
            job.future.set_result(record)

    def _evaluate(self, job: _Job) -> TrialRecord:
        if self._oracle is None:
            self._oracle = self._pool._spec.make()
        self._stop_if_closed()
        try:
            record = self._oracle.evaluate(job.elements, job.attempt)
        except Exception:
            self._stop_if_closed()
            raise
        self._stop_if_closed()  # it may have been the closing that made it fail
        return record

    def _evaluate_apart(self, job: _Job) -> TrialRecord:
        record = evaluate_apart(self._pool._spec, job.elements, job.attempt, stop=lambda: self._pool._closed)
        self._stop_if_closed()
        return record

    def _stop_if_closed(self) -> None:
        if self._pool._closed:
            raise CancelledError("the pool was closed")

    def _let_go(self) -> None:
        oracle, self._oracle = self._oracle, None
        if oracle is not None:
            with contextlib.suppress(Exception):
                oracle.close()
