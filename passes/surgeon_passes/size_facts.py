"""What is known about a tensor before the model runs: type, sizes, and the elements of small integer tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_passes.symbolic_ints import Algebra, Int

MAX_ELEMENTS = 256
"""Elements are followed in integer tensors of at most this size: shapes, indices, pads, not data."""

Dims = tuple[Int, ...]
Elements = Any
"""A numpy array of dtype object whose items are :data:`~surgeon_passes.symbolic_ints.Int`."""

_RANGES = {
    ir.DataType.BOOL: (0, 1),
    ir.DataType.INT8: (-(2**7), 2**7 - 1),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
    ir.DataType.INT64: (-(2**63), 2**63 - 1),
    ir.DataType.UINT8: (0, 2**8 - 1),
    ir.DataType.UINT16: (0, 2**16 - 1),
    ir.DataType.UINT32: (0, 2**32 - 1),
    ir.DataType.UINT64: (0, 2**64 - 1),
}

_WIDE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.UINT64, ir.DataType.UINT32)


def is_counted(dtype: ir.DataType | None) -> bool:
    """Whether elements of this type are followed: booleans and whole numbers of 8 to 64 bits."""
    return dtype in _RANGES


@dataclasses.dataclass(slots=True)
class Fact:
    """What holds for one value in every run."""

    dtype: ir.DataType | None = None
    """Element type; None if unknown or if the value is no tensor."""
    dims: Dims | None = None
    """Sizes, of which some may be symbolic; None if the rank is unknown."""
    ints: Elements | None = None
    """The elements of a small integer or boolean tensor, some of which may be symbolic; None if nothing is known."""

    @property
    def static(self) -> tuple[int, ...] | None:
        """The sizes if all are known numbers."""
        if self.dims is None or not all(isinstance(d, int) for d in self.dims):
            return None
        return self.dims  # type: ignore[return-value]

    @property
    def known_ints(self) -> list[int] | None:
        """All elements, flat, if every one of them is known."""
        if self.ints is None:
            return None
        flat = self.ints.reshape(-1).tolist()
        return flat if all(type(item) is int for item in flat) else None

    @property
    def nbytes(self) -> int | None:
        """Size of the data; None if unknown. Strings count as one byte each."""
        static = self.static
        if static is None or self.dtype is None:
            return None
        count = 1
        for d in static:
            count *= d
        return (count * (self.dtype.bitwidth if self.dtype != ir.DataType.STRING else 8) + 7) // 8

    def array(self) -> np.ndarray[Any, Any] | None:
        """The elements as a numpy array of the right type, if all are known."""
        flat = self.known_ints
        if flat is None or self.dtype is None or self.ints is None:
            return None
        return np.array(flat, dtype=self.dtype.numpy()).reshape(self.ints.shape)


def fits(dtype: ir.DataType, item: Int) -> bool:
    """Whether an element certainly is a value of ``dtype``; sizes are taken to fit 32 bits."""
    low, high = _RANGES[dtype]
    return low <= item <= high if isinstance(item, int) else dtype in _WIDE


def natural(algebra: Algebra, items: Sequence[Int]) -> Dims:
    """Integers as sizes: where one might be negative, a size of its own."""
    return tuple(d if algebra.is_natural(d) else algebra.fresh() for d in items)


def elements(items: Sequence[Int], shape: tuple[int, ...]) -> Elements:
    """Elements from a flat list."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def fact_of_tensor(tensor: ir.TensorProtocol) -> Fact:
    """Everything about a constant; its data is read only if it is small and whole."""
    dims = tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
    fact = Fact(tensor.dtype, dims)
    if tensor.dtype in _RANGES and tensor.size <= MAX_ELEMENTS:
        fact.ints = elements([int(x) for x in tensor.numpy().reshape(-1).tolist()], dims)
    return fact


@dataclasses.dataclass(slots=True)
class Operation:
    """A node with what is known about its inputs, as the rules see it."""

    node: ir.Node
    facts: list[Fact | None]
    """By input; None for an omitted one."""
    algebra: Algebra
    opset: int
    """Version of the default operator set here."""

    def fact(self, i: int) -> Fact:
        """What is known of input i; nothing if it is omitted."""
        found = self.facts[i] if i < len(self.facts) else None
        return found if found is not None else Fact()

    def has(self, i: int) -> bool:
        """Whether input i is given."""
        return i < len(self.facts) and self.facts[i] is not None

    def dims(self, i: int) -> Dims | None:
        """The sizes of input i."""
        return self.fact(i).dims

    def known(self, i: int) -> list[int] | None:
        """All elements of integer input i, flat, if known."""
        return self.fact(i).known_ints

    def int_attr(self, name: str, default: int) -> int:
        """An integer attribute, or its default."""
        attr = self.node.attributes.data.get(name)
        return default if attr is None else int(attr.value)

    def ints_attr(self, name: str) -> list[int] | None:
        """A list attribute, None if it is not given."""
        attr = self.node.attributes.data.get(name)
        return None if attr is None else [int(x) for x in attr.value]

    def axes(self, i: int, rank: int, attr: str = "axes") -> list[int] | None:
        """Axes from an attribute, or from input i of newer versions, counted from 0; None if they are not known.

        An empty list stands for axes that are not given.
        """
        raw = self.ints_attr(attr)
        if raw is None and self.has(i):
            raw = self.known(i)
            if raw is None:
                return None
        if raw is None:
            return []
        axes = [a + rank if a < 0 else a for a in raw]
        return axes if all(0 <= a < rank for a in axes) and len(set(axes)) == len(axes) else None

    def axis(self, rank: int, default: int, name: str = "axis") -> int | None:
        """One axis from an attribute, counted from 0; None if it is out of range."""
        axis = self.int_attr(name, default)
        axis = axis + rank if axis < 0 else axis
        return axis if 0 <= axis < rank else None

    def unknown(self, rank: int) -> Dims:
        """Sizes about which nothing is known but how many there are."""
        return tuple(self.algebra.fresh() for _ in range(rank))


Rule = Callable[[Operation], Fact | list[Fact] | None]
"""What is known of the outputs of a node; None if this rule cannot tell."""
