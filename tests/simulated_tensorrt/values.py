"""Value types: Dims, Weights, keys and values of the timing cache, host memory; and the module's functions."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from tests.simulated_tensorrt.pybind import Classes, make

NO_TACTIC = 2**64 - 1
"""The hash of an invalid TimingCacheValue."""


class Dims:
    """A shape of up to eight dimensions."""

    _dims: list[int]

    def __init__(self, *shape: Any) -> None:
        dims = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (list, tuple)) else list(shape)
        if len(dims) > 8:
            raise ValueError(f"Input length {len(dims)}. Max expected length is 8")
        self._dims = dims

    def __len__(self) -> int:
        return len(self._dims)

    def __getitem__(self, arg0: Any) -> Any:
        if isinstance(arg0, slice):
            return tuple(self._dims[arg0])
        if not -len(self._dims) <= arg0 < len(self._dims):
            raise IndexError("Out of bounds")
        return self._dims[arg0]

    def __setitem__(self, arg0: Any, arg1: Any) -> None:
        self._dims[arg0] = list(arg1) if isinstance(arg0, slice) else arg1

    def __eq__(self, arg0: Any) -> bool:
        return tuple(self._dims) == tuple(arg0)

    def __str__(self) -> str:
        return str(tuple(self._dims))

    def __repr__(self) -> str:
        return str(tuple(self._dims))

    @property
    def MAX_DIMS(self) -> int:
        return 8


class FixedDims:
    """A shape whose number of dimensions is fixed, given as numbers or as one sequence."""

    _dims: list[int]

    def __init__(self, *shape: Any) -> None:
        self._dims = list(shape[0]) if len(shape) == 1 else list(shape)


class DimsHW(FixedDims):
    """A height and a width."""

    @property
    def h(self) -> int:
        return self._dims[0]

    @h.setter
    def h(self, value: int) -> None:
        self._dims[0] = value

    @property
    def w(self) -> int:
        return self._dims[1]

    @w.setter
    def w(self, value: int) -> None:
        self._dims[1] = value


class Weights:
    """Numbers of one type in host memory."""

    _trt: Any

    def __init__(self, type: Any = None, ptr: Any = None, count: int = 0) -> None:
        self._array = type if isinstance(type, np.ndarray) else np.empty(0, np.float32)
        self._dtype = None if isinstance(type, np.ndarray) else type

    def __len__(self) -> int:
        return int(self._array.size)

    def numpy(self) -> Any:
        return self._array

    @property
    def dtype(self) -> Any:
        kinds = self._trt.DataType
        names = {"float32": "FLOAT", "float16": "HALF", "bool": "BOOL"}
        name = names.get(self._array.dtype.name, self._array.dtype.name.upper())
        return self._dtype or getattr(kinds, name)

    @property
    def nbytes(self) -> int:
        return int(self._array.nbytes)

    @property
    def size(self) -> int:
        return int(self._array.size)


class TimingCacheKey:
    """The key of an op in an editable timing cache."""

    _text: str

    def __str__(self) -> str:
        return self._text

    @staticmethod
    def parse(classes: Classes, text: str) -> Any:
        if len(text) != 34:
            raise ValueError("The text should have exactly 34 characters.")
        if not text.startswith(("0x", "0X")):
            raise ValueError("The text should start with prefix `0x` or `0X`.")
        pairs = [_byte(text[i : i + 2]) for i in range(2, 34, 2)]
        return make(classes["TimingCacheKey"], _text="0x" + "".join(f"{pair:02x}" for pair in pairs))


def _byte(pair: str) -> int:
    # As the real one reads: of "1g" it takes the 1, only "g1" is wrong.
    hexadecimal = "0123456789abcdefABCDEF"
    if pair[0] not in hexadecimal:
        raise ValueError("The text has invalid content.")
    return int(pair if pair[1] in hexadecimal else pair[0], 16)


class TimingCacheValue:
    """A tactic and its time."""

    _hash: int
    _time: float

    def __init__(self, arg0: int, arg1: float) -> None:
        if not 0 <= arg0 < 2**64:
            raise TypeError(
                "__init__(): incompatible constructor arguments. The following argument types are supported:\n"
                "    1. TimingCacheValue(arg0: typing.SupportsInt, arg1: typing.SupportsFloat)\n\n"
                f"Invoked with: {arg0}, {arg1}"
            )
        self._hash, self._time = arg0, single(arg1)

    @property
    def tacticHash(self) -> int:
        return self._hash

    @tacticHash.setter
    def tacticHash(self, value: int) -> None:
        self._hash = value

    @property
    def timingMSec(self) -> float:
        return self._time

    @timingMSec.setter
    def timingMSec(self, value: float) -> None:
        self._time = single(value)


def single(value: float) -> float:
    """The nearest number of 32 bits."""
    return float(struct.unpack("f", struct.pack("f", value))[0]) if math.isfinite(value) else value


class IHostMemory:
    """Bytes that the library owns; gives a buffer and nothing else of what bytes can do."""

    _trt: Any

    def __len__(self) -> int:
        raise TypeError(f"object of type '{type(self).__name__}' has no len()")

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"'{type(self).__name__}' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError(f"'{type(self).__name__}' object is not iterable")

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes  # type: ignore[arg-type]

    @property
    def dtype(self) -> Any:
        return self._trt.DataType.INT8


class Permutation:
    """An order of eight dimensions."""

    def __init__(self, arg0: Any = ()) -> None:
        self._order = [*arg0, *[0] * (8 - len(arg0))]

    def __repr__(self) -> str:
        return str(tuple(self._order))


def volume(iterable: Any) -> int:
    """The product of the numbers."""
    product = 1
    for number in iterable:
        product *= number
    return product
