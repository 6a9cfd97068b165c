"""TensorRT's element types in ONNX's terms, and values as the bytes that an engine reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer, element_type_of, is_foreign, type_of_number
from surgeon_debug.values import Value
from surgeon_passes.errors import EngineError

_NUMBERS = {
    "FLOAT": 1,
    "UINT8": 2,
    "INT8": 3,
    "INT32": 6,
    "INT64": 7,
    "BOOL": 9,
    "HALF": 10,
    "BF16": 16,
    "FP8": 17,
    "INT4": 22,
    "FP4": 23,
    "E8M0": 24,
}  # members of DataType, and their numbers in TensorProto.DataType


def onnx_number(trt: Any, kind: Any) -> int:
    """The number in TensorProto.DataType of a member of TensorRT's ``DataType``.

    Raises:
        EngineError: ONNX has no such type, or this package does not know it.
    """
    for name, number in _NUMBERS.items():
        if getattr(trt.DataType, name, None) == kind:
            return number
    raise EngineError(f"tensorrt shows elements of type {kind}, which ONNX does not have")


def value_of(number: int, shape: tuple[int, ...], data: np.ndarray[Any, Any]) -> Value:
    """A value from the bytes of a tensor whose elements lie in order, four-bit ones packed from the lowest bits on."""
    kind = type_of_number(number)
    if kind.foreign:
        return Buffer(number, shape, data)
    return data.view(kind.dtype_name).reshape(shape)


def as_declared(value: Value, doubles: bool) -> Value:
    """A tensor in the model's type: the parser replaces float64 by float32, and the numbers are no better for it.

    Args:
        value: What the engine delivered.
        doubles: Whether the model says that it is float64.
    """
    if doubles and isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(np.float64)
    return value


def bytes_of(name: str, value: Value, number: int) -> np.ndarray[Any, Any]:
    """The bytes of an input as the engine wants it, a contiguous vector.

    Args:
        name: The input, for messages.
        value: An array or a Buffer.
        number: The type that the engine reads.

    Raises:
        EngineError: The value is no tensor of numbers, or of a type that does not turn into the engine's without loss.
    """
    if isinstance(value, np.ndarray) and is_foreign(value.dtype):
        value = Buffer.of(value)
    if isinstance(value, Buffer):
        if value.element_type != number:
            raise _wrong_type(name, type_of_number(value.element_type).dtype_name, number)
        return np.ascontiguousarray(value.data)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        kind = value.dtype.name if isinstance(value, np.ndarray) else type(value).__name__
        raise EngineError(f"tensorrt takes tensors of numbers only, and input '{name}' is {kind}")
    array = value if element_type_of(value) == number else _converted(name, value, number)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _converted(name: str, value: np.ndarray[Any, Any], number: int) -> np.ndarray[Any, Any]:
    """A value in the engine's type, where the parser has replaced the model's: float64 by float32, for one."""
    kind = type_of_number(number)
    if kind.foreign or np.dtype(kind.dtype_name).kind != value.dtype.kind:
        raise _wrong_type(name, value.dtype.name, number)
    with np.errstate(over="ignore"):
        array = value.astype(kind.dtype_name)
    lost = np.isfinite(value) & ~np.isfinite(array) if value.dtype.kind == "f" else array != value
    if bool(np.any(lost)):
        raise EngineError(
            f"input '{name}' holds {value.dtype.name} numbers that are beyond the engine's {kind.dtype_name}"
        )
    return array


def _wrong_type(name: str, is_: str, number: int) -> EngineError:
    return EngineError(f"input '{name}' is {is_}, and the engine reads {type_of_number(number).dtype_name} there")
