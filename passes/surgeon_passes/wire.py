"""Cut large weights out of a serialised model, and splice them into one, without decoding it.

A model file with inline weights is one protobuf message; parsing it holds every weight in memory, often twice. Here
the wire format is walked instead: only messages large enough to hold a weight are entered, the bytes of each large
``TensorProto.raw_data`` are noted as a span of the file, and what remains is a small model whose tensors carry a mark
and an index in place of their data. Writing is the reverse: lengths of the enclosing messages are recomputed and the
spans streamed into their place, so that a copy costs no more memory than the graph.

Field numbers are those of onnx.proto (they never change within protobuf's rules).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from surgeon_passes.errors import BadModelError

MARK = "\x00onnx-surgeon"
"""The ``location`` of a tensor whose data was cut out; its ``offset`` is the index of the span. No path holds a NUL."""

_LENGTH_DELIMITED = 2
_MAX_DEPTH = 100  # protobuf's own limit on nesting

# Message kind -> field number -> kind of the message in that field.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_RAW_DATA = 9
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14


@dataclasses.dataclass(frozen=True)
class Span:
    """Bytes of a file that are the data of one tensor."""

    offset: int
    """First byte, from the start of the file."""
    length: int
    """Number of bytes."""


@dataclasses.dataclass(frozen=True)
class Payload:
    """A place in an output stream where the data of one tensor goes."""

    index: int
    """Which tensor: the index that its mark carries."""
    length: int
    """Bytes that go there."""


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """Read one varint; return it and the position behind it."""
    result = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise BadModelError(f"the file is truncated or not ONNX (bad number at byte {at})")


def encode_varint(value: int) -> bytes:
    """A non-negative integer in protobuf's variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (field number, wire type, start of field, start of content, end of field) of one message.

    Args:
        data: The serialised message, or more.
        start: Where the message begins.
        end: Where it ends.

    Raises:
        BadModelError: The bytes are truncated or not a protobuf message.
    """
    at = start
    while at < end:
        field_start = at
        # Nearly all numbers take one byte; a call for each would be most of what this costs.
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, field_start, end)
        wire = tag & 7
        content = at
        if wire == _LENGTH_DELIMITED:
            if at < end and (length := data[at]) <= 0x7F:
                content = at + 1
            else:
                length, content = _varint(data, at, end)
            at = content + length
        elif wire == 0:
            _, at = _varint(data, at, end)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        else:
            raise BadModelError(f"the file is not ONNX (unknown wire type {wire} at byte {field_start})")
        if at > end:
            raise BadModelError(
                f"the file is truncated or not ONNX (a field at byte {field_start} ends behind its message)"
            )
        yield tag >> 3, wire, field_start, content, at


def _marked_tail(index: int, length: int) -> bytes:
    """The external_data and data_location fields that stand for data cut out."""
    out = bytearray()
    for key, value in (("location", MARK), ("offset", str(index)), ("length", str(length))):
        entry = b"".join(
            encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(text)) + text
            for number, text in ((1, key.encode()), (2, value.encode()))
        )
        out += encode_varint(_EXTERNAL_DATA << 3 | _LENGTH_DELIMITED) + encode_varint(len(entry)) + entry
    return bytes(out) + encode_varint(_DATA_LOCATION << 3) + b"\x01"


class _Cutter:
    """Builds the small model and collects the spans."""

    def __init__(self, data: memoryview, threshold: int) -> None:
        self.data = data
        self.threshold = threshold
        self.spans: list[Span] = []

    def message(self, kind: str, start: int, end: int, depth: int) -> bytes:
        if depth > _MAX_DEPTH:
            raise BadModelError(f"the model nests more than {_MAX_DEPTH} messages deep")
        out = bytearray()
        tail = b""
        kept_from = start
        for number, wire, field_start, content, field_end in fields(self.data, start, end):
            if wire != _LENGTH_DELIMITED or field_end - content < self.threshold:
                continue
            if kind == "tensor":
                if number != _RAW_DATA:
                    continue
                # At the end, where it wins over a data_location that is already there.
                tail, replacement = _marked_tail(len(self.spans), field_end - content), b""
                self.spans.append(Span(content, field_end - content))
            elif child := _CHILDREN[kind].get(number):
                body = self.message(child, content, field_end, depth + 1)
                replacement = encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(len(body)) + body
            else:
                continue
            out += self.data[kept_from:field_start]
            out += replacement
            kept_from = field_end
        out += self.data[kept_from:end]
        return bytes(out) + tail


def cut_weights(data: memoryview, threshold: int) -> tuple[bytes, list[Span]]:
    """Separate a serialised ModelProto into a small one and the spans of its large weights.

    Args:
        data: The whole serialised model, usually a memory map; only headers and small fields are read.
        threshold: Tensors whose raw data is at least this many bytes are cut out.

    Returns:
        The serialised small model and, by the index in its marks, where the data of each cut tensor is.

    Raises:
        BadModelError: The bytes are truncated or not a protobuf message.
    """
    cutter = _Cutter(data, threshold)
    return cutter.message("model", 0, len(data), 0), cutter.spans


def _splice_tensor(data: memoryview, start: int, end: int) -> tuple[list[bytes | Payload], int]:
    """A tensor with its mark replaced by a raw_data field."""
    kept = bytearray()
    index = length = -1
    for number, _wire, field_start, content, field_end in fields(data, start, end):
        if number == _DATA_LOCATION:
            continue
        if number == _EXTERNAL_DATA:
            entry = {n: bytes(data[c:e]) for n, _, _, c, e in fields(data, content, field_end)}
            if entry.get(1) == b"offset":
                index = int(entry[2])
            elif entry.get(1) == b"length":
                length = int(entry[2])
            continue
        kept += data[field_start:field_end]
    head = bytes(kept) + encode_varint(_RAW_DATA << 3 | _LENGTH_DELIMITED) + encode_varint(length)
    return [head, Payload(index, length)], len(head) + length


def _splice(data: bytes, view: memoryview, kind: str, start: int, end: int) -> tuple[list[bytes | Payload], int]:
    mark = MARK.encode()
    parts: list[bytes | Payload] = []
    total = 0
    kept_from = start
    for number, wire, field_start, content, field_end in fields(view, start, end):
        child = _CHILDREN[kind].get(number) if wire == _LENGTH_DELIMITED else None
        if child is None or data.find(mark, content, field_end) < 0:
            continue
        if child == "tensor":
            inner, length = _splice_tensor(view, content, field_end)
        else:
            inner, length = _splice(data, view, child, content, field_end)
        head = data[kept_from:field_start] + encode_varint(number << 3 | _LENGTH_DELIMITED) + encode_varint(length)
        parts += [head, *inner]
        total += len(head) + length
        kept_from = field_end
    tail = data[kept_from:end]
    return [*parts, tail], total + len(tail)


def splice_weights(small: bytes) -> tuple[Sequence[bytes | Payload], int]:
    """The stream of a full model from a small one that carries marks.

    Args:
        small: A serialised ModelProto in which tensors carry marks (index in ``offset``, bytes in ``length``).

    Returns:
        What to write, in order: literal bytes and places for tensor data; and the total length in bytes.
    """
    return _splice(small, memoryview(small), "model", 0, len(small))
