"""OpenVINO, on the devices it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer, type_of_name, type_of_number
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError

_PRECISIONS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_HINT = "INFERENCE_PRECISION_HINT"
_ONNX_NAMES = {
    "f16": "float16",
    "f32": "float",
    "f64": "double",
    "bf16": "bfloat16",
    "boolean": "bool",
    "i4": "int4",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u2": "uint2",
    "u4": "uint4",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "f8e4m3": "float8e4m3fn",
    "f8e5m2": "float8e5m2",
    "f8e8m0": "float8e8m0",
    "f4e2m1": "float4e2m1",
}


class OpenVino:
    """Run a model with OpenVINO.

    Args:
        device: Where: ``CPU``, ``GPU``, ``NPU``, or what else OpenVINO calls a device.
        precision: The type it computes in: ``f32``, ``f16`` or ``bf16``. Left to itself, OpenVINO picks a lower one
            where the machine is fast at it; asking for one that the device does not have is an error.
        config: Properties by key, as in ``config.NUM_STREAMS=1``.

    Raises:
        BadOptionError: An option has no such value.
        EngineError: The device is not there.
    """

    observes = True

    def __init__(self, device: str = "CPU", precision: str = "f32", config: Mapping[str, str] | None = None) -> None:
        if precision not in _PRECISIONS:
            raise BadOptionError(
                f"openvino has no precision '{precision}'", hint=f"use one of {', '.join(_PRECISIONS)}"
            )
        import openvino

        self._core = openvino.Core()
        devices = self._core.available_devices
        if device.split(".")[0].split(":")[0] not in {*(d.split(".")[0] for d in devices), "AUTO", "MULTI", "HETERO"}:
            raise EngineError(f"openvino has no device '{device}' here", hint=f"it has {', '.join(devices)}")
        self._device = device
        self._hint = precision
        self._config = dict(config or {})
        self._compiled: Any = None
        self._prepared: tuple[Path, list[str]] | None = None
        self._wanted: list[str] = []

    @property
    def precision(self) -> str | None:
        """The type it computes in where that is coarser than float32."""
        return None if self._hint == "f32" else _PRECISIONS[self._hint]

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Read, expose and compile; a name that OpenVINO's import has lost is not exposed, hence reported missing."""
        self.close()
        model = self._core.read_model(model_path)
        shown = {name for output in model.outputs for name in output.get_names()}
        inner = {name for op in model.get_ops() for output in op.outputs() for name in output.get_names()}
        wanted = list(dict.fromkeys(outputs))
        hidden = [name for name in wanted if name in inner and name not in shown]
        if hidden:
            model.add_outputs(hidden)
        if any(port.get_element_type().to_string() == "string" for port in (*model.inputs, *model.outputs)):
            # Seen with 2026.4: the request frees such tensors twice and takes the whole process with it.
            raise EngineError("openvino crashes on text that goes in or out of a model", hint="use another runner")
        self._compiled = self._core.compile_model(model, self._device, {_HINT: self._hint, **self._config})
        self._check_precision()
        self._prepared = (model_path, wanted)
        self._wanted = [name for name in wanted if name in inner or name in shown]

    def _check_precision(self) -> None:
        if _HINT in self._config or _HINT not in self._compiled.get_property("SUPPORTED_PROPERTIES"):
            return
        chosen = self._compiled.get_property(_HINT).to_string()
        if chosen != self._hint:
            self.close()
            raise EngineError(
                f"openvino computes in {chosen} on this {self._device}, not in {self._hint}",
                hint=f"use precision={chosen}",
            )

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        if self._compiled is None:
            raise EngineError("openvino was asked to run before a model was prepared")
        request = self._request(feeds)
        request.infer()
        by_name = {name: port for port in self._compiled.outputs for name in port.get_names()}
        return {name: _value_of(request.get_tensor(by_name[name])) for name in self._wanted if name in by_name}

    def _request(self, feeds: Feeds) -> Any:
        """A request with its inputs."""
        request = self._compiled.create_infer_request()
        for port, name in _fed_ports(self._compiled.inputs, feeds):
            request.set_tensor(port, _tensor_of(name, feeds[name]))
        return request

    def layer_times(self, feeds: Feeds, runs: int) -> dict[str, float]:
        """Mean seconds of each node that is executed, over some runs; the model is compiled anew to take notes."""
        if self._prepared is None:
            raise EngineError("openvino was asked for times before a model was prepared")
        config, prepared = self._config, self._prepared
        try:
            self._config = {**config, "PERF_COUNT": "YES"}
            self.prepare(*prepared)
            request = self._request(feeds)
            found: dict[str, float] = {}
            for _ in range(runs):
                request.infer()
                for item in request.profiling_info:
                    if item.status.name == "EXECUTED":
                        found[item.node_name] = found.get(item.node_name, 0.0) + item.real_time.total_seconds() / runs
            return found
        finally:
            self._config = config

    def close(self) -> None:
        """Drop the compiled model and its memory."""
        self._compiled = self._prepared = None


def _fed_ports(ports: Sequence[Any], feeds: Feeds) -> list[tuple[Any, str]]:
    """Which value goes into which input.

    OpenVINO drops nodes that only hand an input on, and gives the input the name of what they handed on instead of its
    own (seen with 2026.4); such an input is known by its place among the model's inputs, which is that of its value.
    """
    names = [next((name for name in port.get_names() if name in feeds), None) for port in ports]
    if None in names:
        if len(ports) != len(feeds):
            lost = ", ".join(sorted(set(feeds).difference(name for name in names if name)))
            raise EngineError(f"openvino has lost the name of an input; it should be one of {lost}")
        names = list(feeds)
    return [(port, name) for port, name in zip(ports, names, strict=True) if name is not None]


def _tensor_of(name: str, value: Value) -> Any:
    import openvino

    if isinstance(value, np.ndarray):
        # numpy makes a vector of a contiguous scalar.
        return openvino.Tensor(np.ascontiguousarray(value) if value.ndim else value, shared_memory=False)
    if not isinstance(value, Buffer):
        raise EngineError(f"openvino takes tensors only, and input '{name}' is a {type(value).__name__}")
    kind = type_of_number(value.element_type)
    short = next((short for short, onnx_name in _ONNX_NAMES.items() if onnx_name == kind.onnx_name), None)
    if short is None:
        raise EngineError(f"openvino has no element type for input '{name}', which is {kind.dtype_name}")
    tensor = openvino.Tensor(getattr(openvino.Type, short), openvino.Shape(list(value.shape)))
    tensor.data.reshape(-1).view(np.uint8)[: value.data.size] = value.data
    return tensor


def _value_of(tensor: Any) -> Value:
    short = tensor.get_element_type().to_string()
    kind = type_of_name(_ONNX_NAMES.get(short, ""))
    if kind is None:
        raise EngineError(f"openvino delivered elements of type {short}, which ONNX does not have")
    shape = tuple(tensor.get_shape())
    if not tensor.get_size():
        return Buffer(kind.number, shape, np.empty(0, np.uint8)) if kind.foreign else np.empty(shape, kind.dtype_name)
    if kind.foreign:
        return Buffer(kind.number, shape, np.frombuffer(bytearray(tensor.data.tobytes()), np.uint8))
    return tensor.data  # the array keeps the tensor, and the tensor its memory, which no other run gets
