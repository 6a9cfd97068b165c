"""Numbers of any type as float64, one cache-sized chunk at a time.

Everything that is measured is measured in float64, into which every ONNX type but the 64-bit integers widens exactly.
Widening a whole tensor would cost up to eight times its memory, so it is done in chunks that stay in a core's cache.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from surgeon_debug.values import is_foreign, kind_of

Array = np.ndarray[Any, Any]

CHUNK = 1 << 16
"""Elements of a chunk: with fewer the calls cost more than the numbers, four buffers of more leave the cache."""

_HEAD = 64  # elements


def epsilon(dtype: np.dtype[Any]) -> float:
    """The gap between 1 and the next number of a floating-point type; 0 for integers."""
    if dtype.kind == "c":
        return epsilon(np.zeros(0, dtype).real.dtype)
    is_float = "float" in dtype.name if is_foreign(dtype) else dtype.kind == "f"
    return float(np.spacing(np.ones(1, dtype))[0]) if is_float else 0.0


def as_real(array: Array) -> Array:
    """An array of complex numbers as one of twice as many real ones in the last axis; any other as it is.

    A scalar becomes an array of two elements.
    """
    if array.dtype.kind != "c":
        return array
    part = array.dtype.type(0).real.dtype.newbyteorder(array.dtype.byteorder)
    return np.ascontiguousarray(array).view(part)


def chunks(arrays: Sequence[Array], size: int = CHUNK) -> Iterator[tuple[int, list[Array]]]:
    """Arrays of one shape as flat contiguous chunks in C order, each with the flat position of its first element.

    Arrays that are contiguous are not copied; of others only a chunk at a time is.

    Args:
        arrays: Arrays of equal shape.
        size: Most elements of a chunk.
    """
    if all(array.flags.c_contiguous for array in arrays):
        flat = [array.reshape(-1) for array in arrays]
        for start in range(0, flat[0].size, size):
            yield start, [array[start : start + size] for array in flat]
        return
    for start, index in boxes(arrays[0].shape, size):
        yield start, [np.ascontiguousarray(array[index]).reshape(-1) for array in arrays]


def boxes(shape: Sequence[int], size: int) -> Iterator[tuple[int, tuple[int | slice, ...]]]:
    """Cut a shape into boxes that are contiguous in C order: flat position of the first element, and index.

    Of the axes before one axis the index is a number, of that axis a range, of those after it everything.

    Args:
        shape: The dimensions.
        size: Most elements of a box.
    """
    if 0 in shape:
        return
    axis, inner = len(shape), 1
    while axis > 0 and inner * shape[axis - 1] <= size:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield 0, ()
        return
    axis -= 1
    parts = -(-shape[axis] // max(1, size // inner))
    step = -(-shape[axis] // parts)
    start = 0
    for outer in np.ndindex(*shape[:axis]):
        for low in range(0, shape[axis], step):
            high = min(low + step, shape[axis])
            yield start, (*outer, slice(low, high))
            start += (high - low) * inner


def widener(dtype: np.dtype[Any]) -> Callable[[Array, Array], None]:
    """A function that writes a flat chunk of a type into a float64 array of its size."""
    if not is_foreign(dtype) or dtype.itemsize > 1:
        return _convert
    if "float" in dtype.name:
        return functools.partial(_from_table, dtype)
    return functools.partial(_from_bits, dtype.name.startswith("u"), _bits(dtype))


@functools.lru_cache(maxsize=32)
def byte_table(dtype: np.dtype[Any]) -> Array:
    """The float64 value of each code of a floating-point type that takes a byte."""
    with np.errstate(all="ignore"):
        return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)


@functools.lru_cache(maxsize=8)
def _pair_table(dtype: np.dtype[Any]) -> Array:
    """Two float64 values for each two codes, as one complex number: half as many look-ups."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return byte_table(dtype)[codes].view(np.complex128)


def _bits(dtype: np.dtype[Any]) -> int:
    return int(dtype.name.lstrip("uint"))


