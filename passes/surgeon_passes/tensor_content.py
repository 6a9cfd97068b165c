"""Tell tensors of equal content, bit for bit, without holding more than a few megabytes of any stored weight.

Two tensors are compared by bits: -0.0 differs from 0.0, and a NaN equals a NaN of the same payload. As little as
possible is read: nothing of a tensor whose type and shape no other one has, the two ends of one that differs there
from all others, and nothing twice of regions of a file that are the same region.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

import onnx_ir as ir

from surgeon_passes.constants import nbytes_of
from surgeon_passes.errors import FileError

_CHUNK = 1 << 22
_END = 4096  # bytes at each end of a tensor that are looked at before the rest


def chunks_of(tensor: ir.TensorProtocol) -> Iterator[bytes]:
    """The data of a tensor in pieces: those of a file of at most 4 MiB, those in memory as they are.

    Strings come one by one, each after its length, so that ``ab, c`` and ``a, bc`` differ.

    Raises:
        FileError: A file that holds the data cannot be read.
    """
    if tensor.dtype == ir.DataType.STRING:
        for text in tensor.numpy().reshape(-1):
            data = text if isinstance(text, bytes) else str(text).encode()
            yield len(data).to_bytes(8, "little") + data
        return
    own = getattr(tensor, "chunks", None)
    region = _region(tensor)
    if own is not None:
        yield from own()
    elif region is not None:
        yield from _file_chunks(*region)
    else:
        yield tensor.tobytes()


def _region(tensor: ir.TensorProtocol) -> tuple[str, int, int] | None:
    """Path, first byte and length of a tensor whose data is a region of a file; None if it is in memory."""
    path, offset, length = (getattr(tensor, name, None) for name in ("path", "offset", "length"))
    if path is None or tensor.dtype == ir.DataType.STRING:
        return None
    return str(path), offset or 0, length if length is not None else nbytes_of(tensor)


def _file_chunks(path: str, offset: int, length: int) -> Iterator[bytes]:
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            while length > 0:
                data = file.read(min(_CHUNK, length))
                if not data:
                    raise FileError(f"ends {length} bytes before the weights in it do", where=path)
                length -= len(data)
                yield data
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", where=path) from error


def _ends(tensor: ir.TensorProtocol) -> bytes:
    """The first and the last bytes of a tensor; all of them if it is small."""
    region = _region(tensor)
    if region is None:
        data = b"".join(chunks_of(tensor))
        return data if len(data) <= 2 * _END else data[:_END] + data[-_END:]
    path, offset, length = region
    if length <= 2 * _END:
        return b"".join(chunks_of(tensor))
    file = getattr(tensor, "file", None)  # a file that is held open stays readable when its name is gone
    read = file.chunks if file is not None else lambda start, size: _file_chunks(path, start, size)
    return b"".join(read(offset, _END)) + b"".join(read(offset + length - _END, _END))


def same_content(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    """Whether two tensors have equal type, shape and bits. Reads both, in pieces.

    Raises:
        FileError: A file that holds the data cannot be read.
    """
    if one is other:
        return True
    if _kind(one) != _kind(other):
        return False
    region = _region(one)
    return (region is not None and region == _region(other)) or _equal_streams(chunks_of(one), chunks_of(other))


def _equal_streams(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Whether two streams hold the same bytes, however they are cut."""
    a = b = memoryview(b"")
    while True:
        if not a:
            a = memoryview(next(one, b""))
        if not b:
            b = memoryview(next(other, b""))
        if not a or not b:
            return not a and not b
        size = min(len(a), len(b))
        if a[:size] != b[:size]:
            return False
        a, b = a[size:], b[size:]


class ContentKeys:
    """Keys that are equal for tensors of equal content, and for no others.

    Args:
        tensors: All tensors that will be asked about.

    Raises:
        FileError: A file that holds data which must be read cannot be read.
    """

    def __init__(self, tensors: Iterable[ir.TensorProtocol]) -> None:
        groups: dict[Hashable, dict[int, ir.TensorProtocol]] = {}
        for tensor in tensors:
            groups.setdefault(_kind(tensor), {})[id(tensor)] = tensor
        self._ends: dict[int, bytes] = {}
        for group in groups.values():
            if len(group) > 1:
                ends = {number: hashlib.blake2b(_ends(t), digest_size=16).digest() for number, t in group.items()}
                alike = collections.Counter(ends.values())
                self._ends.update((number, end) for number, end in ends.items() if alike[end] > 1)
        self._digests: dict[Hashable, bytes] = {}
        self._classes: dict[Hashable, list[ir.TensorProtocol]] = {}

    def key(self, tensor: ir.TensorProtocol) -> Hashable:
        """The key of a tensor; for one without an equal a key that nothing else has.

        Raises:
            FileError: A file that holds its data cannot be read.
        """
        ends = self._ends.get(id(tensor))
        if ends is None:
            return "alone", id(tensor)
        digest = (_kind(tensor), ends, self._digest(tensor))
        # Equal digests mean equal data but for a vanishing chance; a rewrite of weights does not rest on chance.
        members = self._classes.setdefault(digest, [])
        for i, other in enumerate(members):
            if same_content(tensor, other):
                return digest, i
        members.append(tensor)
        return digest, len(members) - 1

    def _digest(self, tensor: ir.TensorProtocol) -> bytes:
        place: Hashable = _region(tensor) or id(tensor)
        if place not in self._digests:
            content = hashlib.blake2b(digest_size=16)
            for chunk in chunks_of(tensor):
                content.update(chunk)
            self._digests[place] = content.digest()
        return self._digests[place]


def _kind(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype, tuple(tensor.shape.numpy())
