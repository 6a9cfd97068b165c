"""Finds the element that makes a failure appear when the failure shows in a share of the runs only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from surgeon_debug.search.ledger import Ledger
from surgeon_debug.search.posterior import Posterior
from surgeon_debug.search.trial import Answer, Outcome, Trial

RATES = (0.03, 0.05, 0.075, 0.1, 0.14, 0.19, 0.25, 0.32, 0.4, 0.5, 0.62, 0.75, 0.9, 0.98)
"""Shares of failing runs that are considered."""
UNSEEN = 100
"""Runs without a failure, after a place has become probable by exclusion alone, that end the search."""


class NoisyBisect:
    """Probabilistic bisection over prefixes, with the rate of the failure learned on the way.

    *Assumption*: runs are independent; a prefix without the culprit fails with ``false_rate``, one with it at a rate
    that does not depend on its length. *Bound*: log2 N / C runs, where C is the capacity of that channel in bits a run
    (:func:`~surgeon_debug.search.information.capacity`; 0.18 at a rate of 30 %). At N = 500 and 99 % it takes 1.1 to
    1.25 times that on average if the rate is known, or was seen in so many runs of the whole that about 25 of them
    failed; 1.25 to 1.5 times after 8 to 15 failures, and 1.7 to 1.9 times without any idea of the rate. So where a run
    is cheap beside a build, run the whole often before.

    Each cut is the one that is expected to tell most about the place, by its price. A cut may be asked again and again;
    ``Trial.attempt`` counts. UNRESOLVED says nothing of the place; that cut is not asked again.

    Args:
        order: The elements, each after those it needs.
        rate: The share of runs in which all of ``order`` was seen to fail, if that was tried.
        rate_runs: In how many runs it was seen.
        confidence: How probable a place must be to be the answer.
        base: Elements that are in every trial.
        false_rate: The share of runs that fail without the culprit.
        repeat_price: What a cut costs that was asked before, relative to a new one, whose engine must be built.
        most: Runs after which the search gives up.

    Raises:
        ValueError: There is no element or one stands twice, or a number is out of range.
    """

    def __init__(
        self,
        order: Sequence[int],
        *,
        rate: float | None = None,
        rate_runs: int = 30,
        confidence: float = 0.99,
        base: frozenset[int] = frozenset(),
        false_rate: float = 0.0,
        repeat_price: float = 1.0,
        most: int = 2000,
    ) -> None:
        if not order or len({*order, *base}) != len(order) + len(base):
            raise ValueError("there is no element, or one stands twice, or in the base too")
        if not (0 <= false_rate < 1 and 0.5 < confidence < 1 and 0 < repeat_price <= 1):
            raise ValueError("a rate, the confidence or the price of a repetition is out of range")
        if rate is not None and not false_rate < rate <= 1:
            raise ValueError(f"a rate of {rate:g} cannot be told from failing without the culprit at {false_rate:g}")
        self._order, self._base = tuple(order), base
        self._confidence, self._price, self._most = confidence, repeat_price, most
        known = [min(max(rate, 0.01), 0.99)] if rate is not None else []
        rates = sorted({*(value for value in RATES if value > 1.5 * false_rate), *known}) or [(1 + false_rate) / 2]
        self._posterior = Posterior(len(order), _prior(rates, rate, rate_runs), false_rate)
        self._ledger = Ledger()
        self._attempts: dict[int, int] = {}
        self._blocked: set[int] = set()
        self._patience = 2 * math.ceil(math.log2(len(order))) + 8
        self._stuck = False
        self._latest, self._unseen = 0, 0

    @property
    def rate(self) -> float:
        """The expected share of runs that fail with the culprit."""
        return self._posterior.rate

    def ask(self, k: int = 1) -> list[Trial]:
        """The ``k`` best runs; for each next one those under way are taken to come out as is likelier."""
        found: list[Trial] = []
        if self.done or k < 1:
            return found
        belief = self._posterior
        for trial in self._ledger.pending:
            belief = belief.likelier(self._cut(trial))
        while len(found) < k:
            cut = self._choose(belief)
            if cut is None:
                break
            attempt = self._attempts.get(cut, 0)
            self._attempts[cut] = attempt + 1
            found.append(self._ledger.give(Trial(self._base | frozenset(self._order[:cut]), attempt)))
            if len(found) < k:
                belief = belief.likelier(cut)
        if not found and not self._ledger.pending:
            self._stuck = True
        return found

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome."""
        self._ledger.take(trial, outcome)
        cut = self._cut(trial)
        if outcome is Outcome.UNRESOLVED:
            self._blocked.add(cut)
        else:
            self._posterior.learn(cut, outcome is Outcome.REPRODUCES)
            self._latest = max(self._latest, cut) if outcome is Outcome.REPRODUCES else self._latest
        first, last = self._posterior.likeliest(self._blocked)
        if self._probable and self._latest < last:
            self._unseen += 1
        if not self._ledger.pending and not self._settled:
            probable = self._posterior.between(first, last) >= self._confidence and last - first > 1
            crowded = sum(first < cut < last for cut in self._blocked) > self._patience
            self._stuck = probable or crowded or self._unseen > UNSEEN or self._choose(self._posterior) is None

    @property
    def done(self) -> bool:
        """Whether a place is probable enough, or nothing that could be asked would tell more."""
        return self._settled or self._stuck or self._ledger.count >= self._most

    @property
    def answer(self) -> Answer:
        """The likeliest place, with its probability; certain if that reaches the confidence asked for."""
        if not self._ledger.count:
            return Answer((), certain=False, reason="the search is not over", confidence=0.0)
        first, last = self._posterior.likeliest(self._blocked if self._stuck else set())
        probability = self._posterior.between(first, last)
        reason = ""
        if not self._settled:
            reason = "the search is not over"
            if self._stuck:
                seen = self._latest >= last
                reason = "cuts in between could not be resolved" if seen else "the failure did not show"
            elif self._ledger.count >= self._most:
                reason = f"no place became probable in {self._most} runs"
        culprit = frozenset(self._order[first:last])
        return Answer((culprit,), not reason, reason, confidence=probability, trials=self._ledger.count)

    @property
    def _probable(self) -> bool:
        first, last = self._posterior.likeliest(set())
        return self._posterior.between(first, last) >= self._confidence

    @property
    def _settled(self) -> bool:
        return self._probable and self._latest >= self._posterior.likeliest(set())[1]

    def _choose(self, belief: Posterior) -> int | None:
        """The cut that tells most; once a place is probable that was never seen to fail, the cut that would show it."""
        if self._probable:
            _, last = self._posterior.likeliest(self._blocked)
            return last if last not in self._blocked else None
        return belief.best_cut(self._attempts, self._blocked, self._price)

    def _cut(self, trial: Trial) -> int:
        return len(trial.elements) - len(self._base)


def _prior(rates: Sequence[float], rate: float | None, runs: int) -> dict[float, float]:
    """The belief in each rate: even, or as after runs of which the given share failed."""
    if rate is None:
        return dict.fromkeys(rates, 1 / len(rates))
    logs = {value: runs * (rate * math.log(value) + (1 - rate) * math.log(1 - value)) for value in rates}
    top = max(logs.values())
    weights = {value: math.exp(each - top) for value, each in logs.items()}
    whole = sum(weights.values())
    return {value: weight / whole for value, weight in weights.items()}
