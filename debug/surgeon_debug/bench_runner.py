"""A runner around a runner, which runs it many times in its own process and returns how long that took.

What is measured is the engine alone: nothing crosses from process to process between two runs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.runners.catalogue import make_runner
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.values import Feeds, Value

LATENCIES = "surgeon.bench.latencies"
"""Under this name come the seconds of each run, one row a stream."""
FACTS = "surgeon.bench.facts"
"""Under this name comes a JSON text: seconds to prepare and for the first run, over all, layers, how it was run."""

_LEAST = 1e-9


class Bench:
    """Measure a runner.

    Args:
        runner: The text of the runner to measure.
        seconds: How long to measure, at least.
        runs: The fewest runs of each stream.
        warmup: Seconds to run before.
        streams: How many streams run at the same time, each in a thread.
        layers: Runs for which the layers are timed apart; 0 for none.
    """

    observes = True

    def __init__(
        self, runner: str, seconds: float = 3.0, runs: int = 10, warmup: float = 0.5, streams: int = 1, layers: int = 0
    ) -> None:
        self._engine = Engine(runner, make_runner(parse_runner(runner)[0]))
        self._seconds, self._runs, self._warmup, self._streams, self._layers = seconds, runs, warmup, streams, layers
        self._prepared = 0.0

    @property
    def precision(self) -> str | None:
        """The runner's own."""
        return self._engine.precision

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Prepare the runner for the model's outputs."""
        started = time.perf_counter()
        self._engine.prepare(model_path, [name for name in outputs if name not in (LATENCIES, FACTS)])
        self._prepared = time.perf_counter() - started

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Measure; returns latencies and facts instead of outputs."""
        started = time.perf_counter()
        self._engine.fetch(feeds)
        first = time.perf_counter() - started
        repeat = [self._repeater(feeds) for _ in range(self._streams)]
        for again in repeat:
            _until(again, self._warmup / self._streams, 1)
        latencies, passed = self._measure(repeat)
        facts = {
            "prepare": self._prepared,
            "first": first,
            "passed": passed,
            "resident": hasattr(self._engine.runner, "repeater"),
            "layers": self._layer_times(feeds),
        }
        length = min(map(len, latencies))
        table = np.array([row[:length] for row in latencies], np.float64)
        return {LATENCIES: table, FACTS: np.array([json.dumps(facts)], dtype=object)}

    def _repeater(self, feeds: Feeds) -> Callable[[], None]:
        """One run without what surrounds it, if the runner has such a thing; else one run as it is."""
        made = getattr(self._engine.runner, "repeater", None)
        if made is not None:
            found: Callable[[], None] = made(feeds)
            return found
        return lambda: _drop(self._engine.runner.run(feeds))

    def _measure(self, repeat: Sequence[Callable[[], None]]) -> tuple[list[list[float]], float]:
        """Seconds of each run by stream, and over all."""
        rows: list[list[float]] = [[] for _ in repeat]
        errors: list[BaseException] = []
        gate = threading.Barrier(len(repeat) + 1)

        def work(i: int) -> None:
            gate.wait()
            try:
                rows[i] += _until(repeat[i], self._seconds, self._runs)
            except BaseException as error:  # noqa: BLE001  (raised again where somebody waits)
                errors.append(error)

        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(repeat))]
        for thread in threads:
            thread.start()
        gate.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        passed = time.perf_counter() - started
        if errors:
            raise errors[0]
        return rows, passed

    def _layer_times(self, feeds: Feeds) -> dict[str, float]:
        asked = getattr(self._engine.runner, "layer_times", None)
        return {} if asked is None or not self._layers else dict(asked(feeds, self._layers))

    def close(self) -> None:
        """Close the runner."""
        self._engine.close()


def _drop(values: Any) -> None:
    del values


def _until(again: Callable[[], None], seconds: float, runs: int) -> list[float]:
    """Run for some time and some times at least; returns the seconds of each run."""
    found: list[float] = []
    begin = before = time.perf_counter()
    while before - begin < seconds or len(found) < runs:
        again()
        now = time.perf_counter()
        found.append(max(now - before, _LEAST))
        before = now
    return found
