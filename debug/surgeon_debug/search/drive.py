"""Carries out a search: hands its trials to whoever makes them, tells it what came out, keeps to the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from surgeon_debug.search.budget import Budget, Meter
from surgeon_debug.search.trial import Answer, Outcome, Search, Trial

LINGER = 0.2
"""How long a free lane waits for trials about to finish, as a share of the trial that freed it.

Trials begun together finish nearly together. A cut that is placed a moment before the other one is known is placed
badly: two lanes that never wait gain 1.25 bits a round, two that do log2 3 = 1.58.
"""


class SearchStopped(Exception):  # noqa: N818 - being stopped is no error
    """A search that ended before it was done; the reason's exception, if there is one, is the ``__cause__``."""

    def __init__(self, answer: Answer, reason: str) -> None:
        super().__init__(reason)
        self.answer = answer
        """The best that was known."""
        self.reason = reason
        """Why it ended, as a phrase."""

    def __reduce__(self) -> tuple[type[SearchStopped], tuple[Answer, str]]:
        return type(self), (self.answer, self.reason)


def drive(
    search: Search,
    submit: Callable[[Trial], Future[Outcome]],
    *,
    lanes: int = 1,
    meter: Meter | None = None,
    on_outcome: Callable[[Trial, Outcome], None] | None = None,
) -> Answer:
    """Run a search to its end.

    Trials do not go in rounds: whenever one has finished, the search is told and asked for another. Trials that are
    still under way when the search is done are cancelled if they have not begun, and ignored if they have.

    Args:
        search: What to run.
        submit: Begins a trial.
        lanes: How many trials may be under way at once.
        meter: What may be spent, counted when a trial begins; None for no limit.
        on_outcome: Called after the search was told.

    Returns:
        The answer.

    Raises:
        SearchStopped: The budget is used up, or a trial, ``submit``, ``on_outcome`` or the search raised, or the user
            interrupted; it holds the best answer so far.
        ValueError: ``lanes`` is not positive.
    """
    if lanes < 1:
        raise ValueError(f"a search needs a lane, not {lanes}")
    flight = _Flight(search, submit, meter or Meter(Budget()), on_outcome)
    try:
        while flight.begin(lanes):
            flight.land()
    except SearchStopped:
        raise
    except KeyboardInterrupt as error:
        raise SearchStopped(search.answer, "it was interrupted") from error
    except Exception as error:
        raise SearchStopped(search.answer, f"{type(error).__name__}: {error}") from error
    finally:
        for future in flight.flying:
            future.cancel()
    return search.answer


class _Flight:
    """The trials under way."""

    def __init__(
        self,
        search: Search,
        submit: Callable[[Trial], Future[Outcome]],
        meter: Meter,
        on_outcome: Callable[[Trial, Outcome], None] | None,
    ) -> None:
        self.search, self.submit, self.meter, self.on_outcome = search, submit, meter, on_outcome
        self.flying: dict[Future[Outcome], tuple[Trial, float]] = {}
        """Each with its trial and when it began, oldest first."""

    def begin(self, lanes: int) -> bool:
        """Fill the free lanes.

        Returns:
            Whether there is something to wait for; otherwise the search is done.

        Raises:
            SearchStopped: Nothing is under way, nothing more can be begun, and the search is not done.
        """
        room = 0 if self.search.done else self.meter.room(lanes - len(self.flying))
        for trial in self.search.ask(room) if room > 0 else ():
            self.meter.spend()
            self.flying[self.submit(trial)] = (trial, time.monotonic())
        if self.search.done:  # Asking may have shown that all is known.
            return False
        if not self.flying:
            reason = self.meter.exhausted or "the search has no more to ask, but is not done"
            raise SearchStopped(self.search.answer, reason)
        return True

    def land(self) -> None:
        """Wait until something has finished, and tell the search.

        Raises:
            SearchStopped: The time is up.
        """
        done, others = wait(self.flying, timeout=self.meter.seconds_left, return_when=FIRST_COMPLETED)
        if not done:
            raise SearchStopped(self.search.answer, self.meter.exhausted or "the time is used up")
        if others and len(self.flying) > 1:
            longest = max(time.monotonic() - self.flying[future][1] for future in done)
            patience = longest * LINGER
            left = self.meter.seconds_left
            wait(others, timeout=patience if left is None else min(patience, left))
        # In the order in which they began, so that nothing depends on the order of a set.
        for future in [future for future in self.flying if future.done()]:
            outcome = future.result()
            trial, _ = self.flying.pop(future)
            self.search.tell(trial, outcome)
            if self.on_outcome is not None:
                self.on_outcome(trial, outcome)
