"""onnx's reference evaluator: slow, in numpy, and as close to the operator definitions as it gets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer
from surgeon_debug.runners.reference_operators import mended_operators
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import EngineError


class Reference:
    """Run a model with onnx.reference.ReferenceEvaluator; it has no options.

    It needs the packages that the rest of this project needs, so its environment must hold all of them.
    """

    observes = True

    def __init__(self) -> None:
        self._evaluator: Any = None
        self._wanted: list[str] = []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Read the model, weights included, and make ``outputs`` its outputs."""
        import onnx
        from onnx.reference import ReferenceEvaluator
        from onnx_ir.passes.common import TopologicalSortPass

        from surgeon_passes.graph import load, to_proto

        self.close()
        model = load(model_path, allow_external=True)
        shown = {value.name for value in model.graph.outputs if value.name}
        inner = {value.name for node in model.graph for value in node.outputs if value.name}
        TopologicalSortPass()(model)  # the evaluator takes the nodes as they stand
        proto = to_proto(model)
        hidden = [name for name in dict.fromkeys(outputs) if name in inner and name not in shown]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden)
        self._evaluator = ReferenceEvaluator(proto, new_ops=mended_operators(model.opset_imports.get("", 13)))
        self._wanted = [name for name in dict.fromkeys(outputs) if name in shown or name in inner]

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        if self._evaluator is None:
            raise EngineError("the reference evaluator was asked to run before a model was prepared")
        if not self._wanted:
            return {}
        # Overflow and division by zero are results here, to be compared like any other.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = self._evaluator.run(self._wanted, {name: _numbers(value) for name, value in feeds.items()})
        return dict(zip(self._wanted, values, strict=True))

    def close(self) -> None:
        """Drop the model and its memory."""
        self._evaluator = None


def _numbers(value: Value) -> Value:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value.array() if isinstance(value, Buffer) else value
