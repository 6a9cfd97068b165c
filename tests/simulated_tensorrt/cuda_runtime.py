"""The calls of ``cuda.bindings.runtime`` that an adapter needs, over the simulated device.

As in the real module, nothing raises: each call returns a tuple that begins with the error.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from typing import Any

from tests.simulated_tensorrt import device_memory
from tests.simulated_tensorrt.device_memory import CudaError
from tests.simulated_tensorrt.plan import active


class cudaError_t(enum.IntEnum):
    """Errors."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719


class cudaMemcpyKind(enum.IntEnum):
    """Directions of a copy."""

    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaDeviceAttr(enum.IntEnum):
    """Attributes of a device."""

    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class _Handle:
    def __init__(self, value: Any = 0) -> None:
        self._value = int(value)

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} 0x{self._value:x}>"

    def getPtr(self) -> int:
        return id(self)


class cudaStream_t(_Handle):
    """A stream."""


class cudaEvent_t(_Handle):
    """An event."""


cudaStreamNonBlocking = 1
cudaStreamDefault = 0
cudaEventDefault = 0


def guarded(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    device = device_memory.device()
    try:
        if active().devices == 0:
            raise CudaError(device_memory.NO_DEVICE)
        result = function(*args)
    except CudaError as error:
        device.last = error.code
        return (cudaError_t(error.code), None) if function.__name__ in _GIVING else (cudaError_t(error.code),)
    done = cudaError_t.cudaSuccess
    return (done, result) if function.__name__ in _GIVING else (done,)


_GIVING = {"malloc", "create_stream", "_info", "_count", "_properties", "_attribute", "_current", "_event", "_elapsed"}
"""Functions whose result stands behind the error."""


def _address(pointer: Any) -> int:
    if pointer is None:
        return 0
    if hasattr(pointer, "__index__"):
        return int(pointer)
    if hasattr(pointer, "__array_interface__"):
        return int(pointer.__array_interface__["data"][0])
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    view = memoryview(pointer)
    if view.readonly:
        return ctypes.cast(ctypes.c_char_p(bytes(view)), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def cudaMalloc(size: int) -> Any:
    """Memory."""
    return guarded(device_memory.device().malloc, int(size))


def cudaFree(devPtr: Any) -> Any:
    """Give memory back."""
    return guarded(device_memory.device().free, _address(devPtr))


def cudaMemcpy(dst: Any, src: Any, count: int, kind: Any) -> Any:
    """Copy after all work of the streams."""
    device = device_memory.device()

    def copy() -> None:
        device.drain_all()
        device.copy(_address(dst), _address(src), int(count), int(kind))

    return guarded(copy)


def cudaMemcpyAsync(dst: Any, src: Any, count: int, kind: Any, stream: Any) -> Any:
    """Put a copy on a stream."""
    device = device_memory.device()
    to, source = _address(dst), _address(src)

    def put() -> None:
        device.check()
        device.put(int(stream or 0), lambda: device.copy(to, source, int(count), int(kind)))

    return guarded(put)


def cudaMemset(devPtr: Any, value: int, count: int) -> Any:
    """Fill memory."""
    device = device_memory.device()

    def fill() -> None:
        device.check()
        device.view(_address(devPtr), int(count))[:] = value

    return guarded(fill)


def cudaMemsetAsync(devPtr: Any, value: int, count: int, stream: Any) -> Any:
    """Put a filling on a stream."""
    device = device_memory.device()

    def fill() -> None:
        device.view(_address(devPtr), int(count))[:] = value

    def put() -> None:
        device.put(int(stream or 0), fill)

    return guarded(put)


def cudaStreamCreate() -> Any:
    """A stream."""
    error, handle = guarded(device_memory.device().create_stream)
    return error, None if handle is None else cudaStream_t(handle)


def cudaStreamCreateWithFlags(flags: int) -> Any:
    """A stream."""
    return cudaStreamCreate()


def cudaStreamSynchronize(stream: Any) -> Any:
    """Do the work of a stream."""
    return guarded(device_memory.device().drain, int(stream or 0))


def cudaStreamQuery(stream: Any) -> Any:
    """Whether a stream is done."""
    return cudaStreamSynchronize(stream)


def cudaStreamDestroy(stream: Any) -> Any:
    """End a stream."""
    return guarded(device_memory.device().destroy_stream, int(stream or 0))


def cudaDeviceSynchronize() -> Any:
    """Do all work."""
    return guarded(device_memory.device().drain_all)


def cudaGetLastError() -> Any:
    """The last error; forgets it unless it broke the context."""
    device = device_memory.device()
    code, device.last = device.sticky or device.last, 0
    return (cudaError_t(code),)


def cudaPeekAtLastError() -> Any:
    """The last error."""
    device = device_memory.device()
    return (cudaError_t(device.sticky or device.last),)


def cudaGetErrorString(error: Any) -> Any:
    """A sentence about an error."""
    return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()


def cudaGetErrorName(error: Any) -> Any:
    """The name of an error."""
    return cudaError_t.cudaSuccess, cudaError_t(error).name.encode()
