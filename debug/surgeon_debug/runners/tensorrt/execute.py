"""An engine that runs: memory for what goes in and out, sizes, the stream, and the answers of all calls."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer, packed_size
from surgeon_debug.runners.tensorrt.build_log import LogSink, attach, make_recorder, said
from surgeon_debug.runners.tensorrt.datatypes import bytes_of, onnx_number, value_of
from surgeon_debug.runners.tensorrt.debug_listener import Sink, make_listener
from surgeon_debug.runners.tensorrt.device_memory import CudaError, DeviceMemory
from surgeon_debug.runners.tensorrt.module import has
from surgeon_debug.runners.tensorrt.output_allocator import HostHeap, make_allocator
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import EngineError


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output of an engine."""

    name: str
    """Its name."""
    number: int
    """Its type, a number in TensorProto.DataType."""
    is_input: bool
    """Whether it is fed."""
    on_host: bool
    """Whether its memory is the host's, because it holds a shape."""
    alias: str
    """The input whose memory an output shares; empty if it has its own."""


class _Area:
    """Memory of one tensor on the device, kept between runs and grown when it must be."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self.address = 0
        self._capacity = 0

    def hold(self, nbytes: int) -> int:
        if nbytes > self._capacity or not self.address:
            self.release()
            self.address = self._memory.alloc(max(nbytes, 1))
            self._capacity = max(nbytes, 1)
        return self.address

    def release(self) -> None:
        if self.address:
            address, self.address, self._capacity = self.address, 0, 0
            self._memory.free(address)


class Execution:
    """An execution context with its stream and memory.

    Everything that TensorRT holds a bare pointer to (allocators, the listener, inputs on their way) is held here for
    as long as the context lives.

    Args:
        trt: The module.
        engine: The engine, which outlives this.
        memory: CUDA.
        sink: What is done with debug tensors; None if the engine has none.
        unfused: Whether it shows its unfused tensors.
        log: What the logger said.

    Raises:
        EngineError: There is no context, or something is refused.
    """

    def __init__(
        self, trt: Any, engine: Any, memory: DeviceMemory, *, sink: Sink | None, unfused: bool, log: LogSink
    ) -> None:
        self._trt, self._engine, self._memory, self._log = trt, engine, memory, log
        self._recorder = make_recorder(trt)
        self.ports = _ports(trt, engine)
        self.context = engine.create_execution_context()
        if self.context is None:
            raise EngineError(f"tensorrt makes no execution context: {said(log, self._recorder, 'no reason given')}")
        attach(self._recorder, self.context)
        self._stream = memory.stream_create()
        self._areas = {port.name: _Area(memory) for port in self.ports if port.is_input and not port.on_host}
        self._allocators: dict[str, Any] = {}
        self._hosted: dict[str, np.ndarray[Any, Any]] = {}
        self._listener: Any = None
        if sink is not None:
            self._listen(sink, unfused)

    def _listen(self, sink: Sink, unfused: bool) -> None:
        self._listener = make_listener(self._trt, self._memory, sink)
        if not self.context.set_debug_listener(self._listener):
            raise EngineError("tensorrt does not take a debug listener for this engine")
        # Whether the first covers unfused tensors is nowhere said.
        all_on = self.context.set_all_tensors_debug_state(True)
        if unfused:
            self.context.unfused_tensors_debug_state = True
            if not self.context.unfused_tensors_debug_state:
                raise EngineError("tensorrt does not switch its unfused tensors on")
        elif not all_on:
            raise EngineError("tensorrt does not switch its debug tensors on")

    @property
    def shown(self) -> int:
        """How many tensors the listener was given in the last run."""
        return self._listener.count if self._listener is not None else 0

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once.

        Returns:
            The engine's outputs, by name.

        Raises:
            EngineError: An input does not fit, or the engine fails.
            CudaError: CUDA does; this process is of no more use then.
        """
        self.load(feeds)
        self.launch()
        self.finish()
        return {port.name: self._fetched(port) for port in self.ports if not port.is_input}

    def load(self, feeds: Feeds) -> None:
        """Set the sizes and put the inputs where the engine finds them."""
        self._recorder.clear()
        data = {port.name: self._input(port, feeds) for port in self.ports if port.is_input}
        self._choose_profile(data)
        for port in self.ports:
            if not port.is_input:
                continue
            shape, raw = data[port.name]
            if not self.context.set_input_shape(port.name, shape):
                raise self._refused(f"input '{port.name}' of {_size(shape)} is outside the engine's sizes")
            self._place(port, raw)
        lacking = self._infer_shapes()
        if lacking:
            raise self._refused(f"tensorrt lacks sizes or values of {', '.join(lacking[:3])}")
        self._prepare_outputs()
        self._memory.stream_sync(self._stream)

    def _place(self, port: Port, raw: np.ndarray[Any, Any]) -> None:
        if port.on_host:
            self._hosted[port.name] = raw if raw.size else np.zeros(8, np.uint8)
            address = int(self._hosted[port.name].ctypes.data)
        else:
            address = self._areas[port.name].hold(raw.nbytes)
            if raw.nbytes:
                self._hosted[port.name] = raw  # it must last until the stream was waited for
                self._memory.to_device(address, raw, self._stream)
        if not self.context.set_tensor_address(port.name, address):
            raise self._refused(f"tensorrt does not take the memory of input '{port.name}'")

    def _infer_shapes(self) -> list[str]:
        try:
            return [str(name) for name in self.context.infer_shapes()]
        except (RuntimeError, ValueError) as error:
            raise self._refused(f"the sizes of the inputs do not fit each other: {error}") from error

    def _input(self, port: Port, feeds: Feeds) -> tuple[tuple[int, ...], np.ndarray[Any, Any]]:
        value = feeds.get(port.name)
        if value is None:
            raise EngineError(f"tensorrt needs a value for input '{port.name}'")
        raw = bytes_of(port.name, value, port.number)
        shape = value.shape if isinstance(value, Buffer) else np.shape(value)
        return tuple(int(size) for size in shape), raw

    def _choose_profile(self, data: Mapping[str, tuple[tuple[int, ...], np.ndarray[Any, Any]]]) -> None:
        """Take the first profile that the inputs fit; if none does, TensorRT says so itself."""
        count = int(self._engine.num_optimization_profiles)
        if count < 2:
            return
        fitting = [profile for profile in range(count) if self._fits(profile, data)]
        if not fitting or self.context.active_optimization_profile in fitting:
            return
        if not self.context.set_optimization_profile_async(fitting[0], self._stream):
            raise self._refused(f"tensorrt does not switch to profile {fitting[0]}")
        self._memory.stream_sync(self._stream)

    def _fits(self, profile: int, data: Mapping[str, tuple[tuple[int, ...], np.ndarray[Any, Any]]]) -> bool:
        for port in self.ports:
            if not port.is_input:
                continue
            shape, raw = data[port.name]
            if not _within(self._engine.get_tensor_profile_shape(port.name, profile), shape):
                return False
            if port.on_host:
                # The binding calls the first argument "name" and means the profile.
                values = value_of(port.number, (-1,), raw)
                if not _within(self._engine.get_tensor_profile_values(profile, port.name), values.tolist()):
                    return False
        return True

    def _prepare_outputs(self) -> None:
        for port in self.ports:
            if port.is_input:
                continue
            if port.alias:
                done = self.context.set_tensor_address(port.name, self._areas[port.alias].address)
            elif port.on_host and -1 not in (shape := self._shape(port)):
                # Where TensorRT's headers speak of host memory they speak of an address.
                self._hosted[port.name] = np.zeros(max(packed_size(port.number, shape), 8), np.uint8)
                if self._allocators.pop(port.name, None) is not None:
                    self.context.set_output_allocator(port.name, None)
                done = self.context.set_tensor_address(port.name, int(self._hosted[port.name].ctypes.data))
            else:
                allocator = self._allocators.get(port.name)
                if allocator is None:
                    memory = HostHeap() if port.on_host else self._memory
                    allocator = self._allocators[port.name] = make_allocator(self._trt, memory)
                allocator.error, allocator.shape = None, None
                done = self.context.set_output_allocator(port.name, allocator)
            if not done:
                raise self._refused(f"tensorrt does not take memory for output '{port.name}'")

    def _shape(self, port: Port) -> tuple[int, ...]:
        """Sizes of a tensor as the context knows them, -1 for what it does not know."""
        return tuple(int(size) for size in self.context.get_tensor_shape(port.name))

    def launch(self) -> None:
        """Put one run into the stream."""
        if self._listener is not None:
            self._listener.begin()
        if not self.context.execute_async_v3(self._stream):
            self._memory.check()
            raise self._refused("tensorrt did not run")

    def finish(self) -> None:
        """Wait for the run, and raise whatever went wrong in it."""
        self._memory.stream_sync(self._stream)
        self._memory.check()
        for held in (*self._allocators.values(), self._listener):
            if held is not None and held.error is not None:
                error, held.error = held.error, None
                raise error

    def _fetched(self, port: Port) -> Value:
        shape, address = self._delivered(port)
        if -1 in shape:
            hint = "leave that output out, or cast it to float32 so that it lies on the device" if port.on_host else ""
            raise EngineError(f"tensorrt did not say how large output '{port.name}' is", hint=hint)
        data = np.empty(packed_size(port.number, shape), np.uint8)
        if data.size and not address:
            raise EngineError(f"tensorrt did not ask for memory for output '{port.name}'")
        if data.size and port.on_host:
            ctypes.memmove(data.ctypes.data, address, data.nbytes)
        elif data.size:
            self._memory.to_host(data, address, self._stream)
            self._memory.stream_sync(self._stream)
        return value_of(port.number, shape, data)

    def _delivered(self, port: Port) -> tuple[tuple[int, ...], int]:
        """The sizes of an output, and where it is."""
        shape = self._shape(port)
        if port.alias:
            return shape, self._areas[port.alias].address
        allocator = self._allocators.get(port.name)
        if allocator is None:
            return shape, int(self._hosted[port.name].ctypes.data)
        return allocator.shape if allocator.shape is not None else shape, allocator.address

    def _refused(self, words: str) -> EngineError:
        reasons = said(self._log, self._recorder, "")
        return EngineError(f"{words}: {reasons}" if reasons else words)

    def close(self) -> None:
        """Give everything back; CUDA's errors are of no interest any more."""
        held, self._areas = list(self._areas.values()), {}
        with contextlib.suppress(CudaError):
            self._memory.stream_sync(self._stream)
            self.context = None  # before what it points to
            for area in (*held, *self._allocators.values()):
                area.release()
            self._memory.stream_destroy(self._stream)
        self.context = None
        self._allocators.clear()
        self._hosted.clear()
        self._listener = None


def _ports(trt: Any, engine: Any) -> list[Port]:
    aliases = has(trt, "ICudaEngine.get_aliased_input_tensor")
    found = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        on_host = on_host or (is_input and engine.is_shape_inference_io(name))
        alias = "" if is_input or not aliases else str(engine.get_aliased_input_tensor(name) or "")
        if not on_host and engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            words = engine.get_tensor_format_desc(name)
            raise EngineError(f"the elements of '{name}' do not lie in order: {words}", hint="build it with surgeon")
        found.append(Port(name, onnx_number(trt, engine.get_tensor_dtype(name)), is_input, on_host, alias))
    return found


def _within(three: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether sizes, or values, are between the first and the last of a profile's three."""
    if not three:  # the profile says nothing of it
        return True
    least, _, most = (tuple(dims) for dims in three)
    return len(least) == len(sizes) and all(a <= d <= b for a, d, b in zip(least, sizes, most, strict=True))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "no dimensions"
