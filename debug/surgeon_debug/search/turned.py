"""A search that looks for something else: each outcome is told to it as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surgeon_debug.search.trial import Answer, Outcome, Search, Trial

HEALED: Mapping[Outcome, Outcome] = {
    Outcome.CLEAN: Outcome.REPRODUCES,
    Outcome.REPRODUCES: Outcome.CLEAN,
    Outcome.UNRESOLVED: Outcome.UNRESOLVED,
}
"""For a search for what makes a failure go away."""

UNRESOLVED: Mapping[Outcome, Outcome] = {
    Outcome.CLEAN: Outcome.CLEAN,
    Outcome.REPRODUCES: Outcome.CLEAN,
    Outcome.UNRESOLVED: Outcome.REPRODUCES,
}
"""For a search for what makes trials impossible."""


class Turned:
    """Hands a search's trials on, and tells it other outcomes than came out.

    Args:
        search: What searches.
        outcomes: What it is told for each outcome.
    """

    def __init__(self, search: Search, outcomes: Mapping[Outcome, Outcome]) -> None:
        self._search, self._outcomes = search, outcomes

    def ask(self, k: int = 1) -> Sequence[Trial]:
        """What the search asks."""
        return self._search.ask(k)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Tell the search what the outcome stands for."""
        self._search.tell(trial, self._outcomes[outcome])

    @property
    def done(self) -> bool:
        """Whether the search is over."""
        return self._search.done

    @property
    def answer(self) -> Answer:
        """The search's answer; where it says that something fails, that is what was looked for."""
        return self._search.answer
