"""A throw-away model that computes some nodes from constants, and how an engine runs it.

Every value and node gets a short name of its own, because names in the graph may be missing or given twice. Large
constants are fed without a copy, everything else stands in the model.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from surgeon_passes.reads import holds_graphs, values_read

_FED = 4096
"""Constants of more bytes than this are fed."""

_NATIVE = frozenset(range(1, 8)) | frozenset(range(9, 14))
"""ONNX types, by number, that numpy has itself; text is not among them."""


class CannotBuildError(Exception):
    """The nodes cannot be written as a model of their own."""


@dataclasses.dataclass(frozen=True)
class ConstantModel:
    """A model without weights, and its weights."""

    proto: onnx.ModelProto
    """The model; its inputs are the names in ``fed``."""
    fed: Mapping[str, ir.TensorProtocol]
    """Large constants by input name."""
    outputs: Mapping[str, ir.Value]
    """The value in the graph that each output stands for, in order."""


def build_constant_model(
    nodes: Sequence[ir.Node],
    constants: Mapping[ir.Value, ir.TensorProtocol],
    wanted: Sequence[ir.Value],
    opset_imports: Mapping[str, int],
    *,
    feed: bool = True,
) -> ConstantModel:
    """Write nodes as a model.

    Args:
        nodes: In the order of computation; a node that holds bodies comes alone.
        constants: What every value holds that the nodes read and do not make.
        wanted: The values to compute.
        opset_imports: As they hold where the nodes are.
        feed: Feed large constants; otherwise everything is in the model.

    Raises:
        CannotBuildError: Names clash in a node that holds bodies.
    """
    names = _own_names(nodes[0]) if any(holds_graphs(node) for node in nodes) else _Numbered()
    proto = onnx.ModelProto()
    proto.graph.name = "constants"
    for i, node in enumerate(nodes):
        _add_node(proto.graph.node.add(), node, f"n{i}", names)
    fed: dict[str, ir.TensorProtocol] = {}
    for value in dict.fromkeys(v for v in names.read if v in constants):
        _add_constant(proto.graph, names[value], constants[value], fed, feed=feed)
    outputs = {names[value]: value for value in wanted}
    for name in outputs:
        proto.graph.output.add().name = name
    for domain in dict.fromkeys(node.domain for node in nodes):
        default = opset_imports.get("", opset_imports.get("ai.onnx", 1))
        imported = proto.opset_import.add()
        imported.domain, imported.version = domain, opset_imports.get(domain, default if not domain else 1)
    proto.ir_version = _ir_version(proto)
    return ConstantModel(proto, fed, outputs)


class _Numbered(dict[ir.Value, str]):
    """Names by value, made up when first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[ir.Value] = []

    def __missing__(self, value: ir.Value) -> str:
        name = self[value] = f"v{len(self)}"
        return name


def _own_names(node: ir.Node) -> _Numbered:
    """The names that the bodies of a node know its inputs and captured values by."""
    names = _Numbered()
    names.read = values_read(node)
    for value in (*names.read, *node.outputs):
        names[value] = value.name or ""
    given = [name for name in names.values() if name]
    if len(set(given)) != len(given) or not all(value.name for value in names.read):
        raise CannotBuildError("its inputs and captured values do not have names of their own")
    return names


def _add_node(proto: onnx.NodeProto, node: ir.Node, name: str, names: _Numbered) -> None:
    proto.name, proto.op_type, proto.domain = name, node.op_type, node.domain
    for attr in node.attributes.data.values():
        ir.serde.serialize_attribute_into(proto.attribute.add(), attr)
    proto.input.extend("" if value is None else names[value] for value in node.inputs)
    # An output left out stays so: asking for it can turn an operator into its training form.
    proto.output.extend("" if value.name == "" else names[value] for value in node.outputs)
    names.read.extend(value for value in node.inputs if value is not None)


