"""One execution of an engine: layer by layer, with faults, debug tensors and times."""

from __future__ import annotations

import functools
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.simulated_tensorrt.compute import LayerProgram, rounded_to
from tests.simulated_tensorrt.device_memory import device
from tests.simulated_tensorrt.elements import laid_out
from tests.simulated_tensorrt.engine_file import EngineData, EngineLayer
from tests.simulated_tensorrt.faults import in_body, shows, spoil
from tests.simulated_tensorrt.graph import Graph, reads
from tests.simulated_tensorrt.loop_bodies import Loop
from tests.simulated_tensorrt.plan import WRONG, Fault


class Execution:
    """One execution.

    Args:
        context: The context.
        feeds: Values of the inputs.
        stream: The stream's handle.
    """

    def __init__(self, context: Any, feeds: Mapping[str, np.ndarray], stream: int) -> None:
        self.context = context
        self.engine: EngineData = context._engine._engine
        self.graph: Graph = context._engine._graph
        self.stream = stream
        self.times: list[tuple[str, float]] = []
        self.values: dict[str, Any] = {name: _widened(value) for name, value in feeds.items()}
        self.number = context._profile_number
        shapes = self.engine.profiles[self.number].shapes
        self.at_optimum = all(tuple(v.shape) == shapes[n][1] for n, v in feeds.items() if shapes.get(n))
        self.wrong = [
            one
            for one in self.engine.sick
            if one.fault.effect in WRONG and shows(one, self.number, context._runs, self.at_optimum)
        ]
        self.mute = any(one.fault.effect == "listener_never_called" for one in self.engine.sick)

    def run(self) -> dict[str, Any]:
        """Values of the outputs."""
        layers = self.engine.layers[self.number]
        programs = self.context._engine._programs
        if ("last", self.number) not in programs:
            programs["last", self.number] = _last_readers(layers, self.graph, self.engine.outputs)
        last = programs["last", self.number]
        for index, layer in enumerate(layers):
            if layer.kind == "reformat":
                continue
            if self.engine.unfused and self.context._unfused:
                self._debug_trips(index, layer)
            start = time.perf_counter()
            self._layer(index, layer)
            self.times.append((layer.name, (time.perf_counter() - start) * 1000))
            self._debug(layer)
            for name in last.get(index, ()):
                del self.values[name]
        for name in self.engine.outputs:
            if name in self.graph.constants and name not in self.values:
                self.values[name] = _constant(self.graph, name)
        return self.values

    def _layer(self, index: int, layer: EngineLayer) -> None:
        faults = self._faults(index)
        node = self.graph.nodes[layer.nodes[0]]
        if inside := [fault for fault in faults if in_body(fault.where, node)]:
            outputs = Loop(self.graph, node, self.values, inside).outputs()
            made = {name: value for name, value in zip(node.output, outputs, strict=True) if name}
            faults = [fault for fault in faults if fault not in inside]
        else:
            made = program(self.context._engine, layer).run(self.values)
        for name, value in made.items():
            kind = self.graph.types.get(name)
            value = _own_rounding(value, layer, self.engine.traits.rounding)
            for fault in faults:
                value = spoil(value, fault)
            self.values[name] = rounded_to(value, kind)

    def _faults(self, index: int) -> list[Fault]:
        return [one.fault for one in self.wrong if index in one.layers[self.number]]

    def _debug(self, layer: EngineLayer) -> None:
        context = self.context
        if context._listener is None or self.mute:
            return
        for name, inner in layer.outputs:
            if not isinstance(self.values.get(name), np.ndarray):
                continue
            if context._states.get(name):
                self._show(name, name)
            elif self.engine.unfused and context._unfused and name in layer.shown and name not in self.engine.marked:
                self._show(name, inner)

    def _debug_trips(self, index: int, layer: EngineLayer) -> None:
        """Tensors inside a loop are shown in each trip, under one name."""
        node = self.graph.nodes[layer.nodes[0]]
        if node.op_type != "Loop" or self.context._listener is None or self.mute:
            return
        faults = [
            one.fault for one in self.wrong if index in one.layers[self.number] and in_body(one.fault.where, node)
        ]
        for made in Loop(self.graph, node, self.values, faults).trips():
            for name, value in made.items():
                if value.dtype == np.float32:
                    self._show_value(value, "FLOAT", name)

    def _show(self, name: str, shown_as: str) -> None:
        self._show_value(self.values[name], self.graph.types.get(name, "FLOAT"), shown_as)

    def _show_value(self, value: np.ndarray, kind: str, shown_as: str) -> None:
        show_tensor(self.context, laid_out(value, kind), kind, value.shape, shown_as, self.stream)


