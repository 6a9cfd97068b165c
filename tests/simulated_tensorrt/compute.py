"""The arithmetic of an engine layer: its nodes in one onnxruntime session, floats in 32 bits, rounded once at the end.

Types of 16 bits and doubles are computed in float32 and rounded to the tensor's type where a layer ends, so a fused
group rounds once and the same nodes apart round several times. Explicit casts round where they stand.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.simulated_tensorrt.graph import Graph, bodies, reads

_WIDE = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_TF32_OPERATORS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}
_SMALL = 1 << 20
NUMPY: Mapping[str, Any] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "FP8": np.dtype(ml_dtypes.float8_e4m3fn),
    "INT4": np.dtype(ml_dtypes.int4),
    "FP4": np.dtype(ml_dtypes.float4_e2m1fn),
}
"""Element type in memory by member of DataType."""


def to_tf32(value: np.ndarray) -> np.ndarray:
    """float32 rounded to ten bits of mantissa, to nearest even."""
    if value.dtype != np.float32:
        return value
    bits = np.ascontiguousarray(value).view(np.uint32)
    rounded = (bits + 0x0FFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(value), rounded.view(np.float32), value)


def rounded_to(value: Any, kind: str | None) -> Any:
    """A float32 value rounded to a type of the engine; float32 again."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or kind not in ("HALF", "BF16"):
        return value
    with np.errstate(over="ignore"):
        return value.astype(NUMPY[kind]).astype(np.float32)


class LayerProgram:
    """One engine layer, ready to compute.

    Args:
        graph: The network.
        nodes: Indices of the layer's nodes.
        wanted: Names of its outputs.
        tf32: Whether matrix products and convolutions round their operands to 19 bits.
    """

    def __init__(self, graph: Graph, nodes: Sequence[int], wanted: Sequence[str], tf32: bool) -> None:
        self.graph = graph
        self.nodes = [graph.nodes[i] for i in nodes]
        self.wanted = list(wanted)
        made = {name for node in self.nodes for name in node.output}
        outside = list(dict.fromkeys(n for node in self.nodes for n in reads(node) if n not in made))
        self.inputs = [name for name in outside if name not in graph.constants]
        self._fixed = [name for name in outside if name in graph.constants]
        self._tf32 = self._rounded_operands(made) if tf32 else set()
        self._session: Any = None
        self._kinds: tuple[Any, ...] = ()

    def _rounded_operands(self, made: set[str]) -> set[str]:
        return {
            name
            for node in self.nodes
            if node.op_type in _TF32_OPERATORS
            for name in node.input[:2]
            if name not in made and self.graph.types.get(name, "FLOAT") == "FLOAT"
        }

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the outputs."""
        feeds = {name: values[name] for name in self.inputs}
        for name in self._tf32 & set(self.inputs):
            feeds[name + "::tf32"] = to_tf32(feeds[name])
        kinds = tuple((name, value.dtype.str) for name, value in feeds.items())
        if self._session is None or kinds != self._kinds:
            model = self._model(feeds)
            self._session, self._kinds = (_Reference(model) if self._odd(feeds) else _session(model)), kinds
        used = self._session.used
        results = self._session.run({name: value for name, value in feeds.items() if name in used})
        return {
            name: rounded_to(value, self.graph.types.get(name))
            for name, value in zip(self.wanted, results, strict=True)
        }

    def _odd(self, feeds: Mapping[str, Any]) -> bool:
        """Whether a value at the border has a type that onnxruntime does not hand over."""
        kinds = {self.graph.types.get(name) for name in [*self.wanted, *feeds]}
        return bool(kinds & {"FP8", "INT4", "FP4"})

    def _model(self, feeds: Mapping[str, Any]) -> bytes:
        model = onnx.ModelProto(ir_version=min(self.graph.model.ir_version, 10))
        model.opset_import.extend(self.graph.model.opset_import)
        graph = model.graph
        graph.name = "layer"
        used: set[str] = set()
        for node in self.nodes:
            for made in _lowered(node):
                if node.op_type in _TF32_OPERATORS:
                    made.input[:2] = [n + "::tf32" if n in self._tf32 else n for n in made.input[:2]]
                used |= set(reads(made))
                graph.node.append(made)
        for name in self._fixed:
            if name in used:
                graph.initializer.append(_wide_tensor(self.graph.constants[name]))
            if name + "::tf32" in used:
                exact = numpy_helper.to_array(_wide_tensor(self.graph.constants[name]))
                graph.initializer.append(numpy_helper.from_array(to_tf32(exact), name + "::tf32"))
        for name, value in feeds.items():
            if name in used:
                kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * value.ndim))
        for name in self.wanted:
            graph.output.append(onnx.ValueInfoProto(name=name))
        return bytes(model.SerializeToString())


def _lowered(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node with floats in 32 bits."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    _widen(made)
    if node.op_type == "Cast":
        to = next(a.i for a in node.attribute if a.name == "to")
        if to in _WIDE:
            rounds = to != TensorProto.DOUBLE
            middle = f"{node.output[0]}::rounded"
            first = onnx.helper.make_node("Cast", [node.input[0]], [middle], to=to if rounds else TensorProto.FLOAT)
            return [first, onnx.helper.make_node("Cast", [middle], [node.output[0]], to=TensorProto.FLOAT)]
    return [made]


def _widen(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _WIDE:
            attribute.t.CopyFrom(_wide_tensor(attribute.t))
        if attribute.name in ("to", "dtype", "output_dtype", "stash_type") and attribute.i in _WIDE:
            attribute.i = TensorProto.FLOAT
        for body in bodies(attribute):
            for inner in body.node:
                _widen(inner)
            for tensor in body.initializer:
                if tensor.data_type in _WIDE:
                    tensor.CopyFrom(_wide_tensor(tensor))
            for value in [*body.input, *body.output, *body.value_info]:
                if value.type.tensor_type.elem_type in _WIDE:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _wide_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in _WIDE:
        return tensor
    limits = np.finfo(np.float32)
    exact = np.clip(numpy_helper.to_array(tensor).astype(np.float64), limits.min, limits.max)
    original = numpy_helper.to_array(tensor).astype(np.float64)
    value = np.where(np.isfinite(original), exact, original).astype(np.float32)
    return numpy_helper.from_array(value, tensor.name)


class _Runtime:
    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.used = {value.name for value in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        return list(self._session.run(None, dict(feeds)))


class _Reference:
    """For what onnxruntime does not take."""

    def __init__(self, model: bytes) -> None:
        from onnx.reference import ReferenceEvaluator

        self._evaluator = ReferenceEvaluator(onnx.load_from_string(model))
        self.used = set(self._evaluator.input_names)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        return list(self._evaluator.run(None, dict(feeds)))


def _session(model: bytes) -> Any:
    return _kept(model) if len(model) < _SMALL else _made(model)


@functools.lru_cache(maxsize=2048)
def _kept(model: bytes) -> Any:
    return _made(model)


def _made(model: bytes) -> Any:
    try:
        return _Runtime(model)
    except Exception:  # noqa: BLE001  (onnxruntime raises its own kinds, the reference decides)
        return _Reference(model)
