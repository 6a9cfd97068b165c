"""What a search has given out and been told, and what follows from it if failures do not heal by adding elements."""

from __future__ import annotations

from surgeon_debug.search.trial import Outcome, Trial


class Ledger:
    """The book of one search: trials under way and outcomes taken."""

    def __init__(self) -> None:
        self.pending: dict[Trial, None] = {}
        """Trials given out and not told yet, oldest first."""
        self.outcomes: dict[frozenset[int], Outcome] = {}
        """What is known of each set of elements; the last outcome, where one was repeated."""
        self.count = 0
        """Outcomes taken."""

    def give(self, trial: Trial) -> Trial:
        """Note that a trial is given out."""
        self.pending[trial] = None
        return trial

    def take(self, trial: Trial, outcome: Outcome) -> None:
        """Note an outcome.

        Raises:
            ValueError: The trial is not under way.
        """
        if trial not in self.pending:
            raise ValueError(f"a trial of {len(trial.elements)} elements was told that is not under way")
        del self.pending[trial]
        self.outcomes[trial.elements] = outcome
        self.count += 1

    def busy(self, elements: frozenset[int]) -> bool:
        """Whether a set is being tried."""
        return any(trial.elements == elements for trial in self.pending)

    def seen_clean(self, elements: frozenset[int]) -> bool:
        """Whether a set is clean because it, or a set that holds it, was."""
        return any(outcome is Outcome.CLEAN and elements <= tried for tried, outcome in self.outcomes.items())

    def seen_failing(self, elements: frozenset[int]) -> bool:
        """Whether a set fails because it, or a part of it, did."""
        return any(outcome is Outcome.REPRODUCES and tried <= elements for tried, outcome in self.outcomes.items())