def show_tensor(context: Any, raw: np.ndarray, kind: str, shape: tuple[int, ...], name: str, stream: int) -> None:
    """Call the listener with a tensor in device memory that is gone afterwards."""
    trt = context._trt
    address = device().malloc(max(raw.nbytes, 1))
    if raw.nbytes:
        device().view(address, raw.nbytes)[:] = raw
    listener = context._listener.get()
    dims = trt.Dims(list(shape))
    try:
        listener.process_debug_tensor(
            address, trt.TensorLocation.DEVICE, getattr(trt.DataType, kind), dims, name, stream
        )
    except Exception as problem:  # noqa: BLE001  (as the binding: printed and swallowed)
        sys.stderr.write(f"[ERROR] Exception caught in process_debug_tensor(): {problem}\n")
    if raw.nbytes:
        device().view(address, raw.nbytes)[:] = 0xEE
    device().free(address)


def program(engine: Any, layer: EngineLayer) -> LayerProgram:
    """The program of a layer, made once for an engine."""
    wanted = tuple(name for name, _ in layer.outputs)
    key = (layer.nodes, wanted)
    if key not in engine._programs:
        tf32 = engine._engine.tf32 and (layer.choice is not None)
        engine._programs[key] = LayerProgram(engine._graph, layer.nodes, wanted, tf32)
    found: LayerProgram = engine._programs[key]
    return found


def plain_values(engine: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all tensors between layers, without faults."""
    values = {name: _widened(value) for name, value in feeds.items()}
    for layer in engine._engine.layers[0]:
        if layer.kind != "reformat":
            values.update(program(engine, layer).run(values))
    for name in engine._engine.outputs:
        if name in engine._graph.constants:
            values[name] = _constant(engine._graph, name)
    return values


def _widened(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.name in ("float16", "bfloat16", "float64"):
        return value.astype(np.float32)
    return value


def _constant(graph: Graph, name: str) -> Any:
    return _widened(numpy_helper.to_array(graph.constants[name]))


def _own_rounding(value: Any, layer: EngineLayer, wanted: bool) -> Any:
    """Kernels sum in their own order: each has a rounding error of its own, of one unit in the last place."""
    if not wanted or layer.choice is None or not isinstance(value, np.ndarray) or value.dtype != np.float32:
        return value
    flat = np.ascontiguousarray(value).reshape(-1)
    bits = flat.view(np.int32) + np.resize(_pattern(layer.choice.hash), flat.size)
    moved = bits.view(np.float32)
    plain = np.isfinite(flat) & np.isfinite(moved) & (flat != 0)
    return np.where(plain, moved, flat).reshape(value.shape)


@functools.lru_cache(maxsize=256)
def _pattern(seed: int) -> np.ndarray:
    rng = random.Random(seed)
    return np.array([rng.choice((-1, 0, 0, 1)) for _ in range(61)], np.int32)


def _last_readers(layers: tuple[EngineLayer, ...], graph: Graph, outputs: tuple[str, ...]) -> dict[int, list[str]]:
    """Tensors that nobody needs after a layer, by the layer's index."""
    last: dict[str, int] = {}
    for index, layer in enumerate(layers):
        made = {name for i in layer.nodes for name in graph.nodes[i].output}
        for name in {n for i in layer.nodes for n in reads(graph.nodes[i])} - made - set(graph.constants):
            last[name] = index
        last.update(dict.fromkeys((name for name, _ in layer.outputs if name), index))
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in outputs:
            found.setdefault(index, []).append(name)
    return found
