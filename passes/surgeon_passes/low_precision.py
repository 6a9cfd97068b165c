"""Tensors in float16 or bfloat16 made from float32 ones: what such a type can hold, and rounding, once, when asked.

Rounding is to nearest, ties to even, straight from the float32 values. Large tensors are converted when something
reads them (when the model is saved), and those in files piece by piece, so that a model never stands in memory.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import onnx_ir as ir

from surgeon_passes.errors import FileError
from surgeon_passes.weight_file import MappedTensor

_PIECE = 1 << 20
_EAGER_BYTES = 1024

Floats = np.ndarray[Any, np.dtype[np.float32]]


class LowType(enum.Enum):
    """A type of sixteen bits."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def dtype(self) -> ir.DataType:
        """The element type."""
        return ir.DataType[self.name]

    @property
    def kind(self) -> str:
        """The type as operator definitions write it."""
        return f"tensor({self.value})"

    @property
    def suffix(self) -> str:
        """What a second copy of a constant has at the end of its name."""
        return {"float16": "_fp16", "bfloat16": "_bf16"}[self.value]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy type."""
        return np.dtype(np.float16) if self is LowType.FLOAT16 else np.dtype(ml_dtypes.bfloat16)

    def _limits(self) -> Any:
        return ml_dtypes.finfo(self.numpy)  # type: ignore[no-untyped-call]

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float(self._limits().max)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with all bits of precision."""
        return float(self._limits().smallest_normal)

    def round(self, values: Floats) -> np.ndarray[Any, Any]:
        """``values`` in this type; what is too large becomes infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(values.astype(self.numpy))

    @property
    def smallest(self) -> float:
        """The smallest positive number."""
        return float(self._limits().smallest_subnormal)


@dataclasses.dataclass(frozen=True)
class RangeLoss:
    """What a tensor loses beyond rounding when it is converted."""

    above: bool
    """A finite value rounds to infinity."""
    below: bool
    """A finite value rounds to minus infinity."""
    vanishes: bool
    """The tensor is not all zero, and rounds to all zero: an epsilon, as a rule."""


def pieces(tensor: ir.TensorProtocol) -> Iterator[Floats]:
    """The elements of a float32 tensor, flat, in pieces of about 4 MB.

    Tensors in files are read, not mapped: pages of a mapping stay in the process's memory while nothing needs room.
    """
    chunks = _chunks_in_file(tensor) if sys.byteorder == "little" else None
    if chunks is None:
        flat = tensor.numpy().reshape(-1)
        for start in range(0, flat.size, _PIECE):
            yield flat[start : start + _PIECE]
        return
    rest = b""
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        whole = len(data) // 4 * 4
        rest = data[whole:]
        yield np.frombuffer(data, np.float32, whole // 4)


def _chunks_in_file(tensor: ir.TensorProtocol) -> Iterator[bytes] | None:
    if isinstance(tensor, MappedTensor):
        return tensor.chunks()
    if isinstance(tensor, ir.ExternalTensor):
        return _read(Path(tensor.path), tensor.offset or 0, tensor.nbytes)
    return None


def _read(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0:
            chunk = file.read(min(4 * _PIECE, length))
            if not chunk:
                raise FileError(f"ended {length} bytes early while its weights were read", where=str(path))
            yield chunk
            length -= len(chunk)


def range_loss(tensor: ir.TensorProtocol, low: LowType) -> RangeLoss:
    """Read a float32 tensor piece by piece and say what ``low`` cannot hold of it."""
    least, largest = np.float32(0), np.float32(0)
    infinite = False
    for piece in pieces(tensor):
        low_end, high_end = piece.min(initial=0), piece.max(initial=0)
        if not (np.isfinite(low_end) and np.isfinite(high_end)):
            finite = piece[np.isfinite(piece)]
            infinite = infinite or finite.size < piece.size
            low_end, high_end = finite.min(initial=0), finite.max(initial=0)
        least, largest = min(least, low_end), max(largest, high_end)
    ends = low.round(np.array([least, largest], np.float32))
    vanishes = not infinite and not ends.any() and bool(least or largest)
    return RangeLoss(bool(np.isinf(ends[1])), bool(np.isinf(ends[0])), vanishes)


def loses_precision(tensor: ir.TensorProtocol, low: LowType) -> bool:
    """Whether some value other than zero falls below the smallest normal number of ``low``."""
    for piece in pieces(tensor):
        rounded = np.abs(low.round(piece).astype(np.float32))
        if ((piece != 0) & (rounded < low.smallest_normal)).any():
            return True
    return False


class LoweredTensor(ir.LazyTensor):
    """A float32 tensor in a type of sixteen bits, rounded each time something reads it.

    Args:
        tensor: The original.
        low: The type.
        name: The tensor's name.
        lift: Put the smallest number of the same sign where a value other than zero would become zero.
    """

    __slots__ = ("_lift", "_low", "_original")

    def __init__(self, tensor: ir.TensorProtocol, low: LowType, name: str | None, *, lift: bool) -> None:
        shape = ir.Shape(tensor.shape.numpy())
        super().__init__(self._whole, dtype=low.dtype, shape=shape, name=name, doc_string=tensor.doc_string)
        self._original, self._low, self._lift = tensor, low, lift

    def _rounded(self) -> Iterator[np.ndarray[Any, Any]]:
        low = self._low
        for piece in pieces(self._original):
            result = low.round(piece)
            if np.isinf(result).any():
                too_large = np.isinf(result) & np.isfinite(piece)
                ends = np.where(piece > 0, low.largest, -low.largest).astype(low.numpy)
                result = np.where(too_large, ends, result)
            if self._lift:
                result = np.where(result == 0, (np.sign(piece) * low.smallest).astype(low.numpy), result)
            yield result

    def _whole(self) -> ir.TensorProtocol:
        array, at = np.empty(self.size, self._low.numpy), 0
        for piece in self._rounded():
            array[at : at + piece.size] = piece
            at += piece.size
        return ir.Tensor(array.reshape(self.shape.numpy()), dtype=self.dtype, name=self.name)

    def tofile(self, file: BinaryIO) -> None:
        """Write the data to a file object piece by piece."""
        for piece in self._rounded():
            file.write(piece.tobytes() if sys.byteorder == "little" else piece.byteswap().tobytes())


def lowered_tensor(
    tensor: ir.TensorProtocol, low: LowType, name: str | None, loss: RangeLoss | None = None
) -> ir.TensorProtocol:
    """A float32 tensor in ``low``, same shape, rounded to nearest even.

    Finite values stay finite: what would round to infinity becomes the largest finite number. A tensor that would
    become all zero holds the smallest numbers of its signs instead. :func:`range_loss` says beforehand whether
    either happens.

    Args:
        tensor: The original, kept and read again each time the result is read, unless it is small.
        low: The type.
        name: The new tensor's name.
        loss: What :func:`range_loss` says about the tensor, where it is known.
    """
    lift = (loss or range_loss(tensor, low)).vanishes
    lazy = LoweredTensor(tensor, low, name, lift=lift)
    if lazy.nbytes > _EAGER_BYTES:
        return lazy
    return ir.Tensor(lazy.numpy(), dtype=low.dtype, name=name, doc_string=tensor.doc_string)
