"""Shapes of outputs for concrete inputs, -1 where only the values can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.simulated_tensorrt.compute import NUMPY
from tests.simulated_tensorrt.graph import Graph, infer
from tests.simulated_tensorrt.shape_inputs import data_dependent

Sizes = Mapping[str, tuple[int, ...]]


class OutputShapes:
    """Finds shapes, and remembers those of the inputs that were asked for last.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._asked: Any = None
        self._found: dict[str, tuple[int, ...]] = {}
        self._free: set[str] | None = None

    def of(self, name: str, inputs: Sizes, hosted: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """The shape of an output; -1 for what is not known yet."""
        graph: Graph = self._engine._graph
        declared = tuple(graph.shapes.get(name) or ())
        if graph.shapes.get(name) is not None and -1 not in declared:
            return declared
        lacking = any(-1 in sizes for sizes in inputs.values()) or set(self._engine._hosted) - set(hosted)
        if lacking:
            return declared
        asked = (tuple(sorted(inputs.items())), tuple((n, v.tobytes()) for n, v in sorted(hosted.items())))
        if asked != self._asked:
            self._asked, self._found = asked, self._find(graph, inputs, hosted)
        return self._found[name]

    def _find(self, graph: Graph, inputs: Sizes, hosted: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        if self._free is None:
            self._free = data_dependent(graph)
        outputs = self._engine._engine.outputs
        inferred = infer(graph.model, graph.constants, inputs)[1]
        found = {n: inferred.get(n) for n in outputs}
        if all(s is not None and -1 not in s for n, s in found.items() if n not in self._free):
            return {n: s if s is not None else () for n, s in found.items()}
        dry = self._dry_run(graph, inputs, hosted)
        result = {}
        for name in outputs:
            known = inferred.get(name)
            shape = dry[name]
            result[name] = (known or (-1,) * len(shape)) if name in self._free else shape
        return result

    def _dry_run(self, graph: Graph, inputs: Sizes, hosted: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Run the network on ones: sizes that do not depend on values come out right."""
        from tests.simulated_tensorrt.execution import plain_values

        feeds = {n: hosted.get(n, np.ones(inputs[n], _held(graph, n))) for n in graph.inputs}
        values = plain_values(self._engine, feeds)
        return {n: tuple(values[n].shape) for n in self._engine._engine.outputs}

    def bound(self, name: str, inputs: Sizes, hosted: Mapping[str, np.ndarray]) -> int:
        """At most so many elements that an output can have."""
        shape = self.of(name, inputs, hosted)
        inferred = infer(self._engine._graph.model, self._engine._graph.constants, inputs)[1]
        largest = max((int(np.prod(s)) for s in inferred.values() if s is not None and -1 not in s), default=1)
        return int(np.prod([size if size >= 0 else largest for size in shape], dtype=np.int64))


def _held(graph: Graph, name: str) -> Any:
    kind = graph.types.get(name, "FLOAT")
    return np.float32 if kind in ("HALF", "BF16") else NUMPY[kind]
