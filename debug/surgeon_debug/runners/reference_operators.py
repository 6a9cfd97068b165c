"""Operators that onnx's reference evaluator computes otherwise than engines do, computed as they are meant."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

_SUMS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool")


def mended_operators(opset: int) -> list[Any]:
    """Operators to give to the evaluator as its ``new_ops``.

    Args:
        opset: The version of the default operator set of the model.
    """
    return [*_wide_sums(opset), _loop(), *(_legacy_softmaxes() if opset < 13 else [])]


def _wide_sums(opset: int) -> list[Any]:
    """Reductions that add up in float32 what is narrower, as every engine does.

    The evaluator adds up in the type of the data: in bfloat16 a sum stops growing after 256 equal terms.
    """
    from onnx.reference.ops._op_list import load_op

    return [_widened(name, load_op("", name, opset)) for name in _SUMS]


def _widened(name: str, base: Any) -> Any:
    known = inspect.signature(base._run).parameters

    def run(self: Any, data: Any, *others: Any, **attributes: Any) -> tuple[Any, ...]:
        # The evaluator fills in the attributes of the latest version of an operator that is given to it.
        attributes = {key: value for key, value in attributes.items() if key in known}
        narrow = data.dtype.itemsize < 4 and ("float" in data.dtype.name)
        found: tuple[Any, ...] = base._run(self, data.astype(np.float32) if narrow else data, *others, **attributes)
        return tuple(np.asarray(value).astype(data.dtype) for value in found) if narrow else found

    return type(name, (base,), {"op_domain": "", "_run": run})


def _loop() -> Any:
    """Loop, which the evaluator runs not at all without a condition, and whose scan outputs it joins end to end.

    It also lets a tensor of the graph around the body hide the body's own of the same name.
    """
    from onnx.reference.ops import op_loop

    base: Any = op_loop.Loop

    class Loop(base):  # type: ignore[misc]  # of no type, for it declares arguments by other names
        op_domain = ""

        def _run(self, trips: Any, condition: Any, *initial: Any, **more: Any) -> tuple[Any, ...]:
            graph, context = self.body, more.pop("context", None) or {}
            more.pop("body", None)
            names, carried = graph.input_names, list(initial)
            rows: list[list[Any]] = [[] for _ in range(self.K)]
            going, made = condition is None or bool(condition), 0
            while going and (trips is None or made < trips):
                own = [np.array(made, np.int64), np.array(True), *carried]
                found = self._run_body({**context, **dict(zip(names, own, strict=True))}, **more)
                going = bool(found[0])
                carried = list(found[1 : 1 + self.N])
                for kept, row in zip(rows, found[1 + self.N :], strict=True):
                    kept.append(row)
                made += 1
            return (*carried, *(np.stack(kept) if kept else self._no_rows(k) for k, kept in enumerate(rows)))

        def _no_rows(self, k: int) -> Any:
            """A scan output of a loop that is left at once."""
            from onnx.helper import tensor_dtype_to_np_dtype

            info = self.body.proto_.output[1 + self.N + k].type.tensor_type
            if not info.elem_type:
                return np.empty(0, np.float32)
            dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in info.shape.dim]
            return np.empty((0, *dims), tensor_dtype_to_np_dtype(info.elem_type))

    return Loop


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
