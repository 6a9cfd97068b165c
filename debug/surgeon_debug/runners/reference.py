"""onnx's reference evaluator: slow, in numpy, and as close to the operator definitions as it gets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer
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
        legacy = _legacy_softmaxes() if model.opset_imports.get("", 13) < 13 else []
        self._evaluator = ReferenceEvaluator(proto, new_ops=legacy)
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


def _legacy_softmaxes() -> list[Any]:
    """Softmax, LogSoftmax and Hardmax as they were before opset 13: over everything from ``axis`` on.

    The evaluator has only the later definition, over one axis, and applies it to old models too.
    """
    from onnx.reference.op_run import OpRun

    def flat(op: Any, x: Any, axis: int | None) -> Any:
        # Left out, the axis comes as the later definition's default.
        stated = any(attribute.name == "axis" for attribute in op.onnx_node.attribute)
        at = axis if stated and axis is not None else 1
        rows = math.prod(x.shape[: at if at >= 0 else at + x.ndim])
        return x.reshape(rows, -1) if x.size else x

    class Softmax(OpRun):
        op_domain = ""

        def _run(self, x: Any, axis: int | None = None) -> tuple[Any]:
            rows = flat(self, x, axis)
            powers = np.exp(rows - rows.max(axis=-1, keepdims=True)) if x.size else rows
            return ((powers / powers.sum(axis=-1, keepdims=True)).astype(x.dtype).reshape(x.shape),)

    class LogSoftmax(OpRun):
        op_domain = ""

        def _run(self, x: Any, axis: int | None = None) -> tuple[Any]:
            rows = flat(self, x, axis)
            rows = rows - rows.max(axis=-1, keepdims=True) if x.size else rows
            total = np.log(np.exp(rows).sum(axis=-1, keepdims=True))
            return ((rows - total).astype(x.dtype).reshape(x.shape),)

    class Hardmax(OpRun):
        op_domain = ""

        def _run(self, x: Any, axis: int | None = None) -> tuple[Any]:
            rows = flat(self, x, axis)
            result = np.zeros_like(rows)
            if x.size:
                result[np.arange(len(rows)), rows.argmax(axis=-1)] = 1
            return (result.reshape(x.shape),)

    return [Softmax, LogSoftmax, Hardmax]
