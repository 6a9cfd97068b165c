"""Element types of ONNX in numpy's terms, without any package but numpy.

Numbers in bfloat16, float8, float6, float4, int4 and int2 are of types that numpy lacks. Between engines, and in the
processes that engines run in, they travel as :class:`Buffer`: the bytes as ONNX packs them. As numbers they are arrays
of ml_dtypes, one element a byte or more, so that arithmetic on them means what it says; :func:`decode` and
:func:`encode` are the only places that know how they are packed. ml_dtypes is imported when the first of them is
needed: an environment that holds an engine and numpy need not have it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_passes.errors import BadOptionError

STRING = 8
"""The number of text in TensorProto.DataType."""


@dataclasses.dataclass(frozen=True)
class ElementType:
    """One of the types in TensorProto.DataType."""

    number: int
    """Its number there."""
    onnx_name: str
    """How ONNX's text format calls it, and engines after it: ``float``, ``bfloat16``, ``float8e4m3fn``."""
    dtype_name: str
    """The dtype in numpy, or in ml_dtypes if numpy lacks it; ``object`` for text."""
    bits: int
    """Bits of one element as ONNX packs it; 0 for text."""
    foreign: bool
    """Whether numpy lacks it."""


def _table() -> dict[int, ElementType]:
    native = "float uint8 int8 uint16 int16 int32 int64 string bool float16 double uint32 uint64 complex64 complex128"
    dtypes = {"float": "float32", "double": "float64", "string": "object"}
    rows = []
    for number, name in enumerate(native.split(), 1):
        dtype = dtypes.get(name, name)
        rows.append(ElementType(number, name, dtype, 0 if name == "string" else np.dtype(dtype).itemsize * 8, False))
    foreign = (
        (16, "bfloat16", "bfloat16", 16),
        (17, "float8e4m3fn", "float8_e4m3fn", 8),
        (18, "float8e4m3fnuz", "float8_e4m3fnuz", 8),
        (19, "float8e5m2", "float8_e5m2", 8),
        (20, "float8e5m2fnuz", "float8_e5m2fnuz", 8),
        (21, "uint4", "uint4", 4),
        (22, "int4", "int4", 4),
        (23, "float4e2m1", "float4_e2m1fn", 4),
        (24, "float8e8m0", "float8_e8m0fnu", 8),
        (25, "uint2", "uint2", 2),
        (26, "int2", "int2", 2),
        (27, "float6e2m3", "float6_e2m3fn", 6),
        (28, "float6e3m2", "float6_e3m2fn", 6),
    )
    rows += [ElementType(*row, True) for row in foreign]
    return {row.number: row for row in rows}


ELEMENT_TYPES: Mapping[int, ElementType] = types.MappingProxyType(_table())
"""Every element type by its number."""

_BY_DTYPE = types.MappingProxyType({kind.dtype_name: kind for kind in ELEMENT_TYPES.values()})
_BY_ONNX_NAME = types.MappingProxyType({kind.onnx_name: kind for kind in ELEMENT_TYPES.values()})


def type_of_number(number: int) -> ElementType:
    """The element type of a number in TensorProto.DataType.

    Raises:
        BadOptionError: There is no such type.
    """
    try:
        return ELEMENT_TYPES[number]
    except KeyError:
        raise BadOptionError(f"ONNX has no element type {number}") from None


def type_of_name(onnx_name: str) -> ElementType | None:
    """The element type of a name in ONNX's text format; None if there is no such type."""
    return _BY_ONNX_NAME.get(onnx_name)


