"""What searches and those who carry out trials say to each other.

Elements are numbers from 0 on. A trial gives some of them to the suspect and the rest to the side that is believed,
and comes to one of three outcomes. A search is asked for trials and told outcomes; it never carries one out.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol


class Outcome(enum.Enum):
    """What a trial came to."""

    REPRODUCES = "reproduces"
    """The failure that is looked for is there."""
    CLEAN = "clean"
    """It is not, and neither is another."""
    UNRESOLVED = "unresolved"
    """Nobody can tell: the trial could not be made, or it failed in another way. It moves no boundary."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A question: does the failure show with these elements?"""

    elements: frozenset[int]
    """What the suspect computes."""
    attempt: int = 0
    """Counts repetitions of the same question, which a flaky failure answers differently."""


class Search(Protocol):
    """A search that says what to try next."""

    def ask(self, k: int = 1) -> Sequence[Trial]:
        """Up to ``k`` trials that are worth making now, each given out once.

        Nothing is returned if the search is done, or if it must be told of trials under way before it can go on.
        """

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take the outcome of a trial that was given out."""

    @property
    def done(self) -> bool:
        """Whether there is nothing more to ask."""

    @property
    def answer(self) -> Answer:
        """The best that is known so far; final once :attr:`done`."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a search knows."""

    culprits: tuple[frozenset[int], ...]
    """Sets of elements that are to blame, each on its own; empty if none is known."""
    certain: bool
    """Whether the outcomes leave nothing else; False where trials were unresolved, or the search is not over."""
    reason: str = ""
    """Why it is not certain, as a phrase."""
    confidence: float = 1.0
    """The probability that it is right, given what the search assumes; 1 where outcomes are not random."""
    trials: int = 0
    """Outcomes taken so far."""
