"""Memory that two processes share and that has no name: nothing is left of it when both are gone, however they go.

A segment is a file in memory (``memfd_create``), passed from one process to the other as an open file. Its owner packs
arrays into it; the reader's arrays are views of it. When the last of them is dropped the reader says so with its next
message, and the owner uses the memory again: fresh memory costs several times what copying into it does. Segments that
a message did not need are given back to the system.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_Bytes = np.ndarray[Any, Any]

Use = tuple[int, int]
"""The key of a segment and the number of a message that used it."""

SEGMENT = 16 << 20
"""Bytes of a segment that holds small arrays: memory is freed in pieces of this size."""

_MOST = 32  # a message of any size takes about this many segments, for each is an open file
_KEEP = (
    64 << 20
)  # a mapping of another worker's segment up to this size is kept: mapping it anew costs as much as a copy
_ALIGN = 64


class Mapping(mmap.mmap):
    """A segment in memory, with a file of its own to pass it on by; both are let go together."""

    file: int

    def __new__(cls, file: int, size: int, *, writable: bool) -> Mapping:
        """Map a segment; the file belongs to the mapping from now on, also if this fails."""
        try:
            if os.fstat(file).st_size < size:
                raise ValueError("a segment is smaller than it says")
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            # Before 3.13 a mapping keeps a copy of the file open, for nothing.
            options: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            self = super().__new__(cls, file, size, flags=mmap.MAP_SHARED, prot=protection, **options)
        except BaseException:
            os.close(file)
            raise
        self.file = file
        with contextlib.suppress(OSError, AttributeError):
            self.madvise(mmap.MADV_HUGEPAGE)
        return self

    def __del__(self) -> None:
        file, self.file = getattr(self, "file", -1), -1
        if file >= 0:
            os.close(file)


class Lease:
    """The memory of a segment for as long as any array looks at it; the ``base`` of all such arrays."""

    def __init__(self, mapping: Mapping, size: int, use: Use, freed: collections.deque[Use]) -> None:
        self.mapping = mapping
        self.size = size
        whole = np.frombuffer(mapping, np.uint8, size)
        self.__array_interface__ = dict(whole.__array_interface__, data=(_address(whole), not whole.flags.writeable))
        self._use = use
        self._freed = freed

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return int(self.__array_interface__["data"][0])

    def __del__(self) -> None:
        self._freed.append(self._use)


def _address(array: _Bytes) -> int:
    return int(array.__array_interface__["data"][0])


def lease_of(array: _Bytes) -> Lease | None:
    """The lease whose memory a contiguous array lies in; None if it lies anywhere else."""
    holder: Any = array
    while isinstance(holder, np.ndarray):
        holder = holder.base
    if not isinstance(holder, Lease):
        return None
    offset = _address(array) - holder.address
    return holder if 0 <= offset <= holder.size - array.nbytes else None


class _Segment:
    """A segment as its owner sees it."""

    def __init__(self, key: int, size: int) -> None:
        file = os.memfd_create("onnx-surgeon", os.MFD_CLOEXEC)
        try:
            os.truncate(file, size)
        except BaseException:
            os.close(file)
            raise
        self.key = key
        self.size = size
        self.mapping = Mapping(file, size, writable=True)
        self.bytes = np.frombuffer(self.mapping, np.uint8)
        self.filled = 0


class Outbox:
    """The segments that this process owns and fills; one message at a time."""

    def __init__(self) -> None:
        self._serial = 0
        self._message = 0
        self._free: dict[int, _Segment] = {}
        self._lent: dict[int, _Segment] = {}
        self._passed: dict[Use, Lease] = {}
        self._keys: weakref.WeakKeyDictionary[Mapping, int] = weakref.WeakKeyDictionary()
        self._gone: collections.deque[int] = collections.deque()
        self._begin()

    def _begin(self, total: int = 0) -> None:
        self._unit = max(SEGMENT, total // _MOST)
        self._current: _Segment | None = None
        self._filled: list[_Segment] = []
        self._passing: dict[Lease, int] = {}
        self._new: list[tuple[int, Mapping, int, bool]] = []

    def begin(self, total: int) -> None:
        """Start a message.

        Args:
            total: Bytes it will hold, about.
        """
        self._begin(total)

    def put(self, data: _Bytes) -> tuple[int, int]:
        """Copy bytes into a segment.

        Args:
            data: A contiguous vector of uint8 that is not empty.

        Returns:
            The segment's key and the offset in it.
        """
        segment = self._current
        if data.nbytes >= self._unit:
            segment = self._take(data.nbytes)
        elif segment is None or segment.filled + data.nbytes > segment.size:
            segment = self._current = self._take(self._unit)
        start = segment.filled
        segment.bytes[start : start + data.nbytes] = data
        segment.filled = start + -(-data.nbytes // _ALIGN) * _ALIGN
        return segment.key, start

    def _take(self, size: int) -> _Segment:
        fitting = [s for s in self._free.values() if size <= s.size <= 2 * size]
        segment = min(fitting, key=lambda s: s.size, default=None)
        if segment is None:
            self._serial += 1
            segment = _Segment(self._serial, size)
            self._new.append((segment.key, segment.mapping, size, False))
        self._free.pop(segment.key, None)
        segment.filled = 0
        self._lent[segment.key] = segment
        self._filled.append(segment)
        return segment

    def pass_on(self, lease: Lease) -> int:
        """Lend memory that another process owns and this one reads; it stays alive until the reader is done.

        Returns:
            The key it has in this message.
        """
        key = self._keys.get(lease.mapping, 0)
        if lease not in self._passing:
            if not key:
                self._serial += 1
                key = self._serial
                once = lease.size > _KEEP
                self._new.append((key, lease.mapping, lease.size, once))
                if not once:
                    self._keys[lease.mapping] = key
                    weakref.finalize(lease.mapping, self._gone.append, key)
            self._passing[lease] = key
            self._passed[key, self._message] = lease
        return self._passing[lease]

    def finish(self) -> tuple[dict[str, Any], list[int]]:
        """End a message.

        Returns:
            What the reader must be told, and the files that go with it.
        """
        dropped = list(self._free)
        self._free.clear()
        while self._gone:
            dropped.append(self._gone.popleft())
        told = {
            "message": self._message,
            "segments": [[key, size, once] for key, _, size, once in self._new],
            "dropped": dropped,
        }
        files = [mapping.file for _, mapping, _, _ in self._new]
        self._message += 1
        self._begin()
        return told, files

    def abandon(self) -> None:
        """End a message that will not be sent."""
        unknown = {key for key, _, _, _ in self._new}
        for segment in self._filled:
            del self._lent[segment.key]
            if segment.key not in unknown:
                self._free[segment.key] = segment
        for lease, key in self._passing.items():
            del self._passed[key, self._message]
            if key in unknown:
                self._keys.pop(lease.mapping, None)
        self._begin()

    def reclaim(self, uses: Iterable[Sequence[int]]) -> None:
        """Take back what the reader no longer looks at, as :meth:`Inbox.freed` says at the other end."""
        for key, message in uses:
            self._passed.pop((key, message), None)
            segment = self._lent.pop(key, None)
            if segment is not None:
                self._free[key] = segment


class Inbox:
    """The segments of another process that this one reads.

    Args:
        writable: Whether the arrays may be written to here.
    """

    def __init__(self, *, writable: bool) -> None:
        self._writable = writable
        self._mappings: dict[int, tuple[Mapping, int]] = {}
        self._freed: collections.deque[Use] = collections.deque()
        self._message = 0
        self._once: dict[int, tuple[Mapping, int]] = {}
        self._open: dict[int, _Bytes] = {}

    def begin(self, told: dict[str, Any], files: Sequence[int]) -> None:
        """Start to read a message.

        Args:
            told: What :meth:`Outbox.finish` returned at the other end.
            files: The files that came with it; they belong to this object from now on, also if this fails.

        Raises:
            ValueError: What is told does not fit the files.
        """
        left = collections.deque(files)
        self._message = told["message"]
        try:
            for key, size, once in told["segments"]:
                mapping = Mapping(left.popleft(), size, writable=self._writable and not once)
                (self._once if once else self._mappings)[key] = (mapping, size)
            for key in told["dropped"]:
                self._mappings.pop(key, None)
        finally:
            for file in left:
                os.close(file)

    def array(self, key: int, offset: int, size: int) -> _Bytes:
        """A view of some bytes of a segment.

        Raises:
            ValueError: There is no such segment or it is smaller.
        """
        if key not in self._open:
            found = self._mappings.get(key) or self._once.get(key)
            if found is None:
                raise ValueError(f"there is no segment {key}")
            self._open[key] = np.asarray(Lease(*found, (key, self._message), self._freed))
        whole = self._open[key]
        if not 0 <= offset <= offset + size <= whole.size:
            raise ValueError(f"segment {key} has no bytes {offset} to {offset + size}")
        return whole[offset : offset + size]

    def finish(self) -> None:
        """End reading a message: from now on its arrays alone keep its memory."""
        self._open = {}
        self._once = {}

    def freed(self) -> list[Use]:
        """Uses of segments that nothing looks at any more, since this was asked last."""
        found = []
        while self._freed:
            found.append(self._freed.popleft())
        return found