def _from_bits(unsigned: bool, bits: int, chunk: Array, out: Array) -> None:
    # Integers below a byte: one element a byte, what stands above its bits is not its own.
    if unsigned:
        out[...] = chunk.view(np.uint8) & np.uint8((1 << bits) - 1)
    else:
        unused = np.int8(8 - bits)
        out[...] = (chunk.view(np.int8) << unused) >> unused


def _from_table(dtype: np.dtype[Any], chunk: Array, out: Array) -> None:
    codes = chunk.view(np.uint8)
    # Any other mode checks the indices first and writes by way of a copy.
    if codes.size >= CHUNK and codes.size % 2 == 0:
        np.take(_pair_table(dtype), codes.view(np.uint16), out=out.view(np.complex128), mode="clip")
    else:
        np.take(byte_table(dtype), codes, out=out, mode="clip")


def _convert(chunk: Array, out: Array) -> None:
    out[...] = chunk


def unequal_bits(r: Array, t: Array) -> bool:
    """Whether two flat chunks of one type differ in any bit; True where their types differ."""
    if r.dtype != t.dtype:
        return True
    if r[:_HEAD].tobytes() != t[:_HEAD].tobytes():
        return True  # most chunks that differ do so at once
    width = r.dtype.itemsize
    whole = r.size * width // 8 * 8 // width if width <= 8 else r.size
    head_r, head_t = r[:whole].view(np.uint64), t[:whole].view(np.uint64)
    if not bool((head_r == head_t).all()):
        return True
    return bool((r[whole:].view(np.uint8) != t[whole:].view(np.uint8)).any())


def is_exact(array: Array) -> bool:
    """Whether the elements are numbers without rounding: integers or booleans."""
    return kind_of(array) in ("int", "bool")


def largest_finite(dtype: np.dtype[Any]) -> float:
    """The largest finite number of a type, as float64 holds it."""
    if dtype.kind == "b":
        return 1.0
    if is_foreign(dtype):
        import ml_dtypes

        limits: Any = ml_dtypes.finfo if "float" in dtype.name else ml_dtypes.iinfo
        return float(limits(dtype).max)
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).max)
    return float(np.finfo(dtype).max) if dtype.kind in "fc" else math.inf


_ONE_THREAD = 1 << 13  # elements; OpenBLAS takes threads for longer products, and waiting for them costs far more
_LONG = 1 << 10  # elements of a row from which numpy's own sums are as fast


def inner(a: Array, b: Array) -> float:
    """The dot product of two vectors of float64, on this thread alone."""
    if a.size <= _ONE_THREAD:
        return float(a @ b)
    whole = a.size // _ONE_THREAD * _ONE_THREAD
    parts = np.vecdot(a[:whole].reshape(-1, _ONE_THREAD), b[:whole].reshape(-1, _ONE_THREAD))
    return float(parts.sum() + a[whole:] @ b[whole:])


def row_sums(grid: Array) -> Array:
    """The sum of each row of a float64 matrix, on this thread alone."""
    rows, columns = grid.shape
    if columns > _LONG:
        return np.asarray(grid.sum(1))
    # numpy's own sum costs a call a row, however short.
    step, ones = _ONE_THREAD // max(1, columns), np.ones(columns)
    whole = rows // step
    blocks = grid[: whole * step].reshape(whole, step, columns) @ ones
    return np.concatenate([blocks.reshape(-1), grid[whole * step :] @ ones])


def column_sums(grid: Array) -> Array:
    """The sum of each column of a float64 matrix, on this thread alone."""
    rows, columns = grid.shape
    if columns > _LONG:
        return np.asarray(grid.sum(0))
    step = _ONE_THREAD // max(1, columns)
    whole = rows // step
    blocks = np.ones(step) @ grid[: whole * step].reshape(whole, step, columns)
    return np.asarray(blocks.sum(0) + np.ones(rows - whole * step) @ grid[whole * step :])
