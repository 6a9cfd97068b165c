"""Results that need no engine: data that is only laid out, named or typed anew.

A large weight that is transposed or cast is not touched before somebody asks for it; one that is only reshaped keeps
pointing at its place in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from surgeon_passes.weight_file import MappedTensor

_LAZY = 8 * 2**20
"""Bytes from which on a transposed or cast tensor is computed when it is read, each time, and not kept."""

_EXACT_CASTS = {
    (ir.DataType.FLOAT16, ir.DataType.FLOAT),
    (ir.DataType.FLOAT, ir.DataType.FLOAT16),
    (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    (ir.DataType.DOUBLE, ir.DataType.FLOAT),
    (ir.DataType.BFLOAT16, ir.DataType.FLOAT),
}
"""Casts that numpy rounds as every engine does, to nearest, ties to even."""

LAYOUT_OPS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Cast")
"""Operators of the default domain this file knows."""


def is_layout(node: ir.Node, source: ir.DataType | None, target: ir.DataType | None) -> bool:
    """Whether :func:`direct_value` computes a node of :data:`LAYOUT_OPS` that goes from one type to another."""
    if source is None or target is None or source == ir.DataType.STRING or source.bitwidth < 8:
        return False
    return node.op_type != "Cast" or source == target or (source, target) in _EXACT_CASTS


def direct_value(
    node: ir.Node, tensor: ir.TensorProtocol, shape: Sequence[int], dtype: ir.DataType
) -> ir.TensorProtocol:
    """The result of a node whose first input is constant, and of which :func:`is_layout` holds.

    Args:
        node: The node, one of :data:`LAYOUT_OPS`.
        tensor: What its first input holds.
        shape: The shape of the result.
        dtype: The type of the result.
    """
    if node.op_type == "Transpose":
        perm = node.attributes.data.get("perm")
        axes = tuple(range(len(tensor.shape)))[::-1] if perm is None else tuple(int(x) for x in perm.value)
        return _transposed(tensor, axes, shape)
    if node.op_type == "Cast" and dtype != tensor.dtype:
        return _cast(tensor, shape, dtype)
    return reshaped_tensor(tensor, shape)


def reshaped_tensor(tensor: ir.TensorProtocol, shape: Sequence[int]) -> ir.TensorProtocol:
    """The same elements in another shape; external data stays where it is."""
    dims = ir.Shape(shape)
    if isinstance(tensor, MappedTensor):
        return MappedTensor(tensor.file, tensor.offset, tensor.length, tensor.dtype, dims)
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=dims,
            name=tensor.name or "",
            base_dir=tensor.base_dir,
        )
    return ir.Tensor(tensor.numpy().reshape(shape), dtype=tensor.dtype)


def _transposed(tensor: ir.TensorProtocol, axes: tuple[int, ...], shape: Sequence[int]) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(tensor.numpy().transpose(axes)).reshape(shape), dtype=tensor.dtype)

    return _later(compute, tensor, shape, tensor.dtype)


def _cast(tensor: ir.TensorProtocol, shape: Sequence[int], dtype: ir.DataType) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        with np.errstate(over="ignore", invalid="ignore"):
            return ir.Tensor(tensor.numpy().astype(dtype.numpy()).reshape(shape), dtype=dtype)

    return _later(compute, tensor, shape, dtype)


def _later(
    compute: Callable[[], ir.TensorProtocol], tensor: ir.TensorProtocol, shape: Sequence[int], dtype: ir.DataType
) -> ir.TensorProtocol:
    if tensor.size * dtype.bitwidth // 8 < _LAZY:
        return compute()
    return ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(shape))
