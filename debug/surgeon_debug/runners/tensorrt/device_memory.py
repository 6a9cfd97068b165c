"""Memory on the device and streams: what TensorRT needs of CUDA, behind one small protocol.

``cuda.bindings`` (the package cuda-python) is what NVIDIA's own samples use; where it is not installed the runtime
library is called as it is. A call that fails raises :class:`CudaError`; after most of them the process is of no more
use, because CUDA's errors stick.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from surgeon_debug.endings import Ending, EngineFailure

NON_BLOCKING = 1
TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3  # cudaMemcpyKind
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_PASSING = (1, OUT_OF_MEMORY)  # and cudaErrorInvalidValue: what was refused before anything was done


@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """The device that engines are built for."""

    name: str
    """As the maker calls it."""
    compute: str
    """Compute capability, such as ``9.0``."""
    processors: int
    """Number of streaming multiprocessors."""
    memory: int
    """Bytes in all."""
    driver: int
    """CUDA version that the driver supports, such as 13000."""
    runtime: int
    """CUDA version of the runtime library."""


class CudaError(EngineFailure):
    """A call of CUDA failed.

    Args:
        call: The function.
        code: The number that it returned.
        words: The error's name and text.
    """

    def __init__(self, call: str, code: int, words: str) -> None:
        self.code = code
        ending = Ending.CRASHED if self.sticks else Ending.OUT_OF_MEMORY if code == OUT_OF_MEMORY else Ending.REFUSED
        super().__init__(f"CUDA failed in {call}: {words}", ending=ending)

    @property
    def sticks(self) -> bool:
        """Whether every later call in this process fails too."""
        return self.code not in _PASSING


class DeviceMemory(Protocol):
    """What is needed of CUDA. Addresses and streams are plain numbers."""

    def alloc(self, nbytes: int) -> int:
        """Memory on the device; at least one byte, for nothing has no address."""
        ...

    def free(self, address: int) -> None:
        """Give memory back."""
        ...

    def to_device(self, address: int, data: np.ndarray[Any, Any], stream: int) -> None:
        """Copy a contiguous vector of bytes to the device, which must not change before the stream was waited for."""
        ...

    def to_host(self, data: np.ndarray[Any, Any], address: int, stream: int) -> None:
        """Fill a contiguous vector of bytes from the device; it is there once the stream was waited for."""
        ...

    def on_device(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy within the device."""
        ...

    def stream_create(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def stream_sync(self, stream: int) -> None:
        """Wait for all that was put into a stream."""
        ...

    def stream_destroy(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def check(self) -> None:
        """Raise the last error, if there was one that nobody has seen."""
        ...

    def device_info(self) -> DeviceInfo:
        """What the device is."""
        ...
