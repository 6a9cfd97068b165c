"""How much a search may cost, and what it has cost so far."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a search may cost; what is None is not limited.

    Raises:
        ValueError: A limit is negative.
    """

    trials: int | None = None
    """Trials that may be begun."""
    seconds: float | None = None
    """Wall time, in seconds."""

    def __post_init__(self) -> None:
        if (self.trials is not None and self.trials < 0) or (self.seconds is not None and not self.seconds >= 0):
            raise ValueError(f"a budget cannot be negative: {self}")

    def start(self, clock: Callable[[], float] = time.monotonic) -> Meter:
        """A meter that runs from now on.

        Args:
            clock: Seconds from any beginning, which never go back.
        """
        return Meter(self, clock)


class Meter:
    """What of a budget is spent. Several searches in a row may share one."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.spent = 0
        """Trials begun."""
        self._clock = clock
        self._began = clock()

    def spend(self, trials: int = 1) -> None:
        """Note that trials are begun."""
        self.spent += trials

    @property
    def seconds(self) -> float:
        """Wall time since the start, in seconds."""
        return self._clock() - self._began

    @property
    def trials_left(self) -> int | None:
        """Trials that may still be begun; None if they are not limited."""
        return None if self.budget.trials is None else max(0, self.budget.trials - self.spent)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that are left; None if they are not limited."""
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.seconds)

    def room(self, lanes: int) -> int:
        """How many of ``lanes`` trials may be begun now."""
        if self.seconds_left == 0:
            return 0
        left = self.trials_left
        return lanes if left is None else min(lanes, left)

    @property
    def exhausted(self) -> str:
        """Which limit is reached, as a phrase; empty if none is."""
        if self.seconds_left == 0:
            return f"the time of {self.budget.seconds:g} s is used up"
        if self.trials_left == 0:
            return f"the {self.budget.trials} trials allowed are used up"
        return ""
