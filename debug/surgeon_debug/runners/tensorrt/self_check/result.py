"""What a self-check of TensorRT found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from surgeon_debug.runners.tensorrt.self_check.answer import Answer

SCHEMA = "surgeon.tensorrt.selfcheck/1"
"""The ``schema`` of the document; the number changes when a field changes its meaning."""

SAME = 0.01
"""Relative L2 that two tactics of one op may differ by, TF32 allowed."""


@dataclasses.dataclass(frozen=True)
class ModelCheck:
    """One small model, built, recorded and looked into."""

    name: str
    verdict: str
    """``agree``, ``differ``, or ``failed`` where it could not be compared."""
    words: str
    """The first layer that differs, or why it failed; empty if it agrees."""
    layers: int
    """Tensors that fusion has left and that were looked at."""
    disturbed: bool
    """Whether looking inside changed the verdict on an output."""
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it agrees."""
        return self.verdict == "agree"


@dataclasses.dataclass(frozen=True)
class PinCheck:
    """One tactic, written into the timing cache in the place of another."""

    followed: bool | None
    """Whether the engine has it; None if there was none to be had."""
    words: str
    """Which, or why not."""
    key: str = ""
    tactic: str = ""
    """The hash of the pinned one."""
    error: float | None = None
    """Relative L2 of the engine's output against the one with the builder's own choice."""

    @property
    def right(self) -> bool:
        """Whether it was followed as far as it could be tried, and computes what the builder's own choice does."""
        return self.followed is not False and (self.error is None or self.error <= SAME)


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """All of it."""

    system: Mapping[str, Any]
    """Versions of TensorRT and its parser, the device, what the module can do."""
    answers: tuple[Answer, ...]
    models: tuple[ModelCheck, ...]
    pin: PinCheck
    seconds: float

    @property
    def right(self) -> bool:
        """Whether every model agrees and a pinned tactic is followed; what is not known is no fault."""
        return all(model.right for model in self.models) and self.pin.right

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        return {
            "schema": SCHEMA,
            "right": self.right,
            "system": dict(self.system),
            "answers": [answer.to_json() for answer in self.answers],
            "models": [dataclasses.asdict(model) for model in self.models],
            "pin": dataclasses.asdict(self.pin),
            "seconds": round(self.seconds, 3),
        }
