"""What is wrong with the simulated TensorRT, and how its undecided traits are settled: one JSON file.

Write a plan in a test with :func:`write`, point the variable ``SIMULATED_TENSORRT_PLAN`` at the file, and every process
that imports ``tensorrt`` plays it. Faults of the library (builds, kernels) are decided when the engine is built and go
into the engine file, as bad kernels do: an engine stays bad wherever it is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

VARIABLE = "SIMULATED_TENSORRT_PLAN"
"""The environment variable that holds the path of the plan; without it everything is healthy."""

WRONG = ("wrong_values", "nan", "fp16_overflow")
"""Effects on the values that an engine layer computes."""
BUILDING = ("build_none", "build_hang", "build_crash")
"""Effects on a build."""
LOADING = ("deserialize_none",)
RUNNING = ("execute_false", "execute_hang", "execute_crash", "cuda_error_sticky")
DECEIVING = ("cache_ignored", "tactic_not_applied", "listener_never_called", "inspector_garbage", "log_truncated")
"""Effects on what the engine and the builder say about themselves."""
EFFECTS = WRONG + BUILDING + LOADING + RUNNING + DECEIVING
MODES = ("bias", "scale", "element", "tile", "transpose")
"""How values are wrong: an offset on all, a factor on all, one element, a tile of 4 x 4, such a tile transposed."""


@dataclasses.dataclass(frozen=True)
class Where:
    """Which engine layers are meant; what is left empty is not asked for."""

    node: str = ""
    """Regular expression for the whole name of an ONNX node that the layer computes, in the body of a Loop, too."""
    op: str = ""
    """The ONNX operator of a node that the layer computes."""
    layer: str = ""
    """Regular expression for the whole name of the engine layer."""
    kernel: str = ""
    """Regular expression searched for in the name of the kernel that was chosen."""
    tactic: str = ""
    """The hash of the tactic that was chosen, ``0x...``."""
    rank: int | None = None
    """The place of the chosen tactic among those of its layer by undisturbed time, 0 for the fastest."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong. It shows when all of its conditions hold."""

    effect: str
    """One of :data:`EFFECTS`."""
    where: Where = Where()
    """The engine layers at fault; for effects that are not on values, one such layer must be in the engine."""
    also: Where | None = None
    """Another engine layer that must be in the same engine: the fault shows only with it."""
    fused_with: tuple[str, ...] = ()
    """Nodes (regular expressions) that must be in the same engine layer: splitting it heals the fault."""
    fused: bool = False
    """The engine layer must compute more than one node."""
    knob: str = ""
    """``-name=value``: shows only while the build route has this knob at this value, by default or by request."""
    level: int | None = None
    """Shows only from this builder optimisation level on."""
    tf32: bool | None = None
    """Shows only with this setting of the flag TF32."""
    profile: int | None = None
    """Shows only under this optimisation profile."""
    non_opt_shape: bool = False
    """Shows only when an input's shape is not the profile's optimum."""
    trip: int = 0
    """At a node in the body of a Loop: shows from this trip on, the first being 0."""
    every: int = 1
    """Shows in each n-th execution only, counted in a context."""
    mode: str = "scale"
    """For ``wrong_values``: one of :data:`MODES`."""
    amount: float = 0.01
    """For ``wrong_values``: relative to the largest magnitude of the tensor; for ``scale`` the factor is 1 + amount."""
    name: str = ""
    """For messages and as the seed of what is drawn."""

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise ValueError(f"there is no effect {self.effect!r}")
        if self.mode not in MODES:
            raise ValueError(f"there is no mode {self.mode!r}")
        for pattern in (self.where.node, self.where.layer, self.where.kernel, *self.fused_with):
            re.compile(pattern)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All faults, and the traits that are different between machines or not known."""

    faults: tuple[Fault, ...] = ()
    timing_seed: int | None = 0
    """Seeds the noise of measured times; None draws it anew in each build, so that builds differ."""
    timing_noise: float = 0.02
    """Standard deviation of measured times, relative."""
    classic: bool = False
    """Convolutions are timed by the classic path: its dialect in the log, and no keys in an editable cache."""
    misses_let_through: int = 0
    """Misses that ERROR_ON_TIMING_CACHE_MISS does not stop in one build."""
    mismatch_warns: bool = False
    """set_timing_cache of another device's cache says True and warns, instead of saying False."""
    all_covers_unfused: bool = False
    """set_all_tensors_debug_state switches the unfused debug tensors, too."""
    hidden_share: float = 0.1
    """Share of unfused tensors that are promised to nobody and never shown."""
    foreign_prefix: bool = True
    """Lines of the compiler's backend carry the prefix ``(foreignNode) ``."""
    log_threads: bool = False
    """Lines are logged from a thread that is not the caller's."""
    device: str = "NVIDIA Simulated GPU"
    """The name of the device; caches of another one do not fit."""
    memory: int = 16 << 30
    """Bytes of device memory."""
    devices: int = 1
    """Number of devices; with 0, ``Builder(logger)`` raises as on a machine without one."""
    rounding: bool = True
    """Kernels of one layer differ by a rounding error of their own."""
    aliased: tuple[tuple[str, str], ...] = ()
    """(output, input) pairs: the output is written over the input and must have its address."""

    on_host: tuple[str, ...] = ()
    """Outputs that hold shapes and lie in host memory."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def from_json(data: dict[str, Any]) -> Plan:
    """A plan from plain data; unknown fields raise TypeError."""
    faults = []
    for row in data.get("faults", ()):
        fields = dict(row)
        fields["where"] = Where(**fields.get("where") or {})
        fields["also"] = Where(**fields["also"]) if fields.get("also") else None
        fields["fused_with"] = tuple(fields.get("fused_with", ()))
        faults.append(Fault(**fields))
    aliased = tuple((output, source) for output, source in data.get("aliased", ()))
    return Plan(**{**data, "faults": tuple(faults), "aliased": aliased, "on_host": tuple(data.get("on_host", ()))})


def write(plan: Plan, path: Path) -> dict[str, str]:
    """Write a plan; returns the environment variable that makes a process play it."""
    path.write_text(json.dumps(plan.to_json(), indent=1))
    return {VARIABLE: str(path)}


def active() -> Plan:
    """The plan that the environment names; healthy without one."""
    path = os.environ.get(VARIABLE)
    return from_json(json.loads(Path(path).read_text())) if path else Plan()
