"""Operators that multiply by a constant and add a constant, channel by channel.

BatchNormalization outside training is one; so are Mul, Add, Sub and Div with a constant that varies along the channel
axis only. Everything is computed in float64, to be rounded once when it is stored.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_passes.constants import constant_of

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""The element types in which weights are folded."""

CHANNEL_AXIS = 1
"""Convolutions, Gemm and BatchNormalization all have their output channels there."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """``y[:, c] = factor[c] * x[:, c] + offset[c]``."""

    factor: np.ndarray
    """float64, one number for each channel."""
    offset: np.ndarray
    """float64, one number for each channel."""


def scaled_input(node: ir.Node, opset: int) -> ir.Value | None:
    """What ``node`` scales and shifts if it is such an operator; None if it is not, or if nothing in it is constant."""
    if node.op_type == "BatchNormalization":
        return node.inputs[0] if len(node.inputs) == 5 else None
    if opset < 7 or len(node.inputs) != 2:
        return None  # before version 7 an attribute decides how operands are broadcast
    left, right = node.inputs
    if constant_of(right) is not None:
        return left
    swaps = node.op_type in ("Mul", "Add") and constant_of(left) is not None
    return right if swaps else None


def affine_of(node: ir.Node, attributes: dict[str, Any], opset: int, channels: int, rank: int | None) -> Affine | str:
    """What ``node`` does to each channel of its input, or why that cannot be said.

    Args:
        node: A node for which :func:`scaled_input` gave a value.
        attributes: Its attributes.
        opset: The version of the default operator set.
        channels: Size of the channel axis of its input.
        rank: Number of axes of its input, None if unknown.
    """
    if node.op_type == "BatchNormalization":
        return _normalization(node, attributes, opset, channels)
    tensor = next(t for value in reversed(node.inputs) if (t := constant_of(value)) is not None)
    if tensor.dtype not in FLOATS:
        return f"its constant is {tensor.dtype.name}"
    numbers = _per_channel(tensor, channels, rank)
    if numbers is None:
        dims = "x".join(map(str, tensor.shape.numpy())) or "a scalar"
        return f"its constant ({dims}) is not one number for each of {channels} channels"
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(all="ignore"):
        results = {
            "Mul": Affine(numbers, zero),
            "Div": Affine(1 / numbers, zero),
            "Add": Affine(one, numbers),
            "Sub": Affine(one, -numbers),
        }
    return _finite(results[node.op_type])


def _per_channel(tensor: ir.TensorProtocol, channels: int, rank: int | None) -> np.ndarray | None:
    """The constant as one number for each channel; None if it varies along another axis or adds axes."""
    dims = list(tensor.shape.numpy())
    if not dims:
        return np.full(channels, float(tensor.numpy().astype(np.float64)))
    if rank is None or len(dims) > rank:
        return None
    axis = CHANNEL_AXIS - (rank - len(dims))
    if any(d != 1 for i, d in enumerate(dims) if i != axis) or (axis >= 0 and dims[axis] not in (1, channels)):
        return None
    numbers = tensor.numpy().astype(np.float64).reshape(-1)
    return np.array(np.broadcast_to(numbers, (channels,)))


def _normalization(node: ir.Node, attributes: dict[str, Any], opset: int, channels: int) -> Affine | str:
    if trains(node, attributes, opset):
        return "it trains"
    if not attributes.get("spatial", 1):
        return "it normalizes each position by itself"
    tensors = [constant_of(value) for value in node.inputs[1:]]
    if any(t is None or t.dtype not in FLOATS or list(t.shape.numpy()) != [channels] for t in tensors):
        return f"its parameters are not constants of {channels} numbers"
    scale, bias, mean, variance = (t.numpy().astype(np.float64) for t in tensors if t is not None)
    spread = variance + float(attributes.get("epsilon", 1e-5))
    if not bool((spread > 0).all()):
        return "a variance is not positive"
    factor = scale / np.sqrt(spread)
    return _finite(Affine(factor, bias - mean * factor))


def trains(node: ir.Node, attributes: dict[str, Any], opset: int) -> bool:
    """Whether a BatchNormalization uses the statistics of the batch, by the rules of its version."""
    if opset >= 14:
        return bool(attributes.get("training_mode", 0))
    if any(value.name for value in node.outputs[1:]):
        return True
    return opset < 7 and not attributes.get("is_test", 0)


def _finite(affine: Affine) -> Affine | str:
    good = np.isfinite(affine.factor).all() and np.isfinite(affine.offset).all()
    return affine if good else "its constants are infinite, not a number, or zero under a division"
