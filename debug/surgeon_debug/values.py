"""Values of any ONNX type in numpy's terms: numbers in types numpy lacks, text, sequences, maps, nothing.

Numbers in bfloat16, float8, float4, int4 and int2 are arrays of ml_dtypes here; see
:mod:`surgeon_debug.element_types`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer
from surgeon_debug.element_types import decode as decode
from surgeon_debug.element_types import element_type_of as element_type_of
from surgeon_debug.element_types import encode as encode
from surgeon_debug.element_types import is_foreign as is_foreign
from surgeon_debug.element_types import numpy_dtype as numpy_dtype

Value = Any
"""An array; a list of values (a sequence); a dict (a map); None (an optional that is empty)."""

Feeds = Mapping[str, Value]
"""Values by the name of the model input."""


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex", "O": "text", "S": "text", "U": "text"}


def normalise(value: Value) -> Value:
    """A value as this package compares it: arrays for tensors, object arrays of str for text, lists and dicts inside.

    Engines return text as fixed-width unicode, bytes or objects, scalars as numpy scalars, sequences as tuples, types
    that numpy lacks as :class:`Buffer`; after this the same content has the same form.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: normalise(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(item) for item in value]
    array = value.array() if isinstance(value, Buffer) else np.asarray(value)
    if array.dtype.kind in "USO":
        flat = np.empty(array.size, dtype=object)
        flat[:] = [text_of(item) for item in array.reshape(-1)]
        return flat.reshape(array.shape)
    return array


def to_buffers(value: Value) -> Value:
    """A value as runners take it: numbers in types numpy lacks become :class:`Buffer`, all else stays as it is."""
    if isinstance(value, np.ndarray):
        return Buffer.of(value) if is_foreign(value.dtype) else value
    return [to_buffers(item) for item in value] if isinstance(value, (list, tuple)) else value


def text_of(item: Any) -> str:
    """One text as str; bytes that are not UTF-8 survive as surrogates."""
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


def dtype_name(value: Value) -> str:
    """The element type as people write it (``float32``, ``bfloat16``, ``int4``, ``string``), or the kind of value."""
    kind = kind_of(value)
    if kind == "text":
        return "string"
    return kind if kind in ("none", "map", "sequence") else np.asarray(value).dtype.name


def nbytes(value: Value) -> int:
    """Bytes a value takes in memory, roughly for text and containers."""
    if value is None:
        return 0
    if isinstance(value, Mapping):
        return sum(nbytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(nbytes(item) for item in value)
    array = value.data if isinstance(value, Buffer) else np.asarray(value)
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
