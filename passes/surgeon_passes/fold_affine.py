"""Put a factor and an offset for each channel into the constants of the operator before.

That operator is a Conv, ConvTranspose, Gemm or BatchNormalization whose weights are constants. New weights are the old
ones times the factor, computed in float64 and rounded once to the type of the old ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from surgeon_passes.affine import FLOATS, Affine, trains
from surgeon_passes.constants import constant_of

_LAZY = 1 << 20  # new weights of at least this many bytes are computed when they are written
_BLOCK = 1 << 20  # elements that are in memory as float64 at a time


@dataclasses.dataclass(frozen=True)
class Host:
    """An operator that can take up a factor and an offset for each of its output channels."""

    weight: ir.TensorProtocol
    """What is multiplied by the factor."""
    view: tuple[int, ...]
    """The shape in which the weight is seen ..."""
    spread: tuple[int, ...]
    """... and the shape in which the factor is, so that one broadcasts over the other."""
    bias: np.ndarray
    """float64, one number for each channel; zeros if there is none."""
    channels: int
    """How many output channels there are."""
    rank: int | None
    """How many axes the output has; None if the operator does not tell."""


def host_of(node: ir.Node, attributes: dict[str, Any], opset: int) -> Host | str:
    """``node`` as something to fold into, or why that cannot be."""
    weight = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or (bias is not None and constant_of(bias) is None):
        return "the weights before it are not constants"
    dims = tuple(weight.shape.numpy())
    if weight.dtype not in FLOATS or 0 in dims:
        return f"the weights before it are {weight.dtype.name} of shape {list(dims)}"
    group = attributes.get("group", 1)
    spread: tuple[int, ...]
    view: tuple[int, ...] = dims
    rank: int | None = len(dims)
    beta = 1.0
    if node.op_type == "BatchNormalization":
        if len(node.inputs) != 5 or len(dims) != 1 or not attributes.get("spatial", 1):
            return "the normalization before it is not one by channels"
        if trains(node, attributes, opset):
            return "the normalization before it trains"
        spread, rank = dims, None
    elif node.op_type == "Gemm":
        if opset < 7 or len(dims) != 2:
            return "the Gemm before it broadcasts by the rules of an old version"
        spread = (dims[0], 1) if attributes.get("transB", 0) else (1, dims[1])
        beta = float(attributes.get("beta", 1.0))
    elif len(dims) < 3:
        return "the weights before it have no spatial axes"
    elif node.op_type == "Conv":
        spread = (dims[0], *(1,) * (len(dims) - 1))
    elif dims[0] % group:
        return f"the {group} groups before it do not divide {dims[0]} channels"
    else:
        view = (group, dims[0] // group, *dims[1:])
        spread = (group, 1, dims[1], *(1,) * (len(dims) - 2))
    channels = math.prod(spread)
    numbers = _bias(constant_of(bias), channels)
    if numbers is None:
        return f"the bias before it is not one number for each of {channels} channels"
    return Host(weight, view, spread, beta * numbers, channels, rank)


def _bias(tensor: ir.TensorProtocol | None, channels: int) -> np.ndarray | None:
    """The bias as one float64 for each channel; None if it varies along another axis (that of a Gemm may)."""
    if tensor is None:
        return np.zeros(channels)
    dims = list(tensor.shape.numpy())
    if tensor.dtype not in FLOATS or len(dims) > 2 or (len(dims) == 2 and dims[0] != 1):
        return None
    if dims and dims[-1] not in (1, channels):
        return None
    return np.array(np.broadcast_to(tensor.numpy().astype(np.float64).reshape(-1), (channels,)))


def folded(host: Host, affine: Affine) -> tuple[ir.TensorProtocol, ir.TensorProtocol] | str:
    """The weight and the bias of ``host`` with ``affine`` in them, or why they cannot be stored.

    Returns:
        The new weight, of the old type and shape, and the new bias, of the weight's type, one number for each channel.
    """
    dtype = host.weight.dtype
    kind = dtype.numpy()
    smallest = float(ml_dtypes.finfo(kind).tiny)  # type: ignore[no-untyped-call]
    with np.errstate(all="ignore"):
        largest = _largest(host) * np.abs(affine.factor)
        bias = (host.bias * affine.factor + affine.offset).astype(kind)
        stored = largest.astype(kind).astype(np.float64)
    if not (np.isfinite(stored).all() and np.isfinite(bias.astype(np.float64)).all()):
        return f"the folded weights would leave the range of {dtype.name}"
    if bool(((largest > 0) & (largest < smallest)).any()):
        return f"the folded weights would be too small for {dtype.name}"
    if bool((affine.factor == 1).all()):
        return host.weight, ir.Tensor(bias, dtype=dtype)
    shape = ir.Shape(host.weight.shape.numpy())
    weight = ir.LazyTensor(lambda: _scaled(host, affine.factor), dtype, shape)
    if host.weight.size * dtype.bitwidth // 8 >= _LAZY:
        return weight, ir.Tensor(bias, dtype=dtype)
    return _scaled(host, affine.factor), ir.Tensor(bias, dtype=dtype)


def _blocks(host: Host) -> list[slice]:
    """Parts of the first axis of the weight's view, small enough to be converted to float64."""
    rows = max(1, _BLOCK // max(1, math.prod(host.view[1:])))
    return [slice(start, start + rows) for start in range(0, host.view[0], rows)]


def _largest(host: Host) -> np.ndarray:
    """The largest magnitude among the weights of each channel; not a number where one is not."""
    array = host.weight.numpy().reshape(host.view)
    found = np.zeros(host.spread)
    axes = tuple(i for i, size in enumerate(host.spread) if size == 1 and i > 0)
    for part in _blocks(host):
        block = np.abs(array[part].astype(np.float64)).max(axis=axes, keepdims=True)
        if host.spread[0] == 1:
            found = np.maximum(found, block.max(axis=0, keepdims=True))
        else:
            found[part] = block
    return found.reshape(-1)


def _scaled(host: Host, factor: np.ndarray) -> ir.TensorProtocol:
    array = host.weight.numpy().reshape(host.view)
    out = np.empty(host.view, host.weight.dtype.numpy())
    spread = factor.reshape(host.spread)
    for part in _blocks(host):
        out[part] = array[part].astype(np.float64) * (spread if host.spread[0] == 1 else spread[part])
    return ir.Tensor(out.reshape(host.weight.shape.numpy()), dtype=host.weight.dtype)
