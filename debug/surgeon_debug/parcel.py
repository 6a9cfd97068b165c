"""Values on their way between two processes: a description of plain words, and the numbers in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from surgeon_debug.element_types import STRING, Buffer, element_type_of, is_foreign, packed_size, type_of_number
from surgeon_debug.shared_memory import Inbox, Outbox, lease_of
from surgeon_debug.values import Value, text_of
from surgeon_passes.errors import BadOptionError


def pack(values: dict[str, Value], outbox: Outbox, *, pass_on: bool) -> dict[str, Any]:
    """Put values into shared memory, one by one; each is taken out of ``values`` as soon as it is copied.

    Args:
        values: Values by name; empty afterwards.
        outbox: Where they go; its message has to be finished by the caller.
        pass_on: Lend memory that came from another process on, instead of copying it.

    Returns:
        A JSON document.

    Raises:
        ValueError: Something is no value that a model can have.
    """
    outbox.begin(sum(_size(value) for value in values.values()))
    packer = _Packer(outbox, pass_on)
    described = {}
    for name in list(values):
        try:
            described[name] = packer.value(values.pop(name))
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"'{name}': {error}") from error
    return described


def _size(value: Value) -> int:
    if isinstance(value, list):
        return sum(_size(item) for item in value)
    array = value.data if isinstance(value, Buffer) else value
    return array.nbytes if isinstance(array, np.ndarray) else 0


class _Packer:
    def __init__(self, outbox: Outbox, pass_on: bool) -> None:
        self._outbox = outbox
        self._pass_on = pass_on

    def value(self, value: Value) -> Any:
        if value is None:
            return None
        if isinstance(value, Buffer):
            return self._bytes(value.element_type, value.shape, value.data)
        if isinstance(value, Mapping):
            return {"map": [[_key(key), self.value(item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"list": [self.value(item) for item in value]}
        return self._tensor(np.asarray(value))

    def _tensor(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if is_foreign(array.dtype):
            return self.value(Buffer.of(array))  # type: ignore[no-any-return]
        element_type = element_type_of(array)
        if element_type == STRING:
            return {"text": [text_of(item) for item in array.reshape(-1)], "shape": list(array.shape)}
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return self._bytes(element_type, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def _bytes(self, element_type: int, shape: tuple[int, ...], data: np.ndarray[Any, Any]) -> dict[str, Any]:
        described = {"type": element_type, "shape": [int(size) for size in shape], "at": None}
        if data.nbytes:
            lease = lease_of(data) if self._pass_on else None
            if lease is None:
                described["at"] = self._outbox.put(data)
            else:
                offset = data.__array_interface__["data"][0] - lease.address
                described["at"] = [self._outbox.pass_on(lease), offset]
        return described


def _key(key: Any) -> Any:
    return int(key) if isinstance(key, (int, np.integer)) else str(key)


def unpack(described: Mapping[str, Any], inbox: Inbox) -> dict[str, Value]:
    """Values from their description; their numbers are views of shared memory.

    Types that numpy lacks come as :class:`Buffer`.

    Raises:
        ValueError, KeyError, TypeError: The description is rubbish.
    """
    values = {name: _value(item, inbox) for name, item in described.items()}
    inbox.finish()
    return values


def _value(item: Any, inbox: Inbox) -> Value:
    if item is None:
        return None
    if "list" in item:
        return [_value(inner, inbox) for inner in item["list"]]
    if "map" in item:
        return {key: _value(inner, inbox) for key, inner in item["map"]}
    shape = tuple(int(size) for size in item["shape"])
    if "text" in item:
        flat = np.empty(len(item["text"]), dtype=object)
        flat[:] = item["text"]
        return flat.reshape(shape)
    try:
        kind = type_of_number(item["type"])
    except BadOptionError as error:
        raise ValueError(str(error)) from None
    size = packed_size(kind.number, shape)
    key, offset = item["at"] if size else (0, 0)
    data = inbox.array(key, offset, size) if size else np.empty(0, np.uint8)
    if kind.foreign:
        return Buffer(kind.number, shape, data)
    return data.view(kind.dtype_name).reshape(shape)
