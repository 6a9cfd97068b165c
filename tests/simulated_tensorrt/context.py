"""The execution context: shapes, addresses, debug tensors and the execution itself."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import numpy as np

from tests.simulated_tensorrt.attributes import Named, Recorded
from tests.simulated_tensorrt.callbacks import Held
from tests.simulated_tensorrt.context_debug import Observed
from tests.simulated_tensorrt.device_memory import CudaError, device
from tests.simulated_tensorrt.elements import laid_out, read_back, size_of
from tests.simulated_tensorrt.execution import Execution
from tests.simulated_tensorrt.find_shapes import OutputShapes
from tests.simulated_tensorrt.pybind import make

_WHERE = "IExecutionContext::enqueueV3"
LAUNCH_FAILURE = 719


class IExecutionContext(Observed, Named, Recorded):
    """Runs an engine."""

    _trt: Any
    _engine: Any
    _profile_number: int
    _shapes: dict[str, tuple[int, ...]]
    _addresses: dict[str, int]
    _allocators: dict[str, Held]
    _runs: int
    _memory: tuple[int, int] | None
    _user_managed: bool
    _output_shapes: OutputShapes

    def _error(self, words: str, code: int = 3, where: str = _WHERE) -> bool:
        recorders = (self._recorder, self._engine._recorder)
        self._journal.error(words, code=code, recorders=recorders, where=where)  # type: ignore[attr-defined]
        return False

    @property
    def engine(self) -> Any:
        return self._engine

    # profiles and shapes

    @property
    def active_optimization_profile(self) -> int:
        return self._profile_number

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            self._error(f"Optimization profile {profile_index} does not exist", where="setOptimizationProfileAsync")
            raise RuntimeError("Error in set optimization profile async.")
        self._profile_number = profile_index
        self._shapes = {}
        return True

    def _ranges(self, name: str) -> tuple[tuple[int, ...], ...]:
        found: tuple[tuple[int, ...], ...] = self._engine._engine.profiles[self._profile_number].shapes.get(name, ())
        return found

    def set_input_shape(self, name: str, shape: Any) -> bool:
        sizes = tuple(int(size) for size in shape)
        if name not in self._engine._graph.inputs:
            return self._error(f"{name} is no input", where="setInputShape")
        declared = tuple(self._engine._graph.shapes.get(name) or ())
        if len(declared) != len(sizes) or any(d not in (-1, s) for d, s in zip(declared, sizes, strict=True)):
            words = (
                f"Static dimension mismatch while setting input shape for {name}. Set dimensions are {list(sizes)}. "
            )
            return self._error(words + f"Expected dimensions are {list(declared)}.", where="setInputShape")
        ranges = self._ranges(name)
        if ranges and any(not low <= s <= high for low, s, high in zip(ranges[0], sizes, ranges[2], strict=True)):
            words = f"Set dimension {list(sizes)} for tensor {name} does not satisfy any optimization profiles. "
            words += f"Valid range for profile {self._profile_number}: [{ranges[0]}..{ranges[2]}]."
            return self._error(words, where="setInputShape")
        self._shapes[name] = sizes
        return True

    def _input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Concrete shapes of all inputs; those not set yet hold -1."""
        graph = self._engine._graph
        return {n: self._shapes.get(n, tuple(graph.shapes.get(n) or ())) for n in graph.inputs}

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not any(-1 in sizes for sizes in self._input_shapes().values())

    def _host_value(self, name: str) -> np.ndarray | None:
        address = self._addresses.get(name)
        if not address:
            return None
        kind = self._engine._graph.types.get(name, "INT64")
        shape = self._input_shapes()[name]
        return read_back(ctypes.string_at(address, size_of(kind, shape)), kind, shape).copy()

    def _host_values(self) -> dict[str, np.ndarray]:
        values = {name: self._host_value(name) for name in self._engine._hosted}
        return {name: value for name, value in values.items() if value is not None}

    def get_tensor_shape(self, name: str) -> Any:
        dims = self._trt.Dims
        graph = self._engine._graph
        if name in graph.inputs:
            return dims(list(self._input_shapes()[name]))
        if not self._engine._known(name):
            return dims([-1])
        return dims(list(self._output_shapes.of(name, self._input_shapes(), self._host_values())))

    def get_tensor_strides(self, name: str) -> Any:
        strides: list[int] = []
        step = 1
        for size in reversed(list(self.get_tensor_shape(name))):
            strides.insert(0, step)
            step *= max(size, 1)
        return self._trt.Dims(strides)

    def infer_shapes(self) -> list[str]:
        lacking = [name for name, sizes in self._input_shapes().items() if -1 in sizes]
        lacking += [name for name in self._engine._hosted if not self._addresses.get(name) and name not in lacking]
        return lacking

    def get_max_output_size(self, name: str) -> int:
        if name not in self._engine._engine.outputs:
            return -1
        sizes = {n: (ranges[2] if (ranges := self._ranges(n)) else s) for n, s in self._input_shapes().items()}
        values = {
            n: np.asarray(ranges[2]).reshape(sizes[n])
            for n, ranges in self._engine._engine.profiles[self._profile_number].values.items()
        }
        count = self._output_shapes.bound(name, sizes, values)
        return size_of(self._engine._graph.types.get(name, "FLOAT"), (count,))

    # addresses

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not self._engine._known(name):
            return False
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        if name not in self._engine._engine.outputs:
            return self._error(f"{name} is no output", where="setOutputAllocator")
        if output_allocator is None:
            self._allocators.pop(name, None)
        else:
            self._allocators[name] = Held(output_allocator)
        return True

    def get_output_allocator(self, name: str) -> Any:
        held = self._allocators.get(name)
        return held.get() if held else None

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size)

    def update_device_memory_size_for_shapes(self) -> int:
        return 1 << 20

    def set_aux_streams(self, aux_streams: Any) -> None:
        return None

    def set_input_consumed_event(self, event: int) -> bool:
        return True

    # execution

    def execute_async_v3(self, stream_handle: int) -> bool:
        complaint = self._not_ready()
        if complaint:
            return self._error(complaint)
        self._runs += 1
        try:
            device().drain(stream_handle)  # what was put on the stream before comes first
            if not self._play_failures():
                return False
            return self._execute(stream_handle)
        except CudaError as error:
            return self._error(f"Cuda Runtime (error {error.code})", code=1)

    def execute_v2(self, bindings: Any) -> bool:
        for name, address in zip(self._engine._names(), bindings, strict=True):
            self._addresses[name] = address
        done = self.execute_async_v3(0)
        device().drain(0)
        return done

    def _not_ready(self) -> str:
        if self._user_managed and self._memory is None:
            return "The context's device memory was not set."
        lacking = self.infer_shapes()
        if lacking:
            return f"Input shapes are not specified: {', '.join(lacking)}"
        for name in self._engine._graph.inputs:
            if not self._addresses.get(name) and 0 not in self._input_shapes()[name]:
                return f"Address is not set for input tensor {name}. Call setInputTensorAddress before enqueue."
        for name in self._engine._engine.outputs:
            if name not in self._allocators and not self._addresses.get(name):
                return f"Neither address or allocator is set for output tensor {name}."
        for name, source in self._engine._engine.traits.aliased:
            if name in self._engine._engine.outputs and self._addresses.get(name) != self._addresses.get(source):
                return f"Output tensor {name} is aliased with input tensor {source} and must have its address."
        return ""

    def _play_failures(self) -> bool:
        for one in self._engine._engine.sick:
            effect = one.fault.effect
            if self._runs % max(one.fault.every, 1) or not one.layers[self._profile_number]:
                continue
            if effect == "execute_false":
                return self._error("Assertion failed in execution", code=1)
            if effect == "execute_crash":
                os.abort()
            if effect == "cuda_error_sticky":
                device().sticky = LAUNCH_FAILURE
                raise CudaError(LAUNCH_FAILURE)
            while effect == "execute_hang":
                time.sleep(60)
        return True

    def _execute(self, stream: int) -> bool:
        graph = self._engine._graph
        sizes = self._input_shapes()
        feeds = {name: self._read_input(name, sizes[name]) for name in graph.inputs}
        execution = Execution(self, feeds, stream)
        values = execution.run()
        self._times = execution.times
        if self._profiler is not None and self._emits:
            self.report_to_profiler()
        return all(self._deliver(name, values[name], stream) for name in self._engine._engine.outputs)

    def _read_input(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = self._engine._graph.types.get(name, "FLOAT")
        if name in self._engine._hosted:
            value = self._host_value(name)
            assert value is not None
            return value
        return read_back(device().view(self._addresses[name], size_of(kind, shape)).tobytes(), kind, shape)

    def _deliver(self, name: str, value: np.ndarray, stream: int) -> bool:
        raw = laid_out(value, self._engine._graph.types.get(name, "FLOAT"))
        held = self._allocators.get(name)
        address = self._addresses.get(name, 0)
        if held is not None:
            address = self._allocate(held.get(), name, address, max(raw.nbytes, 1), stream)
            if not address:
                return self._error(f"The output allocator gave no memory for {name}", code=5)
            self._notify(held.get(), name, value.shape)
        if raw.nbytes and name in self._engine._engine.traits.on_host:
            device().put(stream, lambda: ctypes.memmove(address, raw.ctypes.data, raw.nbytes) and None)
        elif raw.nbytes:
            device().view(address, raw.nbytes)  # breaks now what would break later
            device().put(stream, lambda: _write(address, raw))
        return True

    def _allocate(self, allocator: Any, name: str, current: int, size: int, stream: int) -> int:
        try:
            if hasattr(allocator, "reallocate_output_async"):
                return int(allocator.reallocate_output_async(name, current, size, 256, stream) or 0)
            return int(allocator.reallocate_output(name, current, size, 256) or 0)
        except Exception as problem:  # noqa: BLE001  (as the binding: printed and swallowed)
            sys.stderr.write(f"[ERROR] Exception caught in reallocate_output(): {problem}\n")
            return 0

    def _notify(self, allocator: Any, name: str, shape: tuple[int, ...]) -> None:
        try:
            allocator.notify_shape(name, self._trt.Dims(list(shape)))
        except Exception as problem:  # noqa: BLE001  (as the binding: printed and swallowed)
            sys.stderr.write(f"[ERROR] Exception caught in notify_shape(): {problem}\n")


def _write(address: int, raw: np.ndarray) -> None:
    device().view(address, raw.nbytes)[:] = raw


def new_context(engine: Any, strategy: Any) -> Any:
    """A context for an engine."""
    managed = strategy is not None and strategy.name == "USER_MANAGED"
    return make(
        engine._trt.IExecutionContext,
        _engine=engine,
        _profile_number=0,
        _shapes={},
        _addresses={},
        _allocators={},
        _listener=None,
        _states={},
        _unfused=False,
        _runs=0,
        _profiler=None,
        _emits=True,
        _times=[],
        _recorder=None,
        _memory=None,
        _user_managed=managed,
        _name="",
        _output_shapes=OutputShapes(engine),
    )
