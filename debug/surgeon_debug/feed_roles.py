"""What an input is for, read off the nodes that take it: ids below a vocabulary, a shape, an axis, a count, a scale."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from surgeon_debug.feed_sizes import BATCH_SIZE
from surgeon_passes.constants import constant_of

_THROUGH = {
    "Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand", "Slice", "Concat", "Clip",
}  # fmt: skip
"""Operators whose first result holds elements of their first input, in some shape."""

_TABLES: dict[tuple[str, str], tuple[tuple[int, int, str], ...]] = {
    ("", "Gather"): ((1, 0, "axis"),),
    ("", "GatherElements"): ((1, 0, "axis"),),
    ("", "GatherND"): ((1, 0, ""),),
    ("com.microsoft", "EmbedLayerNormalization"): ((0, 2, ""), (1, 4, "")),
    ("com.microsoft", "GatherBlockQuantized"): ((1, 0, "gather_axis"),),
}
"""(domain, operator) -> (input with indices, input that is looked up, attribute with the axis)."""

_FILLS: dict[tuple[str, int], float] = {
    ("Reshape", 1): 1,
    ("Expand", 1): 1,
    ("Tile", 1): 1,
    ("ConstantOfShape", 0): 2,
    ("TopK", 1): 1,
    ("OneHot", 1): 4,
    ("Slice", 1): 0,
    ("Slice", 2): 2**31 - 1,
    ("Slice", 4): 1,
    ("Pad", 1): 0,
    ("CumSum", 1): 0,
    ("Range", 0): 0,
    ("Range", 1): 4,
    ("Range", 2): 1,
    ("Loop", 0): 3,
    ("NonMaxSuppression", 2): 4,
    ("NonMaxSuppression", 3): 0.5,
    ("NonMaxSuppression", 4): 0.0,
    ("Dropout", 1): 0.5,
    ("SequenceAt", 1): 0,
    ("SequenceInsert", 2): 0,
    ("SequenceErase", 1): 0,
}
"""(operator, input) -> the number that is legal there whatever the data."""

_POSITIVE = {
    ("BatchNormalization", 4), ("QuantizeLinear", 1), ("DequantizeLinear", 1), ("QLinearMatMul", 1),
    ("QLinearMatMul", 4), ("QLinearMatMul", 6), ("QLinearConv", 1), ("QLinearConv", 4), ("QLinearConv", 6),
    ("Sqrt", 0), ("Log", 0),
}  # fmt: skip
"""(operator, input): a variance, a scale, what must have a root or a logarithm."""

_AXES = {("Unsqueeze", 1), ("Squeeze", 1), ("Slice", 3)}


@dataclasses.dataclass(frozen=True)
class Role:
    """What is known about the elements of an input."""

    below: int | None = None
    """They index something of this size."""
    fill: float | None = None
    """They are all this number: a shape, an axis, a count, a threshold."""
    axes: bool = False
    """They are axes, none twice."""
    positive: bool = False
    """They must not be negative or zero."""
    minus_one_first: bool = False
    """They are a shape whose first dimension takes what is left."""


def role_of(value: ir.Value) -> Role:
    """Follow an input to the nodes that use it, through casts and changes of shape, in nested graphs too."""
    below: int | None = None
    role = Role()
    seen = {value}
    stack = [value]
    while stack:
        current = stack.pop()
        for node, index in current.uses():
            size = _looked_up(node, index)
            if size is not None:
                below = size if below is None else min(below, size)
            if node.domain not in ("", "ai.onnx"):
                continue
            role = _joined(role, node.op_type, index)
            passes_on = node.op_type in _THROUGH and (index == 0 or node.op_type == "Concat")
            if passes_on and node.outputs and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                stack.append(node.outputs[0])
    return dataclasses.replace(role, below=below)


def _joined(role: Role, op_type: str, index: int) -> Role:
    use = (op_type, index)
    if role.fill is None and use in _FILLS:
        role = dataclasses.replace(role, fill=_FILLS[use], minus_one_first=op_type == "Reshape")
    axes = use in _AXES or (op_type.startswith("Reduce") and index == 1)
    if axes or use in _POSITIVE:
        role = dataclasses.replace(role, axes=role.axes or axes, positive=role.positive or use in _POSITIVE)
    return role


def _looked_up(node: ir.Node, index: int) -> int | None:
    """The size of the axis that input ``index`` of a node indexes; None if it indexes nothing."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    for indices, table, attribute in _TABLES.get((domain, node.op_type), ()):
        if index != indices or table >= len(node.inputs):
            continue
        shape = _static_shape(node.inputs[table])
        attr = node.attributes.get(attribute)
        axis = attr.as_int() if attr is not None and not attr.is_ref() else 0
        size = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
        if isinstance(size, int):
            return max(size, 1)
        return BATCH_SIZE  # the smallest size that an unknown dimension is given
    return None


def _static_shape(value: ir.Value | None) -> tuple[int | ir.SymbolicDim, ...] | None:
    """The shape of a value, looking through a dequantisation or cast of a constant."""
    for _ in range(4):
        if value is None:
            return None
        tensor = constant_of(value)
        if tensor is not None:
            return tuple(tensor.shape.numpy())
        if value.shape is not None:
            return tuple(value.shape)
        producer = value.producer()
        if producer is None or producer.op_type not in ("DequantizeLinear", "Cast", "Identity"):
            return None
        value = producer.inputs[0] if producer.inputs else None
    return None
