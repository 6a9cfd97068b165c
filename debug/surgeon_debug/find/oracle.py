"""What decides a trial, and what is kept of it.

An oracle is made from a spec, which can be sent to another process or machine; the spec's address says everything that
an outcome depends on besides the elements, so that an outcome can be looked up instead of found out again.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Protocol

from surgeon_debug.search.trial import Outcome


class FailureKind(enum.Enum):
    """How a model can fail."""

    WRONG_NUMBERS = "wrong numbers"
    """Outputs differ by more than is allowed."""
    NOT_FINITE = "NaN or Inf"
    """NaN or Inf stand where the reference has none, or the other way round."""
    SHAPE = "wrong shape or type"
    """Outputs cannot be compared."""
    REFUSED = "refused"
    """The engine says it cannot build or run it."""
    CRASHED = "crashed"
    """The engine's process was ended by a signal, or left."""
    HUNG = "hung"
    """It did not finish in time."""
    OUT_OF_MEMORY = "out of memory"
    """It hit its memory cap, or the machine's."""
    CHECK = "check failed"
    """A command said so by its exit code."""

    @property
    def by_values(self) -> bool:
        """Whether the engine delivered values and these are wrong."""
        return self in (FailureKind.WRONG_NUMBERS, FailureKind.NOT_FINITE, FailureKind.SHAPE)


@dataclasses.dataclass(frozen=True)
class Signature:
    """The failure that a search follows; what fails in another way is another failure."""

    kind: FailureKind
    """How it fails."""
    detail: str = ""
    """What else must be the same: the signal's name, or the engine's words without names and numbers."""

    def matches(self, other: Signature) -> bool:
        """Whether another failure is this one.

        Wrong numbers and values that are not finite count as one: what begins as NaN may end as a wrong number.
        """
        values = (FailureKind.WRONG_NUMBERS, FailureKind.NOT_FINITE)
        if self.kind in values and other.kind in values:
            return True
        return self == other

    def to_json(self) -> dict[str, str]:
        """The signature as JSON."""
        return {"kind": self.kind.value, "detail": self.detail}


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """What became of one trial; it survives the process that made it."""

    signature: Signature | None
    """How it failed; None if it did not, or if nobody can tell."""
    unresolved: str = ""
    """Why nobody can tell, as a phrase; empty if somebody can."""
    words: str = ""
    """The failure in one phrase, for people."""
    error: float | None = None
    """Relative L2 of the worst output, where there are numbers."""
    seconds: float = 0.0
    """How long it took."""
    builds: int = 0
    """Models that the engine under test was made to compile."""
    runs: int = 0
    """Times that it was made to run one."""
    reference_runs: int = 0
    """Times that the reference was."""
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Whatever else must be known again, as JSON."""

    def outcome(self, followed: Signature | None) -> tuple[Outcome, str]:
        """The outcome for a search that follows one failure, and why if it is unresolved.

        Args:
            followed: The failure; None if any will do.
        """
        if self.unresolved:
            return Outcome.UNRESOLVED, self.unresolved
        if self.signature is None:
            return Outcome.CLEAN, ""
        if followed is None or followed.matches(self.signature):
            return Outcome.REPRODUCES, ""
        return Outcome.UNRESOLVED, f"fails in another way: {self.words or self.signature.kind.value}"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        found = dataclasses.asdict(self)
        if self.signature is not None:
            found["signature"] = self.signature.to_json()
        found["payload"] = dict(self.payload)
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> TrialRecord:
        """The record that :meth:`to_json` wrote.

        Raises:
            KeyError: A field is missing.
            ValueError: A field holds what no record has.
            TypeError: Likewise.
        """
        values = dict(found)
        signature = values["signature"]
        if signature is not None:
            signature = Signature(FailureKind(signature["kind"]), str(signature["detail"]))
        return cls(**{**values, "signature": signature})


NAMED = "named"
"""In the payload of a trial that an engine refused: the nodes that the engine itself names as the ones it refuses."""

FRESH = 1000
"""Attempts 0, 1000, 2000, ... compile anew; those between may run again what is compiled."""


BUILD = "build"
"""The field of a record's payload that names the compilation that was run."""


class Oracle(Protocol):
    """Decides trials, one at a time."""

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        """Make a trial.

        Args:
            elements: What the suspect computes.
            attempt: Counts repetitions of the same question; see :data:`FRESH`.

        Raises:
            SurgeonError: Something is wrong that has nothing to do with the elements.
        """

    def close(self) -> None:
        """Let go of engines and files."""


class OracleSpec(Protocol):
    """All that is needed to make an oracle; it can be pickled."""

    def address(self) -> str:
        """A digest of everything but the elements that outcomes depend on."""

    def make(self) -> Oracle:
        """Make the oracle, in whatever process this is."""
