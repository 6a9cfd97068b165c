"""Plans builds that together show every tactic of every key, and keeps count of what was shown.

Round t pins the t-th tactic of every key, in the order of their times; a key with fewer keeps its last. The tactics
that the builder chose are those of round 0, which is the recorded build itself.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterable, Mapping

from surgeon_debug.runners.tensorrt.tactic_log import TacticRow
from surgeon_debug.runners.tensorrt.tactic_tables import KeyTactics
from surgeon_debug.search.trial import Outcome

Tactic = tuple[str, str]
"""A key and a hash."""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How much of what there is was shown."""

    keys: int
    tactics: int
    """Tactics of all keys."""
    clean: int
    """Tactics that were in a build that is right."""
    failing: int
    """Tactics that were in builds that fail only."""
    unusable: int
    """Tactics with which nothing can be built."""
    alone: int
    """Keys for which the log names no other tactic."""

    @property
    def words(self) -> str:
        """The count as a phrase."""
        shown = self.clean + self.failing
        text = f"{shown:,} of {self.tactics:,} tactics of {self.keys:,} keys were run, {self.clean:,} in a right build"
        text += f", {self.unusable:,} cannot be built with" if self.unusable else ""
        return text + (f"; {self.alone:,} keys offer no choice" if self.alone else "")


class Census:
    """Which assignments to try, and what became of them.

    Args:
        base: What was recorded.
    """

    def __init__(self, base: Mapping[str, KeyTactics]) -> None:
        self._base = base
        self.orders = {key: _order(tactics) for key, tactics in base.items()}
        """The hashes of every key, the recorded one first, then the fastest."""
        self._clean: set[Tactic] = set()
        self._failing: set[Tactic] = set()
        self.unusable: dict[Tactic, str] = {}
        """Tactics with which nothing can be built, and why."""

    @property
    def rounds(self) -> int:
        """How many assignments show everything, the recorded one among them."""
        return max((len(order) for order in self.orders.values()), default=1)

    def round(self, number: int) -> dict[str, str]:
        """The assignment of a round: what was shown already gives way to what was not."""
        shown = self._clean | self._failing
        found = {}
        for key, order in self.orders.items():
            usable = [hash_ for hash_ in order if (key, hash_) not in self.unusable] or order[:1]
            found[key] = usable[min(number, len(usable) - 1)]
            if (key, found[key]) in shown:
                found[key] = next((hash_ for hash_ in usable if (key, hash_) not in shown), found[key])
        return found

    def guess(self, seed: int) -> dict[str, str]:
        """Any assignment, with a tactic from a right build where there is one."""
        draw = random.Random(seed)
        found = {}
        for key, order in self.orders.items():
            usable = [hash_ for hash_ in order if (key, hash_) not in self.unusable] or order[:1]
            right = [hash_ for hash_ in usable if (key, hash_) in self._clean]
            found[key] = draw.choice(right or usable)
        return found

    def note(self, assignment: Mapping[str, str], outcome: Outcome) -> None:
        """Take what became of an assignment."""
        if outcome is Outcome.CLEAN:
            self._clean.update(assignment.items())
        elif outcome is Outcome.REPRODUCES:
            self._failing.update(assignment.items())

    def forbid(self, tactics: Iterable[Tactic], why: str) -> None:
        """Note that nothing can be built with some tactics."""
        self.unusable.update(dict.fromkeys(tactics, why))

    def changed(self, assignment: Mapping[str, str]) -> list[str]:
        """Keys that an assignment gives another tactic than was recorded."""
        return [key for key, hash_ in assignment.items() if hash_ != self._base[key].chosen]

    def coverage(self) -> Coverage:
        """How much was shown so far."""
        every = {(key, hash_) for key, order in self.orders.items() for hash_ in order}
        return Coverage(
            len(self.orders),
            len(every),
            len(every & self._clean),
            len((every & self._failing) - self._clean),
            len(self.unusable),
            sum(len(order) == 1 for order in self.orders.values()),
        )


_FORMAT = re.compile(r"n(?:c|d|h|w|vect)+\w*?(?=_|$)")
"""The part of a kernel's name that tells the order of its tensors: nchw, nhwc, nhwckrsc_nhwc."""


def _order(tactics: KeyTactics) -> list[str]:
    """The tactic in use, then the others: those of its format first, because another one gives neighbours new keys."""
    formats = _formats(tactics.kernel(tactics.chosen))

    def rank(row: TacticRow) -> tuple[bool, float]:
        time = float("inf") if row.milliseconds is None else row.milliseconds
        return _formats(row.kernel) != formats, time

    return list(dict.fromkeys([tactics.chosen, *(row.hash for row in sorted(tactics.rows, key=rank))]))


def _formats(kernel: str) -> tuple[str, ...]:
    return tuple(_FORMAT.findall(kernel.lower()))
