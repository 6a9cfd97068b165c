"""The same network in another precision: converted by the pass people use, or quantised with Q/DQ pairs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from surgeon_debug.feeds import make_feeds
from surgeon_passes.convert_precision import ConvertPrecision

_SAMPLES = 2


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, its inputs and outputs in float32."""
    return _converted(model, "float16")


def bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in bfloat16, its inputs and outputs in float32; onnxruntime has no kernels for it on the CPU."""
    return _converted(model, "bfloat16")


def _converted(model: onnx.ModelProto, to: str) -> onnx.ModelProto:
    converted = ir.from_proto(_copy(model))
    ConvertPrecision(to=to)(converted)
    return ir.to_proto(converted)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with Q/DQ pairs around Conv, Gemm and MatMul of the main graph: uint8 activations, int8 weights.

    Scales of activations are from the range that a run on seeded inputs shows, those of weights from each output
    channel. Biases, and what comes out, stay float32.
    """
    proto = _copy(model)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    ranges = _ranges(proto, _activations(proto.graph, weights))
    made: list[onnx.NodeProto] = []
    writer = _Writer(weights, ranges, made)
    for node in proto.graph.node:
        for i in _quantised_inputs(node, weights):
            node.input[i] = writer.through(node.input[i], node, i)
        made.append(node)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(made)
    still = {name for node in made for name in node.input} | _captured(proto.graph)
    proto.graph.initializer.extend(t for t in [*weights.values(), *writer.initializers] if t.name in still)
    onnx.checker.check_model(proto)
    return proto


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _quantised_inputs(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> list[int]:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return []
    # A constant that is no matrix (a table that Gather picked from has been computed) would need another axis.
    return [i for i in (0, 1) if node.input[i] not in weights or len(weights[node.input[i]].dims) in (2, 4)]


def _activations(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> list[str]:
    read = {node.input[i] for node in graph.node for i in _quantised_inputs(node, weights)}
    return sorted(read - set(weights))


def _ranges(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of tensors over some runs on seeded inputs."""
    shown = _copy(model)
    known = {info.name for info in (*shown.graph.output, *shown.graph.input)}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )
    session = ort.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    source = ir.from_proto(model)
    inner = [output.name for output in session.get_outputs() if output.name in names]
    found: dict[str, tuple[float, float]] = {}
    for sample in range(_SAMPLES):
        feeds = make_feeds(source, sample=sample)
        values = {**feeds, **dict(zip(inner, session.run(inner, feeds), strict=True))}
        for name in names:
            low, high = found.get(name, (0.0, 0.0))  # zero has to be a code
            value = values[name]
            found[name] = (min(low, float(value.min(initial=0))), max(high, float(value.max(initial=0))))
    return found


def _captured(graph: onnx.GraphProto) -> set[str]:
    """Names that bodies read."""
    names: set[str] = set()
    stack = [attr.g for node in graph.node for attr in node.attribute if attr.HasField("g")]
    while stack:
        body = stack.pop()
        for node in body.node:
            names.update(node.input)
            stack.extend(attr.g for attr in node.attribute if attr.HasField("g"))
    return names


class _Writer:
    """Writes the pairs, one for each tensor."""

    def __init__(
        self,
        weights: dict[str, onnx.TensorProto],
        ranges: dict[str, tuple[float, float]],
        nodes: list[onnx.NodeProto],
    ) -> None:
        self._weights, self._ranges, self._nodes = weights, ranges, nodes
        self._done: dict[tuple[str, int], str] = {}
        self.initializers: list[onnx.TensorProto] = []

    def through(self, name: str, node: onnx.NodeProto, index: int) -> str:
        """The dequantised form of a tensor that input ``index`` of ``node`` reads."""
        axis = self._axis(node, index) if name in self._weights else -1
        if (name, axis) not in self._done:
            done = self._weight(name, axis) if name in self._weights else self._activation(name)
            self._done[name, axis] = done
        return self._done[name, axis]

    def _axis(self, node: onnx.NodeProto, index: int) -> int:
        """The axis of a weight that output channels are along."""
        transposed = any(attr.name == "transB" and attr.i for attr in node.attribute)
        return 0 if node.op_type == "Conv" or transposed or index == 0 else len(self._weights[node.input[1]].dims) - 1

    def _constant(self, name: str, data: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(data, name))
        return name

    def _activation(self, name: str) -> str:
        low, high = self._ranges[name]
        scale = np.float32(max(high - low, 1e-6) / 255)
        pair = [
            self._constant(f"{name}_scale", np.array(scale)),
            self._constant(f"{name}_zero_point", np.array(np.clip(round(-low / scale), 0, 255), np.uint8)),
        ]
        outputs = f"{name}_quantized", f"{name}_dequantized"
        self._nodes.append(
            helper.make_node("QuantizeLinear", [name, *pair], [outputs[0]], name=f"{name}_QuantizeLinear")
        )
        self._nodes.append(
            helper.make_node("DequantizeLinear", [outputs[0], *pair], [outputs[1]], name=f"{name}_DequantizeLinear")
        )
        return outputs[1]

    def _weight(self, name: str, axis: int) -> str:
        data = numpy_helper.to_array(self._weights[name])
        others = tuple(i for i in range(data.ndim) if i != axis)
        scales = np.maximum(np.abs(data).max(others), 1e-8).astype(np.float32) / np.float32(127)
        shape = [-1 if i == axis else 1 for i in range(data.ndim)]
        codes = np.clip(np.round(data / scales.reshape(shape)), -127, 127).astype(np.int8)
        inputs = [
            self._constant(f"{name}_quantized", codes),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(len(scales), np.int8)),
        ]
        out = f"{name}_dequantized"
        self._nodes.append(
            helper.make_node("DequantizeLinear", inputs, [out], name=f"{name}_DequantizeLinear", axis=axis)
        )
        return out
