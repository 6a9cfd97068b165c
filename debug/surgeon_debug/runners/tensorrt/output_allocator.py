"""Memory for outputs, asked for by the engine while it runs, when it knows how large they are."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

_ALIGNMENT = 256


class Heap(Protocol):
    """Memory to be had."""

    def alloc(self, nbytes: int) -> int:
        """The address of so many bytes."""

    def free(self, address: int) -> None:
        """Give them back."""


class HostHeap:
    """Memory of the host, for outputs that lie there."""

    def __init__(self) -> None:
        self._held: dict[int, np.ndarray[Any, Any]] = {}

    def alloc(self, nbytes: int) -> int:
        """The address of so many bytes."""
        block = np.zeros(nbytes + _ALIGNMENT, np.uint8)
        address = int(block.ctypes.data) + -int(block.ctypes.data) % _ALIGNMENT
        self._held[address] = block
        return address

    def free(self, address: int) -> None:
        """Give them back."""
        del self._held[address]


def make_allocator(trt: Any, memory: Heap) -> Any:
    """An output allocator for one tensor.

    After a run its ``address`` and ``shape`` are those of the tensor, its ``error`` is what went wrong in a callback:
    an exception there would be swallowed.

    Args:
        trt: The module.
        memory: Where memory comes from.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.capacity = 0
            self.shape: tuple[int, ...] | None = None
            self.error: BaseException | None = None

        def reallocate_output_async(self, _name: str, _old: int, size: int, _alignment: int, _stream: int) -> int:
            try:
                if size > self.capacity or not self.address:
                    self.release()
                    wanted = max(int(size), _ALIGNMENT)  # an empty tensor has an address too
                    self.address = memory.alloc(wanted)
                    self.capacity = wanted
            except BaseException as error:  # noqa: BLE001  (to be raised where somebody listens)
                self.error = error
                return 0
            return self.address

        def notify_shape(self, _name: str, dims: Any) -> None:
            self.shape = tuple(int(size) for size in dims)

        def release(self) -> None:
            if self.address:
                address, self.address, self.capacity = self.address, 0, 0
                memory.free(address)

    return Allocator()
