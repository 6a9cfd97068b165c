"""OpenVINO, on the devices it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_debug.values import Feeds, Value, decode, element_type_of, encode, is_foreign
from surgeon_passes.errors import BadOptionError, EngineError

_PRECISIONS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_HINT = "INFERENCE_PRECISION_HINT"
_ELEMENT_TYPES = {
    "f16": ir.DataType.FLOAT16,
    "f32": ir.DataType.FLOAT,
    "f64": ir.DataType.DOUBLE,
    "bf16": ir.DataType.BFLOAT16,
    "boolean": ir.DataType.BOOL,
    "i4": ir.DataType.INT4,
    "i8": ir.DataType.INT8,
    "i16": ir.DataType.INT16,
    "i32": ir.DataType.INT32,
    "i64": ir.DataType.INT64,
    "u2": ir.DataType.UINT2,
    "u4": ir.DataType.UINT4,
    "u8": ir.DataType.UINT8,
    "u16": ir.DataType.UINT16,
    "u32": ir.DataType.UINT32,
    "u64": ir.DataType.UINT64,
    "f8e4m3": ir.DataType.FLOAT8E4M3FN,
    "f8e5m2": ir.DataType.FLOAT8E5M2,
    "f8e8m0": ir.DataType.FLOAT8E8M0,
    "f4e2m1": ir.DataType.FLOAT4E2M1,
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
        """Run once; numbers in types numpy lacks come back as arrays of ml_dtypes."""
        if self._compiled is None:
            raise EngineError("openvino was asked to run before a model was prepared")
        request = self._compiled.create_infer_request()
        for port in self._compiled.inputs:
            name = next((name for name in port.get_names() if name in feeds), None)
            if name is not None:
                request.set_tensor(port, _tensor_of(name, feeds[name]))
        request.infer()
        by_name = {name: port for port in self._compiled.outputs for name in port.get_names()}
        return {name: _array_of(request.get_tensor(by_name[name])) for name in self._wanted if name in by_name}

    def close(self) -> None:
        """Drop the compiled model and its memory."""
        self._compiled = None


def _tensor_of(name: str, value: Value) -> Any:
    import openvino

    if not isinstance(value, np.ndarray):
        raise EngineError(f"openvino takes tensors only, and input '{name}' is a {type(value).__name__}")
    if not is_foreign(value.dtype):
        # numpy makes a vector of a contiguous scalar.
        return openvino.Tensor(np.ascontiguousarray(value) if value.ndim else value, shared_memory=False)
    element_type = element_type_of(value)
    short = next((s for s, kind in _ELEMENT_TYPES.items() if kind.value == element_type), None)
    if short is None:
        raise EngineError(f"openvino has no element type for input '{name}', which is {value.dtype}")
    tensor = openvino.Tensor(getattr(openvino.Type, short), openvino.Shape(list(value.shape)))
    raw = np.frombuffer(encode(value, element_type), np.uint8)
    tensor.data.reshape(-1).view(np.uint8)[: raw.size] = raw
    return tensor


def _array_of(tensor: Any) -> Value:
    kind = tensor.get_element_type().to_string()
    element_type = _ELEMENT_TYPES.get(kind)
    if element_type is None:
        raise EngineError(f"openvino delivered elements of type {kind}, which ONNX does not have")
    if tensor.get_size() == 0:
        return np.empty(list(tensor.get_shape()), element_type.numpy())
    return decode(tensor.data.tobytes(), element_type.value, list(tensor.get_shape()))
