"""Tensors inside an engine, handed over one by one while it runs.

What is handed over is only there during the call, so each tensor is copied, given to a sink and forgotten before the
next one comes: one tensor in host memory at a time, however many there are.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from surgeon_debug.element_types import packed_size
from surgeon_debug.runners.tensorrt.datatypes import onnx_number, value_of
from surgeon_debug.runners.tensorrt.device_memory import DeviceMemory
from surgeon_debug.values import Value


@dataclasses.dataclass(frozen=True)
class Shown:
    """A tensor that an engine showed."""

    name: str
    """Its name in the engine."""
    occurrence: int
    """How often this run has shown it before; bodies of loops show theirs again and again."""
    value: Value
    """Its content, in order; of formats that are not linear the bytes as they lie."""


Sink = Callable[[Shown], None]
"""What is done with a tensor, during the call."""


def make_listener(trt: Any, memory: DeviceMemory, sink: Sink) -> Any:
    """A debug listener.

    Its ``error`` is the first thing that went wrong in a callback (an exception there would be swallowed), its
    ``count`` how many tensors came since ``begin()``.

    Args:
        trt: The module.
        memory: Copies from the device.
        sink: What is done with each tensor.
    """
    host = trt.TensorLocation.HOST

    class Listener(trt.IDebugListener):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.error: BaseException | None = None
            self.count = 0
            self._seen: collections.Counter[str] = collections.Counter()

        def begin(self) -> None:
            self.error, self.count = None, 0
            self._seen.clear()

        def process_debug_tensor(
            self,
            addr: int,
            location: Any,
            kind: Any,
            shape: Any,
            name: str,
            stream: int,
        ) -> bool:
            try:
                dims = tuple(int(size) for size in shape)
                value = self._copied(int(addr), location == host, onnx_number(trt, kind), dims, int(stream))
                sink(Shown(name, self._seen[name], value))
                self._seen[name] += 1
                self.count += 1
            except BaseException as error:  # noqa: BLE001  (to be raised where somebody listens)
                self.error = self.error or error.with_traceback(None)  # whose frames would hold the tensor
            return True

        def _copied(self, address: int, on_host: bool, number: int, dims: tuple[int, ...], stream: int) -> Value:
            data = np.empty(packed_size(number, dims), np.uint8)
            memory.stream_sync(stream)  # whoever writes it is done then
            if not data.size:
                pass
            elif on_host:
                ctypes.memmove(data.ctypes.data, address, data.nbytes)
            else:
                memory.to_host(data, address, stream)
                memory.stream_sync(stream)
            return value_of(number, dims, data)

    return Listener()
