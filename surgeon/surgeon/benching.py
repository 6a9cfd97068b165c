"""What ``surgeon bench`` does between reading its options and printing its result."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from surgeon import options
from surgeon.console import talk
from surgeon.running import samples_of
from surgeon_debug.bench import BenchPlan, BenchResult, bench
from surgeon_debug.stage import staged
from surgeon_passes.errors import EngineError
from surgeon_passes.graph import load
from surgeon_passes.spec import parse_size


@dataclasses.dataclass(frozen=True)
class Order:
    """The options of ``surgeon bench``, as typed; see its help."""

    model: Path
    runners: tuple[str, ...]
    feeds: Path | None
    seed: int
    dims: str
    seconds: float
    runs: int
    warmup: float
    streams: int
    layers: bool
    timeout: float | None
    memory_cap: str | None
    allow_external: bool


@dataclasses.dataclass(frozen=True)
class Benched:
    """What was measured."""

    model: Path
    """The model."""
    results: tuple[BenchResult, ...]
    """One for each engine that could be measured, in the order asked for."""
    failed: tuple[tuple[str, str], ...]
    """Engines that could not, and why."""


def perform(order: Order) -> Benched:
    """Measure all engines, one after the other.

    Raises:
        SurgeonError: The model, the inputs or an option do not do, or no engine could be measured.
    """
    model = load(order.model, allow_external=order.allow_external)
    sizes = options.parse_dims(order.dims)
    feeds = samples_of(model, order.feeds, samples=1, seed=order.seed, dims=sizes)[0]
    outputs = [value.name for value in model.graph.outputs if value.name]
    plan = BenchPlan(order.seconds, order.runs, order.warmup, order.streams, order.runs if order.layers else 0)
    cap = parse_size(order.memory_cap) if order.memory_cap else None
    found: list[BenchResult] = []
    failed: list[tuple[str, str]] = []
    first: EngineError | None = None
    with staged(order.model, allow_external=order.allow_external) as path:
        for runner in order.runners:
            with talk().status(f"measuring {runner}"):
                try:
                    found.append(bench(runner, path, outputs, feeds, plan, timeout=order.timeout, memory_cap=cap))
                except EngineError as error:
                    first = first or error
                    failed.append((runner, str(error)))
    if first is not None and not found:
        raise first
    return Benched(order.model, tuple(found), tuple(failed))
