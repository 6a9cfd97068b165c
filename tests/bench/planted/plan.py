"""What a mock engine does, as one JSON file: how it compiles, what it costs, and where it is wrong.

Faults are keyed by the name of a tensor that the node computes, so that they follow the node into any piece of the
model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VALUES, EDITED, NARROW = "values", "edited", "narrow"
CRASH, HANG, REFUSAL = "crash", "hang", "refusal"
BY_VALUES, BY_ENDING = (VALUES, EDITED, NARROW), (CRASH, HANG, REFUSAL)


@dataclasses.dataclass(frozen=True)
class Wrong:
    """One fault of an engine."""

    tensor: str
    """A tensor that the faulty node computes; for a window, the one that leaves it."""
    effect: str
    """``values``: what it computed is changed. ``edited``: the node computes something else. ``narrow``: it computes
    in a narrow type. ``crash``, ``hang``, ``refusal``: the engine does not deliver."""
    corruption: Mapping[str, Any] | None = None
    """For ``values``: the fields of :class:`tests.bench.planted_layers.corrupt.Fault`."""
    edit: Mapping[str, Any] | None = None
    """For ``edited``: ``attributes`` to set, ``inputs`` (a permutation), ``outputs`` (likewise), ``constants``
    (integers by input number), ``op_type``."""
    narrow: str = ""
    """For ``narrow``: ``float16`` or ``bfloat16``; inputs and outputs are rounded to it."""
    window: tuple[str, ...] = ()
    """Tensors of all nodes of a window; the fault is there only where the engine fuses them. Empty for one node."""
    key: str = ""
    """For a tactic fault: the key of the node in the table of tactics."""
    tactic: int = -1
    """The tactic of that key that is wrong."""
    probability: float = 1.0
    """How often it shows."""
    per_build: bool = False
    """Whether chance decides once a build rather than once a run."""
    above: float | None = None
    """For ``values``: the fault shows where the largest value of the right tensor exceeds this; None for always."""
    while_running: bool = False
    """For endings: whether it comes with the first run rather than with the build."""
    shape: tuple[int, ...] = ()
    """For endings: only where the tensor has this shape, as far as the engine can infer shapes; empty for any."""


@dataclasses.dataclass(frozen=True)
class EnginePlan:
    """Everything that a mock engine does."""

    seed: int = 0
    """Decides fusions, tactics and chance."""
    optimize: str = "none"
    """How onnxruntime beneath optimises: ``none``, ``basic``, ``extended`` or ``all``."""
    precision: str = ""
    """``float16`` or ``bfloat16``: results of float32 nodes are rounded to it; empty for the model's own types."""
    fused: float = 0.0
    """The share of tensors with one reader whose two nodes are fused."""
    tactics: int = 1
    """How many tactics each key has."""
    noise: int = 0
    """Stands for the noise in timings: with another number other tactics win."""
    base_seconds: float = 20.0
    """Virtual time of a build of nothing."""
    node_seconds: float = 0.05
    """Virtual time a node adds to a build."""
    limit: float = 1e-4
    """Relative L2 error of an output from which ``check`` calls it bad."""
    real: bool = False
    """Whether a crash kills the process and a hang sleeps; else both are errors that say so."""
    log: str = ""
    """File for one line a build and a run, relative to the plan's folder; empty for none."""
    faults: tuple[Wrong, ...] = ()
    """Where it is wrong."""

    @property
    def by_chance(self) -> bool:
        """Whether chance has a say."""
        return any(fault.probability < 1.0 for fault in self.faults)

    def healthy(self) -> EnginePlan:
        """The same engine without faults."""
        return dataclasses.replace(self, faults=())

    def to_json(self) -> dict[str, Any]:
        """As a JSON document, without what is at its default in faults."""
        found = dataclasses.asdict(self)
        defaults = {field.name: field.default for field in dataclasses.fields(Wrong)}
        found["faults"] = [
            {name: value for name, value in fault.items() if name in ("tensor", "effect") or value != defaults[name]}
            for fault in found["faults"]
        ]
        return found

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1))

    @classmethod
    def read(cls, path: Path) -> EnginePlan:
        """Load what :meth:`write` saved."""
        return cls.from_json(json.loads(path.read_text()))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EnginePlan:
        """The plan that :meth:`to_json` described."""
        lists = ("window", "shape")
        faults = tuple(
            Wrong(**{k: tuple(v) if k in lists else v for k, v in fault.items()}) for fault in found["faults"]
        )
        return cls(**{**found, "faults": faults})
