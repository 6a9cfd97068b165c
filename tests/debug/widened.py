"""Models without float16, which onnxruntime computes on CPUs in float32, and rounds only where it must.

Which tensors are rounded then depends on where a model is cut and on what is shown, so no two ways to run it agree to
the bit.
"""

from __future__ import annotations

import numpy as np
import onnx


def widened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with float32 for float16 throughout, in bodies and functions too."""
    result = onnx.ModelProto.FromString(proto.SerializeToString())
    stack: list[onnx.GraphProto | onnx.FunctionProto] = [result.graph, *result.functions]
    while stack:
        graph = stack.pop()
        if isinstance(graph, onnx.GraphProto):
            for info in (*graph.input, *graph.output, *graph.value_info):
                if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
                    info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            for tensor in graph.initializer:
                _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16:
                    attribute.i = onnx.TensorProto.FLOAT
                if attribute.HasField("t"):
                    _widen(attribute.t)
                if attribute.HasField("g"):
                    stack.append(attribute.g)
    return result


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.FLOAT16:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
