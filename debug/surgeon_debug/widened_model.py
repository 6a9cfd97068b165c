"""A model in the next wider floating-point type, to tell what its own type costs it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from surgeon_debug.values import Value
from surgeon_debug.widen import largest_finite
from surgeon_passes.graph import replace_tensors
from surgeon_passes.walk import scopes

_LOW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TYPED = ("to", "dtype", "output_dtype", "stash_type")
"""Attributes that hold an element type as a number."""


@dataclasses.dataclass(frozen=True)
class Widened:
    """What became of a model."""

    own: str
    """The type that was replaced: ``float16``, ``bfloat16`` or ``float32``."""
    wide: str
    """What it became: ``float32``, or ``float64``."""
    largest: float
    """The largest finite number of the type that was replaced."""


def widen_model(model: ir.Model) -> Widened | None:
    """Replace float16 and bfloat16 by float throughout, in bodies and functions too; else float by double.

    Args:
        model: The model, which is changed.

    Returns:
        What was done; None if the model has no such type.
    """
    values = _values(model)
    kinds = {value.dtype for value in values}
    low = [kind for kind in _LOW if kind in kinds]
    if not low and ir.DataType.FLOAT not in kinds:
        return None
    old = tuple(low) or (ir.DataType.FLOAT,)
    new = ir.DataType.FLOAT if low else ir.DataType.DOUBLE
    for value in values:
        if value.dtype in old:
            value.dtype = new
    replace_tensors(model, lambda tensor: _tensor(tensor, old, new))
    for scope in scopes(model):
        for node in scope.graph:
            _retype(node, old, new)
    return Widened(old[0].numpy().name, new.numpy().name, largest_finite(old[0].numpy()))


def _values(model: ir.Model) -> list[ir.Value]:
    found: dict[int, ir.Value] = {}
    for scope in scopes(model):
        graph = scope.graph
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            found[id(value)] = value
        for node in graph:
            found.update({id(value): value for value in node.outputs})
    return list(found.values())


def _tensor(tensor: ir.TensorProtocol, old: tuple[ir.DataType, ...], new: ir.DataType) -> ir.TensorProtocol:
    if tensor.dtype not in old:
        return tensor
    return ir.Tensor(tensor.numpy().astype(new.numpy()), name=tensor.name)


def _retype(node: ir.Node, old: tuple[ir.DataType, ...], new: ir.DataType) -> None:
    for name in _TYPED:
        attribute = node.attributes.get(name)
        if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.INT:
            continue
        if attribute.as_int() in old:
            node.attributes[name] = ir.AttrInt64(name, int(new))


def widened_feed(value: Value, kind: str) -> Value:
    """An input of the type that was replaced in the wider one; any other as it is.

    Args:
        value: The input.
        kind: :attr:`Widened.own`.
    """
    if isinstance(value, np.ndarray) and value.dtype.name == kind:
        return value.astype(np.float64 if kind == "float32" else np.float32)
    return value
