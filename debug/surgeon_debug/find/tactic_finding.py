"""The result of a search for tactics, and its form as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from surgeon_debug.find.finding import Costs, FindOutcome, Step
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.tactic_census import Coverage

SCHEMA = "surgeon.find-tactic/1"
"""The ``schema`` field of the JSON document; the number changes when a field changes its meaning."""


@dataclasses.dataclass(frozen=True)
class Tactic:
    """One way to compute an op."""

    hash: str
    kernel: str
    """Its kernel's name, which other tactics may share; empty if no log told of it."""
    milliseconds: float | None
    """What the builder measured."""
    error: float | None
    """Relative L2 of the worst output in a build with it; None where there are no numbers."""


@dataclasses.dataclass(frozen=True)
class BadTactic:
    """A key whose tactic is to blame, and what to use instead."""

    op: str
    nodes: tuple[str, ...]
    """The ONNX nodes that it computes; empty if no log told of it."""
    key: str
    bad: Tactic
    good: Tactic
    """The tactic of this key in a build that is right."""


@dataclasses.dataclass(frozen=True)
class TacticCulprit:
    """Tactics that fail together; mostly it is one."""

    members: tuple[BadTactic, ...]
    kind: FailureKind
    reason: str
    """What was measured, as a phrase."""
    alone: bool | None
    """Whether a build that is right but for them fails; None if nobody could tell."""
    cured: bool | None
    """Whether the build is right without all culprits; None likewise."""


@dataclasses.dataclass(frozen=True)
class TacticFinding(Costs):
    """What a search for tactics found."""

    outcome: FindOutcome
    model: str
    reference: str
    target: str
    version: str
    """The engine's version."""
    keys: int
    """Keys in the timing cache of the recorded build."""
    differing: int
    """Keys whose tactic differs between the build that fails and the one that is right."""
    samples: int
    signature: Signature | None
    """The failure of the recorded build; None if it does not fail."""
    failure: str
    culprits: tuple[TacticCulprit, ...]
    coverage: Coverage | None
    """What a census has shown; None if none was made."""
    reason: str
    """Why nothing was found or decided, as a sentence; empty if a culprit is named."""
    advice: str
    moved: tuple[str, ...]
    """Cache keys that did not replay; empty if the build replays."""
    unusable: tuple[tuple[str, str, str], ...]
    """Op, hash and reason of tactics with which nothing can be built."""
    cache: str
    """A file with a timing cache that avoids the bad tactics; empty if there is none."""
    command: str
    """The command that uses it."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    rate: float | None = None
    """The share of runs in which the recorded build fails, if not all of them do."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        plain = dataclasses.asdict(self)
        found: dict[str, Any] = {"schema": SCHEMA, "outcome": self.outcome.value}
        same = ("model", "reference", "target", "version", "keys", "differing", "samples", "failure", "reason")
        found |= {name: plain[name] for name in (*same, "advice", "rate", "cache", "command", "coverage")}
        found["signature"] = None if self.signature is None else self.signature.to_json()
        found["culprits"] = [[n for m in one.members for n in m.nodes or (m.op,)] for one in self.culprits]
        found["details"] = [{**dataclasses.asdict(one), "kind": one.kind.value} for one in self.culprits]
        found["moved"] = list(self.moved)
        found["unusable"] = [dict(zip(("op", "hash", "reason"), one, strict=True)) for one in self.unusable]
        found |= {"trials": self.trials, "builds": self.builds, "runs": self.runs, "seconds": round(self.seconds, 3)}
        found["steps"], found["notes"] = plain["steps"], list(self.notes)
        return found
