"""Which values of a graph are constants, and what they hold, without reading weights that nobody asked for."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from surgeon_passes.walk import Scope, is_onnx_op


def constant_of(value: ir.Value | None, *, overridable: bool = False) -> ir.TensorProtocol | None:
    """The tensor a value always holds, or None if it is not a constant.

    Constants are initializers and outputs of ``Constant`` nodes. An initializer that is also a graph input is a
    default that the caller of the model may override: it counts only with ``overridable``. Sparse and referenced
    (``ref_attr_name``) constants do not count. The data is not read.

    Args:
        value: Any value, or None for an omitted optional input.
        overridable: Whether initializers that are also graph inputs count as constants.
    """
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        if value.is_graph_input() and not overridable:
            return None
        return value.const_value if value.is_initializer() else None
    if not is_onnx_op(producer, "Constant"):
        return None
    return constant_tensor(producer)


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The dense tensor a ``Constant`` node makes, in the type its attribute stands for; None for any other.

    A single float is float32 and a single integer int64, as the operator says. Texts keep every byte.
    """
    if len(node.attributes) != 1 or len(node.outputs) != 1:
        return None
    ((name, attr),) = node.attributes.data.items()
    if attr.is_ref():
        return None
    if name == "value":
        tensor: ir.TensorProtocol = attr.value
        return tensor
    if name in ("value_float", "value_floats"):
        return ir.Tensor(np.array(attr.value, dtype=np.float32), name=node.outputs[0].name)
    if name in ("value_int", "value_ints"):
        return ir.Tensor(np.array(attr.value, dtype=np.int64), name=node.outputs[0].name)
    if name in ("value_string", "value_strings"):
        texts = [attr.value] if name == "value_string" else list(attr.value)
        data = [text.encode() if isinstance(text, str) else text for text in texts]
        shape = ir.Shape([] if name == "value_string" else [len(data)])
        return ir.StringTensor(data, shape=shape, name=node.outputs[0].name)
    return None  # sparse


def nbytes_of(tensor: ir.TensorProtocol) -> int:
    """Bytes of a tensor's data, from shape and dtype alone; strings count as their characters."""
    if tensor.dtype == ir.DataType.STRING:
        return sum(len(item) for item in tensor.string_data()) if isinstance(tensor, ir.StringTensor) else tensor.size
    return math.ceil(tensor.size * tensor.dtype.bitwidth / 8)


def small_ints(value: ir.Value | None, *, limit: int = 4096) -> list[int] | None:
    """The elements of a constant integer tensor (axes, shapes, pads) as a flat list; None if unknown or larger."""
    tensor = constant_of(value)
    if tensor is None or tensor.size > limit or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return [int(item) for item in tensor.numpy().reshape(-1)]


def add_constant(scope: Scope, tensor: ir.TensorProtocol, name: str, before: ir.Node) -> ir.Value:
    """Put a new constant into a graph: an initializer, or a Constant node where it takes none (see :class:`Scope`).

    Args:
        scope: The graph to add to.
        tensor: The data; its name becomes ``name``.
        name: A name that occurs nowhere else (:class:`surgeon_passes.names.FreshNames`).
        before: The node in front of which a Constant node is put.
    """
    tensor.name = name
    kind, dims = ir.TensorType(tensor.dtype), tensor.shape.numpy()
    if scope.takes_initializers:
        value = ir.Value(name=name, const_value=tensor, type=kind, shape=ir.Shape(dims))
        scope.graph.register_initializer(value)
        return value
    node = ir.node("Constant", [], attributes={"value": tensor}, name=name)
    out = node.outputs[0]
    out.name, out.type, out.shape = name, kind, ir.Shape(dims)
    scope.graph.insert_before(before, node)
    return out
