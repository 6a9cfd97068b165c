"""Shapes and element types that a rewrite may rely on.

The value infos in a file can be wrong: exporters freeze a batch size, tools edit the graph and forget them. A rewrite
that is only right for certain shapes must not believe them. The facts here are computed anew, by onnx's shape
inference, from what cannot be wrong without the model being wrong: the declared model inputs and the constants.
"""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from surgeon_passes.constants import constant_of
from surgeon_passes.weightless import Weightless, value_infos

Dim = int | str | None
"""A dimension: a number, a symbol (equal symbols are equal numbers in one run), or None if nothing is known."""

_log = logging.getLogger(__name__)


class TrustedShapes:
    """Element types and dimensions of values, in the main graph and the bodies in it.

    Inside local functions only constants are known, because a function may be called with any shape. A body is known
    as far as its outer values are; values carried around a loop have a type but no shape.

    Args:
        facts: Element type and dimensions by value, None where unknown.
    """

    def __init__(self, facts: dict[ir.Value, tuple[ir.DataType | None, tuple[Dim, ...] | None]]) -> None:
        self._facts = facts

    def dims(self, value: ir.Value | None) -> tuple[Dim, ...] | None:
        """The dimensions of a tensor: each a number, a symbol or None; None as a whole if the rank is unknown.

        Symbols are those of the model inputs, and ``unk__0`` and so on, each of which is one unknown number.
        """
        if value is None:
            return None
        tensor = constant_of(value)
        if tensor is not None:
            return tuple(tensor.shape.numpy())
        return self._facts.get(value, (None, None))[1]

    def static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The dimensions if every one of them is a known number, else None."""
        dims = self.dims(value)
        if dims is None or not all(isinstance(d, int) for d in dims):
            return None
        return tuple(d for d in dims if isinstance(d, int))

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of dimensions, None if unknown."""
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type of a tensor, None if unknown or if the value is no tensor."""
        if value is None:
            return None
        tensor = constant_of(value)
        if tensor is not None:
            return tensor.dtype
        return self._facts.get(value, (None, None))[0]

    def same_dims(self, one: ir.Value | None, other: ir.Value | None) -> bool:
        """Whether two values certainly have the same shape, in every run."""
        dims = self.dims(one)
        return dims is not None and None not in dims and dims == self.dims(other)


def trusted_shapes(model: ir.Model, *, propagate_data: bool = False) -> TrustedShapes:
    """Infer shapes from the model's inputs and constants alone.

    Linear in the size of the graph; weights are neither read nor copied, so models above 2 GB are fine. The answers
    hold for the values that exist now: a pass that adds values or changes what one holds asks again.

    Args:
        model: The model; it is only read.
        propagate_data: Let onnx follow the *content* of shape tensors through Shape, Gather, Concat and arithmetic,
            which knows more and rests on more of onnx's code.
    """
    weightless = Weightless(model)
    proto = weightless.proto
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=propagate_data)
    except Exception as error:  # noqa: BLE001  (onnx raises RuntimeError, TypeError and its own; all mean: unknown)
        _log.debug("shape inference failed, only inputs and constants are known: %s", error)
    facts: dict[ir.Value, tuple[ir.DataType | None, tuple[Dim, ...] | None]] = {}
    for info in value_infos(proto.graph):
        value = weightless.value_of(info.name)
        if value is not None and info.type.WhichOneof("value") == "tensor_type":
            facts[value] = _fact(info.type.tensor_type)
    return TrustedShapes(facts)


def _fact(tensor: onnx.TypeProto.Tensor) -> tuple[ir.DataType | None, tuple[Dim, ...] | None]:
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
