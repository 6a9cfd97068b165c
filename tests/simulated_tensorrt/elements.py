"""Elements in memory as the engine lays them out: those of four bits two to a byte, the first in the low half."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.simulated_tensorrt.compute import NUMPY

_SMALL = {"INT4": TensorProto.INT4, "FP4": TensorProto.FLOAT4E2M1}


def size_of(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor.

    Args:
        kind: Member of DataType.
        shape: Its sizes.
    """
    count = math.prod(shape)
    return (count + 1) // 2 if kind in _SMALL else count * int(NUMPY[kind].itemsize)


def laid_out(value: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of a tensor, a vector; numbers beyond the type's range become what a cast makes of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(value).astype(NUMPY[kind], copy=False)
    raw = numpy_helper.from_array(array).raw_data if kind in _SMALL else array.tobytes()
    return np.frombuffer(raw, np.uint8)


def read_back(raw: bytes, kind: str, shape: Sequence[int]) -> np.ndarray:
    """A tensor from its bytes."""
    if kind in _SMALL:
        tensor = onnx.TensorProto(data_type=_SMALL[kind], dims=list(shape), raw_data=raw)
        return np.asarray(numpy_helper.to_array(tensor)).astype(NUMPY[kind])
    return np.frombuffer(raw, NUMPY[kind]).reshape(shape)
