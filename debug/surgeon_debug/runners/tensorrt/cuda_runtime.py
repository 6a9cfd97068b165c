"""CUDA through its runtime library, called as it is."""

from __future__ import annotations

import ctypes
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

_PROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # cudaDeviceAttr
_PROPERTIES_SIZE = 1 << 13  # more than any cudaDeviceProp; the name is its first field in every version
_NAME_SIZE = 256


class CudaRuntime:
    """CUDA through its runtime library.

    Args:
        library: The library, loaded.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code:
            self._library.cudaGetLastError()  # else it would be found again, and held against another call
            words = (self._library.cudaGetErrorString(code) or b"").decode("utf-8", "replace")
            raise CudaError(name, code, words or f"error {code}")

    def alloc(self, nbytes: int) -> int:
        """See :class:`DeviceMemory`."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        return int(address.value or 0)

    def free(self, address: int) -> None:
        """See :class:`DeviceMemory`."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def to_device(self, address: int, data: np.ndarray[Any, Any], stream: int) -> None:
        """See :class:`DeviceMemory`."""
        self._copy(address, data.ctypes.data, data.nbytes, TO_DEVICE, stream)

    def to_host(self, data: np.ndarray[Any, Any], address: int, stream: int) -> None:
        """See :class:`DeviceMemory`."""
        self._copy(data.ctypes.data, address, data.nbytes, TO_HOST, stream)

    def on_device(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """See :class:`DeviceMemory`."""
        self._copy(target, source, nbytes, ON_DEVICE, stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
        pointers = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_size_t(nbytes), ctypes.c_int(kind), ctypes.c_void_p(stream))

    def stream_create(self) -> int:
        """See :class:`DeviceMemory`."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(stream), ctypes.c_uint(NON_BLOCKING))
        return int(stream.value or 0)

    def stream_sync(self, stream: int) -> None:
        """See :class:`DeviceMemory`."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def stream_destroy(self, stream: int) -> None:
        """See :class:`DeviceMemory`."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def check(self) -> None:
        """See :class:`DeviceMemory`."""
        self._call("cudaGetLastError")

    def device_info(self) -> DeviceInfo:
        """See :class:`DeviceMemory`."""
        device = self._number("cudaGetDevice")
        properties = ctypes.create_string_buffer(_PROPERTIES_SIZE)
        self._call("cudaGetDeviceProperties", properties, ctypes.c_int(device))
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        major, minor, processors = (self._attribute(what, device) for what in (_MAJOR, _MINOR, _PROCESSORS))
        return DeviceInfo(
            properties.raw[:_NAME_SIZE].split(b"\0")[0].decode("utf-8", "replace"),
            f"{major}.{minor}",
            processors,
            total.value,
            self._number("cudaDriverGetVersion"),
            self._number("cudaRuntimeGetVersion"),
        )

    def _number(self, name: str) -> int:
        found = ctypes.c_int()
        self._call(name, ctypes.byref(found))
        return found.value

    def _attribute(self, what: int, device: int) -> int:
        found = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(found), ctypes.c_int(what), ctypes.c_int(device))
        return found.value
