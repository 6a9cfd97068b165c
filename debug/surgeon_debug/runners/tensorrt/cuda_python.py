"""CUDA through the package cuda-python, which is imported here and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np

from surgeon_debug.runners.tensorrt.device_memory import (
    NON_BLOCKING,
    ON_DEVICE,
    TO_DEVICE,
    TO_HOST,
    CudaError,
    DeviceInfo,
)


class CudaPython:
    """CUDA through ``cuda.bindings.runtime``, as the protocol ``DeviceMemory`` has it."""

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._runtime: Any = runtime
        self._kinds = {int(kind): kind for kind in runtime.cudaMemcpyKind}

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a function returns besides its error code: nothing, one thing or a tuple."""
        code, *found = getattr(self._runtime, name)(*arguments)
        if int(code):
            self._runtime.cudaGetLastError()  # else it would be found again, and held against another call
            raise CudaError(name, int(code), self._words(code))
        return found[0] if len(found) == 1 else tuple(found)

    def _words(self, code: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(code)
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)

    def alloc(self, nbytes: int) -> int:
        """See the protocol."""
        return int(self._call("cudaMalloc", max(nbytes, 1)))

    def free(self, address: int) -> None:
        """See the protocol."""
        self._call("cudaFree", address)

    def to_device(self, address: int, data: np.ndarray[Any, Any], stream: int) -> None:
        """See the protocol."""
        self._copy(address, data.ctypes.data, data.nbytes, TO_DEVICE, stream)

    def to_host(self, data: np.ndarray[Any, Any], address: int, stream: int) -> None:
        """See the protocol."""
        self._copy(data.ctypes.data, address, data.nbytes, TO_HOST, stream)

    def on_device(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """See the protocol."""
        self._copy(target, source, nbytes, ON_DEVICE, stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, self._kinds[kind], stream)

    def stream_create(self) -> int:
        """See the protocol."""
        return int(self._call("cudaStreamCreateWithFlags", NON_BLOCKING))

    def stream_sync(self, stream: int) -> None:
        """See the protocol."""
        self._call("cudaStreamSynchronize", stream)

    def stream_destroy(self, stream: int) -> None:
        """See the protocol."""
        self._call("cudaStreamDestroy", stream)

    def check(self) -> None:
        """See the protocol."""
        self._call("cudaGetLastError")

    def device_info(self) -> DeviceInfo:
        """See the protocol."""
        properties = self._call("cudaGetDeviceProperties", self._call("cudaGetDevice"))
        name = properties.name
        _, total = self._call("cudaMemGetInfo")
        return DeviceInfo(
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            f"{properties.major}.{properties.minor}",
            int(properties.multiProcessorCount),
            int(total),
            int(self._call("cudaDriverGetVersion")),
            int(self._call("cudaRuntimeGetVersion")),
        )
