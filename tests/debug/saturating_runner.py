"""onnxruntime as it is on x86 processors without VNNI, on any processor: its products of uint8 and int8 saturate.

There the kernel adds two neighbouring products in 16 bits (``vpmaddubsw``) before it widens them, so a sum above 32767
is cut off there: 255 * 127 + 255 * 127 = 64770 becomes 32767. Only layers that onnxruntime fuses into QLinearMatMul or
QLinearConv are computed so; in a model of DequantizeLinear, MatMul and QuantizeLinear that nobody fused, nothing is.

This runner lets onnxruntime optimise the model, with the tensors that are asked for as outputs, which decides what is
fused, and computes the result with onnx's evaluator, and the products of QLinearMatMul as that kernel does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


def saturating_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of uint8 and int8, each pair of products along the sum cut off at 16 bits, then added in 32."""
    missing = a.shape[-1] % 2
    a = np.pad(a.astype(np.int64), [(0, 0)] * (a.ndim - 1) + [(0, missing)])
    b = np.pad(b.astype(np.int64), [(0, missing), (0, 0)])
    pairs = a[..., 0::2, None] * b[0::2] + a[..., 1::2, None] * b[1::2]
    return np.asarray(np.clip(pairs, -32768, 32767).sum(axis=-2))


class QLinearMatMul(OpRun):
    """The operator of that name where b is int8; its zero points are corrected for afterwards, exactly."""

    op_domain = ""

    def _run(self, *given: Any, **_: Any) -> tuple[np.ndarray]:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = given
        if a.dtype != np.uint8 or b.dtype != np.int8 or b.ndim != 2:
            raise TypeError("only products of uint8 and an int8 matrix are known here")
        left, right = int(a_zero), b_zero.astype(np.int64)
        total = saturating_product(a, b) - left * b.sum(axis=0, dtype=np.int64)
        total = total - right * a.sum(axis=-1, dtype=np.int64, keepdims=True) + left * right * a.shape[-1]
        scale = np.float32(np.float32(a_scale * b_scale) / y_scale)  # all of it in float32, as the kernel does
        scaled = np.rint(total.astype(np.float32) * scale) + int(y_zero)
        limits = np.iinfo(y_zero.dtype)
        return (np.clip(scaled, limits.min, limits.max).astype(y_zero.dtype),)


class Saturating:
    """The runner."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.evaluator: Any = None
        self.names: list[str] = []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 4
        optimised = model_path.parent / f"{model_path.stem}.optimised"
        options.optimized_model_filepath = str(optimised)
        ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
        proto = onnx.load(str(optimised))
        optimised.unlink()
        # What came from onnxruntime's own domains would need definitions of its own.
        self.evaluator = ReferenceEvaluator(proto, new_ops=[QLinearMatMul])
        there = {output.name for output in proto.graph.output}
        self.wanted = [name for name in outputs if name in there]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: np.asarray(feeds[name]) for name in self.evaluator.input_names}
        return dict(zip(self.wanted, self.evaluator.run(self.wanted, given), strict=True))
