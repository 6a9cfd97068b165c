"""One device: memory with addresses that are no host addresses, streams that work late, errors that stay.

Reading a device address as if it were one of the host crashes the process, as on the real thing. What is put on a
stream is done when somebody waits for the stream: who forgets to wait reads what was there before.
"""

from __future__ import annotations

import bisect
import ctypes
from collections.abc import Callable

import numpy as np

_BASE = 0x6E00_0000_0000
_ALIGN = 512
_FILL = 0xCD  # fresh memory holds rubbish

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, ILLEGAL_ADDRESS, INVALID_HANDLE, NO_DEVICE = 0, 1, 2, 700, 400, 100
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3


class CudaError(Exception):
    """A call failed with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CUDA error {code}")
        self.code = code


class Device:
    """The memory, the streams and the error state of one process."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.sticky = SUCCESS
        self.last = SUCCESS
        self._starts: list[int] = []
        self._blocks: dict[int, np.ndarray] = {}
        self._next = _BASE
        self._streams: dict[int, list[Callable[[], None]]] = {0: []}
        self._handles = 0

    @property
    def used(self) -> int:
        """Bytes given out."""
        return sum(block.nbytes for block in self._blocks.values())

    def check(self) -> None:
        """Raise the error that broke the context, if one has."""
        if self.sticky:
            raise CudaError(self.sticky)

    def malloc(self, nbytes: int) -> int:
        """Give out memory; zero bytes give the null pointer.

        Raises:
            CudaError: There is not that much.
        """
        self.check()
        if nbytes == 0:
            return 0
        if self.used + nbytes > self.memory:
            raise CudaError(OUT_OF_MEMORY)
        start = self._next
        self._next += (nbytes + _ALIGN - 1) // _ALIGN * _ALIGN + _ALIGN  # a gap, so that overruns are seen
        block = np.empty(nbytes, np.uint8)
        block[: 1 << 16] = _FILL
        self._blocks[start] = block
        self._starts.append(start)
        return start

    def free(self, address: int) -> None:
        """Take memory back; the null pointer is allowed."""
        if not address:
            return
        self.drain_all()
        if address not in self._blocks:
            raise CudaError(INVALID_VALUE)
        del self._blocks[address]
        self._starts.remove(address)

    def view(self, address: int, nbytes: int) -> np.ndarray:
        """The bytes at an address.

        Raises:
            CudaError: They are not all inside one block; that breaks the context for good.
        """
        if nbytes == 0:
            return np.empty(0, np.uint8)
        at = bisect.bisect_right(self._starts, address) - 1
        if at >= 0:
            start = self._starts[at]
            block = self._blocks[start]
            if address - start + nbytes <= block.nbytes:
                return block[address - start : address - start + nbytes]
        self.sticky = ILLEGAL_ADDRESS
        raise CudaError(ILLEGAL_ADDRESS)

    def copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        """Copy at once."""
        self.check()
        if kind == TO_DEVICE:
            block = self.view(target, nbytes)
            ctypes.memmove(block.ctypes.data, source, nbytes)
        elif kind == TO_HOST:
            block = self.view(source, nbytes)
            ctypes.memmove(target, block.ctypes.data, nbytes)
        elif kind == ON_DEVICE:
            self.view(target, nbytes)[:] = self.view(source, nbytes)
        elif kind == 0:
            ctypes.memmove(target, source, nbytes)
        elif kind == 4:
            from_device, to_device = source >= _BASE and self.owns(source), target >= _BASE and self.owns(target)
            self.copy(target, source, nbytes, 2 * from_device + to_device)
        else:
            raise CudaError(INVALID_VALUE)

    def owns(self, address: int) -> bool:
        """Whether an address is inside a block."""
        at = bisect.bisect_right(self._starts, address) - 1
        return at >= 0 and address - self._starts[at] < self._blocks[self._starts[at]].nbytes

    def create_stream(self) -> int:
        """A new stream's handle."""
        self.check()
        self._handles += 1
        handle = 0x5A000000 + 16 * self._handles
        self._streams[handle] = []
        return handle

    def destroy_stream(self, handle: int) -> None:
        """End a stream after its work."""
        self.drain(handle)
        if handle:
            del self._streams[handle]

    def put(self, handle: int, work: Callable[[], None]) -> None:
        """Put work on a stream."""
        if handle not in self._streams:
            raise CudaError(INVALID_HANDLE)
        self._streams[handle].append(work)

    def drain(self, handle: int) -> None:
        """Do all the work of a stream."""
        if handle not in self._streams:
            raise CudaError(INVALID_HANDLE)
        queue = self._streams[handle]
        while queue:
            queue.pop(0)()
        self.check()

    def drain_all(self) -> None:
        """Do all the work there is."""
        for handle in list(self._streams):
            self.drain(handle)


def _one_device() -> Callable[[], Device]:
    made: list[Device] = []

    def device() -> Device:
        if not made:
            from tests.simulated_tensorrt.plan import active

            made.append(Device(active().memory))
        return made[0]

    return device


device = _one_device()
"""The device of this process."""
