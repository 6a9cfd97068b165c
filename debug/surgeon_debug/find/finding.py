"""The result of a search for culprits, and its form as JSON."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from surgeon_debug.find.oracle import FailureKind, Signature

SCHEMA = "surgeon.find/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""


class FindOutcome(enum.Enum):
    """What a search came to."""

    FOUND = "found"
    """A culprit is named, and verified."""
    NOTHING = "nothing"
    """There is nothing to find."""
    UNDECIDED = "undecided"
    """The search could not decide; nobody is accused."""


@dataclasses.dataclass(frozen=True)
class Culprit:
    """The smallest set of nodes found that fails by itself."""

    nodes: tuple[str, ...]
    """The nodes, in topological order, as messages call them."""
    ops: tuple[str, ...]
    """Their operators."""
    tensors: tuple[str, ...]
    """What they compute that others read."""
    kind: FailureKind
    """How they fail."""
    reason: str
    """What was measured, as a phrase."""
    positions: tuple[int, ...]
    """Positions of the nodes in the main graph's topological order."""
    found_by: str
    """``census``: alone, on the reference's values; ``report``: the engine names it; ``cut``: by cutting the model;
    ``window``: only together."""
    latent: bool = False
    """Whether the model's outputs do not show it."""
    alone: bool | None = None
    """Whether the failure shows with nothing else on the engine under test; None if it was not tried."""
    cured: bool | None = None
    """Whether the model is right when only the culprits are computed by the reference; None if it was not tried."""
    inside: str = ""
    """Where in the node's bodies it begins: the inner node and iteration; empty if not known or not inside one."""
    confidence: float = 1.0
    """The probability of being right where the failure is flaky; else 1."""
    floor: float | None = None
    """Relative L2 of the error that the precision explains, where the census found it by that."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step on the way."""

    name: str
    """``probe``, ``census``, ``report``, ``shown``, ``cut``, ``window``, ``verify``, ``shrink`` or ``bundle``."""
    words: str
    """What came out, as a phrase."""
    trials: int = 0
    builds: int = 0
    runs: int = 0
    reference_runs: int = 0
    cached: int = 0
    """Trials whose outcome was known from before."""
    seconds: float = 0.0


class Costs:
    """A result that says what was done for it; each kind is a dataclass with a field for the steps."""

    steps: tuple[Step, ...]

    @property
    def trials(self) -> int:
        """Trials, those known from before not among them."""
        return sum(step.trials for step in self.steps)

    @property
    def builds(self) -> int:
        """Models or engines that the engine under test compiled."""
        return sum(step.builds for step in self.steps)

    @property
    def runs(self) -> int:
        """Runs of the engine under test."""
        return sum(step.runs for step in self.steps)

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return sum(step.seconds for step in self.steps)


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a search came to, in words."""

    outcome: FindOutcome
    reason: str
    """Why nothing was found or decided, as a sentence; empty if somebody is named."""
    advice: str
    note: str
    """What a reader must know of what is named; empty if nothing."""


def conclude(named: bool, *, nothing: str, undecided: str, advice: str, stopped: str) -> Conclusion:
    """Make the end of a search out of what is known.

    Args:
        named: Whether somebody is.
        nothing: Why there is nobody to find; empty if that is not known.
        undecided: Why it could not be decided.
        advice: What to do about either.
        stopped: Why the search ended before it was over; empty if it did not.
    """
    early = f"the search ended before it was over: {stopped}" if stopped else ""
    if named:
        return Conclusion(FindOutcome.FOUND, "", advice, early)
    if stopped:
        more = "allow it more, and give it a folder with --resume to go on where it was"
        return Conclusion(FindOutcome.UNDECIDED, early, more, "")
    outcome = FindOutcome.NOTHING if nothing else FindOutcome.UNDECIDED
    return Conclusion(outcome, nothing or undecided, advice, "")


@dataclasses.dataclass(frozen=True)
class Finding(Costs):
    """What a search for nodes found."""

    outcome: FindOutcome
    model: str
    reference: str
    target: str
    elements: int
    """How many nodes of the main graph could be to blame."""
    samples: int
    signature: Signature | None
    """The failure of the whole model; None if it does not fail."""
    failure: str
    """That failure as a phrase."""
    culprits: tuple[Culprit, ...]
    """Who is to blame for it, verified; latent faults are among :attr:`latent`."""
    latent: tuple[Culprit, ...]
    """Nodes that compute wrongly although no output shows it."""
    reason: str
    """Why nothing was found or decided, as a sentence; empty if a culprit is named."""
    advice: str
    """What to do next, as a sentence."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    rate: float | None = None
    """The share of runs in which the whole model fails, if not all of them do."""
    bundle: str = ""
    """The file that holds the failure, if one was asked for and made."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        found: dict[str, Any] = {"schema": SCHEMA, "outcome": self.outcome.value}
        plain = dataclasses.asdict(self)
        for name in ("model", "reference", "target", "elements", "samples", "failure", "reason", "advice", "rate"):
            found[name] = plain[name]
        found["signature"] = None if self.signature is None else self.signature.to_json()
        found["culprits"] = [list(culprit.nodes) for culprit in self.culprits]
        found["details"] = [_culprit(culprit) for culprit in (*self.culprits, *self.latent)]
        found["latent"] = [list(culprit.nodes) for culprit in self.latent]
        found["trials"], found["builds"], found["runs"] = self.trials, self.builds, self.runs
        found["seconds"] = round(self.seconds, 3)
        found["steps"] = plain["steps"]
        found["notes"], found["bundle"] = list(self.notes), self.bundle
        return found


def _culprit(culprit: Culprit) -> dict[str, Any]:
    return {**dataclasses.asdict(culprit), "kind": culprit.kind.value}
