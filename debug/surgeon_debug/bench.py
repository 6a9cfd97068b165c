"""How long a model takes on an engine: latencies of single runs, throughput, time by layer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug import bench_runner
from surgeon_debug.in_short import in_short
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.values import Feeds
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import quote

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
"""Percentiles of the latency that are reported."""


@dataclasses.dataclass(frozen=True)
class BenchPlan:
    """How to measure."""

    seconds: float = 3.0
    """Seconds to measure, at least."""
    runs: int = 10
    """The fewest runs of each stream."""
    warmup: float = 0.5
    """Seconds to run before."""
    streams: int = 1
    """Streams that run at the same time."""
    layers: int = 0
    """Runs in which layers are timed apart, after the measurement; 0 for none."""


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """What was measured. All times are in seconds."""

    runner: str
    """The engine, as it was asked for."""
    streams: int
    """Streams that ran at the same time."""
    runs: int
    """Runs of all streams together."""
    mean: float
    """Mean latency."""
    deviation: float
    """Its standard deviation."""
    least: float
    """The shortest run."""
    most: float
    """The longest."""
    percentiles: Mapping[float, float]
    """Latency by percentile, see :data:`PERCENTILES`."""
    throughput: float
    """Runs a second, over all streams."""
    prepare: float
    """Time to prepare the model: to load, optimise or build it."""
    first: float
    """Time of the first run, which may include what was put off until then."""
    resident: bool
    """Whether inputs and outputs stayed on the device; else each run includes what the engine does to fetch them."""
    layers: Mapping[str, float]
    """Mean time by layer; empty if the engine does not tell, or was not asked."""


def bench(
    runner: str,
    model: Path,
    outputs: Sequence[str],
    feeds: Feeds,
    plan: BenchPlan,
    *,
    timeout: float | None = None,
    memory_cap: int | None = None,
) -> BenchResult:
    """Measure an engine in a process of its own.

    Args:
        runner: The runner's text.
        model: An ONNX file in binary form.
        outputs: Names of the model's outputs.
        feeds: Its inputs.
        plan: How to measure.
        timeout: Seconds for preparing, and for all of the measurement.
        memory_cap: Bytes of memory for the process.

    Raises:
        BadOptionError: The runner or the plan makes no sense.
        EngineError: The engine refuses the model, fails, or hangs.
    """
    if plan.streams < 1 or plan.runs < 1 or plan.seconds < 0 or plan.warmup < 0 or plan.layers < 0:
        raise BadOptionError("nothing can be measured so", hint="use one stream, one run and no time below 0, at least")
    text = _wrapped(runner, plan)
    with in_short(text, runner), make_engine(text, isolated=True, timeout=timeout, memory_cap=memory_cap) as engine:
        engine.ready()
        engine.prepare(model, [*outputs, bench_runner.LATENCIES, bench_runner.FACTS])
        found = engine.run(feeds)
    facts = json.loads(str(found[bench_runner.FACTS][0]))
    return _result(runner, plan, np.asarray(found[bench_runner.LATENCIES]), facts)


def _wrapped(runner: str, plan: BenchPlan) -> str:
    """The text of the runner that measures another one; where that one runs stays as it was asked for."""
    _, confines = parse_runner(runner)
    options = {
        "runner": runner,
        "seconds": plan.seconds,
        "runs": plan.runs,
        "warmup": plan.warmup,
        "streams": plan.streams,
        "layers": plan.layers,
        "python": confines.python,
        "timeout": confines.timeout,
        "memory_cap": confines.memory_cap,
    }
    said = ",".join(f"{key}={quote(str(value))}" for key, value in options.items() if value is not None)
    return f"{bench_runner.__file__}:Bench:{said}"


def _result(runner: str, plan: BenchPlan, latencies: np.ndarray[Any, Any], facts: Mapping[str, object]) -> BenchResult:
    every = latencies.reshape(-1)
    passed, layers = facts["passed"], facts["layers"]
    assert isinstance(passed, float) and isinstance(layers, dict)
    return BenchResult(
        runner,
        plan.streams,
        int(every.size),
        float(every.mean()),
        float(every.std()),
        float(every.min()),
        float(every.max()),
        {share: float(np.percentile(every, share)) for share in PERCENTILES},
        every.size / max(passed, 1e-9),
        float(str(facts["prepare"])),
        float(str(facts["first"])),
        bool(facts["resident"]),
        {str(name): float(seconds) for name, seconds in layers.items()},
    )
