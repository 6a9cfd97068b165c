"""The trials of one search: asked for one by one or by a search algorithm, counted, and held against one failure."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future

from surgeon_debug.find.finding import Step
from surgeon_debug.find.oracle import FRESH, Signature, TrialRecord
from surgeon_debug.find.remember import Remembering
from surgeon_debug.find.trial_pool import TrialPool
from surgeon_debug.search.budget import Meter
from surgeon_debug.search.drive import SearchStopped, drive
from surgeon_debug.search.trial import Answer, Outcome, Search, Trial


@dataclasses.dataclass
class _Counts:
    """What the current step has cost so far."""

    trials: int = 0
    builds: int = 0
    runs: int = 0
    reference_runs: int = 0
    cached: int = 0


class OpenStep:
    """A step under way; its words are set by whoever takes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.words = ""
        self.counts = _Counts()


class Trials:
    """Carries out trials for whoever searches.

    Args:
        pool: Makes them.
        remember: Knows those made before.
        meter: What may still be spent.
        progress: Called with a phrase about where the search is.
    """

    def __init__(
        self, pool: TrialPool, remember: Remembering, meter: Meter, progress: Callable[[str], None] | None = None
    ) -> None:
        self.pool, self.remember, self.meter = pool, remember, meter
        self._progress = progress or (lambda _: None)
        self._lock = threading.Lock()
        self._open = OpenStep("")
        self.steps: list[Step] = []
        """Steps that are over."""
        self.followed: Signature | None = None
        """The failure that is looked for; None for any."""
        self.repeats = 1
        """How often a question is asked before it counts as clean; more than once for flaky failures."""
        self.compile_each = False
        """Whether every attempt compiles anew, because the failure is one of single compilations."""
        self.words: dict[frozenset[int], str] = {}
        """How trials failed, or why nobody can tell, as phrases."""
        self.seen_clean = False
        """Whether any trial was clean that had an element."""
        self.errors: dict[frozenset[int], float] = {}
        """Relative L2 errors of the worst output of trials."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[OpenStep]:
        """Count what happens in the block as one step."""
        started = time.monotonic()
        step = self._open = OpenStep(name)
        self.say("")
        try:
            yield step
        finally:
            seconds = time.monotonic() - started
            self.steps.append(Step(name, step.words, seconds=seconds, **dataclasses.asdict(step.counts)))
            self._open = OpenStep("")

    def count(self, **numbers: int) -> None:
        """Add to what the current step has cost."""
        with self._lock:
            counts = self._open.counts
            for name, number in numbers.items():
                setattr(counts, name, getattr(counts, name) + number)

    def say(self, words: str) -> None:
        """Tell where the search is."""
        step = self._open
        done = f"{step.counts.trials} trials" if step.counts.trials else ""
        self._progress(": ".join(part for part in (step.name, ", ".join(p for p in (done, words) if p)) if part))

    def record(self, elements: frozenset[int], attempt: int = 0) -> TrialRecord:
        """Make one trial; see :meth:`records`."""
        return self.records(elements, (attempt,))[0]

    def records(self, elements: frozenset[int], attempts: Sequence[int]) -> list[TrialRecord]:
        """Ask the same question several times, side by side.

        Args:
            elements: What the suspect computes.
            attempts: Which repetitions; see :data:`surgeon_debug.find.oracle.FRESH`.

        Raises:
            SearchStopped: The budget is spent.
            SurgeonError: Something is wrong that has nothing to do with the elements.
        """
        futures = []
        for attempt in attempts:
            self._spend()
            futures.append(self._submit(elements, attempt))
        return [future.result() for future in futures]

    def ask(self, elements: frozenset[int]) -> Outcome:
        """Whether the failure shows with these elements; asked again while it does not, if it is flaky.

        Raises:
            SearchStopped: The budget is spent.
            SurgeonError: Something is wrong that has nothing to do with the elements.
        """
        return self.ask_all([elements])[0]

    def ask_all(self, questions: list[frozenset[int]]) -> list[Outcome]:
        """Whether the failure shows with each of several sets, side by side."""
        found = []
        for elements in questions:
            self._spend()
            found.append(self._persistent(Trial(elements)))
        return [future.result() for future in found]

    def _spend(self) -> None:
        """Count a trial that no algorithm asked for."""
        if reason := self.meter.exhausted:
            raise SearchStopped(Answer((), False, reason), reason)
        self.meter.spend()

    def search(self, search: Search, *, persistent: bool = True) -> Answer:
        """Let an algorithm search.

        Args:
            search: The algorithm.
            persistent: Ask again while a flaky failure does not show; False for an algorithm that does so itself.

        Raises:
            SearchStopped: The budget is spent; it carries the best answer so far.
        """
        submit = self._persistent if persistent else self._once
        return drive(search, submit, lanes=self.pool.lanes, meter=self.meter, on_outcome=lambda *_: self.say(""))

    def _once(self, trial: Trial) -> Future[Outcome]:
        return self._chained(trial, 1)

    def _persistent(self, trial: Trial) -> Future[Outcome]:
        return self._chained(trial, self.repeats)

    def _chained(self, trial: Trial, attempts: int) -> Future[Outcome]:
        """The outcome of a trial, made again while it is clean."""
        outcome: Future[Outcome] = Future()
        outcome.set_running_or_notify_cancel()  # whoever no longer needs it cannot take it back half way

        def begin(attempt: int) -> None:
            self._submit(trial.elements, attempt).add_done_callback(lambda done: take(done, attempt))

        def take(done: Future[TrialRecord], attempt: int) -> None:
            try:
                found, why = done.result().outcome(self.followed)
                self._note(trial.elements, done.result(), why)
                if found is Outcome.CLEAN and attempt + 1 < trial.attempt + attempts:
                    self.meter.spend()
                    begin(attempt + 1)
                else:
                    outcome.set_result(found)
            except (Exception, CancelledError) as error:  # noqa: BLE001  (whoever waits is to hear of it)
                outcome.set_exception(error)

        begin(trial.attempt)
        return outcome

    def _submit(self, elements: frozenset[int], attempt: int) -> Future[TrialRecord]:
        attempt *= FRESH if self.compile_each else 1
        known = self.remember.recall(elements, attempt)
        if known is not None:
            self.meter.spend(-1)  # what was paid for before costs nothing now
            self.count(cached=1)
            future: Future[TrialRecord] = Future()
            future.set_result(known)
            return future
        # Whoever waits for a future goes on before its callbacks are called; what it cost is to be counted by then.
        counted: Future[TrialRecord] = Future()

        def land(done: Future[TrialRecord]) -> None:
            try:
                record = done.result()
            except (Exception, CancelledError) as error:  # noqa: BLE001  (whoever waits is to hear of it)
                counted.set_exception(error)
                return
            self.count(trials=1, builds=record.builds, runs=record.runs, reference_runs=record.reference_runs)
            counted.set_result(record)

        self.pool.submit(elements, attempt).add_done_callback(land)
        return counted

    def _note(self, elements: frozenset[int], record: TrialRecord, why: str) -> None:
        with self._lock:
            self.words[elements] = why or record.words
            if elements and record.signature is None and not record.unresolved:
                self.seen_clean = True
            if record.error is not None:
                self.errors[elements] = record.error


def stopped_early(search: Callable[[], None]) -> str:
    """Run a search to its end.

    Returns:
        Why it ended before it was over; empty if it did not.

    Raises:
        SurgeonError: What stopped it, if something is wrong that has nothing to do with the elements.
        KeyboardInterrupt: The user has had enough.
        Exception: Whatever else a trial or the search raised: that is a mistake of a program, and no outcome.
    """
    try:
        search()
    except SearchStopped as stop:
        if stop.__cause__ is not None:
            raise stop.__cause__ from None
        return stop.reason
    return ""
