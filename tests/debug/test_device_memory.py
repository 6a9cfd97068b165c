"""Memory and streams on a real device, by both ways to CUDA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from surgeon_debug.endings import Ending
from surgeon_debug.runners.tensorrt import buffers
from surgeon_debug.runners.tensorrt.cuda_runtime import CudaRuntime
from surgeon_debug.runners.tensorrt.device_memory import CudaError, DeviceMemory
from surgeon_passes.errors import EngineError

pytestmark = pytest.mark.gpu


def by_package() -> DeviceMemory:
    pytest.importorskip("cuda.bindings.runtime")
    from surgeon_debug.runners.tensorrt.cuda_python import CudaPython

    return CudaPython()


def by_library() -> DeviceMemory:
    return CudaRuntime(buffers._library())


@pytest.fixture(params=[by_package, by_library])
def memory(request: pytest.FixtureRequest) -> DeviceMemory:
    try:
        buffers.open_memory()
    except EngineError as error:
        pytest.skip(str(error))
    make: Callable[[], DeviceMemory] = request.param
    return make()


def test_the_device_is_described(memory: DeviceMemory) -> None:
    info = memory.device_info()
    assert info.name and info.processors > 0 and info.memory > 1 << 30
    major, minor = map(int, info.compute.split("."))
    assert major >= 5 and minor >= 0
    assert info.driver >= 12000 and info.runtime >= 12000


def test_bytes_go_there_and_come_back(memory: DeviceMemory) -> None:
    data = np.random.default_rng(0).integers(0, 256, 1 << 20).astype(np.uint8)
    back = np.zeros_like(data)
    stream, first, second = memory.stream_create(), memory.alloc(data.nbytes), memory.alloc(data.nbytes)
    memory.to_device(first, data, stream)
    memory.on_device(second, first, data.nbytes, stream)
    memory.to_host(back, second, stream)
    memory.stream_sync(stream)
    memory.check()
    assert np.array_equal(data, back) and first != second
    for address in (first, second):
        memory.free(address)
    memory.stream_destroy(stream)


def test_nothing_has_an_address_too(memory: DeviceMemory) -> None:
    address = memory.alloc(0)
    assert address
    memory.free(address)


def test_what_is_refused_does_not_stick(memory: DeviceMemory) -> None:
    with pytest.raises(CudaError) as full:
        memory.alloc(1 << 50)
    assert full.value.ending is Ending.OUT_OF_MEMORY and not full.value.sticks
    with pytest.raises(CudaError) as wrong:
        memory.free(12345)
    assert wrong.value.ending is Ending.REFUSED and not wrong.value.sticks
    memory.check()
    memory.free(memory.alloc(16))
