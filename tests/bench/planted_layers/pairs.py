"""The pairs of engines and precisions that faults are planted in, and that healthy networks are compared on."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from surgeon_passes.convert_opset import ConvertOpset
from tests.bench.planted_layers.ground import Pair
from tests.bench.planted_layers.models import bfloat16, half, quantised


def quantised_anew(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantised, at an opset whose DequantizeLinear the reference evaluator has."""
    converted = ir.from_proto(quantised(model))
    ConvertOpset(to=21)(converted)
    return ir.to_proto(converted)


UNOPTIMISED = "onnxruntime:optimize=none"

PAIRS: dict[str, Pair] = {
    pair.name: pair
    for pair in (
        Pair("float32", "onnxruntime"),
        Pair("openvino", "openvino"),
        Pair("float16", "reference", convert=half),
        Pair("bfloat16", "reference", convert=bfloat16),
        Pair("quantised", "onnxruntime", prepare=quantised),
    )
}
"""What faults are planted in: the target's precision, or what is new about it.

float32 is onnxruntime unoptimised against optimised; float16 and bfloat16 are the float32 network against its
conversion, which the reference evaluator computes in that type; quantised is a Q/DQ network on both sides.
"""

HEALTHY: dict[str, Pair] = {
    **PAIRS,
    "float16 on onnxruntime": Pair("float16 on onnxruntime", "onnxruntime", convert=half),
    "quantised against float32": Pair("quantised against float32", UNOPTIMISED, convert=quantised),
    "quantised on openvino": Pair("quantised on openvino", "openvino", prepare=quantised),
    "quantised on reference": Pair("quantised on reference", "reference", prepare=quantised_anew),
}
"""Pairs in which nothing is wrong."""
