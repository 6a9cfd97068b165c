"""The calls of ``cuda.bindings.runtime`` about devices, events and pinned memory."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from tests.simulated_tensorrt import device_memory
from tests.simulated_tensorrt.cuda_runtime import (
    cudaDeviceSynchronize,
    cudaError_t,
    cudaEvent_t,
    guarded,
)
from tests.simulated_tensorrt.plan import active

_events: dict[int, float] = {}
_pinned: dict[int, Any] = {}


class cudaDeviceProp:
    """Properties of a device."""

    def __init__(self) -> None:
        plan = active()
        self.name = plan.device.encode()
        self.totalGlobalMem = plan.memory
        self.major, self.minor = 8, 6
        self.multiProcessorCount = 46
        self.uuid = type("cudaUUID_t", (), {"bytes": bytes(range(16))})()


def cudaMemGetInfo() -> Any:
    """Free and total bytes."""
    device = device_memory.device()

    def _info() -> tuple[int, int]:
        device.check()
        return device.memory - device.used, device.memory

    error, result = guarded(_info)
    return (error, *(result or (None, None)))


def cudaGetDeviceCount() -> Any:
    """How many devices there are."""

    def _count() -> int:
        return active().devices

    return guarded(_count)


def cudaGetDevice() -> Any:
    """The current device."""

    def _current() -> int:
        return 0

    return guarded(_current)


def cudaSetDevice(device: int) -> Any:
    """Choose a device."""
    known = 0 <= int(device) < active().devices
    return (cudaError_t.cudaSuccess if known else cudaError_t.cudaErrorInvalidDevice,)


def cudaGetDeviceProperties(device: int) -> Any:
    """What a device is."""

    def _properties() -> cudaDeviceProp:
        return cudaDeviceProp()

    return guarded(_properties)


def cudaDeviceGetAttribute(attr: Any, device: int) -> Any:
    """One attribute of a device."""

    def _attribute() -> int:
        return {16: 46, 75: 8, 76: 6}[int(attr)]

    return guarded(_attribute)


def cudaDriverGetVersion() -> Any:
    """Version of the driver."""
    return cudaError_t.cudaSuccess, 13000


def cudaRuntimeGetVersion() -> Any:
    """Version of the runtime."""
    return cudaError_t.cudaSuccess, 13000


def getLocalRuntimeVersion() -> Any:
    """Version of the runtime."""
    return cudaRuntimeGetVersion()


def cudaEventCreate() -> Any:
    """An event."""

    def _event() -> cudaEvent_t:
        handle = cudaEvent_t(len(_events) + 1)
        _events[int(handle)] = 0.0
        return handle

    return guarded(_event)


def cudaEventCreateWithFlags(flags: int) -> Any:
    """An event."""
    return cudaEventCreate()


def cudaEventRecord(event: Any, stream: Any) -> Any:
    """Put the taking of the time on a stream."""

    def put() -> None:
        device_memory.device().put(int(stream or 0), lambda: _events.__setitem__(int(event), time.perf_counter()))

    return guarded(put)


def cudaEventSynchronize(event: Any) -> Any:
    """Wait for an event."""
    return cudaDeviceSynchronize()


def cudaEventElapsedTime(start: Any, end: Any) -> Any:
    """Milliseconds between two events."""

    def _elapsed() -> float:
        return (_events[int(end)] - _events[int(start)]) * 1000

    return guarded(_elapsed)


def cudaEventDestroy(event: Any) -> Any:
    """End an event."""
    _events.pop(int(event), None)
    return (cudaError_t.cudaSuccess,)


def cudaHostAlloc(size: int, flags: int = 0) -> Any:
    """Pinned host memory."""
    buffer = ctypes.create_string_buffer(int(size))
    address = ctypes.addressof(buffer)
    _pinned[address] = buffer
    return cudaError_t.cudaSuccess, address


def cudaMallocHost(size: int) -> Any:
    """Pinned host memory."""
    return cudaHostAlloc(size)


def cudaFreeHost(ptr: Any) -> Any:
    """Give pinned memory back."""
    _pinned.pop(int(ptr), None)
    return (cudaError_t.cudaSuccess,)
