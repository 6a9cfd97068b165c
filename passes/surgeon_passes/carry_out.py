"""Small node groups that carry a tensor out of a body: the first rows, zeros, nothing, in forms that engines take.

The forms are chosen by trial. An empty constant becomes a scalar in OpenVINO, so nothing is a slice of something;
onnxruntime has no Expand for bfloat16, so zeros of that type are cast; Pad takes no booleans before opset 13, so rows
are appended by Concat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from surgeon_passes.names import FreshNames
from surgeon_passes.observe_plan import Dims, SizeOf

Declared = Sequence[int | None]
"""Dimensions as a value declares them, None for unknown."""

_NUMPY = {ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}


class NodeMaker:
    """Makes nodes for one graph, in order; the caller puts :attr:`nodes` into it.

    Args:
        names: Gives names to what is made.
        opset: The version of the default operator set there.
        base: What names begin with.
    """

    def __init__(self, names: FreshNames, opset: int, base: str) -> None:
        self._names, self._opset, self._base = names, opset, base
        self.nodes: list[ir.Node] = []
        self._known: dict[tuple[object, ...], ir.Value] = {}

    def make(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        dtype: ir.DataType,
        shape: Declared | None,
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str = "",
    ) -> ir.Value:
        """Append a node with one output, called ``name`` (a name that is free) or a fresh one."""
        called = name or self._names.value(f"{self._base}/{op_type}")
        node = ir.node(op_type, list(inputs), attributes=attributes or {}, name=self._names.node(called))
        out = node.outputs[0]
        out.name, out.type = called, ir.TensorType(dtype)
        out.shape = None if shape is None else ir.Shape(list(shape))
        self.nodes.append(node)
        return out

    def constant(self, data: np.ndarray[Any, Any]) -> ir.Value:
        """A Constant node: unlike an initializer it is welcome in every graph."""
        tensor = ir.tensor(data)
        return self.make("Constant", [], tensor.dtype, list(data.shape), {"value": tensor})

    def ints(self, *numbers: int) -> ir.Value:
        """A vector of int64, the same value for the same numbers."""
        if numbers not in self._known:
            self._known[numbers] = self.constant(np.array(numbers, np.int64))
        return self._known[numbers]

    def slice(self, value: ir.Value, stops: Sequence[int], shape: Declared, *, name: str = "") -> ir.Value:
        """The elements before ``stops`` of the first axes."""
        dtype, starts, axes = _dtype(value), [0] * len(stops), list(range(len(stops)))
        if self._opset < 10:
            where = {"starts": starts, "ends": list(stops), "axes": axes}
            return self.make("Slice", [value], dtype, shape, where, name=name)
        inputs = [value, self.ints(*starts), self.ints(*stops), self.ints(*axes)]
        return self.make("Slice", inputs, dtype, shape, name=name)

    def reshape(self, value: ir.Value, shape: ir.Value, dims: Declared) -> ir.Value:
        """A tensor in another shape, which must be given as a value."""
        return self.make("Reshape", [value, shape], _dtype(value), dims)

    def flatten(self, value: ir.Value) -> ir.Value:
        """All elements in one dimension, a scalar included."""
        if self._opset < 5:
            return self.make("Reshape", [value], _dtype(value), [None], {"shape": [-1]})
        return self.reshape(value, self.ints(-1), [None])

    def nothing(self, dtype: ir.DataType, rank: int) -> ir.Value:
        """A tensor without elements."""
        one = self.constant(np.zeros([1] * rank, _NUMPY.get(dtype) or dtype.numpy()))
        return self.slice(one, [0] * rank, [0] * rank)

    def zeros(self, dtype: ir.DataType, dims: Dims) -> ir.Value:
        """Zeros in a shape, sizes read when the model runs included."""
        if not dims:
            return self.constant(np.zeros((), _NUMPY.get(dtype) or dtype.numpy()))
        expands = ir.DataType.FLOAT if dtype == ir.DataType.BFLOAT16 else dtype
        zero = self.constant(np.zeros((), expands.numpy()))
        made = self.make("Expand", [zero, self.sizes(dims)], expands, declared(dims))
        if expands == dtype:
            return made
        return self.make("Cast", [made], dtype, declared(dims), {"to": dtype.value})

    def sizes(self, dims: Dims, rows: ir.Value | None = None) -> ir.Value:
        """A shape as a vector, ``rows`` (a vector of one element) before it."""
        key = ("sizes", rows, *dims)
        if key not in self._known:
            self._known[key] = self._sizes(dims, rows)
        return self._known[key]

    def _sizes(self, dims: Dims, rows: ir.Value | None) -> ir.Value:
        parts = [] if rows is None else [rows]
        fixed: list[int] = []
        for dim in dims:
            if isinstance(dim, int):
                fixed.append(dim)
                continue
            if fixed:
                parts.append(self.ints(*fixed))
                fixed = []
            assert dim is not None  # only shapes that are certain are made
            parts.append(self._size(dim))
        if fixed or not parts:
            parts.append(self.ints(*fixed))
        if len(parts) == 1:
            return parts[0]
        return self.make("Concat", parts, ir.DataType.INT64, [None], {"axis": 0})

    def _size(self, dim: SizeOf) -> ir.Value:
        return self.make("Gather", [self._shape(dim.value), self.ints(dim.axis)], ir.DataType.INT64, [1], {"axis": 0})

    def _shape(self, value: ir.Value) -> ir.Value:
        return self.make("Shape", [value], ir.DataType.INT64, [None])

    def padded(self, rows: ir.Value, count: int, dims: Dims, name: str) -> ir.Value:
        """The first ``count`` of ``rows``, each of shape ``dims``, filled up with zeros."""
        dtype = _dtype(rows)
        if any(isinstance(dim, SizeOf) for dim in dims):
            # After no iteration at all the sizes of a stack are made up.
            made = self.make("Gather", [self._shape(rows), self.ints(0)], ir.DataType.INT64, [1], {"axis": 0})
            rows = self.reshape(rows, self.sizes(dims, made), [None, *declared(dims)])
        zeros = self.zeros(dtype, (count, *dims))
        filled = self.make("Concat", [rows, zeros], dtype, [None, *declared(dims)], {"axis": 0})
        return self.slice(filled, [count], [count, *declared(dims)], name=name)


def declared(dims: Dims) -> list[int | None]:
    """Dimensions as a value declares them; what is only known at run time is left open."""
    return [dim if isinstance(dim, int) else None for dim in dims]


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None  # everything here is made with a type
    return value.dtype
