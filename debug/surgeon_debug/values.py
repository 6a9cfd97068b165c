"""Values of any ONNX type in numpy's terms: numbers in types numpy lacks, text, sequences, maps, nothing.

Numbers in bfloat16, float8, float4, int4 and int2 are arrays of ml_dtypes, one element a byte or more, so that
arithmetic on them means what it says. Engines hand such data over as raw buffers; :func:`decode` and :func:`encode`
are the only places that know how they are packed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_passes.errors import BadOptionError

Value = Any
"""An array; a list of values (a sequence); a dict (a map); None (an optional that is empty)."""

Feeds = Mapping[str, Value]
"""Values by the name of the model input."""


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex", "O": "text", "S": "text", "U": "text"}


def normalise(value: Value) -> Value:
    """A value as this package compares it: arrays for tensors, object arrays of str for text, lists and dicts inside.

    Engines return text as fixed-width unicode, bytes or objects, scalars as numpy scalars, sequences as tuples; after
    this the same content has the same form.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: normalise(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(item) for item in value]
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        flat = np.empty(array.size, dtype=object)
        flat[:] = [_text(item) for item in array.reshape(-1)]
        return flat.reshape(array.shape)
    return array


def _text(item: Any) -> str:
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


def kind_of(value: Value) -> str:
    """What sort of value this is: ``float``, ``complex``, ``int``, ``bool``, ``text``, ``sequence``, ``map``, ``none``.

    ``float`` and ``int`` include the types numpy lacks. ``raw`` are bytes whose type got lost.
    """
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "map"
    if isinstance(value, (list, tuple)):
        return "sequence"
    dtype = np.asarray(value).dtype
    if not is_foreign(dtype):
        return _KINDS.get(dtype.kind, "raw")
    # The kind of a type of ml_dtypes says nothing; its name tells numbers with a fraction from integers.
    return "float" if "float" in dtype.name else "int"


def is_foreign(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one that numpy itself lacks and ml_dtypes adds."""
    return dtype.isbuiltin == 2  # numpy's word for registered by another package


def dtype_name(value: Value) -> str:
    """The element type as people write it (``float32``, ``bfloat16``, ``int4``, ``string``), or the kind of value."""
    kind = kind_of(value)
    if kind == "text":
        return "string"
    return kind if kind in ("none", "map", "sequence") else np.asarray(value).dtype.name


def numpy_dtype(element_type: int) -> np.dtype[Any]:
    """The numpy (or ml_dtypes) dtype of an ONNX element type; object for strings.

    Args:
        element_type: A number of TensorProto.DataType.
    """
    kind = ir.DataType(element_type)
    return np.dtype(object) if kind == ir.DataType.STRING else np.dtype(kind.numpy())


def decode(raw: bytes | memoryview, element_type: int, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """An array from the raw little-endian buffer of a tensor, with types below a byte unpacked.

    Args:
        raw: The buffer; elements below a byte are packed from the lowest bit on.
        element_type: A number of TensorProto.DataType.
        shape: The dimensions.
    """
    kind = ir.DataType(element_type)
    dtype = numpy_dtype(element_type)
    if kind.bitwidth >= 8:
        # A dtype with a byte order is another object than the native one, even where both say the same.
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=True)
    size = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[: size * kind.bitwidth]
    codes = np.packbits(bits.reshape(size, kind.bitwidth), axis=1, bitorder="little").reshape(shape)
    if "float" in dtype.name:
        return codes.view(dtype)
    if dtype.name.startswith("int"):  # sign-extend: ml_dtypes keeps a small integer as a whole signed byte
        sign = 1 << (kind.bitwidth - 1)
        codes = ((codes ^ sign).astype(np.int8) - sign).astype(np.int8)
    return codes.astype(dtype)


def encode(array: np.ndarray[Any, Any], element_type: int) -> bytes:
    """The raw little-endian buffer of a tensor, the inverse of :func:`decode`.

    Args:
        array: Elements of the dtype that belongs to ``element_type``.
        element_type: A number of TensorProto.DataType, not STRING.
    """
    return ir.Tensor(np.ascontiguousarray(array), dtype=ir.DataType(element_type)).tobytes()


def element_type_of(array: np.ndarray[Any, Any]) -> int:
    """The number in TensorProto.DataType of an array's elements.

    Raises:
        BadOptionError: ONNX has no such type.
    """
    if kind_of(array) == "text":
        return ir.DataType.STRING.value
    try:
        return ir.DataType.from_numpy(array.dtype).value
    except TypeError:
        raise BadOptionError(f"ONNX has no element type for numpy's {array.dtype}") from None


def nbytes(value: Value) -> int:
    """Bytes a value takes in memory, roughly for text and containers."""
    if value is None:
        return 0
    if isinstance(value, Mapping):
        return sum(nbytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(nbytes(item) for item in value)
    array = np.asarray(value)
    return sum(len(str(item)) for item in array.reshape(-1)) if array.dtype == object else int(array.nbytes)


def same(a: Value, b: Value) -> bool:
    """Whether two values are equal in every element: same kind, dtype and shape; NaN equals NaN, and -0 equals 0."""
    if kind_of(a) != kind_of(b):
        return False
    if a is None:
        return True
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if kind_of(a) in ("float", "complex"):
        with np.errstate(invalid="ignore"):
            return bool(np.all((a == b) | ((a != a) & (b != b))))
    return bool(np.all(a == b))


def digest(value: Value) -> str:
    """A SHA-256 over type, shape and content; hexadecimal. Every NaN counts as the same, -0 and 0 as different."""
    content = hashlib.sha256()
    _feed_digest(content.update, value)
    return content.hexdigest()


def _feed_digest(update: Any, value: Value) -> None:
    if value is None:
        update(b"none;")
    elif isinstance(value, Mapping):
        update(b"map:%d;" % len(value))
        for key in sorted(value, key=repr):
            update(repr(key).encode())
            _feed_digest(update, value[key])
    elif isinstance(value, (list, tuple)):
        update(b"sequence:%d;" % len(value))
        for item in value:
            _feed_digest(update, item)
    else:
        array = np.asarray(value)
        update(f"{dtype_name(array)}{array.shape};".encode())
        if array.dtype == object:
            for item in array.reshape(-1):
                text = str(item).encode("utf-8", "surrogateescape")
                update(b"%d:" % len(text) + text)
            return
        array = np.ascontiguousarray(array)
        if kind_of(array) == "float" and bool(np.any(array != array)):
            array = array.copy()
            array[array != array] = np.nan
        update(array.view(np.uint8).data if array.ndim and array.size else array.tobytes())
