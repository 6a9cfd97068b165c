"""What carries out trials side by side, here or on other machines, as a search sees it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from surgeon_debug.find.oracle import TrialRecord


class TrialPool(Protocol):
    """Takes trials and delivers records; closed when the search is over, however it ends."""

    @property
    def lanes(self) -> int:
        """How many trials are made at the same time; more may be submitted, they wait."""

    def submit(self, elements: frozenset[int], attempt: int = 0) -> Future[TrialRecord]:
        """Have a trial made, unless its record is known.

        Args:
            elements: What the suspect computes.
            attempt: Counts repetitions of the same question.

        Returns:
            A future that holds the record, or the SurgeonError that has nothing to do with the elements, or
            ``CancelledError`` if the pool was closed first.

        Raises:
            RuntimeError: The pool is closed.
        """

    def close(self) -> None:
        """Drop trials that wait, end those under way, let go of all oracles; may be called again."""