def _add_constant(
    graph: onnx.GraphProto, name: str, tensor: ir.TensorProtocol, fed: dict[str, ir.TensorProtocol], *, feed: bool
) -> None:
    if feed and _can_feed(tensor):
        info = onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy())
        graph.input.append(info)
        fed[name] = tensor
        return
    ir.serde.serialize_tensor_into(graph.initializer.add(), tensor)
    graph.initializer[-1].name = name


def _can_feed(tensor: ir.TensorProtocol) -> bool:
    if tensor.dtype == ir.DataType.STRING:
        return False
    bits = tensor.dtype.bitwidth
    return (int(tensor.dtype) in _NATIVE or bits in (8, 16)) and bits * tensor.size // 8 > _FED


def _ir_version(proto: onnx.ModelProto) -> int:
    """The oldest version that has the types: an older onnxruntime refuses what it has not heard of."""
    types = [tensor.data_type for tensor in proto.graph.initializer]
    types += [a.i for node in proto.graph.node for a in node.attribute if a.name in ("to", "dtype", "output_dtype")]
    newest = max(types, default=1)
    return 10 if newest <= onnx.TensorProto.INT4 else 11 if newest == 23 else min(onnx.IR_VERSION, 13)


def run_onnxruntime(model: ConstantModel) -> dict[ir.Value, ir.TensorProtocol]:
    """Compute every output with onnxruntime, without any of its optimisations.

    Raises:
        Exception: Whatever onnxruntime raises: no kernel, a bad model, a failure at run time.
        CannotBuildError: A result is not a tensor.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: _ort_value(ort, tensor) for name, tensor in model.fed.items()}
    results = session.run_with_ort_values(list(model.outputs), feeds)
    return {value: _from_ort(result) for value, result in zip(model.outputs.values(), results, strict=True)}


def _ort_value(ort: Any, tensor: ir.TensorProtocol) -> Any:
    array = np.ascontiguousarray(tensor.numpy())
    if int(tensor.dtype) in _NATIVE:
        return ort.OrtValue.ortvalue_from_numpy(array)
    raw = array.view(np.uint16 if tensor.dtype.bitwidth == 16 else np.uint8)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, int(tensor.dtype))


def _from_ort(result: Any) -> ir.TensorProtocol:
    if not result.is_tensor():
        raise CannotBuildError("its result is not a tensor")
    dtype, shape = ir.DataType(result.element_type()), tuple(result.shape())
    if dtype == ir.DataType.STRING:
        return ir.StringTensor([text.encode() for text in result.numpy().reshape(-1)], shape=ir.Shape(shape))
    if int(dtype) in _NATIVE:
        return ir.Tensor(result.numpy(), dtype=dtype)
    # numpy cannot name the type: take the bytes, so that every bit of a NaN or of a packed pair stays as it is.
    count = int(np.prod(shape, dtype=np.int64))
    length = (count * dtype.bitwidth + 7) // 8
    raw = np.empty(length, np.uint8)
    if length:
        raw[:] = np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(result.data_ptr()))
    if dtype.bitwidth < 8:
        return ir.PackedTensor(raw, dtype, shape=ir.Shape(shape))
    return ir.Tensor(raw.view(dtype.numpy()).reshape(shape), dtype=dtype)


def run_reference(model: ConstantModel) -> dict[ir.Value, ir.TensorProtocol]:
    """Compute every output with onnx's reference evaluator.

    Raises:
        Exception: Whatever the evaluator raises.
        CannotBuildError: A result is not a tensor of the type inference expects.
    """
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model.proto).run(None, {})
    return {value: _from_numpy(array) for value, array in zip(model.outputs.values(), results, strict=True)}


def _from_numpy(array: Any) -> ir.TensorProtocol:
    if not isinstance(array, np.ndarray | np.generic):
        raise CannotBuildError("its result is not a tensor")
    array = np.asarray(array)
    if array.dtype.kind in "OUS":
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.reshape(-1).tolist()]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape))
    return ir.Tensor(array, dtype=ir.DataType.from_numpy(array.dtype))