def is_foreign(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one that numpy itself lacks and ml_dtypes adds."""
    return dtype.isbuiltin == 2  # numpy's word for registered by another package


def element_type_of(array: np.ndarray[Any, Any]) -> int:
    """The number in TensorProto.DataType of an array's elements.

    Raises:
        BadOptionError: ONNX has no such type.
    """
    if array.dtype.kind in "USO":
        return STRING
    found = _BY_DTYPE.get(array.dtype.name)
    if found is None:
        raise BadOptionError(f"ONNX has no element type for numpy's {array.dtype}")
    return found.number


def numpy_dtype(element_type: int) -> np.dtype[Any]:
    """The numpy (or ml_dtypes) dtype of an ONNX element type; object for strings.

    Args:
        element_type: A number of TensorProto.DataType.
    """
    kind = type_of_number(element_type)
    if not kind.foreign:
        return np.dtype(kind.dtype_name)
    try:
        import ml_dtypes
    except ImportError:
        raise BadOptionError(
            f"numbers in {kind.dtype_name} cannot be read without the package ml_dtypes",
            hint="run pip install ml_dtypes",
        ) from None
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, kind.dtype_name))
    return found


def packed_size(element_type: int, shape: Sequence[int]) -> int:
    """Bytes that a tensor takes as ONNX packs it."""
    return (math.prod(shape) * type_of_number(element_type).bits + 7) // 8


def decode(raw: bytes | memoryview | np.ndarray[Any, Any], element_type: int, shape: Sequence[int]) -> Any:
    """An array from the raw little-endian buffer of a tensor, with types below a byte unpacked.

    Args:
        raw: The buffer; elements below a byte are packed from the lowest bit on.
        element_type: A number of TensorProto.DataType, not STRING.
        shape: The dimensions.

    Returns:
        An array of its own, which may be written to.
    """
    kind, dtype = type_of_number(element_type), numpy_dtype(element_type)
    if kind.bits >= 8:
        # A dtype with a byte order is another object than the native one, even where both say the same.
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=True)
    size = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[: size * kind.bits]
    codes = np.packbits(bits.reshape(size, kind.bits), axis=1, bitorder="little").reshape(shape)
    if "float" in dtype.name:
        return codes.view(dtype)
    if dtype.name.startswith("int"):  # sign-extend: ml_dtypes keeps a small integer as a whole signed byte
        sign = 1 << (kind.bits - 1)
        codes = ((codes ^ sign).astype(np.int8) - sign).astype(np.int8)
    return codes.astype(dtype)


def packed(array: np.ndarray[Any, Any], element_type: int) -> np.ndarray[Any, Any]:
    """The raw little-endian buffer of a tensor as a vector of bytes; the array's own memory where that will do."""
    kind = type_of_number(element_type)
    array = np.ascontiguousarray(array).reshape(-1)
    if kind.bits >= 8:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    # ml_dtypes keeps these in the low bits of a byte each.
    bits = np.unpackbits(array.view(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, : kind.bits]
    return np.packbits(bits.reshape(-1), bitorder="little")


def encode(array: np.ndarray[Any, Any], element_type: int) -> bytes:
    """The raw little-endian buffer of a tensor, the inverse of :func:`decode`.

    Args:
        array: Elements of the dtype that belongs to ``element_type``.
        element_type: A number of TensorProto.DataType, not STRING.
    """
    return packed(array, element_type).tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
    """A tensor of a type that numpy lacks, as bytes; ``np.asarray`` turns it into numbers where ml_dtypes is there."""

    element_type: int
    """A number of TensorProto.DataType."""
    shape: tuple[int, ...]
    """The dimensions."""
    data: np.ndarray[Any, Any]
    """Bytes, little-endian, elements below a byte packed from the lowest bit on; a vector of uint8."""

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> Buffer:
        """The bytes of an array of ml_dtypes; its own memory where elements are bytes or more."""
        element_type = element_type_of(array)
        return cls(element_type, array.shape, packed(array, element_type))

    def array(self) -> np.ndarray[Any, Any]:
        """The numbers; a view of the same memory where elements are bytes or more.

        Raises:
            BadOptionError: ml_dtypes is not installed here.
        """
        kind, dtype = type_of_number(self.element_type), numpy_dtype(self.element_type)
        if kind.bits < 8 or not self.data.size or sys.byteorder == "big":
            return np.asarray(decode(self.data, self.element_type, self.shape))
        return self.data.view(dtype).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.array()
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array.copy() if copy else array
